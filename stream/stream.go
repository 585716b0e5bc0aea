package stream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicegate/sluice"
)

// Stream is one response: a cursor over the partitions of a request. From Serve on it belongs to the goroutine that
// writes; what others touch is atomic.
type Stream struct {
	streams   *Streams
	req       Request
	conn      net.Conn
	retry     time.Duration
	heartbeat time.Duration
	born      time.Time
	endOfLife time.Time

	views  []*view // of req.Topics; nil for one that is gone
	known  []*knownTopic
	cursor sluice.Cursor
	places []*place
	turn   int // the place that is served first
	bell   *bell

	resumed    bool
	result     string
	live       bool
	moved      bool // the position has moved since the last id was sent
	catchingUp bool // under Streams.mu
	lastWrite  time.Time

	out     output
	events  int64
	scanned int64
	gaps    int64

	claimed  atomic.Bool
	released sync.Once
	ctx      context.Context // ends when the client is gone or the stream is told to end
	cancel   context.CancelFunc
	ending   atomic.Pointer[ending]
	endedAt  atomic.Int64 // unix ns, when the sweep first found it ending
	held     atomic.Int64 // bytes of history it is sending
	marks    []*mark      // of the places, for the sweep; under Streams.mu
}

// place is where the stream stands in one partition.
type place struct {
	p     sluice.Partition
	topic int                     // index in req.Topics
	slot  *sluice.PartitionCursor // in the cursor: the next offset
	end   int64                   // of the partition, when it was last asked for
	gap   *gap                    // to be told first

	feed    *feed
	seg     *segment // nil: behind the chain, or not yet in it
	i       int      // the next frame in seg
	block   int64    // where to go on after seg, if that is history; else 0
	suspect bool     // the chain broke or the log refused: look whether the offset still exists
	above   int      // looks that found the offset above the end
	cleared bool     // Kafka has the offset, though this replica's chain may not have it yet
	wait    time.Time
	mark    *mark
}

// mark is what the sweep sees of a place: how many bytes of the feed's chain are behind it, -1 while it reads history.
type mark struct {
	feed *feed
	read atomic.Int64
}

// resumesAt is the offset that the stream really goes on from.
func (p *place) resumesAt() int64 {
	if p.gap != nil {
		return p.gap.to
	}
	return p.slot.Next
}

// ending is why a stream ends. Metrics and the log have the name; the client gets an event if there is one.
type ending struct {
	name      string
	reconnect string   // reason of the reconnect event
	refusal   *Refusal // or the error event
	cut       bool     // the socket does not take anything any more
	drop      string   // label of dropped_total: we cut it
}

var (
	endClient   = &ending{name: "client", cut: true}
	endDeadline = &ending{name: "slow", cut: true, drop: "deadline"}
	endSlow     = &ending{name: "slow", reconnect: "slow", drop: "slow"}
	endBuffer   = &ending{name: "slow", reconnect: "slow", drop: "buffer"}
	endLifetime = &ending{name: "lifetime", reconnect: "lifetime"}
	endDrain    = &ending{name: "drain", reconnect: "drain"}
	endPanic    = &ending{name: "error", cut: true, drop: "panic"}
)

// end tells the stream why to end; the first reason counts.
func (st *Stream) end(e *ending) {
	if st.ending.CompareAndSwap(nil, e) && st.claimed.Load() {
		if cancel := st.cancelFunc(); cancel != nil {
			cancel()
		}
	}
}

func (st *Stream) topicIndex(name string) int { return slices.Index(st.req.Topics, name) }

// buildCursor makes the cursor of the places and lets each place point into it. Offsets are kept.
func (st *Stream) buildCursor() {
	st.cursor.Topics = nil
	for i, name := range st.req.Topics {
		if v := st.views[i]; v != nil {
			t := sluice.TopicCursor{Name: sluice.NameTagOf(name), Log: v.log, Count: v.count}
			for _, p := range st.places {
				if p.topic == i {
					pc := sluice.PartitionCursor{Number: p.p.Number}
					if p.slot != nil {
						pc.Next = p.slot.Next
					}
					t.Partitions = append(t.Partitions, pc)
				}
			}
			st.cursor.Topics = append(st.cursor.Topics, t)
		}
	}
	st.cursor.Sort()
	for i := range st.cursor.Topics {
		t := &st.cursor.Topics[i]
		for _, p := range st.places {
			if sluice.NameTagOf(p.p.Topic) == t.Name {
				j, _ := slices.BinarySearchFunc(t.Partitions, p.p.Number, func(c sluice.PartitionCursor, n int32) int { return int(c.Number) - int(n) })
				p.slot = &t.Partitions[j]
			}
		}
	}
}

// variant is that of one place: ids stand in the shared frames if the stream has exactly one partition.
func (st *Stream) variant(p *place) variant {
	v := variant{key: st.req.Key, value: st.req.Value}
	if st.plain() {
		seen := st.views[p.topic]
		v.ids, v.log, v.count = true, seen.log, seen.count
	}
	return v
}

func (st *Stream) plain() bool { return len(st.places) == 1 }

