package stream

import (
	"sync"
	"time"
)

// bell wakes all streams over the same set of partitions: it says that something changed, they look themselves. It
// rings at most once in its quiet time, on the leading edge: the first change after a quiet spell rings at once.
type bell struct {
	quiet time.Duration

	mu   sync.Mutex
	ch   chan struct{}
	last time.Time
	due  bool

	key   string // of the registry, which also counts the users
	users int
	feeds []*feed
}

func newBell(quiet time.Duration) *bell {
	return &bell{quiet: quiet, ch: make(chan struct{})}
}

// channel is closed at the next ring. Take it before looking for changes.
func (b *bell) channel() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.due {
		return
	}
	if wait := b.quiet - time.Since(b.last); wait > 0 {
		b.due = true
		time.AfterFunc(wait, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.wake()
		})
		return
	}
	b.wake()
}

func (b *bell) wake() {
	b.due, b.last = false, time.Now()
	close(b.ch)
	b.ch = make(chan struct{})
}

// wheel is the clock of all streams: a channel per slot, closed when its time comes. A timer per connection would be
// half the cost of an idle one.
type wheel struct {
	width time.Duration
	begun time.Time

	mu    sync.Mutex
	turn  int64 // slots that have come
	slots [64]chan struct{}
}

func newWheel(width time.Duration, now time.Time) *wheel {
	w := &wheel{width: width, begun: now}
	for i := range w.slots {
		w.slots[i] = make(chan struct{})
	}
	return w
}

// at is a channel that is closed once t has come, or earlier if t lies beyond the wheel: look again then.
func (w *wheel) at(t time.Time) <-chan struct{} {
	slot := int64((t.Sub(w.begun) + w.width - 1) / w.width)
	w.mu.Lock()
	defer w.mu.Unlock()
	slot = min(max(slot, w.turn+1), w.turn+int64(len(w.slots))-1)
	return w.slots[slot%int64(len(w.slots))]
}

// advance wakes whoever waits for a time that has come.
func (w *wheel) advance(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for come := int64(now.Sub(w.begun) / w.width); w.turn < come; {
		w.turn++
		i := w.turn % int64(len(w.slots))
		close(w.slots[i])
		w.slots[i] = make(chan struct{})
	}
}
