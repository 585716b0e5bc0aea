package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

// fakeKafka knows some topics and keeps what is produced. A nil error field works.
type fakeKafka struct {
	mu       sync.Mutex
	topics   map[string]int
	produced map[string][]sluice.NewRecord
	down     error
	produce  func(topic string, recs []sluice.NewRecord) ([]sluice.Receipt, error)
}

func newFakeKafka() *fakeKafka {
	return &fakeKafka{topics: map[string]int{"orders": 3, "articles": 1, "__consumer_offsets": 2}, produced: map[string][]sluice.NewRecord{}}
}

func (k *fakeKafka) fail(err error) {
	k.mu.Lock()
	k.down = err
	k.mu.Unlock()
}

func (k *fakeKafka) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.down
}

func (k *fakeKafka) Topics(context.Context) ([]string, error) {
	if err := k.failure(); err != nil {
		return nil, err
	}
	var names []string
	for name := range k.topics {
		names = append(names, name)
	}
	return names, nil
}

func (k *fakeKafka) Topic(_ context.Context, name string) (sluice.Topic, error) {
	if err := k.failure(); err != nil {
		return sluice.Topic{}, err
	}
	n, ok := k.topics[name]
	if !ok {
		return sluice.Topic{}, &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}
	}
	t := sluice.Topic{Name: name, Partitions: make([]sluice.PartitionState, n)}
	for i := range t.Partitions {
		t.Partitions[i] = sluice.PartitionState{Number: int32(i), Leader: 1, Replicas: []int32{1, 2}, InSync: []int32{1}}
	}
	return t, nil
}

func (k *fakeKafka) TopicConfigs(context.Context, string) (map[string]string, error) {
	return map[string]string{"cleanup.policy": "delete", "note": "<&>"}, nil
}

func (k *fakeKafka) Brokers(context.Context) ([]int32, error) { return []int32{3, 1, 2}, k.failure() }

func (k *fakeKafka) Range(context.Context, sluice.Partition) (sluice.Range, error) {
	return sluice.Range{Start: 2, End: 9}, k.failure()
}

func (k *fakeKafka) Reachable(context.Context) error { return k.failure() }

func (k *fakeKafka) Produce(_ context.Context, topic string, recs []sluice.NewRecord) ([]sluice.Receipt, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.produce != nil {
		return k.produce(topic, recs)
	}
	if k.down != nil {
		return nil, k.down
	}
	n, ok := k.topics[topic]
	if !ok {
		return nil, &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}
	}
	receipts := make([]sluice.Receipt, len(recs))
	for i, r := range recs {
		if int(r.Partition) >= n {
			receipts[i].Err = &sluice.Error{Kind: sluice.UnknownPart, Msg: "Partition not found."}
			continue
		}
		receipts[i] = sluice.Receipt{Partition: max(r.Partition, 0), Offset: int64(len(k.produced[topic]))}
		r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value) // they are the caller's again after the return
		for j, h := range r.Headers {
			r.Headers[j].Value = bytes.Clone(h.Value)
		}
		k.produced[topic] = append(k.produced[topic], r)
	}
	return receipts, nil
}

type fakeStore struct {
	mu   sync.Mutex
	down error
}

func (s *fakeStore) fail(err error) {
	s.mu.Lock()
	s.down = err
	s.mu.Unlock()
}

