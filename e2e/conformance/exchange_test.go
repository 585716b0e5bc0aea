package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// client never asks for gzip by itself and keeps its connections, as the old clients do.
var client = &http.Client{
	Timeout:       70 * time.Second,
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// request is what a row sends. What is left out is not sent at all.
type request struct {
	method, path        string // the path as it shall stand on the wire, with its query
	accept, contentType string
	header              map[string]string // "Host" too; a zero byte parts the values of several lines
	body                string
	stream              io.Reader // instead of body: sent in chunks, its length not told
}

// answer is what came back, with what was asked.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
	asked  request
}

// want is what a row promises. A field left out is not looked at, except the body of 204.
type want struct {
	status  int
	typ     string            // the exact Content-Type
	code    int               // error_code: the body is an error body and no more than that
	message string            // its exact message, beside code
	like    string            // or what the whole message matches
	detail  string            // what the optional third field matches
	json    string            // the body as a document: numbers by literal, member order ignored, "<any>" stands for anything
	body    string            // the body's very bytes
	header  map[string]string // exact; "" means absent, "*" present
}

// media types, by the names of the contract
const (
	plainJSON          = "application/json"
	bareV1, bareV2     = "application/vnd.kafka.v1+json", "application/vnd.kafka.v2+json"
	bare               = "application/vnd.kafka+json"
	binaryV1, binaryV2 = "application/vnd.kafka.binary.v1+json", "application/vnd.kafka.binary.v2+json"
	jsonV1, jsonV2     = "application/vnd.kafka.json.v1+json", "application/vnd.kafka.json.v2+json"
	textV2             = "application/vnd.kafka.text.v2+json"
	avroV1, avroV2     = "application/vnd.kafka.avro.v1+json", "application/vnd.kafka.avro.v2+json"
	schemaV2, protoV2  = "application/vnd.kafka.jsonschema.v2+json", "application/vnd.kafka.protobuf.v2+json"
)

// row is one row of a table.
type row struct {
	name string
	ask  request
	want want
}

// rows runs a table, each row as a subtest.
func (s *server) rows(t *testing.T, table []row) {
	t.Helper()
	for _, r := range table {
		s.row(t, r.name, func(t *testing.T) { s.expect(t, r.ask, r.want) })
	}
}

// row is a subtest that stands in the report. A slash in the name would make -run see two levels.
func (s *server) row(t *testing.T, name string, run func(t *testing.T)) {
	t.Helper()
	t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
		s.report.begin(t)
		defer s.report.end(t)
		run(t)
	})
}

// expect asks and compares. It returns the answer, whatever it was.
func (s *server) expect(t *testing.T, r request, w want) answer {
	t.Helper()
	a := s.ask(t, r)
	s.compare(t, a, w)
	return a
}

// ask makes one request. No answer at all ends the row.
func (s *server) ask(t *testing.T, r request) answer {
	t.Helper()
	a, err := s.try(t.Context(), r)
	if err != nil {
		s.report.note(t, differs, "no answer: "+err.Error())
		t.Fatalf("%v: no answer: %v", r, err)
	}
	return a
}

// try is ask for requests that may end without an answer, for other goroutines than the test's, and for its cleanup.
func (s *server) try(ctx context.Context, r request) (answer, error) {
	body := r.stream
	if body == nil {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, s.url+r.path, body)
	if err != nil {
		return answer{}, err
	}
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	for name, value := range r.header {
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header[http.CanonicalHeaderKey(name)] = strings.Split(value, "\x00") // several lines of one name
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, raw, time.Since(began), r}, err
}

// compare shows the request, what was wanted and what came, where they differ.
func (s *server) compare(t *testing.T, a answer, w want) {
	t.Helper()
	if d := w.differences(a); len(d) > 0 {
		s.report.note(t, differs, strings.Join(d, "; "))
		t.Errorf("%v\nwant %v\ngot  %v\n  - %s", a.asked, w, a, strings.Join(d, "\n  - "))
	}
}

// differ is compare for what a row finds out in another way.
func (s *server) differ(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	s.report.note(t, differs, text)
	t.Error(text)
}

