package kafka

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// B20 and the errors of webhooks.md 6.2: what ends a session and what does not.
func TestErrorsEndASessionOrDoNot(t *testing.T) {
	t.Parallel()
	k := backend.KafkaOf(t, 2)
	if k.Real() {
		backend.NotRun(t, "a real broker gives no error on request; the cluster tests cause some")
	}
	topic, clients := k.Topic(t, "errors", 4), groupClients(t, k.Brokers)
	for _, c := range []struct {
		name  string
		keys  []kmsg.Key
		err   *kerr.Error
		count int
		ends  bool // the session
	}{
		{"rebalance", []kmsg.Key{kmsg.Heartbeat}, kerr.RebalanceInProgress, 1, true},
		{"illegal generation", []kmsg.Key{kmsg.Heartbeat}, kerr.IllegalGeneration, 1, true},
		{"unknown to a coordinator that was frozen", []kmsg.Key{kmsg.Heartbeat}, kerr.UnknownMemberID, 1, true},
		{"not coordinator", []kmsg.Key{kmsg.Heartbeat}, kerr.NotCoordinator, 4, false},
		{"coordinator not available", []kmsg.Key{kmsg.Heartbeat, kmsg.FindCoordinator}, kerr.CoordinatorNotAvailable, 4, false},
		{"loading", []kmsg.Key{kmsg.Heartbeat}, kerr.CoordinatorLoadInProgress, 4, false},
		{"authorisation", []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup}, kerr.GroupAuthorizationFailed, 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, backend.Unique("group"), "sluice-rendezvous", topic)
			a := w.join(t, clients, "a")
			settle(t, 10*time.Second, 4, a)
			first := a.now()
			f := k.Fake().Fault(kfake.Fault{Keys: c.keys, Group: w.group, Err: c.err, Count: c.count})
			defer f.Remove()
			await(t, 8*time.Second, func() string { return "the errors are answered" }, func() bool { return f.Hits() >= c.count })
			if !c.ends {
				beats := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: w.group, Observe: true, Count: -1})
				defer beats.Remove()
				await(t, 5*time.Second, func() string { return "heartbeats go on" }, func() bool { return beats.Hits() >= 2 })
				if a.now() != first || !first.session.Valid() {
					t.Errorf("the session ended; there were %d", len(a.all()))
				}
				return
			}
			await(t, 10*time.Second, func() string { return "another session" }, func() bool { return a.now() != nil && a.now() != first })
			settle(t, 10*time.Second, 4, a)
			if a.now().session.Member != first.session.Member {
				t.Errorf("member %s, then %s", first.session.Member, a.now().session.Member)
			}
			t.Logf("%v without a session", a.standstill())
		})
	}
}

// B3: a coordinator that moves in order ends no session.
func TestSessionsFollowTheirCoordinator(t *testing.T) {
	t.Parallel()
	k := backend.KafkaOf(t, 3)
	if k.Real() {
		backend.NotRun(t, "a shared broker's coordinator does not move for one test; the cluster tests move it")
	}
	topic, clients := k.Topic(t, "moves", 6), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), "sluice-rendezvous", topic)
	a, b := w.join(t, clients, "a"), w.join(t, clients, "b")
	settle(t, 10*time.Second, 6, a, b)
	before, moves := []*holding{a.now(), b.now()}, 0
	for range 6 {
		was := k.Fake().CoordinatorFor(w.group)
		k.Fake().RehashCoordinators()
		if k.Fake().CoordinatorFor(w.group) != was {
			moves++
		}
		beats := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: w.group, Observe: true, Count: -1})
		await(t, 10*time.Second, func() string { return "both go on beating" }, func() bool { return beats.Hits() >= 4 })
		beats.Remove()
	}
	t.Logf("%d moves", moves)
	if moves == 0 {
		t.Fatal("the coordinator never moved")
	}
	if a.now() == nil || b.now() == nil || a.now().session.Member != before[0].session.Member || b.now().session.Member != before[1].session.Member {
		t.Error("a member lost its session or its id")
	}
}

// A member that the coordinator threw out takes a new id and is back at once.
func TestEvictedMemberComesBackAsAnother(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "evicted", 4), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), "sluice-rendezvous", topic)
	a := w.join(t, clients, "a")
	settle(t, 10*time.Second, 4, a)
	first := a.now()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = w.group
	gone := kmsg.NewLeaveGroupRequestMember()
	gone.MemberID = first.session.Member
	leave.Members = append(leave.Members, gone)
	if answer, err := leave.RequestWith(within(t, 10*time.Second), client); err != nil || answer.ErrorCode != 0 {
		t.Fatalf("evict: %v, %v", answer, err)
	}
	await(t, 10*time.Second, func() string { return "another session" }, func() bool { return a.now() != nil && a.now() != first })
	if a.now().session.Member == first.session.Member {
		t.Error("the same member is back: it was not evicted")
	}
	if gap := a.standstill(); gap > time.Second {
		t.Errorf("%v without a session", gap)
	}
}
