package dispatcher

import (
	"container/heap"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// line puts a job in its place: behind its key, or where it may be sent.
func (n *lane) line(j *job, key []byte, now time.Time) {
	switch n.plan.Ordering {
	case subscriptions.OrderPartition:
		j.keyed, j.hash = true, 0
	case subscriptions.OrderKey:
		if len(key) > 0 { // null and empty keys have no order: some producers always send an empty one
			j.keyed, j.hash = true, keyHash(key)
		}
	}
	if j.keyed {
		last := n.keys[j.hash]
		n.keys[j.hash] = j
		if last != nil {
			last.next = j
			j.stage, j.record = queued, nil
			return
		}
	}
	n.unblock(j, now)
}

// unblock makes the first of its key ready, or parks it until it is due.
func (n *lane) unblock(j *job, now time.Time) {
	if j.due.After(now) {
		j.stage, j.record = parked, nil
		heap.Push(&n.later, j)
		return
	}
	j.stage = ready
	n.open++
	heap.Push(&n.ready, j)
}

func (n *lane) load(offset int64, bytes int) {
	if n.loading == none {
		n.loading = offset
		n.emit(command{kind: cmdLoad, from: offset, bytes: bytes})
	}
}

// read asks for more records while there is room for them.
func (n *lane) read(now time.Time) {
	room := n.room()
	if n.reading || n.atEnd || room <= 0 || n.held(now) || !n.fits(n.ledger.Next()) {
		return
	}
	n.reading = true
	n.emit(command{kind: cmdRead, from: n.ledger.Next(), bytes: min(max(room*n.averaged, leastRead), mostRead)})
}

// room is for how many more records that may be sent there is place: the window, and for a probe a few to choose from.
func (n *lane) room() int {
	if n.probing && n.plan.Ordering != subscriptions.OrderPartition {
		return probeChoice - n.open
	}
	return n.plan.Window - n.open
}

// fits is the rule of admission that keeps the commit metadata within its limit.
func (n *lane) fits(offset int64) bool {
	return n.ledger.Fits(offset, n.plan.MaxHoles, n.plan.MaxSpan)
}

// records takes what was read, as far as there is room. A record whose key is blocked is queued without its body and
// the next one is taken.
func (n *lane) records(now time.Time, e event) {
	n.reading = false
	if n.suspended || n.shut || e.from != n.ledger.Next() {
		return
	}
	if len(e.records) == 0 && e.next == e.from {
		n.atEnd = true
		return
	}
	for _, r := range e.records {
		if r.Offset < n.ledger.Next() {
			continue
		}
		if n.room() <= 0 || !n.fits(r.Offset) {
			n.ledger.Pass(r.Offset) // the gap before it is done; without this word it would be read again and again
			return
		}
		n.ledger.Offer(r.Offset)
		j := n.newJob()
		j.offset, j.record, j.size = r.Offset, r, int32(min(r.Size(), 1<<30))
		n.averaged += (int(j.size) - n.averaged) / 8
		if wait := n.plan.Schedule[0]; wait > 0 {
			j.due = now.Add(spread(wait, n.jitter()))
		}
		n.jobs[j.offset] = j
		n.line(j, r.Key, now)
	}
	n.ledger.Pass(e.next)
}

// loaded gives a job its record back. A hole whose record is gone is done: compaction took it.
func (n *lane) loaded(now time.Time, e event) {
	want := n.loading
	n.loading = none
	if len(n.rebuild) == 0 {
		if j := n.jobs[want]; j != nil && j.stage == ready {
			if r := find(e.records, want); r != nil {
				j.record = r
			} else if e.next > want {
				n.gone(j, now)
			}
		}
		return
	}
	for len(n.rebuild) > 0 && n.rebuild[0] < e.next {
		offset := n.rebuild[0]
		n.rebuild = n.rebuild[1:]
		j := n.jobs[offset]
		if j == nil {
			continue
		}
		r := find(e.records, offset)
		if r == nil {
			n.gone(j, now)
			continue
		}
		j.size = int32(min(r.Size(), 1<<30))
		n.line(j, r.Key, now)
	}
}

func (n *lane) gone(j *job, now time.Time) {
	n.emit(command{kind: cmdGone, job: j})
	n.finish(j, now)
}

func find(records []*sluice.Record, offset int64) *sluice.Record {
	lo, hi := 0, len(records)
	for lo < hi {
		if mid := (lo + hi) / 2; records[mid].Offset < offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(records) && records[lo].Offset == offset {
		return records[lo]
	}
	return nil
}

func (n *lane) newJob() *job {
	if last := len(n.free) - 1; last >= 0 {
		j := n.free[last]
		n.free = n.free[:last]
		*j = job{}
		return j
	}
	return &job{}
}
