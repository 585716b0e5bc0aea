package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/stream"
)

// streamer is a server with streams over a Kafka.
type streamer struct {
	t        *testing.T
	k        *backend.Broker
	url      string
	addr     string
	streams  *stream.Streams
	producer *kafka.Producer
	server   *Server
	metrics  *prometheus.Registry // of the streams
}

// connects is sluice_sse_connects_total.
func connects(t *testing.T, s *streamer, result string) (n float64) {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "sluice_sse_connects_total" && m.GetLabel()[0].GetValue() == result {
				n = m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func streamers(t *testing.T, change ...func(*Config, *stream.Config)) *streamer {
	t.Helper()
	k := backend.Kafka(t)
	cfg := kafka.Default()
	cfg.Brokers = k.Brokers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	clients, err := kafka.Connect(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := func(name string, f func(context.Context) error) {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := f(ctx); err != nil {
				t.Errorf("stop %s: %v", name, err)
			}
		})
	}
	stop("kafka", func(context.Context) error { return clients.Close() })
	log, err := partition.New(partition.Default(), kafka.NewFetcher(clients), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop("partition log", log.Stop)
	admin := kafka.NewAdmin(clients)
	producer, err := kafka.NewProducer(clients, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	running := make(chan error, 1)
	producing, stopProducing := context.WithCancel(context.Background())
	go func() { running <- producer.Run(producing) }()
	stop("producer", func(ctx context.Context) error {
		defer stopProducing()
		err := producer.Stop(ctx)
		stopProducing()
		<-running
		return err
	})

	c, sc := Default(), stream.Default()
	c.Listen, sc.Drain = "127.0.0.1:0", 200*time.Millisecond
	for _, f := range change {
		f(&c, &sc)
	}
	metrics := prometheus.NewRegistry()
	streams, err := stream.New(sc, log, admin, nil, metrics)
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(c, Needs{Topics: admin, Producer: producer, Kafka: admin, Streams: streams, RootPage: TailPage()}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	server.app.Server().ReadTimeout, server.app.Server().WriteTimeout = time.Second, time.Second
	addr, err := server.Listen()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	stop("http", func(ctx context.Context) error { return errors.Join(server.Stop(ctx), <-served) })
	stop("streams", streams.Stop)
	return &streamer{t: t, k: k, url: "http://" + addr.String(), addr: addr.String(), streams: streams, producer: producer, server: server, metrics: metrics}
}

func (s *streamer) produce(topic string, p int32, values ...string) {
	s.t.Helper()
	recs := make([]sluice.NewRecord, len(values))
	for i, v := range values {
		recs[i] = sluice.NewRecord{Partition: p, Value: []byte(v), Timestamp: time.Now()}
	}
	receipts, err := s.producer.Produce(s.t.Context(), topic, recs)
	for _, r := range receipts {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func numbered(from, n int) []string {
	values := make([]string, n)
	for i := range values {
		values[i] = fmt.Sprintf(`{"n": %d}`, from+i)
	}
	return values
}

// request sends one request by hand and reads the head of its answer.
func (s *streamer) request(method, path string, headers ...string) (*http.Response, net.Conn) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	proto := "HTTP/1.1"
	if m, ok := strings.CutSuffix(method, "/1.0"); ok {
		method, proto = m, "HTTP/1.0"
	}
	head := ""
	for _, h := range headers {
		head += h + "\r\n"
	}
	fmt.Fprintf(conn, "%s %s %s\r\nHost: x\r\n%s\r\n", method, path, proto, head)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, conn
}

// sseEvent is one event as a plain line reader sees it.
type sseEvent struct{ name, data, id string }

func readEvent(r *bufio.Reader) (e sseEvent, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); name {
		case "event":
			e.name = value
		case "data":
			e.data += value
		case "id":
			e.id = value
		case "":
			if e.data != "" {
				return e, nil
			}
		}
	}
}

func (s *streamer) mustEvent(r *bufio.Reader) sseEvent {
	s.t.Helper()
	e, err := readEvent(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func TestStreamOverKafka(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 3)
	for p := range int32(3) {
		s.produce(topic, p, numbered(0, 100)...)
	}
	resp, _ := s.request("GET", "/topics/"+topic+"/events?from=earliest", "Accept: text/event-stream", "X-Request-Id: tid_mine")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("X-Request-Id") != "tid_mine" ||
		resp.Header.Get("Cache-Control") != "no-cache, no-store, no-transform" || resp.Header.Get("X-Accel-Buffering") != "no" ||
		resp.Header.Get("X-Content-Type-Options") != "nosniff" || !resp.Close || resp.TransferEncoding[0] != "chunked" || resp.Header.Get("Content-Encoding") != "" {
		t.Fatalf("head: %d %v %v", resp.StatusCode, resp.Header, resp.TransferEncoding)
	}
	r := bufio.NewReader(resp.Body)
	if e := s.mustEvent(r); e.name != "progress" || e.id == "" {
		t.Fatalf("first: %+v", e)
	}
	next := map[int32]int64{}
	var lastID string
	read := func(n int) {
		t.Helper()
		for range n {
			e := s.mustEvent(r)
			var m struct {
				Topic     string
				Partition int32
				Offset    int64
				Value     json.RawMessage
			}
			if err := json.Unmarshal([]byte(e.data), &m); err != nil || m.Topic != topic || m.Offset != next[m.Partition] || string(m.Value) != fmt.Sprintf(`{"n":%d}`, m.Offset) {
				t.Fatalf("got %+v, want offset %d: %v", e, next[m.Partition], err)
			}
			next[m.Partition]++
			if e.id != "" {
				lastID = e.id
			}
		}
	}
	read(300)
	for p := range int32(3) {
		s.produce(topic, p, numbered(100, 50)...)
	}
	read(150)

	cursor := lastID
	s.produce(topic, 1, numbered(150, 10)...)
	read(10) // then this replica knows of them: what it is behind is counted from its own end
	next[1] -= 10
	resp, _ = s.request("GET", "/events?topic="+topic+"&last_event_id=ignored", "Last-Event-ID: "+cursor)
	r = bufio.NewReader(resp.Body)
	if e := s.mustEvent(r); !strings.Contains(e.data, `"resumed":true,"behind":10,`) {
		t.Fatalf("first after the resume: %+v", e)
	}
	read(10)
}

func TestStreamRefusals(t *testing.T) {
	s := streamers(t, func(_ *Config, c *stream.Config) { c.MaxStreams, c.MaxPartitions = 1, 4 })
	topic := s.k.Topic(t, "orders", 3)
	wide := s.k.Topic(t, "wide", 5)
	path := "/topics/" + topic + "/events"
	for _, c := range []struct {
		path    string
		headers []string
		status  int
		body    string
	}{
		{path + "?form=earliest", nil, 400, `{"error_code":40021,"message":"Unknown parameter \"form\"."}`},
		{path + "?from=now", nil, 400, `{"error_code":40021,"message":"Invalid parameter \"from\": must be latest, earliest, timestamp or offsets."}`},
		{path + "?filter=x", nil, 400, `{"error_code":40021,"message":"Unknown parameter \"filter\"."}`},
		{path + "?stream=other", nil, 400, `{"error_code":40021,"message":"Invalid parameter \"stream\": must be the topic of the path."}`},
		{"/events", nil, 400, `{"error_code":40021,"message":"Invalid parameter \"topic\": must be given."}`},
		{"/topics/no-such-topic/events", nil, 404, `{"error_code":40401,"message":"Topic not found."}`},
		{path + "?partitions=3", nil, 404, `{"error_code":40402,"message":"Partition not found."}`},
		{path, []string{"Last-Event-ID: not-a-cursor"}, 400, `{"error_code":40023,"message":"Malformed Last-Event-ID."}`},
		{path, []string{"Last-Event-ID: EAEcForbDpNR0wMBAZmzBmEP"}, 400, `{"error_code":40024,"message":"Last-Event-ID belongs to other topics."}`},
		{"/topics/" + wide + "/events", nil, 400, `{"error_code":40025,"message":"Too many partitions: 5 of at most 4; use \"partitions\" and several streams."}`},
		{path, []string{"Accept: application/x-ndjson"}, 406, `{"error_code":406,"message":"HTTP 406 Not Acceptable"}`},
		{path, []string{"Content-Length: 2\r\n\r\n{}"}, 400, `{"error_code":400,"message":"HTTP 400 Bad Request"}`},
		{path + "?on_gap=error&offsets=0:5", nil, 409, `{"error_code":40910,"message":"Offset 5 of ` + topic + `/0 is out of range [0, 0]."}`},
	} {
		resp, _ := s.request("GET", c.path, c.headers...)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || string(body) != c.body || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v: got %d %s %s\nwant %d %s", c.path, c.headers, resp.StatusCode, resp.Header.Get("Content-Type"), body, c.status, c.body)
		}
	}
	resp, _ := s.request("POST", path, "Content-Length: 0")
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("POST: %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}

	// A HEAD takes no place; a stream takes the only one.
	resp, _ = s.request("HEAD", path)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	first, conn := s.request("GET", path)
	if e := s.mustEvent(bufio.NewReader(first.Body)); e.name != "progress" {
		t.Fatalf("first: %+v", e)
	}
	const full = `{"error_code":50312,"message":"Replica is full."}`
	for _, accept := range []string{"*/*", "text/event-stream;q=0.9"} {
		for _, strict := range []string{"", "?strict=1"} {
			resp, _ := s.request("GET", path+strict, "Accept: "+accept)
			body, _ := io.ReadAll(resp.Body)
			if accept != "*/*" && strict == "" {
				e, err := readEvent(bufio.NewReader(strings.NewReader(string(body))))
				if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || !resp.Close || resp.ContentLength < 1 ||
					!strings.HasPrefix(string(body), "retry: ") || e != (sseEvent{"error", `{"error_code":50312,"message":"Replica is full.","retriable":true}`, ""}) {
					t.Errorf("%s: got %d %v %s", accept, resp.StatusCode, resp.Header, body)
				}
			} else if resp.StatusCode != 503 || string(body) != full || resp.Header.Get("Retry-After") == "" {
				t.Errorf("%s %s: got %d %v %s", accept, strict, resp.StatusCode, resp.Header, body)
			}
		}
	}
	// A freed place serves at once, and a client that is gone on a silent stream frees it within a second.
	gone := time.Now()
	_ = conn.Close()
	for {
		resp, conn := s.request("GET", path)
		_ = conn.Close()
		if resp.StatusCode == 200 {
			break
		}
		if time.Since(gone) > time.Second {
			t.Fatal("the place was not free within a second")
		}
	}
}

func TestStreamSpeaksHTTP10(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1)
	s.produce(topic, 0, "one")
	resp, _ := s.request("GET/1.0", "/topics/"+topic+"/events?from=earliest")
	if resp.StatusCode != 200 || len(resp.TransferEncoding) > 0 || resp.ContentLength != -1 {
		t.Fatalf("%v %v %d", resp.StatusCode, resp.TransferEncoding, resp.ContentLength)
	}
	r := bufio.NewReader(resp.Body)
	s.mustEvent(r)
	if e := s.mustEvent(r); !strings.Contains(e.data, `"value":"one"`) {
		t.Fatalf("got %+v", e)
	}
}

// What stands behind the request on the wire is nobody's: neither answered nor read by another.
func TestPipelinedRequestIsIgnored(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /topics/%s/events HTTP/1.1\r\nHost: x\r\n\r\nGET /topics HTTP/1.1\r\nHost: x\r\n\r\n", topic)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(resp.Body)
	s.mustEvent(r)
	s.produce(topic, 0, "one")
	if e := s.mustEvent(r); !strings.Contains(e.data, `"value":"one"`) {
		t.Fatalf("got %+v", e)
	}
}

func TestLongLastEventID(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1)
	for length, status := range map[int]int{8000: 400, 20000: 431} { // 400: it arrives, and is malformed
		resp, _ := s.request("GET", "/topics/"+topic+"/events", "Last-Event-ID: "+strings.Repeat("A", length))
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != status || strings.Contains(string(body), "AAAA") {
			t.Errorf("%d bytes: got %d %s", length, resp.StatusCode, body)
		}
	}
}

// Stop tells every stream to reconnect and waits for it; HTTP's own shutdown knows nothing of them.
func TestDrainEndsStreamsInOrder(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 2)
	var readers []*bufio.Reader
	for range 5 {
		resp, _ := s.request("GET", "/topics/"+topic+"/events")
		r := bufio.NewReader(resp.Body)
		s.mustEvent(r)
		readers = append(readers, r)
	}
	if err := s.streams.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range readers {
		if e := s.mustEvent(r); e.name != "reconnect" || e.data != `{"reason":"drain"}` || e.id == "" {
			t.Fatalf("got %+v", e)
		}
		if _, err := readEvent(r); !errors.Is(err, io.EOF) { // the last chunk came: a clean end, not a cut
			t.Fatalf("the end: %v", err)
		}
	}
	resp, _ := s.request("GET", "/topics/"+topic+"/events", "Accept: text/event-stream")
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !strings.Contains(string(body), `"error_code":50311,"message":"Replica is draining.","retriable":true`) {
		t.Errorf("a connect while draining: %d %s", resp.StatusCode, body)
	}
}

// Clients that leave at any moment, before, while and after their connection is taken over, leave nothing behind.
func TestAbortedConnectsLeaveNothingBehind(t *testing.T) {
	s := streamers(t, func(_ *Config, c *stream.Config) { c.MaxPerAddress, c.ConnectRate = 10, 10_000 })
	topic := s.k.Topic(t, "orders", 2)
	var work sync.WaitGroup
	for worker := range 8 {
		work.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 60 {
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				request := fmt.Sprintf("GET /topics/%s/events HTTP/1.1\r\nHost: x\r\n\r\n", topic)
				if r.IntN(4) == 0 {
					request = request[:r.IntN(len(request))]
				}
				_, _ = io.WriteString(conn, request)
				time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
				if r.IntN(2) == 0 {
					_ = conn.(*net.TCPConn).SetLinger(0) // RST
				}
				_ = conn.Close()
			}
		})
	}
	work.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var open []net.Conn // all ten places of the address are free at once
		ok := true
		for range 10 {
			resp, conn := s.request("GET", "/topics/"+topic+"/events")
			ok = ok && resp.StatusCode == 200
			open = append(open, conn)
		}
		for _, conn := range open {
			_ = conn.Close()
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("places are still taken")
		}
	}
}
