package stream

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

// feed encodes the end of one partition in one variant, once for all streams that follow it. It lives while it has
// users, and half a minute longer, so that clients that come back find it warm.
type feed struct {
	id      int
	p       sluice.Partition
	variant variant
	streams *Streams
	events  prometheus.Counter // sluice_sse_events_total of the topic

	head  atomic.Int64 // every record below it is in the chain or was never there; stored after the frames
	total atomic.Int64 // bytes of the chain since it began

	mu     sync.Mutex
	oldest *segment // where the kept part of the chain begins
	tail   *segment
	bells  []*bell

	users   int       // with unused, under Streams.mu
	unused  time.Time // when the last user left
	history []int64   // total at each of the last sweeps; the sweeper's
	stop    context.CancelFunc
}

const (
	keptBytes   = 1 << 20   // of the chain behind the head, for streams that have almost caught up
	readBytes   = 256 << 10 // asked of the partition log at one time
	feedIdle    = 30 * time.Second
	feedStumble = time.Second // between two tries of a read that failed
)

// run encodes from the head on until ctx ends. A panic costs this chain: the streams read what comes next by
// themselves, and the feed goes on behind it.
func (f *feed) run(ctx context.Context) {
	for f.follow(ctx); ctx.Err() == nil; f.follow(ctx) {
		select {
		case <-time.After(feedStumble):
		case <-ctx.Done():
			return
		}
		head := f.head.Load()
		if r, err := f.streams.source.Range(ctx, f.p); err == nil {
			head = max(head, r.End)
		}
		f.restart(head)
	}
}

func (f *feed) follow(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			f.streams.panicked("feed", v, debug.Stack())
		}
	}()
	e := f.streams.encoder(f.p, f.variant)
	var scratch []byte
	for failing := sluice.Kind(""); ; {
		changed := f.streams.source.Changed(f.p) // before looking, or a wake-up is lost
		recs, next, err := f.streams.source.Read(ctx, f.p, f.head.Load(), readBytes)
		if ctx.Err() != nil {
			return
		}
		if err == nil && next > f.head.Load() {
			failing = ""
			scratch = f.append(e, scratch, recs, next)
			continue
		}
		if kind := sluice.KindOf(err); kind != failing { // a repeated failure is logged when it changes
			failing = kind
			if err != nil {
				f.streams.log.Warn("a partition cannot be followed", slog.String("partition", f.p.String()), slog.Any("error", err))
			}
		}
		var pause <-chan time.Time
		if err != nil {
			f.stumble(ctx, err)
			pause, changed = time.After(feedStumble), nil
		}
		select {
		case <-changed:
		case <-pause:
		case <-ctx.Done():
			return
		}
	}
}

// append encodes records and publishes each, then wakes the streams.
func (f *feed) append(e *encoder, scratch []byte, recs []*sluice.Record, next int64) []byte {
	now := time.Now().UnixNano()
	for _, r := range recs {
		scratch = e.append(scratch[:0], r)
		f.add(scratch, r.Offset, now)
	}
	if cap(scratch) > largeSegment {
		scratch = nil // one giant must not stay for ever
	}
	f.streams.metrics.encoded.Add(float64(len(recs)))
	f.head.Store(next)
	f.ringAll()
	return scratch
}

// add puts one frame at the end of the chain. Segments double as long as records keep coming.
func (f *feed) add(b []byte, offset, now int64) {
	t := f.tail // only this goroutine changes it
	if !t.room(len(b)) {
		size := max(min(2*len(t.buf), largeSegment), smallSegment, len(b))
		next := newSegment(offset, t.base+int64(t.used), size)
		next.add(b, offset+1, now)
		f.mu.Lock()
		t.next.Store(next)
		f.tail = next
		for kept := f.oldest.next.Load(); kept != f.tail && kept != nil && next.base-kept.base > keptBytes; kept = f.oldest.next.Load() {
			f.oldest = kept
		}
		f.mu.Unlock()
	} else {
		t.add(b, offset+1, now)
	}
	f.total.Add(int64(len(b)))
}

// stumble looks why the head cannot be read. If the log does not have it any more, the chain is over: each stream finds
// out for itself what it lost, and the feed goes on where the log is now.
func (f *feed) stumble(ctx context.Context, err error) {
	switch sluice.KindOf(err) {
	case sluice.UnknownTopic, sluice.UnknownPart:
		f.streams.look(f.p.Topic)
	case sluice.OutOfRange:
		f.streams.look(f.p.Topic) // it may have been created again
		r, err := f.streams.topics.Range(ctx, f.p)
		head := f.head.Load()
		if err != nil || r.Start <= head && head <= r.End {
			return
		}
		f.restart(max(r.Start, min(head, r.End)))
	}
}

// restart begins an empty chain and tells the readers of the old one that nothing follows it.
func (f *feed) restart(head int64) {
	f.mu.Lock()
	old := f.tail
	f.tail = newSegment(head, f.total.Load(), smallSegment)
	f.oldest = f.tail
	f.head.Store(head)
	old.next.Store(broken)
	f.mu.Unlock()
	f.ringAll()
}

// attach finds the frame that a reader with this next offset goes on with. It fails if the chain begins above. ahead says
// that the chain has not got there yet.
func (f *feed) attach(next int64) (seg *segment, i int, ahead, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if next < f.oldest.first {
		return nil, 0, false, false
	}
	ahead = next > f.head.Load()
	for seg = f.oldest; ; seg = seg.next.Load() {
		n := int(seg.n.Load())
		if n > 0 && seg.frames[n-1].next > next {
			for i = 0; seg.frames[i].next <= next; i++ {
			}
			return seg, i, ahead, true
		}
		if seg == f.tail {
			return seg, n, ahead, true
		}
	}
}

func (f *feed) ringAll() {
	f.mu.Lock()
	bells := f.bells
	f.mu.Unlock()
	for _, b := range bells {
		b.ring()
	}
}
