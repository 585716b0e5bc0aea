package kafka

import (
	"sync/atomic"
	"time"
)

// lease is how long a session may believe that its partitions are its own without hearing from the broker. It rests on
// the sending time of the last answered heartbeat, so that it ends, whatever hangs, before the broker hands them on.
type lease struct {
	until atomic.Pointer[time.Time] // with both clocks' readings
	ended atomic.Bool
	timer *time.Timer
}

// grant begins a lease with the heartbeat sent at that time. When it runs out, end is called.
func grant(sent time.Time, end func()) *lease {
	l := &lease{}
	until := sent.Add(leaseTime)
	l.until.Store(&until)
	l.timer = time.AfterFunc(time.Until(until), end)
	return l
}

// extend moves the end on for an answered heartbeat. One goroutine, the one that beats, calls it.
func (l *lease) extend(sent time.Time) {
	until := sent.Add(leaseTime)
	l.until.Store(&until)
	l.timer.Reset(time.Until(until))
}

// finish ends the lease for good: the member is about to join again, or to leave.
func (l *lease) finish() {
	l.ended.Store(true)
	l.timer.Stop()
}

func (l *lease) valid() bool { return l.holds(time.Now()) }

// holds compares both clocks. The monotonic one is right when somebody sets the time; the wall clock is right after a
// virtual machine was suspended, while the monotonic one stood still.
func (l *lease) holds(now time.Time) bool {
	until := *l.until.Load()
	return !l.ended.Load() && now.Before(until) && now.Round(0).Before(until.Round(0))
}
