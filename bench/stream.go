package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/e2e/peers"
)

const (
	streamClients = 1000
	streamValue   = 100  // bytes: small, so that the cost of a delivery shows and not that of copying
	streamChunk   = 100  // records published at a time
	streamWindow  = 4000 // records that the slowest client may be behind the publisher
	streamMark    = '~'  // stands in each record once, and nowhere else in a frame
)

// streams has 1,000 SSE clients of one topic. The publisher stays at most streamWindow records before the slowest, and
// a measurement ends when the slowest has everything: nothing is lost. A delivery is one record to one client. The limit
// is as many hijacked connections that write the same frames, ready, from one shared log. One measurement's clients are
// gone before the next begins.
func streams(ctx context.Context, w *world) (sluice, limit side, err error) {
	topic, err := w.topic("stream", 1)
	if err != nil {
		return sluice, limit, err
	}
	r, err := w.gateway(ctx, "SLUICE_SSE_MAX_PER_ADDRESS=10000", "SLUICE_SSE_LIFETIME=1h")
	if err != nil {
		return sluice, limit, err
	}
	bare, err := w.child(roleBare)
	if err != nil {
		return sluice, limit, err
	}
	produce, err := w.streamPublisher(topic)
	if err != nil {
		return sluice, limit, err
	}
	path := "/topics/" + topic + "/events?from=latest"
	frames, err := captureFrames(ctx, r.URL+path, produce)
	if err != nil {
		return sluice, limit, err
	}
	publish := func() error {
		return peers.Call(ctx, http.MethodPost, "http://"+bare.addr, "", frames, http.StatusNoContent, nil)
	}
	sluice = side{r.PID(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return broadcast(ctx, m, span, strings.TrimPrefix(r.URL, "http://"), path, produce)
	}}
	limit = side{bare.pid, func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return broadcast(ctx, m, span, bare.addr, "/", publish)
	}}
	return sluice, limit, nil
}

// streamPublisher returns a function that produces a chunk and does not wait for Kafka: the clients tell what came
// through. A record that Kafka refuses is missing there.
func (w *world) streamPublisher(topic string) (func() error, error) {
	producer, err := sarama.NewAsyncProducerFromClient(w.direct)
	if err != nil {
		return nil, err
	}
	w.onStop(producer.Close)
	var failed atomic.Pointer[sarama.ProducerError]
	go func() {
		for range producer.Successes() { // or the producer stands still
		}
	}()
	go func() {
		for e := range producer.Errors() {
			failed.Store(e)
		}
	}()
	return func() error {
		for i := range streamChunk {
			text := append(bytes.Clone(value(i)[:streamValue-3]), streamMark, '"', '}')
			producer.Input() <- &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(text)}
		}
		if e := failed.Load(); e != nil {
			return e
		}
		return nil
	}, nil
}

// captureFrames is what sluice sends for one chunk: the limit sends the same.
func captureFrames(ctx context.Context, url string, produce func() error) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", url, resp.StatusCode)
	}
	if err := produce(); err != nil {
		return nil, err
	}
	var frames []byte
	buf := make([]byte, 64<<10)
	for bytes.Count(frames, []byte{streamMark}) < streamChunk || !bytes.HasSuffix(frames, []byte("\n\n")) {
		n, err := resp.Body.Read(buf)
		if err != nil {
			return nil, err
		}
		frames = append(frames, buf[:n]...)
	}
	first := bytes.IndexByte(frames, streamMark)
	return frames[bytes.LastIndex(frames[:first], []byte("\n\n"))+2:], nil // what came before the records is left out
}

