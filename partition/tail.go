package partition

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	keep       = time.Minute      // a partition is followed so long after the last reader asked
	rouse      = 30 * time.Second // those who wait are woken after so long, so that they ask again
	startFresh = 30 * time.Second // the start of a partition moves with retention alone, which looks every few minutes

	reopenFirst = time.Second
	reopenMost  = 5 * time.Second
)

var closedBell = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// tail is one followed partition: the ring, the bell, and the goroutine that keeps the Source following.
type tail struct {
	log    *Log
	p      sluice.Partition
	ctx    context.Context
	cancel context.CancelFunc
	before *tail         // the one that followed the partition earlier; two at once are refused by the Source
	done   chan struct{} // closed when run has ended

	mu      sync.Mutex
	bell    chan struct{}
	asked   time.Time
	alarm   *time.Timer
	ring    ring
	begun   bool               // the ring has a place in the log
	id      sluice.TopicID     // what the ring holds is of this one
	again   context.CancelFunc // ends the Follow under way; nil when there was none
	live    bool               // the Source follows: what is not in the ring has not been written yet
	end     int64
	start   int64
	startAt time.Time
	trouble sluice.Kind // of the last failure, "" after a success
	over    bool
}

func newTail(l *Log, p sluice.Partition, before *tail) *tail {
	t := &tail{log: l, p: p, before: before, done: make(chan struct{}), bell: make(chan struct{}), asked: time.Now()}
	t.ctx, t.cancel = context.WithCancel(l.ctx)
	t.alarm = time.AfterFunc(rouse, t.check)
	return t
}

// ask is the bell, and keeps the tail alive.
func (t *tail) ask() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = time.Now()
	return t.bell
}

// wake rings the bell.
func (t *tail) wake() {
	if t.over {
		return // rung for the last time
	}
	close(t.bell)
	t.bell = make(chan struct{})
}

// read answers from the ring, or says that an offset is the end of the partition.
func (t *tail) read(from int64, maxBytes int) (recs []*sluice.Record, next int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun || from < t.ring.base {
		return nil, 0, false
	}
	if from < t.ring.next {
		t.asked = time.Now()
		return find(t.ring.chunks, from).cut(from, maxBytes)
	}
	// Replicas differ by milliseconds: a reader may come from one that was ahead of this.
	if t.live && (from == t.ring.next || from <= t.end) {
		t.asked = time.Now()
		return nil, from, true
	}
	return nil, 0, false
}

// known is the range, as far as the tail can tell.
func (t *tail) known() (sluice.Range, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live || time.Since(t.startAt) > startFresh {
		return sluice.Range{}, false
	}
	return sluice.Range{Start: t.start, End: max(t.ring.next, t.end)}, true
}

// heard notes an end that a fetch told.
func (t *tail) heard(end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = max(t.end, end)
}

func (t *tail) begins(start int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start, t.startAt = start, time.Now()
}

// baseAbove is where the ring begins, if that is above an offset, else -1.
func (t *tail) baseAbove(offset int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun || t.ring.base <= offset {
		return -1
	}
	return t.ring.base
}

// run keeps following until the tail ends.
func (t *tail) run() {
	defer t.finish()
	if t.before != nil {
		<-t.before.done
		t.before = nil
	}
	pause := reopenFirst
	for t.ctx.Err() == nil {
		err := t.follow()
		if t.ctx.Err() != nil {
			return
		}
		was, news := t.lost(err)
		if was {
			pause = reopenFirst
		}
		if news {
			t.log.log.Warn("partition cannot be followed", slog.String("partition", t.p.String()), slog.Any("error", err))
		}
		select {
		case <-time.After(pause*3/4 + rand.N(pause/2)):
		case <-t.ctx.Done():
		}
		pause = min(pause*2, reopenMost)
	}
}

func (t *tail) follow() error {
	ctx, cancel := context.WithTimeout(t.ctx, fetchTimeout)
	defer cancel()
	if err := t.log.identify(ctx, t.p.Topic); err != nil {
		return err
	}
	id := t.log.store.id(t.p.Topic)
	r, err := t.log.source.Range(ctx, t.p)
	if err != nil {
		return err
	}
	ctx, again := context.WithCancel(t.ctx)
	defer again()
	t.open(r, id, again)
	return t.log.source.Follow(ctx, t.p, r.End, t.add)
}

