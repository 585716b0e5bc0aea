package conformance

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// dialect is how one client library of the Financial Times words its requests (rest-api.md 9). A header line may hold
// {host}; the length of a body follows {length}.
type dialect struct {
	name      string
	create    []string // and its body, below
	subscribe []string // nil in v1
	read      []string
	commit    []string
	remove    []string
	consumed  string // what a commit that has something to commit answers; "" in v1, where it is a list
	names     bool   // the offsets that it commits
}

const (
	goAgent   = "User-Agent: Go-http-client/1.1"
	javaAgent = "User-Agent: Java/1.8.0_66"
	// What Java's HttpURLConnection accepts where nobody says; not all of it is of the grammar.
	javaAccept = "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
	sendsV2    = "Content-Type: " + bareV2
	takesV2    = "Accept: " + bareV2
	gzipped    = "Accept-Encoding: gzip"
)

// The order of the lines is that of net/http and of HttpURLConnection.
var (
	goV1 = dialect{
		name:   "A",
		create: []string{"Host: {host}", goAgent, "Content-Length: {length}", "Content-Type: application/json", gzipped},
		read:   []string{"Host: {host}", goAgent, "Accept: application/json", gzipped},
		commit: []string{"Host: {host}", goAgent, "Content-Length: 0", gzipped},
		remove: []string{"Host: {host}", goAgent, gzipped},
	}
	goV2 = dialect{
		name:      "B",
		create:    []string{"Host: {host}", goAgent, "Content-Length: {length}", sendsV2, gzipped},
		subscribe: []string{"Host: {host}", goAgent, "Content-Length: {length}", sendsV2, gzipped},
		read:      []string{"Host: {host}", goAgent, takesV2, gzipped},
		commit:    []string{"Host: {host}", goAgent, "Content-Length: 0", sendsV2, gzipped},
		remove:    []string{"Host: {host}", goAgent, takesV2, gzipped},
		consumed:  "[]",
	}
	javaV1 = dialect{
		name:   "E",
		create: []string{"Content-Type: application/json", javaAgent, "Host: {host}", javaAccept, "Connection: keep-alive", "Content-Length: {length}"},
		read:   []string{"Accept: application/json", javaAgent, "Host: {host}", "Connection: keep-alive"},
		commit: []string{javaAgent, "Host: {host}", "Connection: keep-alive", "Content-Length: 0"},
		remove: []string{javaAgent, "Host: {host}", "Connection: keep-alive"},
	}
	javaV2 = dialect{
		name:      "F",
		create:    []string{sendsV2, javaAgent, "Host: {host}", javaAccept, "Connection: keep-alive", "Content-Length: {length}"},
		subscribe: []string{sendsV2, javaAgent, "Host: {host}", javaAccept, "Connection: keep-alive", "Content-Length: {length}"},
		read:      []string{takesV2, javaAgent, "Host: {host}", "Connection: keep-alive"},
		commit:    []string{javaAgent, "Host: {host}", "Connection: keep-alive", "Content-Length: 0"},
		remove:    []string{takesV2, javaAgent, "Host: {host}", "Connection: keep-alive"},
		consumed:  "[]",
	}
	// No client of the FT's, but what others do: it commits what it has processed by name.
	namesV2 = dialect{
		name: "v2 with offsets", create: goV2.create, subscribe: goV2.subscribe, read: goV2.read, commit: goV2.create, remove: goV2.remove,
		consumed: "[]", names: true,
	}
)

// scripted is one client at work: it keeps its connection, and anything but the status it expects is an error.
type scripted struct {
	dialect
	addr   string // host:port it connects to
	prefix string // path of the address
	host   string // what it sends as Host
	group  string
	topic  string

	conn net.Conn
	in   *bufio.Reader
	base string // base_uri of its instance, as it came
	path string // and what the client makes of it
	last map[int32]int64
}

// script is a client of the server under test.
func (s *server) script(t *testing.T, d dialect, group, topic string) *scripted {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme != "http" || u.User != nil {
		s.notRun(t, "speaks bare HTTP on a socket")
	}
	if group == "" {
		group = backend.Unique("script")
	}
	c := &scripted{dialect: d, addr: u.Host, prefix: u.Path, host: u.Host, group: group, topic: topic, last: map[int32]int64{}}
	t.Cleanup(c.hangUp)
	return c
}

func (c *scripted) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close() // the server may have closed it already
		c.conn = nil
	}
}

// step makes one request, byte for byte, and reads its answer whole.
func (c *scripted) step(status int, method, path string, headers []string, body string) (answer, error) {
	asked := request{method: method, path: path, body: body}
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, 10*time.Second)
		if err != nil {
			return answer{asked: asked}, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	head := strings.NewReplacer("{host}", c.host, "{length}", fmt.Sprint(len(body))).Replace(strings.Join(headers, "\r\n"))
	began := time.Now()
	if err := c.conn.SetDeadline(began.Add(time.Minute)); err != nil {
		return answer{asked: asked}, err
	}
	if _, err := io.WriteString(c.conn, method+" "+path+" HTTP/1.1\r\n"+head+"\r\n\r\n"+body); err != nil {
		return answer{asked: asked}, fmt.Errorf("%v: %w", asked, err)
	}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return answer{asked: asked}, fmt.Errorf("%v: no answer: %w", asked, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{asked: asked}, fmt.Errorf("%v: %w", asked, err)
	}
	if resp.Close {
		c.hangUp()
	}
	a := answer{resp.StatusCode, resp.Header, raw, time.Since(began), asked}
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if !slices.Contains(headers, gzipped) {
			return a, fmt.Errorf("%v: gzip for a client that did not ask for it", asked)
		}
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return a, err
		}
		if a.body, err = io.ReadAll(z); err != nil {
			return a, err
		}
	}
	if a.status != status {
		return a, fmt.Errorf("script %s: %v\ngot %v, want %d", c.name, asked, a, status)
	}
	return a, nil
}

