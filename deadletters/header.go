package deadletters

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

const (
	version = "1"
	prefix  = "sluice-dlq-"

	maxError    = 512
	maxResponse = 1024
	layout      = "2006-01-02T15:04:05.000Z" // RFC 3339, UTC, milliseconds
)

// headers are the original ones and then the letter's own, beginning with sluice-dlq-version: so a letter about a letter
// can be told from its original. short leaves out what the endpoint said.
func (l Letter) headers(instance string, short bool) []sluice.Header {
	own := []sluice.Header{}
	add := func(name, value string) { own = append(own, sluice.Header{Name: prefix + name, Value: []byte(value)}) }
	optional := func(name, value string) {
		if value != "" {
			add(name, value)
		}
	}
	add("version", version)
	add("id", l.ID())
	add("subscription", l.Subscription)
	optional("owner", l.Owner)
	add("endpoint", publicURL(l.Endpoint))
	add("topic", l.Record.Topic)
	add("partition", strconv.Itoa(int(l.Record.Partition)))
	add("offset", strconv.FormatInt(l.Record.Offset, 10))
	if !l.Record.Timestamp.IsZero() {
		add("timestamp", strconv.FormatInt(l.Record.Timestamp.UnixMilli(), 10))
	}
	if l.TopicID != (sluice.TopicID{}) {
		add("topic-id", l.TopicID.String())
	}
	add("webhook-id", l.WebhookID)
	add("reason", l.Reason)
	optional("class", l.Class)
	if l.Status != 0 {
		add("status", strconv.Itoa(l.Status))
	}
	if !short {
		optional("error", cut(l.Error, maxError))
		if len(l.Response) > 0 {
			add("response", base64.StdEncoding.EncodeToString(l.Response[:min(len(l.Response), maxResponse)]))
		}
	}
	add("attempts", strconv.Itoa(l.Attempts))
	if !l.FirstAttempt.IsZero() {
		add("first-attempt", l.FirstAttempt.UTC().Format(layout))
	}
	if !l.LastAttempt.IsZero() {
		add("last-attempt", l.LastAttempt.UTC().Format(layout))
	}
	add("redrives", strconv.Itoa(l.Redrives))
	add("instance", instance)
	all := make([]sluice.Header, 0, len(l.Record.Headers)+len(own))
	return append(append(all, l.Record.Headers...), own...)
}

// publicURL leaves out userinfo, query and fragment. What does not parse is left out as a whole.
func publicURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}

// cut shortens to n bytes without cutting a character in two.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Parse reads a letter. The error says that the record is none. Fields that do not parse are left zero: a letter is
// worth more than its bookkeeping, only its coordinates must be sound.
func Parse(r *sluice.Record) (Letter, error) {
	begin := -1
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Name == prefix+"version" {
			begin = i
			break
		}
	}
	if begin < 0 {
		return Letter{}, fmt.Errorf("offset %d of %s is no dead letter", r.Offset, r.Topic)
	}
	own := map[string]string{}
	for _, h := range r.Headers[begin:] {
		if name, is := strings.CutPrefix(h.Name, prefix); is {
			own[name] = string(h.Value)
		}
	}
	if own["version"] != version {
		return Letter{}, fmt.Errorf("offset %d of %s is a dead letter of version %q", r.Offset, r.Topic, own["version"])
	}
	partition, err1 := strconv.ParseInt(own["partition"], 10, 32)
	offset, err2 := strconv.ParseInt(own["offset"], 10, 64)
	if err1 != nil || err2 != nil || partition < 0 || offset < 0 || own["topic"] == "" || own["subscription"] == "" || own["webhook-id"] == "" {
		return Letter{}, fmt.Errorf("offset %d of %s is a dead letter without its coordinates", r.Offset, r.Topic)
	}
	l := Letter{
		Record:       &sluice.Record{Topic: own["topic"], Partition: int32(partition), Offset: offset, Key: r.Key, Value: r.Value, Headers: r.Headers[:begin:begin]},
		TopicID:      topicID(own["topic-id"]),
		Subscription: own["subscription"],
		Owner:        own["owner"],
		Endpoint:     own["endpoint"],
		Replay:       replay(own),
		WebhookID:    own["webhook-id"],
		Reason:       own["reason"],
		Class:        own["class"],
		Status:       number(own["status"]),
		Error:        own["error"],
		Attempts:     number(own["attempts"]),
		FirstAttempt: moment(own["first-attempt"]),
		LastAttempt:  moment(own["last-attempt"]),
		Redrives:     number(own["redrives"]),
		Instance:     own["instance"],
		At:           r.Timestamp,
	}
	if ms, err := strconv.ParseInt(own["timestamp"], 10, 64); err == nil {
		l.Record.Timestamp = time.UnixMilli(ms).UTC()
	}
	if response, err := base64.StdEncoding.DecodeString(own["response"]); err == nil && len(response) > 0 {
		l.Response = response
	}
	return l, nil
}

// replay is the third part of the id.
func replay(own map[string]string) string {
	id, is := strings.CutPrefix(own["id"], own["webhook-id"]+"/"+own["subscription"]+"/")
	if !is {
		return ""
	}
	return id
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func topicID(s string) (id sluice.TopicID) {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err == nil && len(raw) == len(id) {
		copy(id[:], raw)
	}
	return id
}
