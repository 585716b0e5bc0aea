package kafka

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A lease ends eight seconds after the last answered heartbeat was sent, by itself, whatever hangs.
func TestLeaseEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		sent := time.Now()
		l := grant(sent, end)
		time.Sleep(5 * time.Second)
		l.extend(sent.Add(4 * time.Second)) // the answer took a second
		time.Sleep(time.Until(sent.Add(4*time.Second+leaseTime)) - time.Millisecond)
		synctest.Wait()
		if !l.valid() || ctx.Err() != nil {
			t.Error("over before its time")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if l.valid() || ctx.Err() == nil {
			t.Error("not over in time")
		}
	})
}

// An answer that comes only after a freeze does not bring a lease back: what counts is when the heartbeat was sent.
func TestLateAnswerDoesNotReviveALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer end()
		l := grant(time.Now(), end)
		sent := time.Now().Add(500 * time.Millisecond)
		time.Sleep(15 * time.Second)
		l.extend(sent)
		synctest.Wait()
		if l.valid() || ctx.Err() == nil {
			t.Error("the lease lives again")
		}
	})
}

// A thawed process fails the lease at once, on whichever clock the freeze shows: a stopped process on both, a suspended
// machine on the wall clock alone. A clock that was set back does not lengthen it.
func TestLeaseHoldsByBothClocks(t *testing.T) {
	sent := time.Now()
	l := grant(sent, func() {})
	defer l.finish()
	wall := func(d time.Duration) time.Time { return sent.Add(d).Round(0) } // no monotonic reading: compared by the wall
	for _, c := range []struct {
		what string
		now  time.Time
		want bool
	}{
		{"at once", sent, true},
		{"just before the end", sent.Add(leaseTime - time.Millisecond), true},
		{"after SIGSTOP for 15 s", sent.Add(15 * time.Second), false},
		{"after a suspension that only the wall clock saw", wall(15 * time.Second), false},
		{"at the end", sent.Add(leaseTime), false},
	} {
		if got := l.holds(c.now); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	l.finish()
	if l.valid() {
		t.Error("finished, and valid all the same")
	}
	if leaseTime >= min(sessionTime, rebalanceTime) {
		t.Error("the lease outlives the broker's patience")
	}
}
