package dispatcher

import (
	"container/heap"
	"time"

	"github.com/sluicegate/sluice/webhook"
)

// result is what came of an attempt.
func (n *lane) result(now time.Time, e event) {
	j := n.jobs[e.from]
	if j == nil || j.stage != flying {
		return // it was lost or given up meanwhile
	}
	n.flying--
	o := e.outcome
	if o.Facts.Fault == webhook.Panic {
		if j.panics++; j.panics >= 3 {
			o.Class, o.Reason = webhook.P, string(webhook.CrashSuspect)
		}
	}
	d := n.plan.decide(facts{
		Class: o.Class, Reason: o.Reason, Status: o.Status, RetryAfter: o.RetryAfter,
		Attempts: j.attempts, First: j.first, Began: j.began, Now: now,
		OthersPass: e.othersPass, Streak: n.streak, Faults: int(j.faults), Jitter: n.jitter(),
	})
	n.emit(command{kind: cmdReport, job: j, outcome: o, decision: d})
	if d.Class == webhook.G {
		j.faults = min(j.faults, 100) + 1
	} else {
		j.faults = 0
	}
	if d.Charged {
		if j.attempts++; j.attempts == 1 {
			j.first = j.began
		}
		n.ledger.Charge(j.offset, j.attempts, j.first)
	}
	if d.Class == webhook.S || d.Class != webhook.G && d.Verb < holdLane && o.Status > 0 {
		n.pass(now)
	}
	switch d.Verb {
	case deliver:
		n.finish(j, now)
	case again:
		n.open--
		n.wait(j, d.At)
	case bury:
		n.open--
		n.graves++
		j.stage, j.letter = buried, &letter{reason: d.Reason, outcome: *o, class: d.Class}
		n.emit(command{kind: cmdLetter, job: j})
	case holdLane, holdAll:
		n.open--
		fresh := j.hold == n.holds
		if !fresh && now.Before(n.heldUntil) {
			d.At = n.heldUntil // the lane learned it from another flight and waits already
		}
		n.wait(j, d.At)
		if fresh {
			n.streak++
			n.hold(d.At)
		}
		if d.Verb == holdAll {
			n.pause(d.At)
			n.emit(command{kind: cmdHoldAll, until: d.At})
		}
	}
}

// wait parks a job until it is due.
func (n *lane) wait(j *job, due time.Time) {
	j.stage, j.due, j.record = parked, due, nil
	heap.Push(&n.later, j)
}

// hold stops sending until a time; then one attempt probes. Bodies are not kept meanwhile.
func (n *lane) hold(until time.Time) {
	if until.After(n.heldUntil) {
		n.heldUntil = until
	}
	n.probing = true
	n.holds++
	n.strip()
	n.unask()
}

// pause is a hold that no late success ends.
func (n *lane) pause(until time.Time) {
	if until.After(n.pausedUntil) {
		n.pausedUntil = until
	}
	n.hold(until)
}

// pass is evidence that the endpoint answers: the lane is open, unless it was asked to wait.
func (n *lane) pass(now time.Time) {
	if now.Before(n.pausedUntil) {
		return
	}
	if n.probing {
		n.probing, n.heldUntil = false, time.Time{}
		n.holds++
	}
	n.streak = 0
}

// strip lets go of the bodies of what is not under way.
func (n *lane) strip() {
	for _, j := range n.ready {
		if j.stage == ready {
			j.record = nil
		}
	}
}

// lettered is the answer to a dead letter: only an acknowledged one is done. A lane that cannot write one stands.
func (n *lane) lettered(now time.Time, e event) {
	j := n.jobs[e.from]
	if j == nil || j.stage != buried {
		return
	}
	if e.failed {
		failures := max(j.letter.failed, -j.letter.failed) + 1
		j.letter.failed = failures
		n.barred, n.barUntil = true, now.Add(doubled(time.Second, time.Minute, failures-1))
		return
	}
	n.graves--
	n.finish(j, now)
	n.unbar(now)
}

// unbar opens the lane when no letter is left that failed; while there is one it is written again now.
func (n *lane) unbar(now time.Time) {
	if !n.barred {
		return
	}
	for _, j := range n.jobs {
		if j.stage == buried && j.letter.failed != 0 {
			n.barUntil = now
			return
		}
	}
	n.barred = false
}

// finish settles a job and lets the next of its key go.
func (n *lane) finish(j *job, now time.Time) {
	if j.stage == ready || j.stage == flying {
		n.open--
	}
	n.ledger.Done(j.offset)
	n.completions++
	n.drop(j, now)
}

// drop takes a job out of the lane.
func (n *lane) drop(j *job, now time.Time) {
	delete(n.jobs, j.offset)
	if next := j.next; next != nil {
		n.unblock(next, now)
	} else if j.keyed && n.keys[j.hash] == j {
		delete(n.keys, j.hash)
	}
	if (j.stage == flying || j.stage == buried) && len(n.free)+len(n.spent) < n.plan.Window {
		n.spent = append(n.spent, j)
	}
	j.stage = settled // a heap that still has it passes over it
}

// lost gives up everything below an offset: retention took it.
func (n *lane) lost(now time.Time, below int64) {
	var gone []int64
	for h := range n.ledger.Holes() {
		if h.Offset < below {
			gone = append(gone, h.Offset)
		}
	}
	was := n.ledger.Low()
	count := n.ledger.Skip(below)
	for _, offset := range gone {
		j := n.jobs[offset]
		if j.stage == ready || j.stage == flying {
			n.open--
		}
		switch j.stage {
		case flying:
			n.flying--
		case buried:
			n.graves--
		}
		n.drop(j, now)
	}
	for len(n.rebuild) > 0 && n.rebuild[0] < below {
		n.rebuild = n.rebuild[1:]
	}
	n.loading, n.reading, n.atEnd = none, false, false
	if n.asked != none && n.jobs[n.asked] == nil {
		n.unask()
	}
	n.unbar(now)
	n.emit(command{kind: cmdLost, from: below, count: count, was: was})
}