// anew empties the ring, for what it holds is of an earlier topic of the same name, and has the partition opened again.
func (t *tail) anew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun {
		return
	}
	t.release(t.ring.restart(0), false)
	t.begun, t.live = false, false
	t.again()
	t.wake()
}

// open gives the ring its place: the end, so that nothing is read which nobody asked for. What is older stays in the
// cache, unless the log is shorter now than what was seen of it: then it was cut.
func (t *tail) open(r sluice.Range, id sluice.TopicID, again context.CancelFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.again = again
	if t.id != id { // it was made anew while nobody followed it
		t.release(t.ring.restart(0), false)
		t.begun = false
	}
	t.id = id
	t.start, t.startAt, t.end = r.Start, time.Now(), r.End
	switch {
	case !t.begun:
		t.begun = true
		t.ring.restart(r.End)
	case r.End < t.ring.next:
		t.log.store.forget(t.p, r)
		t.release(t.ring.restart(r.End), false)
	case r.End > t.ring.next:
		t.release(t.ring.restart(r.End), true)
	}
	t.wake() // who looked before has seen an older end
}

// add takes what the Source brings.
func (t *tail) add(in sluice.Chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun || t.over {
		return
	}
	if !t.live {
		t.live, t.trouble = true, ""
		t.wake()
	}
	t.end = max(t.end, in.End, in.Next)
	if in.Next <= t.ring.next {
		return
	}
	if in.From != t.ring.next { // against the contract; a ring with a hole would hide records
		t.release(t.ring.restart(in.From), true)
	}
	grown := -t.ring.bytes
	left := t.ring.add(in, t.log.ringBytes(), t.log.cfg.RingRecords)
	grown += t.ring.bytes
	t.log.metrics.ringBytes.Add(int64(grown))
	t.log.store.put(t.p, t.id, left...)
	t.wake()
}

// lost notes that following ended, and reports whether it had begun and whether the reason is a new one. Then readers
// are woken, so that they meet it themselves.
func (t *tail) lost(err error) (was, news bool) {
	t.mu.Lock()
	was, t.live = t.live, false
	t.mu.Unlock()
	if gone(err) {
		t.log.discard(t.p.Topic, nil) // this ring as well: nothing may stay of a topic without an id
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if kind := sluice.KindOf(err); kind != t.trouble || was {
		t.trouble = kind
		t.wake()
		return was, true
	}
	return was, false
}

// release takes chunks that left the ring out of its account, and hands them to the cache.
func (t *tail) release(left []*chunk, cache bool) {
	for _, c := range left {
		t.log.metrics.ringBytes.Add(-int64(c.bytes))
	}
	if cache {
		t.log.store.put(t.p, t.id, left...)
	}
}

// check runs when the alarm goes off: it ends a tail that nobody has asked for lately, and before that wakes those who
// wait, for they are silent as long as nothing comes.
func (t *tail) check() {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	t.mu.Lock()
	idle := time.Since(t.asked)
	switch {
	case t.over:
	case idle < rouse:
		t.alarm.Reset(rouse - idle)
		t.recognize()
	case idle < keep:
		t.wake()
		t.alarm.Reset(keep - idle)
	default:
		t.mu.Unlock()
		t.log.drop(t.p, t)
		return
	}
	t.mu.Unlock()
}

// recognize looks whether a partition that is read all the time is still of the same topic: one that was made anew and
// filled beyond the old end between two polls looks to the live feed as if nothing had happened.
func (t *tail) recognize() {
	t.log.spawn(func() {
		ctx, cancel := context.WithTimeout(t.ctx, fetchTimeout)
		defer cancel()
		_ = t.log.identify(ctx, t.p.Topic) // who reads meets the error itself
	})
}

// drop ends a tail; l.mu is held. Its last words are a ring of the bell.
func (l *Log) drop(p sluice.Partition, t *tail) {
	delete(l.tails, p)
	l.followed.Store(int64(len(l.tails)))
	l.leaving[p] = t
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.alarm.Stop()
	t.cancel()
	t.release(t.ring.restart(t.ring.next), true)
	close(t.bell)
}

// finish lets the next one follow.
func (t *tail) finish() {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	if t.log.leaving[t.p] == t {
		delete(t.log.leaving, t.p)
	}
	close(t.done)
}