// broadcast connects the clients, publishes chunks for so long and waits for the slowest.
func broadcast(ctx context.Context, m meter, span time.Duration, host, path string, publish func() error) (reading, error) {
	reading1, endReading := context.WithCancel(ctx)
	group, reading1 := errgroup.WithContext(reading1)
	defer func() { _ = group.Wait() }() // the clients' errors end the run where they matter, below
	defer endReading()
	clients := make([]streamClient, streamClients)
	for i := range clients {
		if err := clients[i].connect(host, path); err != nil {
			return reading{}, fmt.Errorf("client %d: %w", i, err)
		}
		group.Go(func() error { return clients[i].read(reading1) })
		if i%400 == 399 { // SLUICE_SSE_CONNECT_RATE
			time.Sleep(time.Second)
		}
	}
	slowest := func() int {
		n := clients[0].got.Load()
		for i := range clients {
			n = min(n, clients[i].got.Load())
		}
		return int(n)
	}
	published := 0
	await := func(behind int) error {
		for deadline := time.Now().Add(30 * time.Second); published-slowest() > behind; time.Sleep(time.Millisecond) {
			if err := reading1.Err(); err != nil {
				return fmt.Errorf("a client was cut off: %w", group.Wait())
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the slowest client has %d of %d records", slowest(), published)
			}
		}
		return nil
	}
	if err := publish(); err != nil { // the first chunk warms up: partitions are followed, connections known
		return reading{}, err
	}
	published += streamChunk
	if err := await(0); err != nil {
		return reading{}, err
	}
	if err := m.start(); err != nil {
		return reading{}, err
	}
	for time.Since(m.began) < span {
		if err := await(streamWindow - streamChunk); err != nil {
			return reading{}, err
		}
		if err := publish(); err != nil {
			return reading{}, err
		}
		published += streamChunk
	}
	if err := await(0); err != nil {
		return reading{}, err
	}
	return m.stop((published - streamChunk) * streamClients)
}

// streamClient is a reader that counts records.
type streamClient struct {
	conn net.Conn
	got  atomic.Int64
}

// connect returns when the head of the answer is there.
func (c *streamClient) connect(host, path string) (err error) {
	if c.conn, err = net.Dial("tcp", host); err != nil {
		return err
	}
	if _, err := c.conn.Write(request("GET", host, path, "Accept: text/event-stream\r\n", nil)); err != nil {
		return err
	}
	head := make([]byte, 0, 4<<10)
	for !bytes.Contains(head, []byte("\r\n\r\n")) {
		n, err := c.conn.Read(head[len(head):cap(head)])
		if err != nil {
			return fmt.Errorf("%w after %q", err, head)
		}
		head = head[:len(head)+n]
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("the answer is %.300q", head)
	}
	return nil
}

func (c *streamClient) read(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.conn.Read(buf)
		c.got.Add(int64(bytes.Count(buf[:n], []byte{streamMark})))
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// bareStreams is the limit: a log of ready bytes and connections that write what they have not written yet. POST appends
// to the log, GET opens a stream at its end.
type bareStreams struct {
	mu    sync.Mutex
	log   [][]byte
	begin int           // of log, in the count of all chunks; old ones are forgotten
	grown bool          // since the bell rang
	bell  chan struct{} // closed when the log has grown, at most every bareCoalesce
}

// bareCoalesce is sluice's default: to wake all clients less often is not what is compared.
const bareCoalesce = 20 * time.Millisecond

func serveBareStreams(l net.Listener) {
	s := &bareStreams{bell: make(chan struct{})}
	go func() {
		for range time.Tick(bareCoalesce) {
			s.ring()
		}
	}()
	_ = http.Serve(l, s) // until the process ends
}

func (s *bareStreams) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grown {
		close(s.bell)
		s.bell, s.grown = make(chan struct{}), false
	}
}

func (s *bareStreams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		chunk, err := io.ReadAll(r.Body)
		if err != nil {
			return // the publisher is gone
		}
		s.append(chunk)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.mu.Lock()
	at := s.begin + len(s.log)
	s.mu.Unlock()
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	go s.write(conn, at)
}

// keepChunks is more than any client may be behind.
const keepChunks = 2 * streamWindow / streamChunk

func (s *bareStreams) append(chunk []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, chunk)
	if len(s.log) > keepChunks {
		s.log, s.begin = s.log[1:], s.begin+1
	}
	s.grown = true
}

// write sends what is there in one call, then waits for more; it ends with the connection.
func (s *bareStreams) write(conn net.Conn, at int) {
	defer conn.Close()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = conn.Read(make([]byte, 1)) // returns when the client has left
	}()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"); err != nil {
		return
	}
	for {
		s.mu.Lock()
		chunks, bell := net.Buffers(append([][]byte(nil), s.log[at-s.begin:]...)), s.bell
		s.mu.Unlock()
		if len(chunks) == 0 {
			select {
			case <-bell:
				continue
			case <-gone:
				return
			}
		}
		at += len(chunks)
		if _, err := chunks.WriteTo(conn); err != nil {
			return
		}
	}
}