// make is step 1, and in v2 step 2: an instance that starts at reset.
func (c *scripted) make(reset string) (answer, error) {
	options := fmt.Sprintf(`{"auto.offset.reset": %q, "auto.commit.enable": "false"}`, reset)
	a, err := c.step(200, "POST", c.prefix+"/consumers/"+c.group, c.create, options)
	if err != nil {
		return a, err
	}
	var made struct {
		Base string `json:"base_uri"`
		ID   string `json:"instance_id"`
	}
	if err := json.Unmarshal(a.body, &made); err != nil {
		return a, fmt.Errorf("%v: %w", a, err)
	}
	c.base = made.Base
	return a, c.turnTo(made.Base)
}

// turnTo is what the clients make of a base_uri: the Go clients take its path alone, that of v2 after unescaping the
// whole as if it were a query.
func (c *scripted) turnTo(base string) error {
	if c.name == goV2.name {
		unescaped, err := url.QueryUnescape(base)
		if err != nil || strings.ContainsAny(unescaped, "%?#") {
			return fmt.Errorf("base_uri %q is %q unescaped: %w", base, unescaped, err)
		}
		base = unescaped
	}
	at, err := url.Parse(base)
	if err != nil || at.RawQuery != "" || at.Fragment != "" {
		return fmt.Errorf("base_uri %q: %w", base, err)
	}
	c.path = at.Path
	if c.subscribe == nil {
		return nil
	}
	_, err = c.step(204, "POST", c.path+"/subscription", c.subscribe, `{"topics": ["`+c.topic+`"]}`)
	return err
}

// message is a record as the clients decode it.
type message struct {
	Value     string
	Partition int32
	Offset    int64
}

// get is the read, whose answer must be an array of records with base64 strings.
func (c *scripted) get() ([]message, answer, error) {
	path := c.path + "/topics/" + c.topic
	if c.subscribe != nil {
		path = c.path + "/records"
	}
	a, err := c.step(200, "GET", path, c.read, "")
	if err != nil {
		return nil, a, err
	}
	var records []struct {
		Value     *string `json:"value"`
		Partition *int32  `json:"partition"`
		Offset    *int64  `json:"offset"`
	}
	if err := json.Unmarshal(a.body, &records); err != nil || records == nil {
		return nil, a, fmt.Errorf("%v is no array of records: %w", a, err)
	}
	all := make([]message, 0, len(records))
	for _, r := range records {
		if r.Value == nil || r.Partition == nil || r.Offset == nil {
			return nil, a, fmt.Errorf("a field is missing: %v", a)
		}
		value, err := base64.StdEncoding.DecodeString(*r.Value)
		if err != nil {
			return nil, a, fmt.Errorf("%v: %w", a, err)
		}
		all = append(all, message{string(value), *r.Partition, *r.Offset})
		c.last[*r.Partition] = *r.Offset
	}
	return all, a, nil
}

func (c *scripted) save() (answer, error) {
	body := ""
	if c.names {
		var offsets []string
		for p, o := range c.last {
			offsets = append(offsets, fmt.Sprintf(`{"topic":%q,"partition":%d,"offset":%d}`, c.topic, p, o))
		}
		body = `{"offsets":[` + strings.Join(offsets, ",") + `]}`
	}
	a, err := c.step(200, "POST", c.path+"/offsets", c.commit, body)
	if err == nil && c.consumed != "" && string(a.body) != c.consumed {
		err = fmt.Errorf("%v, want %s", a, c.consumed)
	}
	return a, err
}

// end is the stop: in v2 the subscription goes first.
func (c *scripted) end() error {
	if c.subscribe != nil {
		if _, err := c.step(204, "DELETE", c.path+"/subscription", c.remove, ""); err != nil {
			return err
		}
	}
	_, err := c.step(204, "DELETE", c.path, c.remove, "")
	return err
}

// must ends the row where a step failed.
func (s *server) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		s.report.note(t, differs, err.Error())
		t.Fatal(err)
	}
}

// messages reads, and commits after every read as the clients do, until n records have come.
func (c *scripted) messages(t *testing.T, s *server, n int, commit bool) (all []message) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("%d messages for script %s", n, c.name), func() bool {
		some, _, err := c.get()
		s.must(t, err)
		all = append(all, some...)
		if commit {
			_, err = c.save()
			s.must(t, err)
		}
		return len(all) >= n
	})
	return all
}

// ftMessage is FTMSG/1.0 (rest-api.md 9.6) with the headers that the producers set, sorted.
func ftMessage(n int, body string) string {
	lines := []string{
		"FTMSG/1.0", "Content-Type: application/json", fmt.Sprintf("Message-Id: 9e4eeaf5-0cbd-4e2f-8a47-%012d", n), "Message-Timestamp: 2026-11-25T01:02:03.004Z",
		"Message-Type: cms-content-published", "Native-Hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15", "Origin-System-Id: http://cmdb.ft.com/systems/cct",
		fmt.Sprintf("X-Request-Id: tid_%08d", n), "X-Schema-Version: 3",
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// ftBody is what a reader makes of it: everything behind the first empty line.
func ftBody(m string) string {
	_, body, _ := strings.Cut(m, "\r\n\r\n")
	return strings.TrimSpace(body)
}