func (s *fakeStore) Ping(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// world is a running server with fakes behind it.
type world struct {
	t     testing.TB
	kafka *fakeKafka
	store *fakeStore
	srv   *Server
	addr  string
	url   string
	logs  *lockedBuffer
	reg   *prometheus.Registry
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t testing.TB, change ...func(*Config, *Needs)) *world {
	t.Helper()
	return startTuned(t, func(*Server) {}, change...)
}

// startTuned is start with a look at the server before it serves.
func startTuned(t testing.TB, tune func(*Server), change ...func(*Config, *Needs)) *world {
	t.Helper()
	w := &world{t: t, kafka: newFakeKafka(), store: &fakeStore{}, logs: &lockedBuffer{}, reg: prometheus.NewRegistry()}
	c := Default()
	c.Listen = "127.0.0.1:0"
	needs := Needs{Topics: w.kafka, Producer: w.kafka, Kafka: w.kafka, Store: w.store, Gatherer: w.reg}
	for _, f := range change {
		f(&c, &needs)
	}
	srv, err := New(c, needs, slog.New(slog.NewJSONHandler(w.logs, nil)), w.reg)
	if err != nil {
		t.Fatal(err)
	}
	tune(srv)
	if srv.ln == nil { // else tune has given it one
		if _, err := srv.Listen(); err != nil {
			t.Fatal(err)
		}
	}
	addr := srv.ln.Addr().String()
	w.srv, w.addr, w.url = srv, addr, "http://"+addr
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	srv.SetReady()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := srv.Stop(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return w
}

type answer struct {
	status int
	header http.Header
	body   string
}

// call sends one request; headers are name, value pairs.
func (w *world) call(method, path, body string, headers ...string) answer {
	w.t.Helper()
	return w.sent(method, path, strings.NewReader(body), headers...)
}

func (w *world) sent(method, path string, body io.Reader, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

// want compares status and body.
func (a answer) want(t *testing.T, status int, body string) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d; body %s", a.status, status, a.body)
	}
	if diff := cmp.Diff(body, a.body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// raw sends bytes over TCP and returns all that comes back until the server closes.
func (w *world) raw(request string) string {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, request)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Errorf("the connection was not closed after %q", b)
	}
	return string(b)
}

func TestEveryAnswerCarriesARequestID(t *testing.T) {
	w := start(t)
	form := regexp.MustCompile(`^tid_[A-Za-z0-9]{10}$`)
	for _, path := range []string{"/topics", "/nope", "/__live"} {
		if id := w.call("GET", path, "").header.Get("X-Request-Id"); !form.MatchString(id) {
			t.Errorf("%s: X-Request-Id %q", path, id)
		}
	}
	for _, id := range []string{"tid_abc", "SYNTHETIC-REQ-MON_x1"} {
		if got := w.call("GET", "/nope", "", "X-Request-Id", id).header.Get("X-Request-Id"); got != id {
			t.Errorf("X-Request-Id %q came back as %q", id, got)
		}
	}
	for _, id := range []string{strings.Repeat("a", 10_000), "ü", "a b", "<script>"} {
		if got := w.call("GET", "/nope", "", "X-Request-Id", id).header.Get("X-Request-Id"); !form.MatchString(got) {
			t.Errorf("X-Request-Id %.20q was answered with %q", id, got)
		}
	}
}

func TestPathsAreWhatTheyLookLike(t *testing.T) {
	w := start(t)
	for path, status := range map[string]int{
		"/topics": 200, "/topics/": 200, "//topics": 200, "/topics//orders/": 200, "/%74opics": 200, "/topics/%6frders": 200,
		"/Topics": 404, "/topics/ORDERS": 404, "/topics/..%2f": 404, "/topics/%00": 404, "/topics/a+b": 404, "/topics/..": 404,
		"/topics/" + strings.Repeat("x", 250): 404, "/topics/%E2%82%AC": 404, "/topics/%256frders": 404, "/topics/%zz": 404,
		"/topics/orders/partitions/foo": 404, "/topics/orders/partitions/2": 200, "/topics/orders/partitions/+2": 404,
		"/topics/orders/partitions/3": 404, "/topics/orders/partitions/-1": 404, "/topics/orders/partitions/1e1": 404, "/consumers": 404,
	} {
		conn := w.raw("GET " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(conn)), nil)
		if err != nil {
			t.Fatalf("%s: %v %q", path, err, conn)
		}
		if res.StatusCode != status {
			t.Errorf("GET %s: %d, want %d", path, res.StatusCode, status)
		}
		res.Body.Close()
	}
}

func TestMetadataAnswersExactly(t *testing.T) {
	w := start(t)
	partition := `{"partition":0,"leader":1,"replicas":[{"broker":1,"leader":true,"in_sync":true},{"broker":2,"leader":false,"in_sync":false}]}`
	for path, body := range map[string]string{
		"/":                                      `{}`,
		"/brokers":                               `{"brokers":[1,2,3]}`,
		"/topics":                                `["__consumer_offsets","articles","orders"]`,
		"/topics/articles":                       `{"name":"articles","configs":{"cleanup.policy":"delete","note":"<&>"},"partitions":[` + partition + `]}`,
		"/topics/articles/partitions":            `[` + partition + `]`,
		"/topics/articles/partitions/0":          partition,
		"/topics/articles/partitions/0/offsets":  `{"beginning_offset":2,"end_offset":9}`,
		"/topics/articles/partitions/0/offsets/": `{"beginning_offset":2,"end_offset":9}`,
	} {
		a := w.call("GET", path, "")
		a.want(t, 200, body)
		if ct := a.header.Get("Content-Type"); ct != "application/vnd.kafka.v1+json" {
			t.Errorf("%s: Content-Type %q", path, ct)
		}
	}
	w.call("POST", "/", "").want(t, 200, "{}")
	w.call("GET", "/topics/nope", "").want(t, 404, `{"error_code":40401,"message":"Topic not found."}`)
	w.call("GET", "/topics/orders/partitions/7", "").want(t, 404, `{"error_code":40402,"message":"Partition not found.","detail":"Topic orders has 3 partitions."}`)
	w.call("GET", "/topics/orders/partitions/foo", "").want(t, 404, `{"error_code":404,"message":"HTTP 404 Not Found"}`)
	w.call("GET", "/nope", "").want(t, 404, `{"error_code":404,"message":"HTTP 404 Not Found"}`)
}

