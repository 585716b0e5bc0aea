package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluicegate/sluice"
)

func TestAnIdleStreamBeats(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Heartbeat = time.Second })
	w.create("orders", 1, 2)
	c, _ := w.tail("topic=orders", "")
	begun := time.Now()
	// Nothing but a marker moves the position: progress tells it, with an id.
	buf := make([]byte, 2)
	if _, err := io.ReadFull(c.resp.Body, buf); err != nil || string(buf) != ":\n" {
		t.Fatalf("got %q %v, want one comment line", buf, err)
	}
	if d := time.Since(begun); d < 900*time.Millisecond || d > 2500*time.Millisecond {
		t.Errorf("the beat came after %v", d)
	}
	w.mem.Transact(part("orders", 1), false, sluice.NewRecord{Value: []byte("aborted")})
	e := c.want("progress")
	cur, _ := sluice.ParseCursor(e.id)
	if cur.Topics[0].Partitions[1].Next != 2 || decode(t, e.data)["scanned"] != float64(2) || decode(t, e.data)["sent"] != float64(0) {
		t.Errorf("progress %s at %+v", e.data, cur)
	}
}

func TestGapsInAStream(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxRecordBytes = 1 << 10 })
	w.create("orders", 1, 1)
	w.produceN(part("orders", 0), 0, 10)
	c, _ := w.tail("topic=orders&from=earliest", "")
	failing, _ := w.tail("topic=orders&from=earliest&on_gap=error", "")
	c.offsets(0, 0, 10)
	failing.offsets(0, 0, 10)

	w.produce(part("orders", 0), strings.Repeat("x", 1<<10), strings.Repeat("x", 1<<10+1), "small")
	c.offsets(0, 10, 11)
	e := c.want("gap")
	if e.data != `{"topic":"orders","partition":0,"from":11,"to":12,"lost":1,"reason":"too-large"}` || !e.hasID {
		t.Errorf("got %+v", e)
	}
	c.offsets(0, 12, 13)
	failing.offsets(0, 10, 11)
	failing.want("gap")
	failing.offsets(0, 12, 13)

	// The log is cut below the head: an unclean election.
	w.mem.Create(part("orders", 0))
	w.produceN(part("orders", 0), 0, 5)
	e = c.want("gap")
	if e.data != `{"topic":"orders","partition":0,"from":13,"to":0,"lost":null,"reason":"truncated"}` {
		t.Errorf("got %+v", e)
	}
	c.offsets(0, 0, 5)
	e = failing.want("error")
	if e.data != `{"error_code":40910,"message":"Offset 13 of orders/0 is out of range [0, 5].","retriable":false}` || e.hasID {
		t.Errorf("got %+v", e)
	}
	failing.closed()

	w.produceN(part("orders", 0), 5, 1)
	c.offsets(0, 5, 6)
}

// gate holds reads from one offset on back, and then fails them.
type gate struct {
	source
	from int64
	open chan struct{}
}

func (g gate) Read(ctx context.Context, p sluice.Partition, from int64, maxBytes int) ([]*sluice.Record, int64, error) {
	if from == g.from {
		select {
		case <-g.open:
			return nil, from, &sluice.Error{Kind: sluice.Unavailable}
		case <-ctx.Done():
			return nil, from, ctx.Err()
		}
	}
	return g.source.Read(ctx, p, from, maxBytes)
}

// A stream that reads history is above the chain once the log was cut below it. It must not wait there in silence.
func TestLogIsCutUnderACatchUp(t *testing.T) {
	w := newWorld(t, nil)
	open := make(chan struct{})
	w.streams.source = gate{w.streams.source, 5, open}
	w.create("orders", 1, 1)
	w.produceN(part("orders", 0), 0, 10)
	live, _ := w.tail("topic=orders", "")
	c, _ := w.tail("topic=orders", "orders/0:5")
	w.mem.Create(part("orders", 0))
	w.produceN(part("orders", 0), 0, 2)
	eventually(t, "the feed has begun again", func() bool {
		w.streams.mu.Lock()
		defer w.streams.mu.Unlock()
		for _, f := range w.streams.feeds {
			return f.head.Load() <= 2
		}
		return false
	})
	close(open)
	if e := c.want("gap"); e.data != `{"topic":"orders","partition":0,"from":5,"to":0,"lost":null,"reason":"truncated"}` {
		t.Errorf("got %+v", e)
	}
	c.offsets(0, 0, 2)
	live.want("gap")
	live.offsets(0, 0, 2)
}

func TestTopicIsCreatedAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 2)
	c, _ := w.tail("topic=orders", "")
	w.produceN(part("orders", 0), 0, 3)
	c.offsets(0, 0, 3)
	w.create("orders", 2, 2)
	w.produceN(part("orders", 0), 0, 1)
	first := c.want("gap")
	second := c.want("gap")
	if first.data != `{"topic":"orders","partition":0,"from":3,"to":0,"lost":null,"reason":"other-log"}` || !strings.Contains(second.data, `"partition":1,"from":0,"to":0,`) {
		t.Errorf("got %s and %s", first.data, second.data)
	}
	cur, _ := sluice.ParseCursor(second.id)
	if cur.Topics[0].Log != sluice.LogTagOf("sluice-dev", sluice.TopicID{2}) {
		t.Error("the id names the old log")
	}
	c.offsets(0, 0, 1)
}

func TestPartitionIsAdded(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 1)
	c, _ := w.tail("topic=orders", "")
	chosen, _ := w.tail("topic=orders&partitions=0", "")
	w.produceN(part("orders", 0), 0, 2)
	c.offsets(0, 0, 2)
	chosen.offsets(0, 0, 2)
	w.mem.Create(part("orders", 1))
	w.produceN(part("orders", 1), 0, 2)
	w.topics.mu.Lock()
	w.topics.topics["orders"] = sluice.Topic{Name: "orders", ID: sluice.TopicID{1}, Partitions: make([]sluice.PartitionState, 2)}
	w.topics.mu.Unlock()
	c.offsets(1, 0, 2)
	w.produceN(part("orders", 0), 2, 1)
	e := c.want("")
	if cur, _ := sluice.ParseCursor(e.id); cur.Topics[0].Count != 2 || cur.Topics[0].Partitions[0].Next != 3 || cur.Topics[0].Partitions[1].Next != 2 {
		t.Errorf("the id after it: %+v", cur)
	}
	chosen.offsets(0, 2, 3)
}

func TestTopicIsDeleted(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 1)
	w.create("payments", 2, 1)
	one, _ := w.tail("topic=orders", "")
	both, _ := w.tail("topic=orders&topic=payments", "")
	w.topics.mu.Lock()
	delete(w.topics.topics, "orders")
	w.topics.mu.Unlock()
	w.mem.Delete(part("orders", 0))
	if e := one.want("error"); e.data != `{"error_code":40401,"message":"Topic not found.","retriable":false}` {
		t.Errorf("got %s", e.data)
	}
	one.closed()
	if e := both.want("gap"); e.data != `{"topic":"orders","partition":0,"from":0,"to":0,"lost":null,"reason":"deleted"}` {
		t.Errorf("got %s", e.data)
	}
	w.produceN(part("payments", 0), 0, 2)
	both.offsets(0, 0, 2)
}

func TestKafkaGoesAndComesBack(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Heartbeat = time.Second })
	w.create("orders", 1, 1)
	c, _ := w.tail("topic=orders", "")
	w.produceN(part("orders", 0), 0, 2)
	c.offsets(0, 0, 2)
	down := &sluice.Error{Kind: sluice.Unavailable, Msg: "no"}
	w.mem.SetFail(down)
	w.topics.mu.Lock()
	w.topics.fail = down
	w.topics.mu.Unlock()
	w.refused("topic=orders", "", "50302: Kafka is not available.")
	buf := make([]byte, 2)
	if _, err := io.ReadFull(c.resp.Body, buf); err != nil || string(buf) != ":\n" {
		t.Fatalf("got %q %v, want a heartbeat", buf, err)
	}
	w.mem.SetFail(nil)
	w.topics.mu.Lock()
	w.topics.fail = nil
	w.topics.mu.Unlock()
	w.produceN(part("orders", 0), 2, 2)
	c.offsets(0, 2, 4)
}

