package partition

import (
	"fmt"

	"github.com/sluicegate/sluice"
)

// Live reports whether the Source follows the partition.
func (l *Log) Live(p sluice.Partition) bool {
	t := l.tail(p)
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live
}

// Forget lets go of everything in memory, so that a test can measure what it was.
func (l *Log) Forget() {
	l.store = newStore(l.cfg.CacheBytes, l.metrics)
	clear(l.tails)
}

// Check looks whether what is in memory is in order and within the budgets, and the accounts are right.
func (l *Log) Check() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	ringBytes := 0
	for p, t := range l.tails {
		t.mu.Lock()
		bytes, records, err := inOrder(t.ring.chunks, true)
		ringBytes += bytes
		switch r := t.ring; {
		case err != nil:
		case bytes != r.bytes || records != r.records:
			err = fmt.Errorf("%d B and %d records are counted as %d and %d", bytes, records, r.bytes, r.records)
		case bytes > l.cfg.RingBytes || records > l.cfg.RingRecords:
			err = fmt.Errorf("%d B and %d records", bytes, records)
		case len(r.chunks) > 0 && (r.chunks[0].from != r.base || r.newest().next != r.next):
			err = fmt.Errorf("chunks from %d to %d, said to be from %d to %d", r.chunks[0].from, r.newest().next, r.base, r.next)
		}
		t.mu.Unlock()
		if err != nil {
			return fmt.Errorf("ring of %v: %w", p, err)
		}
	}
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	total, chunks := 0, 0
	for p, list := range s.chunks {
		bytes, _, err := inOrder(list, false)
		if err != nil {
			return fmt.Errorf("cache of %v: %w", p, err)
		}
		total += bytes
		chunks += len(list)
	}
	switch {
	case total != s.bytes || total > s.max || chunks != s.recent.Len():
		return fmt.Errorf("cache: %d B in %d chunks, counted as %d in %d", total, chunks, s.bytes, s.recent.Len())
	case ringBytes > 2*max(l.rings, len(l.tails)*leastRing):
		return fmt.Errorf("rings: %d B in %d rings", ringBytes, len(l.tails))
	case int64(total) != l.metrics.cacheBytes.Load() || int64(ringBytes) != l.metrics.ringBytes.Load():
		return fmt.Errorf("gauges: %d and %d B, are %d and %d", l.metrics.cacheBytes.Load(), l.metrics.ringBytes.Load(), total, ringBytes)
	case len(s.flights) > 0 || len(s.questions) > 0:
		return fmt.Errorf("%d flights and %d questions are left", len(s.flights), len(s.questions))
	}
	return nil
}

func inOrder(chunks []*chunk, whole bool) (bytes, records int, err error) {
	at := int64(-1)
	for _, c := range chunks {
		if c.from < at || (whole && at >= 0 && c.from != at) || c.next < c.from {
			return 0, 0, fmt.Errorf("[%d, %d) follows %d", c.from, c.next, at)
		}
		at = c.from
		for _, r := range c.recs {
			if r.Offset < at || r.Offset >= c.next {
				return 0, 0, fmt.Errorf("offset %d in [%d, %d)", r.Offset, c.from, c.next)
			}
			at = r.Offset + 1
		}
		at = c.next
		bytes += c.bytes
		records += len(c.recs)
	}
	return bytes, records, nil
}