func TestKafkaOutOfReachIsNeverAnEmptySuccess(t *testing.T) {
	w := start(t)
	w.kafka.fail(&sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka did not answer in time.", Err: errors.New("dial 10.0.0.1: secret cause")})
	for _, path := range []string{"/topics", "/topics/orders", "/topics/orders/partitions", "/topics/orders/partitions/0", "/topics/orders/partitions/0/offsets", "/brokers"} {
		a := w.call("GET", path, "")
		a.want(t, 503, `{"error_code":50302,"message":"Kafka did not answer in time."}`)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
}

func TestOtherMethodsAreToldWhatIsAllowed(t *testing.T) {
	w := start(t)
	notAllowed := `{"error_code":405,"message":"HTTP 405 Method Not Allowed"}`
	for _, method := range []string{"DELETE", "PUT", "TRACE", "PROPFIND", "FOO"} {
		a := w.call(method, "/topics", "")
		a.want(t, 405, notAllowed)
		if allow := a.header.Get("Allow"); allow != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: Allow %q", method, allow)
		}
	}
	a := w.call("OPTIONS", "/topics", "")
	a.want(t, 204, "")
	if allow := a.header.Get("Allow"); allow != "GET, HEAD, OPTIONS" {
		t.Errorf("OPTIONS: Allow %q", allow)
	}
	w.call("FOO", "/nope", "").want(t, 404, `{"error_code":404,"message":"HTTP 404 Not Found"}`)
	w.call("DELETE", "/topics", "", "X-HTTP-Method-Override", "GET").want(t, 405, notAllowed)
	for _, line := range []string{"OPTIONS * HTTP/1.1", "CONNECT example.com:443 HTTP/1.1"} {
		if got := w.raw(line + "\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 405 ") || !strings.Contains(got, notAllowed) {
			t.Errorf("%s: %q", line, got)
		}
	}
	head := w.call("HEAD", "/topics", "")
	head.want(t, 200, "")
	if n := head.header.Get("Content-Length"); n != "42" {
		t.Errorf("HEAD: Content-Length %q", n)
	}
}

func TestAPanicCostsItsRequestAlone(t *testing.T) {
	w := start(t)
	w.kafka.produce = func(string, []sluice.NewRecord) ([]sluice.Receipt, error) { return nil, nil }
	w.srv.needs.Topics = panicking{w.kafka}
	w.call("GET", "/topics", "").want(t, 500, `{"error_code":500,"message":"Internal Server Error"}`)
	w.call("GET", "/topics/orders/partitions", "")
	if !strings.Contains(w.logs.String(), "panic in a handler") {
		t.Error("the panic is not in the log")
	}
}

type panicking struct{ *fakeKafka }

func (panicking) Topics(context.Context) ([]string, error) { panic("boom") }

func TestTheLogLineHidesCredentials(t *testing.T) {
	w := start(t)
	w.call("GET", "/topics?timeout=5&ticket=canary1&access_token=canary2", "", "Authorization", "Basic canary3", "Cookie", "canary4", "Referer", "http://u:canary5@h/?k=canary6")
	var line struct {
		URI     string            `json:"uri"`
		Proto   string            `json:"protocol"`
		Status  int               `json:"status"`
		Method  string            `json:"method"`
		ID      string            `json:"transaction_id"`
		Headers map[string]string `json:"headers"`
	}
	for text := range strings.Lines(w.logs.String()) {
		if strings.Contains(text, `"uri"`) {
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatal(err)
			}
		}
	}
	if line.URI != "/topics?timeout=5&ticket&access_token" || line.Status != 200 || line.Method != http.MethodGet || line.ID == "" || line.Headers["Host"] == "" || line.Proto != "HTTP/1.1" {
		t.Errorf("access line: %+v", line)
	}
	if strings.Contains(w.logs.String(), "canary") {
		t.Errorf("a credential is in the log:\n%s", w.logs.String())
	}
}
