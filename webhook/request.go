package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// request is one delivery ready to be sent, as often as the transport needs it.
type request struct {
	url    *url.URL
	id     string
	header http.Header // of the first sending, once it is signed
	sent   bool
	body   []byte
	keys   []subscriptions.Secret
}

// newRequest is everything about a delivery that does not depend on the clock. A fault says why there is none.
func newRequest(d Delivery, userAgent string) (*request, Fault, error) {
	b, err := encode(d)
	if err != nil {
		return nil, Encode, err
	}
	if len(b.bytes) > maxBody {
		return nil, Oversize, errors.New("the body would have " + strconv.Itoa(len(b.bytes)) + " bytes, more than payload.max_bytes")
	}
	s := d.Subscription
	u, err := url.Parse(s.Endpoint.URL)
	if err != nil {
		return nil, BlockedAddress, ErrBlocked // the error would show the URL
	}
	r := &request{url: u, id: d.ID(), header: b.header, body: b.bytes, keys: s.Signing.Live(d.Now)}
	if len(r.keys) == 0 {
		return nil, SecretUnreadable, errors.New("the subscription has no live signing secret")
	}
	h := r.header
	h["Content-Type"] = []string{b.contentType}
	h["User-Agent"] = []string{userAgent}
	h["webhook-id"] = []string{r.id}
	recordHeaders(h, d.Record)
	traceHeaders(h, d.Record, r.id)
	first := d.FirstAttempt
	if first.IsZero() {
		first = d.Now
	}
	h["sluice-subscription"] = []string{s.ID}
	h["sluice-attempt"] = []string{strconv.Itoa(d.Attempt)}
	h["sluice-first-attempt"] = []string{strconv.FormatInt(first.Unix(), 10)}
	return r, NoFault, nil
}

// recordHeaders are the coordinates of the record. A null key has no header, an empty one an empty header.
func recordHeaders(h http.Header, r *sluice.Record) {
	h["kafka-topic"] = []string{r.Topic}
	h["kafka-partition"] = []string{strconv.Itoa(int(r.Partition))}
	h["kafka-offset"] = []string{strconv.FormatInt(r.Offset, 10)}
	if !r.Timestamp.IsZero() {
		h["kafka-timestamp"] = []string{strconv.FormatInt(r.Timestamp.UnixMilli(), 10)}
	}
	switch {
	case r.Key == nil:
	case len(r.Key) > maxKeyHeader:
		h["kafka-key-omitted"] = []string{"true"}
	case printable(string(r.Key)):
		h["kafka-key"] = []string{string(r.Key)}
	default:
		h["kafka-key-base64"] = []string{base64.StdEncoding.EncodeToString(r.Key)}
	}
}

// traceHeaders continue the record's trace (W3C Trace Context), or begin one that all attempts of the record share.
func traceHeaders(h http.Header, r *sluice.Record, id string) {
	var parent, state string
	for _, one := range r.Headers {
		switch strings.ToLower(one.Name) {
		case "traceparent":
			parent = string(one.Value)
		case "tracestate":
			state = string(one.Value)
		}
	}
	if validParent(parent) {
		h["traceparent"] = []string{parent}
		if state != "" && len(state) <= 512 && printable(state) {
			h["tracestate"] = []string{state}
		}
		return
	}
	trace := sha256.Sum256([]byte(id))
	var span [8]byte
	rand.Read(span[:])
	h["traceparent"] = []string{"00-" + hex.EncodeToString(trace[:16]) + "-" + hex.EncodeToString(span[:]) + "-00"}
}

// validParent is version 00: 2, 32, 16 and 2 lower-case hex digits, neither id all zero.
func validParent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return strings.Count(s, "-") == 3 && s[3:35] != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16)
}

// signed is the header of one sending: with the time of it, and one signature for each live secret, newest first
// (Standard Webhooks). What is signed are the exact bytes sent. A sending again has a map of its own: the write loop of
// the first may still read the first.
func (r *request) signed(now time.Time) http.Header {
	h := r.header
	if r.sent {
		h = h.Clone()
	}
	r.sent = true
	stamp := strconv.FormatInt(now.Unix(), 10)
	tokens := make([]string, len(r.keys))
	for i, secret := range r.keys {
		mac := hmac.New(sha256.New, secret.Key())
		mac.Write([]byte(r.id + "." + stamp + "."))
		mac.Write(r.body)
		tokens[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	h["webhook-timestamp"] = []string{stamp}
	h["webhook-signature"] = []string{strings.Join(tokens, " ")}
	return h
}
