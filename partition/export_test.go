package partition

import "github.com/sluicegate/sluice"

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
