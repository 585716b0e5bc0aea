package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/partition/partitiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is Streams over a partition log in memory, behind a TCP listener that knows just enough HTTP.
type world struct {
	t       testing.TB
	mem     *partitiontest.Memory
	topics  *memoryTopics
	log     *partition.Log
	streams *Streams
	reg     *prometheus.Registry
	ln      net.Listener
	logged  *syncBuffer

	sendBuffer atomic.Int32 // of the server's sockets, in bytes; 0: the system's

	wg sync.WaitGroup
}

type memoryTopics struct {
	mem *partitiontest.Memory

	mu     sync.Mutex
	topics map[string]sluice.Topic
	fail   error
	ends   map[sluice.Partition]sluice.Range // what Range answers instead
}

func (m *memoryTopics) ClusterID(context.Context) (string, error) { return "sluice-dev", nil }

func (m *memoryTopics) Topic(_ context.Context, name string) (sluice.Topic, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return sluice.Topic{}, m.fail
	}
	t, ok := m.topics[name]
	if !ok {
		return t, &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}
	}
	return t, nil
}

func (m *memoryTopics) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	m.mu.Lock()
	r, ok := m.ends[p]
	m.mu.Unlock()
	if ok {
		return r, nil
	}
	return m.mem.Range(ctx, p)
}

func (m *memoryTopics) OffsetAt(ctx context.Context, p sluice.Partition, t time.Time) (int64, error) {
	r, err := m.mem.Range(ctx, p)
	if err != nil {
		return 0, err
	}
	for at := r.Start; at < r.End; {
		c, err := m.mem.Fetch(ctx, p, at, 1<<20)
		if err != nil {
			return 0, err
		}
		for _, rec := range c.Records {
			if !rec.Timestamp.Before(t) {
				return rec.Offset, nil
			}
		}
		at = c.Next
	}
	return r.End, nil
}

func (w *world) create(name string, id byte, partitions int) {
	top := sluice.Topic{Name: name, ID: sluice.TopicID{id}}
	for n := range partitions {
		top.Partitions = append(top.Partitions, sluice.PartitionState{Number: int32(n)})
		w.mem.Create(part(name, n))
	}
	w.topics.mu.Lock()
	w.topics.topics[name] = top
	w.topics.mu.Unlock()
}

func part(topic string, n int) sluice.Partition {
	return sluice.Partition{Topic: topic, Number: int32(n)}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t testing.TB, change func(*Config)) *world {
	w := &world{t: t, mem: partitiontest.NewMemory(), reg: prometheus.NewRegistry(), logged: &syncBuffer{}}
	w.topics = &memoryTopics{mem: w.mem, topics: map[string]sluice.Topic{}, ends: map[sluice.Partition]sluice.Range{}}
	cfg := Default()
	cfg.Drain = 100 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	var err error
	if w.log, err = partition.New(partition.Default(), w.mem, nil, nil); err != nil {
		t.Fatal(err)
	}
	w.streams, err = New(cfg, w.log, w.topics, slog.New(slog.NewJSONHandler(w.logged, nil)), w.reg)
	if err != nil {
		t.Fatal(err)
	}
	w.streams.refresh = 50 * time.Millisecond
	if w.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = w.ln.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := w.streams.Stop(ctx); err != nil {
			t.Error(err)
		}
		w.wg.Wait()
		if err := w.log.Stop(ctx); err != nil {
			t.Error(err)
		}
		if n := testutil.ToFloat64(w.streams.metrics.panics); n > 0 && !t.Failed() && t.Name() != "TestPanicEndsOneStream" {
			t.Errorf("%v panics:\n%s", n, w.logged)
		}
	})
	return w
}

func (w *world) accept() {
	for {
		conn, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.answer(conn) })
	}
}

const testHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

