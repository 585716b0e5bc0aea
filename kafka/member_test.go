package kafka

import (
	"slices"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Replicas that come and go share the partitions evenly, nobody owns what another owns, and a member keeps its id from
// the first generation to the last.
func TestMembersShareATopicAndNeverAPartition(t *testing.T) {
	for _, assignor := range []sluice.Assignor{sluice.Rendezvous, sluice.RangeAssignor} {
		t.Run(string(assignor), func(t *testing.T) {
			t.Parallel()
			k := backend.Kafka(t)
			topic, clients := k.Topic(t, "shared", 12), groupClients(t, k.Brokers)
			w := newWorld(t, backend.Unique("group"), assignor, topic)
			a := w.join(t, clients, "a")
			settle(t, 10*time.Second, 12, a)
			b := w.join(t, clients, "b")
			settle(t, 10*time.Second, 12, a, b)
			c := w.join(t, clients, "c")
			settle(t, 10*time.Second, 12, a, b, c)
			for _, r := range []*replica{a, b, c} {
				said := slices.Sorted(func(yield func(string) bool) {
					for _, n := range r.now().session.Notes {
						yield(string(n))
					}
				})
				if !slices.Equal(said, []string{"a", "b", "c"}) {
					t.Errorf("%s knows the notes %q", r.name, said)
				}
			}
			left := time.Now()
			b.leave(t)
			settle(t, 10*time.Second, 12, a, c)
			t.Logf("two of three owned all %v after the third left", time.Since(left))
			if took := time.Since(left); took > 3*time.Second {
				t.Errorf("a hand-over after a leave took %v", took)
			}
			for _, r := range []*replica{a, c} {
				all := r.all()
				for i, h := range all[1:] {
					if h.session.Member != all[0].session.Member {
						t.Errorf("%s became another member: %s, then %s", r.name, all[0].session.Member, h.session.Member)
					}
					if h.session.Generation <= all[i].session.Generation {
						t.Errorf("%s went from generation %d to %d", r.name, all[i].session.Generation, h.session.Generation)
					}
				}
			}
		})
	}
}

// A replica that crashed says nothing; its partitions are with the others after the session time.
func TestCrashedMembersPartitionsMoveOn(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "crash", 6), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a, b := w.join(t, clients, "a"), w.join(t, clients, "b")
	settle(t, 10*time.Second, 6, a, b)
	crashed := time.Now()
	a.net.crash()
	a.stop()
	settle(t, 15*time.Second, 6, b)
	took := time.Since(crashed)
	t.Logf("partitions of the crashed member were owned again after %v", took)
	if took < 5*time.Second {
		t.Errorf("after %v: it left, it did not crash", took)
	}
	if a.net.dials.Load() == 0 {
		t.Error("the crashed member never tried to say goodbye, so nothing was proved about it")
	}
}

// B27: the connection of one member is black-holed, and a third joins meanwhile. Its session is over before the broker
// gives its partitions to others; the account of the world shows it. When the network is back it is a member again.
func TestBlackHoledMemberStopsBeforeOthersBegin(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "hole", 12), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a, b := w.join(t, clients, "a"), w.join(t, clients, "b")
	settle(t, 10*time.Second, 12, a, b)
	last := a.now()
	a.net.lost.Store(true)
	lost := time.Now()
	await(t, 3*time.Second, func() string { return "a heartbeat is lost" }, func() bool { return a.net.writes.Load() > 0 })
	c := w.join(t, clients, "c")
	await(t, 10*time.Second, func() string { return "the session of a ends" }, func() bool { return !last.session.Valid() })
	over := time.Since(lost)
	settle(t, 15*time.Second, 12, b, c)
	handed := b.now().began.Sub(lost)
	t.Logf("session over after %v, partitions handed over after %v", over, handed)
	if handed <= over || last.ctx.Err() == nil {
		t.Errorf("handed over after %v, the session ended only after %v (%v)", handed, over, last.ctx.Err())
	}
	a.net.lost.Store(false)
	settle(t, 15*time.Second, 12, a, b, c)
}

// A session whose func does not return holds the others up for four seconds and no longer, and Member still waits for
// it in the end.
func TestSlowSessionIsLeftBehind(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "slow", 4), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a := w.join(t, clients, "a")
	settle(t, 10*time.Second, 4, a)
	a.linger.Store(int64(6 * time.Second))
	old := a.now()
	began := time.Now()
	b := w.join(t, clients, "b")
	settle(t, 10*time.Second, 4, a, b)
	if took := time.Since(began); took < drainTime-time.Second || took > drainTime+3*time.Second {
		t.Errorf("b waited %v for a; a session has %v to end", took, drainTime)
	}
	if old.session.Valid() {
		t.Error("the session that was left behind still believes itself")
	}
	a.linger.Store(0)
	a.leave(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	for h := range w.holders {
		if h.who == a {
			t.Error("Member returned before the func of its session did")
		}
	}
}

// Partitions that are added, and a topic that comes after its members, find an owner.
func TestNewPartitionsFindAnOwner(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, later, clients := k.Topic(t, "grow", 1), backend.Unique("later"), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic, later)
	a, b := w.join(t, clients, "a"), w.join(t, clients, "b")
	settle(t, 10*time.Second, 1, a, b)
	k.Create(t, later, 4, 1)
	created := time.Now()
	settle(t, 20*time.Second, 5, a, b)
	t.Logf("claimed %v after the topic was made", time.Since(created))
}

// B18: a member that joins and leaves all the time costs the one that stays a moment each time.
func TestRestlessMemberDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "storm", 12), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a := w.join(t, clients, "a")
	settle(t, 10*time.Second, 12, a)
	for range 6 {
		b := w.join(t, clients, "b")
		settle(t, 10*time.Second, 12, a, b)
		b.leave(t)
		settle(t, 10*time.Second, 12, a)
	}
	if n := len(a.all()); n < 13 {
		t.Fatalf("only %d sessions: nobody came and went", n)
	}
	worst := a.standstill()
	t.Logf("longest standstill %v over %d generations", worst, len(a.all()))
	if worst > time.Second+2*heartbeatTime {
		t.Errorf("the topic stood still for %v", worst)
	}
}
