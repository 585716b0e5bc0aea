package dispatcher

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// outage is two replicas that lost Kafka for longer than a session; a owned the partition, whose record "a1" is done
// and "a2" is not. The subscription is ordered.
type outage struct {
	h    *house
	hook *endpoint
	a, b *replica
	sent int // how often "a2" was, when Kafka came back
}

func lost(t *testing.T, hook *endpoint) *outage {
	h, a := one(t, hook, nil)
	o := &outage{h: h, hook: hook, a: a, b: h.replica(hook)}
	h.produce("t", "a1")
	time.Sleep(3 * time.Second)
	h.refuseCommits(&sluice.Error{Kind: sluice.Unavailable})
	h.produce("t", "a2") // sent, or under way; nothing of it can be committed any more
	time.Sleep(time.Second)
	a.lapse()
	time.Sleep(20 * time.Second)
	h.refuseCommits(nil)
	o.sent = o.count()
	return o
}

func (o *outage) count() (n int) {
	synctest.Wait()
	for _, one := range o.hook.attempts() {
		if one == "a2#1" {
			n++
		}
	}
	return n
}

// lapse is a session whose lease ran out.
func (r *replica) lapse() {
	s := r.seats.seat("t")
	s.mu.Lock()
	s.valid = false
	s.mu.Unlock()
	s.finish()
}

// join is a generation of the replicas, each under a new name: their notes are taken, and given to all.
func (o *outage) join(gen int32, owner *replica, with ...*replica) {
	var notes [][]byte
	for _, r := range with {
		notes = append(notes, r.seats.seat("t").note())
	}
	for _, r := range with {
		s := r.seats.seat("t")
		s.member, s.notes = "new", notes
		if r == owner {
			s.begin(gen, 0)
		} else {
			s.begin(gen)
		}
	}
}

func (o *outage) end() {
	o.a.close()
	o.b.close()
}

// sends is whether "a2" is sent within a time, or was since Kafka is back.
func (o *outage) sends(within time.Duration) bool {
	time.Sleep(within)
	return o.count() > o.sent
}

// After an outage an ordered subscription waits for nobody of whom it knows that nothing is in flight: recovery within ten
// seconds holds for partitions that moved, too.
func TestAnHeirKnowsWhoIsBackWithNothingInFlight(t *testing.T) {
	at := func(name string, hold time.Duration, then func(t *testing.T, o *outage)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := &endpoint{}
				hook.answer = func(d webhook.Delivery) (time.Duration, webhook.Outcome) {
					if string(d.Record.Value) == "a2" && len(hook.got) == 2 { // its first attempt
						return hold, status(200)
					}
					return 0, status(200)
				}
				o := lost(t, hook)
				defer o.end()
				then(t, o)
				time.Sleep(time.Minute)
				synctest.Wait()
				if !slices.Contains(hook.delivered(), "a2") {
					t.Errorf("delivered %v", hook.delivered())
				}
			})
		})
	}
	at("both are back", 0, func(t *testing.T, o *outage) {
		o.join(5, o.b, o.a, o.b)
		if !o.sends(time.Second) {
			t.Error("the heir waits for somebody who is back")
		}
	})
	at("the predecessor has something in flight", time.Minute, func(t *testing.T, o *outage) {
		o.join(5, o.b, o.a, o.b)
		if o.sends(14 * time.Second) {
			t.Error("the heir did not wait for a flight")
		}
		if !o.sends(2 * time.Second) {
			t.Error("the heir waits for longer than endpoint.timeout")
		}
	})
	at("the predecessor stays away", 0, func(t *testing.T, o *outage) {
		o.join(5, o.b, o.b)
		if o.sends(14*time.Second) || !o.sends(2*time.Second) {
			t.Error("the heir did not wait endpoint.timeout")
		}
	})
	at("somebody says nothing", 0, func(t *testing.T, o *outage) {
		s := o.b.seats.seat("t")
		s.member, s.notes = "new", [][]byte{o.a.seats.seat("t").note(), s.note(), nil}
		s.begin(5, 0)
		if o.sends(14 * time.Second) {
			t.Error("the heir did not wait, though an older release may own or have owned the partition")
		}
	})
	at("the predecessor comes a moment later", 0, func(t *testing.T, o *outage) {
		o.join(5, o.b, o.b)
		if o.sends(time.Second) {
			t.Error("the heir did not wait")
		}
		o.b.seats.seat("t").finish()
		o.join(6, o.b, o.a, o.b)
		if !o.sends(time.Second) {
			t.Error("the heir waits on for somebody who is back")
		}
	})
	at("the predecessor comes a moment later and gets it back", 0, func(t *testing.T, o *outage) {
		o.join(5, o.b, o.b)
		if o.sends(time.Second) {
			t.Error("the heir did not wait")
		}
		o.b.seats.seat("t").finish()
		o.join(6, o.a, o.a, o.b)
		if !o.sends(time.Second) {
			t.Error("it waits for itself")
		}
	})
}

