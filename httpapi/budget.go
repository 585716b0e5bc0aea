package httpapi

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// budget bounds the memory of all request bodies together. Beyond it the answer is 503 with Retry-After, before the
// body is read: a process that takes everything is killed and answers nobody.
type budget struct {
	mu    sync.Mutex
	used  int64
	limit int64
}

func newBudget(limit int64, reg prometheus.Registerer) *budget {
	b := &budget{limit: limit}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sluice_inflight_bytes", Help: "Memory held for request bodies."}, func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			return float64(b.used)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sluice_inflight_limit_bytes", Help: "Most that request bodies may hold."}, func() float64 { return float64(limit) }),
	)
	return b
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+n > b.limit {
		return false
	}
	b.used += n
	return true
}

// fits says that n bytes more could be taken now.
func (b *budget) fits(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used+n <= b.limit
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	b.used -= n
	b.mu.Unlock()
}

// exhausted says that not even a small body would be taken.
func (b *budget) exhausted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit-b.used < 64<<10
}

// lease is one request's part of the budget.
type lease struct {
	from *budget
	held int64
}

// grow makes sure that the lease covers n bytes in all.
func (l *lease) grow(n int64) error {
	if n <= l.held {
		return nil
	}
	if !l.from.take(n - l.held) {
		return errBudget
	}
	l.held = n
	return nil
}

// shrink gives back what is held above n bytes.
func (l *lease) shrink(n int64) {
	if n < l.held {
		l.from.give(l.held - n)
		l.held = n
	}
}

// release may be called more than once, and of a lease that never was.
func (l *lease) release() {
	if l.held > 0 {
		l.from.give(l.held)
		l.held = 0
	}
}
