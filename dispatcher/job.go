package dispatcher

import (
	"container/heap"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/webhook"
)

// stage is where a record of a lane stands. Every job is a hole of the ledger.
type stage byte

const (
	queued  stage = iota // behind its key
	parked               // until due
	ready                // may be sent as soon as there is room
	flying               // an attempt is under way
	buried               // its dead letter is being written
	settled              // done, or lost
)

// job is one record on its way. Only one that is ready to go or under way holds the record itself; for the others it
// is read again from the partition log when their turn comes.
type job struct {
	offset   int64
	record   *sluice.Record
	next     *job // the record behind it with the same key
	hash     uint64
	attempts int       // charged
	first    time.Time // when the first charged attempt began
	began    time.Time // when the latest attempt began
	before   time.Time // when the one before it began; zero if there was none since the takeover
	due      time.Time
	hold     uint32 // the lane's hold count when it was sent: an old flight must not double a hold
	size     int32
	stage    stage
	keyed    bool
	faults   uint8 // G outcomes in a row
	panics   uint8
	letter   *letter
}

// letter is a job that is to be buried: why, and after what.
type letter struct {
	reason  string
	outcome webhook.Outcome
	class   webhook.Class
	failed  int
}

// byOffset and byDue are heaps of jobs. Both tolerate jobs that moved on: whoever pops looks at the stage.
type byOffset []*job

func (h byOffset) Len() int           { return len(h) }
func (h byOffset) Less(i, j int) bool { return h[i].offset < h[j].offset }
func (h byOffset) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byOffset) Push(x any)        { *h = append(*h, x.(*job)) }
func (h *byOffset) Pop() any          { return popLast((*[]*job)(h)) }

type byDue []*job

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h byDue) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byDue) Push(x any)        { *h = append(*h, x.(*job)) }
func (h *byDue) Pop() any          { return popLast((*[]*job)(h)) }

func popLast(s *[]*job) *job {
	last := len(*s) - 1
	j := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return j
}

var _, _ heap.Interface = (*byOffset)(nil), (*byDue)(nil)

// keyHash is 64-bit FNV-1a. Two keys that collide are only kept in order with each other.
func keyHash(key []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range key {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}