// follow takes the feeds and the bell of all places. Those it had are given back after, so that they stay warm.
func (st *Stream) follow() {
	feeds := make([]*feed, len(st.places))
	for i, p := range st.places {
		feeds[i] = st.streams.acquireFeed(p.p, st.variant(p), p.end)
	}
	b := st.streams.acquireBell(feeds)
	st.unfollow()
	st.bell = b
	marks := make([]*mark, len(st.places))
	for i, p := range st.places {
		marks[i] = &mark{feed: feeds[i]}
		marks[i].read.Store(-1)
		p.feed, p.mark = feeds[i], marks[i]
		p.seg, p.i, p.block = nil, 0, 0
	}
	st.streams.mu.Lock()
	st.marks = marks
	st.streams.mu.Unlock()
}

func (st *Stream) unfollow() {
	if st.bell == nil {
		return
	}
	st.streams.releaseBell(st.bell)
	for _, f := range st.bell.feeds {
		st.streams.releaseFeed(f)
	}
	st.bell = nil
}

func (st *Stream) cancelFunc() context.CancelFunc {
	st.streams.mu.Lock()
	defer st.streams.mu.Unlock()
	return st.cancel
}

// serve is the life of the connection.
func (st *Stream) serve(conn net.Conn, head []byte) {
	s := st.streams
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.mu.Lock()
	st.conn, st.ctx, st.cancel = conn, ctx, cancel
	s.mu.Unlock()
	st.out = output{conn: conn, chunked: !st.req.Unchunked, deadline: s.cfg.WriteDeadline, metrics: s.metrics}
	tuneSocket(conn)
	for i, name := range st.req.Topics {
		k := s.acquireTopic(name, st.views[i])
		st.known = append(st.known, k)
		if seen := k.view.Load(); *seen == *st.views[i] {
			st.views[i] = seen
		}
	}
	s.metrics.connects.WithLabelValues(st.result).Inc()
	st.count(1)

	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		st.watch()
	}()
	err := st.guarded(head)
	why := st.farewell(err)

	conn.Close() // ends the watcher
	<-watcher
	st.unfollow()
	for _, k := range st.known {
		s.releaseTopic(k)
	}
	st.count(-1)
	s.metrics.closed.WithLabelValues(why.name).Inc()
	if why.drop != "" {
		s.metrics.dropped.WithLabelValues(why.drop).Inc()
	}
	st.report(why)
}

// guarded runs the loop. A panic ends this stream and nothing else: the HTTP server cannot see it.
func (st *Stream) guarded(head []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			st.streams.panicked("stream", v, debug.Stack())
			st.end(endPanic)
			err = errPanic
		}
	}()
	return st.run(head)
}

// watch notices that the client is gone. A client that has half-closed is gone; one that talks on is not ours to read.
func (st *Stream) watch() {
	defer func() {
		if v := recover(); v != nil {
			st.streams.panicked("watcher", v, debug.Stack())
			st.end(endPanic)
		}
	}()
	var small [64]byte
	for total := 0; total <= 1<<10; {
		n, err := st.conn.Read(small[:])
		if total += n; err != nil {
			break
		}
	}
	st.end(endClient)
}

// farewell says why the stream ends, if the socket still takes it.
func (st *Stream) farewell(err error) *ending {
	if r, ok := errors.AsType[*Refusal](err); ok {
		st.streams.metrics.refusals.WithLabelValues(strconv.Itoa(r.Code)).Inc()
		st.end(&ending{name: "error", refusal: r})
	} else if err != nil {
		st.end(endingOf(err))
	}
	why := st.ending.Load()
	if why.cut || st.out.broken {
		return why
	}
	b := st.out.scratch()
	switch {
	case why.refusal != nil:
		b = appendError(b, why.refusal)
	case why.reconnect != "":
		retry := st.retry
		if why == endDrain {
			retry = between(time.Second, 15*time.Second)
		}
		b = append(appendID(appendReconnect(b, why.reconnect, retry), &st.cursor), '\n')
	}
	_ = st.out.last(b) // who does not take it has its id from before
	return why
}

func (st *Stream) report(why *ending) {
	s := st.streams
	s.metrics.duration.Observe(time.Since(st.born).Seconds())
	s.log.Info("stream ended",
		slog.String("transaction_id", st.req.ID), slog.String("principal", st.req.Principal), slog.String("topics", strings.Join(st.req.Topics, ",")),
		slog.String("mode", modeEnvelope), slog.Duration("duration", time.Since(st.born)), slog.Int64("events", st.events), slog.Int64("bytes", st.out.bytes),
		slog.String("reason", why.name), slog.Bool("resumed", st.resumed), slog.Int64("gaps", st.gaps))
}

// count enters the stream in the gauge of connections.
func (st *Stream) count(n float64) {
	topic := "several"
	if len(st.req.Topics) == 1 {
		topic = st.streams.metrics.topicLabel(st.req.Topics[0])
	}
	st.streams.metrics.connections.WithLabelValues(topic, modeEnvelope, stateName(st.live)).Add(n)
}

func stateName(live bool) string {
	if live {
		return "live"
	}
	return "catching-up"
}

// setLive notes whether every place is in its chain.
func (st *Stream) setLive(live bool) {
	if st.live == live {
		return
	}
	st.count(-1)
	st.live = live
	st.count(1)
	if live {
		st.streams.giveCatchUp(st)
	}
}

// cut closes the connection under the writer. A stream that was never handed a connection is released.
func (st *Stream) cut() {
	st.end(endClient)
	if st.claimed.CompareAndSwap(false, true) {
		st.Release()
		return
	}
	st.streams.mu.Lock()
	conn := st.conn
	st.streams.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}