func (w *world) answer(conn net.Conn) {
	if n := w.sendBuffer.Load(); n > 0 {
		_ = conn.(*net.TCPConn).SetWriteBuffer(int(n))
	}
	r, err := readRequest(conn)
	if err != nil {
		_ = conn.Close()
		return
	}
	q := Query{LastEventID: r.Header.Get("Last-Event-ID")}
	for name, values := range r.URL.Query() {
		for _, v := range values {
			q.Parameters = append(q.Parameters, Parameter{name, v})
		}
	}
	req, err := Parse(q, time.Now())
	if err == nil {
		req.ID, req.Address = "tid_test", "192.0.2.1"
		var st *Stream
		if st, err = w.streams.Admit(context.Background(), req); err == nil {
			st.Serve(conn, []byte(testHead))
			return
		}
	}
	defer conn.Close()
	if ref, ok := errors.AsType[*Refusal](err); ok {
		fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", ref.Status(), len(ref.Error()), ref.Error())
		return
	}
	fmt.Fprintf(conn, "HTTP/1.1 500 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(err.Error()), err.Error())
}

// readRequest reads no byte beyond the head: the connection is handed on.
func readRequest(conn net.Conn) (*http.Request, error) {
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := conn.Read(one); err != nil {
			return nil, err
		}
		head = append(head, one...)
	}
	return http.ReadRequest(newBufio(head))
}

// client is one connection.
type client struct {
	t    testing.TB
	conn net.Conn
	resp *http.Response
	*strictParser
}

const patience = 15 * time.Second

func (w *world) connect(query, lastID string) *client {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.ln.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	header := ""
	if lastID != "" {
		header = "Last-Event-ID: " + lastID + "\r\n"
	}
	fmt.Fprintf(conn, "GET /events?%s HTTP/1.1\r\nHost: x\r\n%s\r\n", query, header)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	resp, err := readResponse(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	return &client{t: w.t, conn: conn, resp: resp, strictParser: newStrictParser(resp.Body)}
}

// tail connects and takes the first frame off.
func (w *world) tail(query, lastID string) (*client, event) {
	w.t.Helper()
	c := w.connect(query, lastID)
	if c.resp.StatusCode != 200 {
		body, _ := io.ReadAll(c.resp.Body)
		w.t.Fatalf("%s: %d %s", query, c.resp.StatusCode, body)
	}
	first := c.want("progress")
	if !first.hasID || first.retry == "" {
		w.t.Fatalf("the first frame has no id or no retry: %+v", first)
	}
	return c, first
}

func (w *world) refused(query, lastID, want string) {
	w.t.Helper()
	c := w.connect(query, lastID)
	body, _ := io.ReadAll(io.LimitReader(c.resp.Body, 4096))
	if !strings.HasPrefix(string(body), want) {
		w.t.Errorf("%s %s: got %d %s, want %s", query, lastID, c.resp.StatusCode, body, want)
	}
}

func (c *client) event() event {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	e, err := c.next()
	if err != nil {
		c.t.Fatalf("reading an event: %v", err)
	}
	return e
}

func (c *client) want(name string) event {
	c.t.Helper()
	e := c.event()
	if e.name != name {
		c.t.Fatalf("got %+v, want a %q event", e, name)
	}
	return e
}

func (c *client) message() message {
	c.t.Helper()
	m, err := c.want("").message()
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// offsets wants these records of a partition next.
func (c *client) offsets(p int32, from, to int64) {
	c.t.Helper()
	for o := from; o < to; o++ {
		if m := c.message(); m.Partition != p || m.Offset != o {
			c.t.Fatalf("got %d:%d, want %d:%d", m.Partition, m.Offset, p, o)
		}
	}
}

// closed wants an orderly end: the last chunk, then FIN.
func (c *client) closed() {
	c.t.Helper()
	if e, err := c.next(); !errors.Is(err, io.EOF) || errors.Is(err, errUnfinished) || errors.Is(err, io.ErrUnexpectedEOF) {
		c.t.Fatalf("got %+v %v, want the end", e, err)
	}
}

func (w *world) produce(p sluice.Partition, values ...string) {
	recs := make([]sluice.NewRecord, len(values))
	for i, v := range values {
		recs[i] = sluice.NewRecord{Key: []byte("k"), Value: []byte(v), Timestamp: time.Now()}
	}
	w.mem.Produce(p, recs...)
}

func (w *world) produceN(p sluice.Partition, from, n int) {
	recs := make([]sluice.NewRecord, n)
	for i := range recs {
		recs[i] = sluice.NewRecord{Value: fmt.Appendf(nil, `{"n":%d}`, from+i), Timestamp: time.Now()}
	}
	w.mem.Produce(p, recs...)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (w *world) openStreams() int {
	w.streams.mu.Lock()
	defer w.streams.mu.Unlock()
	return len(w.streams.open)
}

func decode(t testing.TB, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}