// An heir that gives the partition on while it waits for its predecessor has nothing in flight, and may not say that
// nothing is: the next one waits as well.
func TestAnHeirThatWaitsHandsItsPatienceOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := lost(t, &endpoint{})
		defer o.end()
		o.join(5, o.b, o.b)
		time.Sleep(5 * time.Second)
		o.b.seats.seat("t").finish()
		c := o.h.replica(o.hook)
		defer c.close()
		o.join(6, c, o.b, c)
		if o.sends(14 * time.Second) {
			t.Error("the second heir sends beside what the first one waited for")
		}
		if !o.sends(2 * time.Second) {
			t.Error("the second heir waits for longer than endpoint.timeout")
		}
	})
}

// Nobody sends in order what Kafka does not know him to send: else whoever comes next could not wait for him.
func TestAnOrderedLaneIsCommittedBeforeItSends(t *testing.T) {
	for _, ordering := range []string{subscriptions.OrderKey, subscriptions.OrderPartition, subscriptions.OrderNone} {
		t.Run(ordering, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := &endpoint{}
				h := newHouse(t)
				h.topic("t", 1)
				h.subscribe("s", func(s *subscriptions.Subscription) { s.Delivery.Ordering = ordering }, "t")
				h.produce("t", "a1")
				h.refuseCommits(&sluice.Error{Kind: sluice.Unavailable})
				r := h.replica(hook)
				defer r.close()
				r.seats.seat("t").begin(1, 0)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if sent := len(hook.attempts()) > 0; sent != (ordering == subscriptions.OrderNone) {
					t.Errorf("sent before the first commit: %v", sent)
				}
				h.refuseCommits(nil)
				time.Sleep(3 * time.Second)
				hook.want(t, "a1")
			})
		})
	}
}

func TestNotesThatCannotBeReadMakeAnHeirWait(t *testing.T) {
	const us, other = process(3), process(5)
	o := &owner{d: &Dispatcher{process: other}, claims: map[int32]*claim{}}
	good := o.note()
	c := &claim{p: sluice.Partition{Number: 7}, cancel: func() {}}
	c.flights.start()
	o.claims[7] = c
	restless := o.note()
	o.letGo(c)
	if string(o.note()) != string(restless)+"\x07" { // in the claims and let go
		t.Errorf("note %x of a partition that was let go, before %x", o.note(), restless)
	}
	delete(o.claims, 7)
	c.flights.land()
	if string(o.note()) != string(good) || len(o.fading) != 0 {
		t.Errorf("note %x when it has landed, want %x", o.note(), good)
	}
	mine := (&owner{d: &Dispatcher{process: us}}).note()
	for _, tt := range []struct {
		name  string
		notes [][]byte
		want  bool
	}{
		{"good", [][]byte{good, mine}, true},
		{"restless elsewhere", [][]byte{append(slices.Clone(good), 9), mine}, true},
		{"restless here", [][]byte{restless, mine}, false},
		{"somebody else is restless here", [][]byte{good, append(slices.Clone(mine[:8]), 99, 7)}, false},
		{"nobody said anything", nil, false},
		{"not the writer", [][]byte{mine}, false},
		{"one is silent", [][]byte{good, mine, {}}, false},
		{"of a later version", [][]byte{good, append([]byte{2}, mine[1:]...)}, false},
		{"cut short", [][]byte{good, append(slices.Clone(mine), 0x80)}, false},
	} {
		if got := companyOf(tt.notes, us).landed(7, other.writer(4), 4); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
