package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// wires is a dialer that stands between a producer and any Kafka: it counts produce requests, loses answers, and makes
// brokers hang without closing anything.
type wires struct {
	produced atomic.Int64 // produce requests written
	lose     atomic.Int64 // so many answers to produce requests are lost after the broker gave them

	mu   sync.Mutex
	hung map[string]bool
	off  bool
	all  []*testWire
}

func (w *wires) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	off := w.off
	w.mu.Unlock()
	if off {
		return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
	}
	conn, err := dialTCP(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	tw := &testWire{Conn: conn, w: w, addr: addr, closed: make(chan struct{})}
	w.all = append(w.all, tw)
	return tw, nil
}

// hang makes a broker silent: what is sent to it is swallowed, nothing comes back, and nothing is closed.
func (w *wires) hang(addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hung == nil {
		w.hung = map[string]bool{}
	}
	w.hung[addr] = true
}

// heal ends that; the connections that hung are cut.
func (w *wires) heal(addr string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.hung, addr)
	for _, tw := range w.all {
		if tw.addr == addr {
			_ = tw.Close()
		}
	}
}

// switchOff cuts all connections and refuses new ones, or takes them again.
func (w *wires) switchOff(off bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off = off
	for _, tw := range w.all {
		if off {
			_ = tw.Close()
		}
	}
}

func (w *wires) hangs(addr string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hung[addr]
}

type testWire struct {
	net.Conn
	w      *wires
	addr   string
	lost   atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *testWire) Write(p []byte) (int, error) {
	produce := len(p) > 6 && binary.BigEndian.Uint16(p[4:]) == 0 // sarama writes a request at once: size, then api key
	if produce {
		c.w.produced.Add(1)
	}
	if c.w.hangs(c.addr) {
		return len(p), nil
	}
	if produce && c.w.lose.Add(-1) >= 0 {
		c.lost.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *testWire) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.w.hangs(c.addr) {
		<-c.closed
		return 0, net.ErrClosed
	}
	if c.lost.Load() {
		_ = c.Close()
		return 0, io.EOF // the broker has answered, so it has written
	}
	return n, err
}

func (c *testWire) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// wiredClients is like testClients, and all its bare connections can be disturbed.
func wiredClients(t testing.TB, k *backend.Broker, change ...func(*Config)) (*Clients, *wires) {
	t.Helper()
	testClients(t, k) // sets what is global in sarama
	cfg := Default()
	cfg.Brokers = k.Brokers
	for _, f := range change {
		f(&cfg)
	}
	c, w := newClients(cfg, nil), &wires{}
	c.dial = w.dial
	t.Cleanup(func() { _ = c.Close() })
	return c, w
}

func wiredProducer(t testing.TB, k *backend.Broker, change ...func(*Config)) (*Producer, *Clients, *wires) {
	t.Helper()
	clients, w := wiredClients(t, k, change...)
	return testProducer(t, clients), clients, w
}

// mustProduce fails the test unless every record is written.
func mustProduce(t testing.TB, p *Producer, topic string, records ...sluice.NewRecord) []sluice.Receipt {
	t.Helper()
	receipts, err := p.Produce(testContext(t), topic, records)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range receipts {
		if r.Err != nil {
			t.Fatalf("record %d: %v", i, r.Err)
		}
	}
	return receipts
}

// readAll is what a partition holds.
func readAll(t testing.TB, c *Clients, topic string, number int32) []*sluice.Record {
	t.Helper()
	ctx := testContext(t)
	p := sluice.Partition{Topic: topic, Number: number}
	r, err := NewAdmin(c).Range(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	var all []*sluice.Record
	fetcher := NewFetcher(c)
	for from := r.Start; from < r.End; {
		chunk, err := fetcher.Fetch(ctx, p, from, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, chunk.Records...)
		from = chunk.Next
	}
	return all
}

// values is what a whole topic holds, by value.
func values(t testing.TB, c *Clients, topic string, partitions int32) map[string]int {
	t.Helper()
	count := map[string]int{}
	for p := range partitions {
		for _, r := range readAll(t, c, topic, p) {
			count[string(r.Value)]++
		}
	}
	return count
}