func TestLifetimeRotatesWithoutLoss(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Lifetime = time.Second })
	w.create("orders", 1, 2)
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				w.produceN(part("orders", i%2), i/2, 1)
			}
		}
	}()
	defer func() { close(done); <-stopped }()
	const readers = 20
	errs := make(chan error, readers)
	for range readers {
		go func() {
			errs <- func() error {
				next, lastID := map[int32]int64{}, "orders/0:0,orders/1:0"
				for range 2 {
					begun := time.Now()
					c := w.connect("topic=orders", lastID)
					for {
						_ = c.conn.SetReadDeadline(time.Now().Add(patience))
						e, err := c.next()
						if err != nil {
							return err
						}
						if e.hasID {
							lastID = e.id
						}
						if e.name == "reconnect" {
							if d := time.Since(begun); d < 700*time.Millisecond || d > 2*time.Second {
								return fmt.Errorf("rotated after %v", d)
							}
							if e.data != `{"reason":"lifetime"}` || e.retry == "" {
								return fmt.Errorf("got %+v", e)
							}
							break
						}
						if e.name == "" {
							m, err := e.message()
							if err != nil || m.Offset != next[m.Partition] {
								return fmt.Errorf("got %d:%d, want %d: %w", m.Partition, m.Offset, next[m.Partition], err)
							}
							next[m.Partition]++
						}
					}
					if _, err := c.next(); !errors.Is(err, io.EOF) {
						return fmt.Errorf("no clean end: %w", err)
					}
				}
				return nil
			}()
		}()
	}
	for range readers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestDrainSpreadsTheFarewells(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Drain = time.Second })
	w.create("orders", 1, 1)
	var clients []*client
	for range 60 {
		c, _ := w.tail("topic=orders", "")
		clients = append(clients, c)
	}
	w.produceN(part("orders", 0), 0, 1)
	begun := time.Now()
	done := make(chan error, 1)
	go func() { done <- w.streams.Stop(t.Context()) }()
	retries := map[string]bool{}
	for _, c := range clients {
		c.offsets(0, 0, 1)
		e := c.want("reconnect")
		if e.data != `{"reason":"drain"}` || !e.hasID {
			t.Errorf("got %+v", e)
		}
		retries[e.retry] = true
		c.closed()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("60 streams took %v", took)
	}
	if len(retries) < 40 {
		t.Errorf("only %d different retry times", len(retries))
	}
	w.refused("topic=orders", "", "50311: Replica is draining.")
}

func TestADrainThatIsOverCutsWhatIsLeft(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 1)
	w.tail("topic=orders", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = w.streams.Stop(ctx)
	if n := w.openStreams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestGoneClientsFreeTheirPlaces(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 1)
	for name, leave := range map[string]func(*net.TCPConn){
		"FIN":        func(c *net.TCPConn) { _ = c.Close() },
		"RST":        func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		"half-close": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"chatter":    func(c *net.TCPConn) { _, _ = c.Write(make([]byte, 4096)) },
	} {
		c, _ := w.tail("topic=orders", "")
		left := time.Now()
		leave(c.conn.(*net.TCPConn))
		eventually(t, name+" frees the place", func() bool { return w.openStreams() == 0 })
		if d := time.Since(left); d > time.Second {
			t.Errorf("%s: free after %v", name, d)
		}
	}
}

func TestCaps(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxPerAddress, c.MaxStreams, c.MaxCatchUp = 2, 100, 1 })
	w.create("orders", 1, 1)
	w.produceN(part("orders", 0), 0, 20_000)
	release := w.mem.Hold()
	behind, _ := w.tail("topic=orders&from=earliest", "")
	w.refused("topic=orders&from=earliest", "", "50313: Too many streams are catching up.")
	w.tail("topic=orders", "")
	w.refused("topic=orders", "", "42901: Too many streams for this address (2).")
	_ = behind.conn.Close()
	eventually(t, "a freed slot serves", func() bool { return w.openStreams() == 1 })
	release()
	c, _ := w.tail("topic=orders&from=earliest", "") // which takes the catch-up place, and gives it back
	c.offsets(0, 0, 20_000)
	eventually(t, "the place is given back", func() bool {
		w.streams.mu.Lock()
		defer w.streams.mu.Unlock()
		return w.streams.catchingUp == 0
	})
}

func TestAPlaceThatIsNotTakenUpIsGivenBack(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 1)
	st, err := w.streams.Admit(t.Context(), Request{Topics: []string{"orders"}})
	if err != nil {
		t.Fatal(err)
	}
	w.streams.sweepOnce(time.Now().Add(claimGrace / 2))
	if w.openStreams() != 1 {
		t.Error("given back too early")
	}
	w.streams.sweepOnce(time.Now().Add(2 * claimGrace))
	if w.openStreams() != 0 {
		t.Error("not given back")
	}
	a, b := net.Pipe()
	defer b.Close()
	st.Serve(a, nil) // too late: it closes the connection
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

