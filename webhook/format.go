package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicegate/sluice/subscriptions"
)

// maxBody is payload.max_bytes: a larger body is a record's fault.
const maxBody = 1 << 20

// body is what a format makes of a record, with the headers that belong to the format.
type body struct {
	bytes       []byte
	contentType string
	header      http.Header // keys in lower case, as they are to appear on the wire
}

// encode runs the format of the subscription. Its errors are faults of the record (Encode).
func encode(d Delivery) (body, error) {
	switch format := d.Subscription.Payload.Format; format {
	case subscriptions.FormatBinary:
		return encodeBinary(d)
	case subscriptions.FormatRaw:
		return encodeRaw(d)
	case subscriptions.FormatStandard:
		return encodeStandard(d)
	default:
		return body{}, fmt.Errorf("format %q is unknown to this version", format)
	}
}

// headerRoom is about what the fullest request has. With it the map is made once, at the size of 32 slots; for 29 and more
// it would be 64.
const headerRoom = 28

func newBody(contentType string, value []byte, null bool) (body, error) {
	b := body{bytes: value, contentType: contentType, header: make(http.Header, headerRoom)}
	if null {
		b.bytes, b.contentType = []byte("null"), defaultContentType
		b.header["kafka-tombstone"] = []string{"true"}
	}
	if b.contentType == defaultContentType {
		return b, nil // by far the most, and parsing costs as much as a signature
	}
	if _, _, err := mime.ParseMediaType(b.contentType); err != nil || !printable(b.contentType) {
		return body{}, fmt.Errorf("the content type %.100q is no media type", b.contentType)
	}
	return b, nil
}

// encodeRaw is the value and nothing else.
func encodeRaw(d Delivery) (body, error) {
	return newBody(recordContentType(d.Record), d.Record.Value, d.Record.Value == nil)
}

// encodeBinary is the binary mode of CloudEvents over HTTP: the value byte for byte, attributes in ce-* headers.
func encodeBinary(d Delivery) (body, error) {
	e, err := readEvent(d)
	if err != nil {
		return body{}, err
	}
	b, err := newBody(e.contentType, e.data, e.null)
	if err != nil {
		return body{}, err
	}
	for _, a := range e.attributes {
		if !utf8.ValidString(a.value) {
			return body{}, fmt.Errorf("the attribute %q is not UTF-8", a.name)
		}
		b.header["ce-"+a.name] = []string{percent(a.value)}
	}
	return b, nil
}

// encodeStandard is the payload of Standard Webhooks. JSON goes in verbatim, so that large numbers survive.
func encodeStandard(d Delivery) (body, error) {
	e, err := readEvent(d)
	if err != nil {
		return body{}, err
	}
	var out bytes.Buffer
	out.WriteString(`{"type":`)
	writeString(&out, e.get("type"))
	if !d.Record.Timestamp.IsZero() {
		out.WriteString(`,"timestamp":"` + stamp(d.Record.Timestamp) + `"`)
	}
	switch {
	case e.null:
		out.WriteString(`,"data":null}`)
	case len(e.data) > 0 && utf8.Valid(e.data) && json.Valid(e.data):
		out.WriteString(`,"data":`)
		out.Write(e.data)
		out.WriteByte('}')
	default:
		out.WriteString(`,"data_base64":"` + base64.StdEncoding.EncodeToString(e.data) + `"}`)
	}
	return body{bytes: out.Bytes(), contentType: defaultContentType, header: http.Header{}}, nil
}

func writeString(out *bytes.Buffer, s string) {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes; invalid UTF-8 becomes U+FFFD
	out.Truncate(out.Len() - 1)
}

// stamp is RFC 3339 in UTC with milliseconds, which is all that Kafka keeps.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// percent encodes a header value by the CloudEvents HTTP binding (3.1.3.2): everything outside U+0021 to U+007E, the
// quote and the percent sign.
func percent(s string) string {
	const hex = "0123456789ABCDEF"
	if strings.IndexFunc(s, encoded) < 0 {
		return s
	}
	var out strings.Builder
	for i := range len(s) {
		if c := s[i]; encoded(rune(c)) {
			out.WriteByte('%')
			out.WriteByte(hex[c>>4])
			out.WriteByte(hex[c&15])
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

func encoded(c rune) bool { return c < 0x21 || c > 0x7e || c == '"' || c == '%' }

// printable reports whether s survives as a header value: printable ASCII that no parser trims.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s == strings.TrimSpace(s)
}
