package dispatcher

import (
	"container/heap"
	"slices"
	"time"

	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

// plan is what a lane needs to know of its subscription. A new one counts for what is not under way yet.
type plan struct {
	retries
	Name     uint64 // a hash of the subscription's id
	Ordering string
	Window   int // most attempts in flight on this lane
	MaxHoles int // what the commit metadata can tell
	MaxSpan  int64
}

// lane is one subscription on one partition as a pure state machine: step takes an event and answers with commands. It
// knows no network and no clock, waits for nothing and holds no lock; its runner does all that.
//
//	    taken from the log                     S, filtered
//	            │                                   ▲
//	key free ┌──┴──┐ key blocked                    │
//	         ▼     ▼                                │
//	      ready  queued            send ─► flying ──┼─ R C G ─► parked ─► ready (when due)
//	         │     └─► ready, when the   ▲          ├─ E T ───► parked, and the lane is held
//	         │         one before is done│          └─ P, spent ─► buried ─► done (letter acknowledged)
//	         └────────── room ───────────┘
type lane struct {
	plan   *plan // shared by the lanes of a subscription
	ledger *progress.Ledger
	jitter func() float64

	jobs  map[int64]*job
	keys  map[uint64]*job // the last record in line of every key that has one
	ready byOffset
	later byDue
	free  []*job // for the next records
	spent []*job // to be free from the next step on: commands may still name them

	open   int // jobs that are ready or flying: what fills the window
	flying int
	graves int // jobs whose letter is being written

	reading bool // a read is under way
	atEnd   bool // nothing to read until the bell
	loading int64
	asked   int64   // offset that a sender slot was asked for
	rebuild []int64 // holes of a predecessor whose keys are not known yet, ascending

	suspended   bool
	shut        bool      // the progress group takes no commits: what is sent now is sent again by the next owner
	holds       uint32    // grows with every hold
	heldUntil   time.Time // nothing is sent before, unless an attempt that was under way gets through
	pausedUntil time.Time // nothing is sent before, whatever gets through: the endpoint asked for it
	waitUntil   time.Time // nothing is sent before: a predecessor may be sending
	unpinned    bool      // nothing is sent before Kafka knows who does
	probing     bool      // one attempt at a time until one gets through
	streak      int       // E or T in a row
	barred      bool      // a dead letter could not be written: nothing goes on until it is
	barUntil    time.Time
	averaged    int // bytes of a record, moving average

	completions int // since the runner last asked
	out         []command
}

const none int64 = -1

// newLane begins where a ledger stands. In key mode the holes of a predecessor are read first, to learn their keys.
func newLane(p *plan, l *progress.Ledger, now time.Time, jitter func() float64) *lane {
	n := &lane{
		plan: p, ledger: l, jitter: jitter, jobs: map[int64]*job{}, keys: map[uint64]*job{},
		loading: none, asked: none, averaged: 1024,
	}
	for h := range l.Holes() {
		j := &job{offset: h.Offset, attempts: h.Attempts, first: h.First, due: p.due(h.Attempts, h.First, now, turnOf(p.Name, h.Offset))}
		n.jobs[j.offset] = j
		if p.Ordering == subscriptions.OrderKey {
			n.rebuild = append(n.rebuild, j.offset)
			continue
		}
		n.line(j, nil, now)
	}
	return n
}

// step is the lane's only entrance. The commands are valid until the next step.
func (n *lane) step(now time.Time, e event) []command {
	n.out = n.out[:0]
	if n.jobs == nil {
		n.jobs, n.keys = map[int64]*job{}, map[uint64]*job{}
	}
	for i, j := range n.spent {
		*j = job{stage: settled}
		n.free = append(n.free, j)
		n.spent[i] = nil
	}
	n.spent = n.spent[:0]
	switch e.kind {
	case evRecords:
		n.records(now, e)
	case evReadFailed:
		n.reading = false
	case evLoaded:
		n.loaded(now, e)
	case evLoadFailed:
		n.loading = none
	case evBell:
		n.atEnd = false
	case evGranted:
		n.granted(now)
	case evResult:
		n.result(now, e)
	case evLettered:
		n.lettered(now, e)
	case evHold:
		n.pause(e.until)
	case evWait:
		n.waitUntil, n.unpinned = e.until, true
	case evPinned:
		n.unpinned = false
	case evGroup:
		if n.shut = e.failed; n.shut {
			n.strip()
			n.unask()
		}
	case evSuspend:
		n.suspended = true
		n.strip()
		n.unask()
	case evWake:
		n.suspended, n.atEnd = false, false
		n.ledger.Touch() // the clean flag of the last commit is not true any more
	case evPlan:
		n.plan = e.plan
	case evLost:
		n.lost(now, e.from)
	case evTimer:
	}
	n.advance(now)
	return n.out
}

// advance asks for what can be done next.
func (n *lane) advance(now time.Time) {
	if n.barred && !now.Before(n.barUntil) {
		n.barUntil = now.Add(letterPatience) // no second try while this one is under way
		for _, j := range n.jobs {
			if j.stage == buried && j.letter.failed > 0 {
				j.letter.failed = -j.letter.failed // asked again
				n.emit(command{kind: cmdLetter, job: j})
			}
		}
	}
	if n.suspended || n.barred || n.shut {
		return
	}
	for len(n.later) > 0 {
		j := n.later[0]
		if j.stage == parked && j.due.After(now) {
			break
		}
		heap.Pop(&n.later)
		if j.stage == parked {
			n.unblock(j, now)
		}
	}
	if len(n.rebuild) > 0 {
		n.load(n.rebuild[0], rebuildBytes)
		return
	}
	n.read(now)
	if n.probing && n.reading {
		return // a probe has a choice: what comes may be a better judge of the endpoint than what failed
	}
	n.send(now)
}

// send asks for a sender slot for the next record, or for the record first.
func (n *lane) send(now time.Time) {
	if n.asked != none || n.loading != none || !n.mayFly(now) {
		return
	}
	j := n.pick()
	switch {
	case j == nil:
	case j.record == nil:
		n.load(j.offset, loadBytes)
	default:
		n.asked = j.offset
		n.emit(command{kind: cmdAsk, job: j, bytes: j.record.Size()})
	}
}

func (n *lane) mayFly(now time.Time) bool {
	return !n.suspended && !n.barred && !n.shut && !n.unpinned && n.flying < n.plan.Window && !n.held(now) && (!n.probing || n.flying == 0)
}

func (n *lane) held(now time.Time) bool {
	return now.Before(n.heldUntil) || now.Before(n.pausedUntil) || now.Before(n.waitUntil)
}

// pick is the lowest record that is ready. A probe takes turns among the first eight instead, so that one bad record
// cannot keep a healthy endpoint shut.
func (n *lane) pick() *job {
	for len(n.ready) > 0 && n.ready[0].stage != ready {
		heap.Pop(&n.ready)
	}
	if len(n.ready) == 0 {
		return nil
	}
	best := n.ready[0]
	if !n.probing {
		return best
	}
	for _, j := range n.ready[:min(len(n.ready), probeChoice)] {
		if j.stage == ready && (j.began.Before(best.began) || j.began.Equal(best.began) && j.offset < best.offset) {
			best = j
		}
	}
	return best
}

// granted sends a record with the slot that was asked for; if there is none to send by now the slot goes back.
func (n *lane) granted(now time.Time) {
	j := n.jobs[n.asked]
	n.asked = none
	if j == nil || j.stage != ready || j.record == nil || !n.mayFly(now) {
		n.emit(command{kind: cmdReturn})
		return
	}
	heap.Remove(&n.ready, slices.Index(n.ready, j)) // the first but for probes
	j.stage, j.before, j.began, j.hold = flying, j.began, now, n.holds
	n.flying++
	n.emit(command{kind: cmdSend, job: j})
}

// unask withdraws the wish for a slot.
func (n *lane) unask() {
	if n.asked != none {
		n.asked = none
		n.emit(command{kind: cmdUnask})
	}
}

// wakeAt is when, after now, the lane has something to do although nothing happens; zero for never.
func (n *lane) wakeAt(now time.Time) (at time.Time) {
	sooner := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if n.barred {
		sooner(n.barUntil)
		return at
	}
	if n.suspended || n.shut {
		return at
	}
	if len(n.later) > 0 {
		sooner(n.later[0].due)
	}
	if n.held(now) {
		sooner(n.heldUntil)
		sooner(n.pausedUntil)
		sooner(n.waitUntil)
	}
	return at
}

// takeCompletions is how many records were done since the last call.
func (n *lane) takeCompletions() int {
	c := n.completions
	n.completions = 0
	return c
}

// trim gives back what a lane at rest does not need. A step makes it anew.
func (n *lane) trim() {
	if len(n.jobs) > 0 || len(n.rebuild) > 0 {
		return
	}
	n.jobs, n.keys, n.ready, n.later, n.free, n.spent, n.rebuild, n.out = nil, nil, nil, nil, nil, nil, nil, nil
	n.ledger.Trim()
}

func (n *lane) emit(c command) { n.out = append(n.out, c) }