// A stalled client costs itself only: the others keep their rate, and it is closed within its write deadline.
func TestStalledReadersDoNotHurtTheOthers(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.WriteDeadline = 3 * time.Second })
	w.sendBuffer.Store(32 << 10)
	w.create("orders", 1, 1)
	const readers, stalled, rate, seconds = 25, 5, 200, 4
	value := strings.Repeat("x", 2048)
	healthy := make(chan error, readers)
	for i := range readers {
		c, _ := w.tail("topic=orders", "")
		if i < stalled {
			_ = c.conn.(*net.TCPConn).SetReadBuffer(4096)
			continue
		}
		go func() {
			// Lines, not the strict parser: 20 of those and the race detector would be the slow readers here.
			lines := bufio.NewReaderSize(c.resp.Body, 64<<10)
			for o := 0; o < rate*seconds; {
				_ = c.conn.SetReadDeadline(time.Now().Add(patience))
				line, err := lines.ReadString('\n')
				if err != nil {
					healthy <- err
					return
				}
				if strings.HasPrefix(line, "data: ") {
					if !strings.Contains(line, fmt.Sprintf(`"offset":%d,`, o)) {
						healthy <- fmt.Errorf("got %.100s, want offset %d", line, o)
						return
					}
					o++
				}
			}
			healthy <- nil
		}()
	}
	begun := time.Now()
	for i := range rate * seconds / 10 {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * 10 * time.Second / rate))) // the pace of the topic
		batch := make([]string, 10)
		for j := range batch {
			batch[j] = value
		}
		w.produce(part("orders", 0), batch...)
	}
	for range readers - stalled {
		if err := <-healthy; err != nil {
			t.Error(err)
		}
	}
	if late := time.Since(begun) - seconds*time.Second; late > 2*time.Second {
		t.Errorf("the healthy ones were %v late", late)
	}
	dropped := func() float64 {
		return testutil.ToFloat64(w.streams.metrics.dropped.WithLabelValues("deadline")) + testutil.ToFloat64(w.streams.metrics.dropped.WithLabelValues("slow"))
	}
	eventually(t, "the stalled are closed", func() bool { return dropped() == stalled })
	if n := w.openStreams(); n > readers-stalled {
		t.Errorf("%d streams are open", n)
	}
}

func TestTooFarBehindIsClosed(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"by bytes": func(c *Config) { c.MaxLagBytes = 256 << 10 },
		"by time":  func(c *Config) { c.MaxLag = 2 * time.Second },
		"buffer":   func(c *Config) { c.MaxLagBytes, c.BufferBytes = 1<<20, 1<<20; c.MaxLag = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.WriteDeadline = time.Minute; change(c) })
			w.create("orders", 1, 1)
			c, _ := w.tail("topic=orders", "")
			raw, _ := c.conn.(*net.TCPConn).SyscallConn()
			_ = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			eventually(t, "the slow stream is closed", func() bool {
				w.produce(part("orders", 0), strings.Repeat("x", 256<<10))
				time.Sleep(20 * time.Millisecond)
				return w.openStreams() == 0
			})
			if n := testutil.ToFloat64(w.streams.metrics.closed.WithLabelValues("slow")); n != 1 {
				t.Errorf("closed as slow: %v", n)
			}
		})
	}
}

// rotten gives records of one topic that no encoder survives.
type rotten struct{ source }

func (r rotten) Read(ctx context.Context, p sluice.Partition, from int64, maxBytes int) ([]*sluice.Record, int64, error) {
	recs, next, err := r.source.Read(ctx, p, from, maxBytes)
	if p.Topic == "rotten" && len(recs) > 0 {
		recs = []*sluice.Record{nil}
	}
	return recs, next, err
}

func TestPanicEndsOneStream(t *testing.T) {
	w := newWorld(t, nil)
	w.streams.source = rotten{w.streams.source}
	w.create("orders", 1, 1)
	w.create("rotten", 2, 1)
	good, _ := w.tail("topic=orders", "")
	bad, _ := w.tail("topic=rotten", "")
	w.produceN(part("rotten", 0), 0, 1)
	if e, err := bad.next(); err == nil {
		t.Errorf("got %+v, want a cut", e)
	}
	eventually(t, "the place is free", func() bool { return w.openStreams() == 1 })
	w.produceN(part("orders", 0), 0, 1)
	good.offsets(0, 0, 1)
	if n := testutil.ToFloat64(w.streams.metrics.dropped.WithLabelValues("panic")); n != 1 || testutil.ToFloat64(w.streams.metrics.panics) < 2 {
		t.Errorf("%v streams dropped by a panic", n)
	}
}