func (w want) differences(a answer) (d []string) {
	differ := func(format string, args ...any) { d = append(d, fmt.Sprintf(format, args...)) }
	if a.status != w.status {
		differ("status %d, want %d", a.status, w.status)
	}
	if got := a.header.Get("Content-Type"); w.typ != "" && got != w.typ {
		differ("Content-Type %q, want %q", got, w.typ)
	}
	for _, name := range slices.Sorted(maps.Keys(w.header)) {
		got, all := a.header.Get(name), len(a.header.Values(name))
		switch want := w.header[name]; {
		case want == "" && all > 0, want == "*" && got == "", want != "" && want != "*" && got != want:
			differ("%s: %q, want %q", name, got, want)
		}
	}
	switch {
	case w.code != 0:
		d = append(d, w.errorDifferences(a.body)...)
	case w.json != "":
		got, err := decode(a.body)
		wanted, wrong := decode([]byte(w.json))
		if wrong != nil {
			differ("the row itself is no JSON: %v", wrong)
		} else if err != nil {
			differ("the body is no JSON: %v", err)
		} else if !alike(wanted, got) {
			differ("body %s, want %s", short(a.body), short([]byte(w.json)))
		}
	case w.body != "" && string(a.body) != w.body:
		differ("body %s, want %s", short(a.body), short([]byte(w.body)))
	case w.status == http.StatusNoContent && len(a.body) > 0:
		differ("204 with the body %s", short(a.body))
	}
	return d
}

func (w want) errorDifferences(body []byte) (d []string) {
	differ := func(format string, args ...any) { d = append(d, fmt.Sprintf(format, args...)) }
	doc, err := decode(body)
	members, ok := doc.(map[string]any)
	if err != nil || !ok {
		return []string{fmt.Sprintf("no error body but %s, want error_code %d", short(body), w.code)}
	}
	if got := fmt.Sprint(members["error_code"]); got != fmt.Sprint(w.code) {
		differ("error_code %s, want %d", got, w.code)
	}
	message, _ := members["message"].(string)
	if w.message != "" && message != w.message {
		differ("message %q, want %q", message, w.message)
	}
	if w.like != "" && !regexp.MustCompile("(?s)^(?:"+w.like+")$").MatchString(message) {
		differ("message %q, want one like %q", message, w.like)
	}
	if detail, _ := members["detail"].(string); w.detail != "" && !regexp.MustCompile(w.detail).MatchString(detail) {
		differ("detail %q, want one with %q", detail, w.detail)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name != "error_code" && name != "message" && name != "detail" {
			differ("an error body with the member %q", name)
		}
	}
	return d
}

// into decodes the body, and ends the row where it cannot.
func (a answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v\ngot %v: %v", a.asked, a, err)
	}
}

func decode(raw []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the document")
	}
	return v, nil
}

// alike compares documents; "<any>" in want is anything.
func alike(want, got any) bool {
	switch w := want.(type) {
	case string:
		return w == "<any>" || got == want
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(w, g, alike)
	case map[string]any:
		g, ok := got.(map[string]any)
		return ok && maps.EqualFunc(w, g, alike)
	}
	return reflect.DeepEqual(want, got)
}

func (r request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.method, r.path)
	for _, h := range []struct{ name, value string }{{"Accept", r.accept}, {"Content-Type", r.contentType}} {
		if h.value != "" {
			fmt.Fprintf(&b, "  %s: %s", h.name, h.value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.header)) {
		fmt.Fprintf(&b, "  %s: %s", name, r.header[name])
	}
	if r.body != "" {
		fmt.Fprintf(&b, "  body %s", short([]byte(r.body)))
	}
	return b.String()
}

func (a answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", a.status)
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		if name != "Date" && name != "X-Request-Id" {
			fmt.Fprintf(&b, "  %s: %s", name, strings.Join(a.header[name], ", "))
		}
	}
	fmt.Fprintf(&b, "  body %s", short(a.body))
	return b.String()
}

func (w want) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", w.status)
	if w.typ != "" {
		fmt.Fprintf(&b, "  Content-Type: %s", w.typ)
	}
	for _, name := range slices.Sorted(maps.Keys(w.header)) {
		fmt.Fprintf(&b, "  %s: %s", name, w.header[name])
	}
	if w.code != 0 {
		fmt.Fprintf(&b, "  error_code %d, message %q%s", w.code, w.message, w.like)
	}
	if w.json != "" || w.body != "" {
		fmt.Fprintf(&b, "  body %s", short([]byte(w.json+w.body)))
	}
	return b.String()
}

// short is a body fit for a line.
func short(b []byte) string {
	const most = 400
	if len(b) > most {
		return fmt.Sprintf("%q… (%d bytes)", b[:most], len(b))
	}
	return fmt.Sprintf("%q", b)
}
