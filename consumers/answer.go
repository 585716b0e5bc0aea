package consumers

import (
	"sync"

	"github.com/sluicegate/sluice"
)

// Answer is what a read gives. Its records count as delivered when the whole answer was written to the client's
// connection: whoever writes it says so by Settled, or by Lost if it was not, exactly once; until then no other read
// of the instance begins.
type Answer struct {
	Records []*sluice.Record
	// Err is set instead of records when the first record of the read cannot be decoded. The read fails with it, and
	// once the client has been told, the next one begins behind that record.
	Err error

	i      *Instance
	moves  []move
	number string // by which another replica confirms it, "" where the client is ours
	once   sync.Once
}

// move is how far an answer goes in one partition.
type move struct {
	c    *claim
	next int64
	last int64 // the last record of the answer, or NoOffset if it only passed a gap
}

// Settled says that the last byte of the answer reached the client's socket.
func (a *Answer) Settled() { a.end(true) }

// Lost says that it did not: the records come again.
func (a *Answer) Lost() { a.end(false) }

func (a *Answer) end(delivered bool) {
	a.once.Do(func() {
		if a.moves != nil {
			a.i.landed(a, delivered)
			a.i.doneReading()
		}
		a.i.leave()
	})
}

// landed moves the positions of what was delivered. A claim that went to another member meanwhile has been replaced;
// the positions of one that waits for the next generation count.
func (i *Instance) landed(a *Answer, delivered bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if delivered {
		for _, m := range a.moves {
			m.c.next, m.c.moved = m.next, true
			if m.last != sluice.NoOffset {
				m.c.last = m.last
			}
		}
		i.unsaved.Store(true)
		i.room.metrics.records.Add(float64(len(a.Records)))
		i.wantCommit()
	} else if len(a.Records) > 0 {
		i.room.metrics.lost.Inc()
	}
	delete(i.waiting, a.number)
	close(i.writing)
	i.writing = nil
}