func TestOneEncodingServesAll(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 2)
	var clients []*client
	for range 40 {
		c, _ := w.tail("topic=orders", "")
		clients = append(clients, c)
	}
	w.produceN(part("orders", 0), 0, 100)
	for _, c := range clients {
		c.offsets(0, 0, 100)
	}
	eventually(t, "all is counted", func() bool { return testutil.ToFloat64(w.streams.metrics.events.WithLabelValues("orders")) == 4000 })
	if n := testutil.ToFloat64(w.streams.metrics.encoded); n != 100 {
		t.Errorf("encoded %v records, want 100", n)
	}
	// History is shared as well.
	for range 10 {
		c, _ := w.tail("topic=orders&from=earliest&format=base64", "")
		c.offsets(0, 0, 100)
	}
	if n := testutil.ToFloat64(w.streams.metrics.encoded); n > 200 {
		t.Errorf("encoded %v records, want 200", n)
	}
}

func TestTheEndIsLogged(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 1)
	c, _ := w.tail("topic=orders", "")
	w.produce(part("orders", 0), "secret")
	c.offsets(0, 0, 1)
	_ = c.conn.Close()
	eventually(t, "the line", func() bool { return strings.Contains(w.logged.String(), `"msg":"stream ended"`) })
	line := w.logged.String()
	for _, want := range []string{`"transaction_id":"tid_test"`, `"topics":"orders"`, `"mode":"envelope"`, `"events":1`, `"reason":"client"`, `"resumed":false`, `"gaps":0`} {
		if !strings.Contains(line, want) {
			t.Errorf("the line lacks %s: %s", want, line)
		}
	}
	if strings.Contains(line, "secret") {
		t.Error(line)
	}
}

// Anything that is not TCP, TLS for one, gets each write in one piece: there is no writev below it.
func TestOtherConnectionsGetOneWrite(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 2)
	st, err := w.streams.Admit(t.Context(), Request{Topics: []string{"orders"}, Unchunked: true})
	if err != nil {
		t.Fatal(err)
	}
	server, client := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); st.Serve(server, []byte("HEAD\n")) }()
	buf := make([]byte, 128<<10)
	n, err := client.Read(buf) // a Read of a pipe ends where the Write ends
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HEAD\nretry: ") || !strings.HasSuffix(string(buf[:n]), "\n\n") {
		t.Fatalf("first write: %q %v", buf[:n], err)
	}
	w.produceN(part("orders", 1), 0, 5)
	n, err = client.Read(buf)
	events, perr := parseText(string(buf[:n]))
	if err != nil || perr != nil || len(events) == 0 || !events[len(events)-1].hasID {
		t.Fatalf("second write: %q %v %v", buf[:n], err, perr)
	}
	_ = client.Close()
	<-done
}

// Two goroutines a stream: the one that writes and the one that notices that the client is gone.
func TestIdleStreamsTakeTwoGoroutines(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxPerAddress = 1000 })
	w.create("orders", 1, 1)
	w.tail("topic=orders", "")
	before := runtime.NumGoroutine()
	for range 100 {
		w.tail("topic=orders", "")
	}
	if n := runtime.NumGoroutine() - before; n > 210 {
		t.Errorf("100 streams take %d goroutines", n)
	}
}

// A reader at half the topic's rate is closed as slow, comes back with its id, and has every record in the end.
func TestSlowReaderComesBackAndLosesNothing(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxLagBytes = 256 << 10 })
	w.sendBuffer.Store(32 << 10)
	w.create("orders", 1, 1)
	const total, batch = 1500, 25
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		values := make([]string, batch)
		for i := range values {
			values[i] = strings.Repeat("x", 2048)
		}
		for range total / batch {
			w.produce(part("orders", 0), values...)
			time.Sleep(50 * time.Millisecond) // 1 MB/s
		}
	}()
	next, lastID, connects := int64(0), "orders/0:0", 0
	for next < total {
		c := w.connect("topic=orders", lastID)
		_ = c.conn.(*net.TCPConn).SetReadBuffer(16 << 10)
		for connects++; next < total; {
			_ = c.conn.SetReadDeadline(time.Now().Add(patience))
			e, err := c.next()
			if err != nil {
				break // cut or told to reconnect: half an event is no event
			}
			if e.hasID {
				lastID = e.id
			}
			if e.name != "" {
				continue
			}
			m, err := e.message()
			if err != nil || m.Offset > next {
				t.Fatalf("got offset %d, want %d: %v", m.Offset, next, err)
			}
			next = max(next, m.Offset+1)
			select {
			case <-produced:
			default:
				time.Sleep(4 * time.Millisecond) // 0.5 MB/s
			}
		}
		_ = c.conn.Close()
	}
	<-produced
	if connects < 2 {
		t.Error("it was never closed as slow")
	}
	t.Logf("%d connects", connects)
}
