package dispatcher

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/webhook"
)

// A process that lost Kafka for longer than its session, and finds its own commits when it is back, has no predecessor
// to wait for; another process has.
func TestAnOutageOfKafkaIsNoTakeover(t *testing.T) {
	for name, other := range map[string]bool{"the same process": false, "another process": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := &endpoint{answer: func(webhook.Delivery) (time.Duration, webhook.Outcome) { return 100 * time.Millisecond, status(200) }}
				h, r := one(t, hook, nil)
				defer func() { r.close() }()
				h.produce("t", "a1")
				time.Sleep(3 * time.Second)
				hook.want(t, "a1")
				h.refuseCommits(&sluice.Error{Kind: sluice.Unavailable})
				h.produce("t", "a2")
				if other {
					r.crash()
					r = h.replica(hook)
				} else {
					r.seats.seat("t").finish()
				}
				h.refuseCommits(nil)
				time.Sleep(time.Second)
				seat := r.seats.seat("t")
				seat.member = "m-2"
				seat.begin(5, 0)
				time.Sleep(2 * time.Second)
				if delivered := slices.Contains(hook.attemptsSince(1), "a2#1"); delivered == other {
					t.Errorf("two seconds after the session began: attempts %v", hook.attempts())
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if !slices.Contains(hook.delivered(), "a2") {
					t.Errorf("delivered %v", hook.delivered())
				}
			})
		})
	}
}

// What this process has in flight itself for a partition that it never let go is as good a reason to wait as another's.
func TestOwnCommitsAreNoReasonToSendBesideOwnFlights(t *testing.T) {
	const us = process(42)
	mark := progress.Mark{Term: 7, Writer: us.writer(7), Unclean: 1, Suspect: sluice.NoOffset, At: noon}
	l := progress.NewLedger(100)
	f := found{Commit: sluice.Commit{Offset: 100, Metadata: mark.Encode(l, progress.MaxMetadata)}, Range: sluice.Range{End: 200}, Finder: us}
	if in := inherit(f); in.Abrupt || in.Mark.Unclean != 1 || in.Mark.Term != 8 || in.Mark.Writer != us.writer(8) {
		t.Errorf("our own commit: %+v", in)
	}
	f.Flying = true
	if in := inherit(f); !in.Abrupt || in.Mark.Unclean != 2 {
		t.Errorf("our own commit, beside our own flights: %+v", in)
	}
	f.Flying, f.Finder = false, us+1
	if in := inherit(f); !in.Abrupt || in.Mark.Unclean != 2 {
		t.Errorf("another process's commit: %+v", in)
	}
}

func (h *house) refuseCommits(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = err
}

// attemptsSince leaves out the first attempts.
func (e *endpoint) attemptsSince(n int) []string {
	all := e.attempts()
	return all[min(n, len(all)):]
}
