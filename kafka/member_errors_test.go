package kafka

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
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

// A generation whose first heartbeat is refused never begins, and a coordinator that refuses every one is asked at
// most five times a second.
func TestRefusedGenerationsNeverBegin(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "a real broker gives no error on request")
	}
	topic, clients, group := k.Topic(t, "refused", 1), groupClients(t, k.Brokers), backend.Unique("group")
	refusals := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, Err: kerr.IllegalGeneration, Count: -1})
	began := time.Now()
	a := newWorld(t, group, "range", topic).join(t, clients, "a")
	await(t, 10*time.Second, func() string { return "12 refusals" }, func() bool { return refusals.Hits() >= 12 })
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("12 generations refused within %v", took)
	}
	if n := len(a.all()); n != 0 {
		t.Errorf("%d sessions began", n)
	}
	refusals.Remove()
	settle(t, 10*time.Second, 1, a)
}

// What no trying helps against ends the membership with an error.
func TestFencedMemberGivesUp(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "a real broker fences only static members, which we are not")
	}
	topic, clients, group := k.Topic(t, "fenced", 1), groupClients(t, k.Brokers), backend.Unique("group")
	f := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: group, Err: kerr.FencedInstanceID, Count: 1})
	err := NewGroups(clients, nil).Member(within(t, 10*time.Second), sluice.Membership{Group: group, Topics: []string{topic}, Assignor: sluice.RangeAssignor},
		func(ctx context.Context, _ sluice.Session) { <-ctx.Done() })
	if sluice.KindOf(err) != sluice.StaleSession || f.Hits() != 1 {
		t.Errorf("after %d refusals: %v", f.Hits(), err)
	}
}

// A session that panics costs its own work a second, and nothing else.
func TestPanickingSessionBeginsAnew(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "panic", 1), groupClients(t, k.Brokers)
	ctx, stop := context.WithCancel(within(t, 20*time.Second))
	sessions := 0
	err := NewGroups(clients, nil).Member(ctx, sluice.Membership{Group: backend.Unique("group"), Topics: []string{topic}, Assignor: sluice.Rendezvous},
		func(ctx context.Context, s sluice.Session) {
			if sessions++; sessions == 1 {
				panic("on purpose")
			}
			if len(s.Claims[topic]) != 1 {
				t.Errorf("claims %v", s.Claims)
			}
			stop()
			<-ctx.Done()
		})
	if err != nil || sessions != 2 {
		t.Errorf("%d sessions, %v", sessions, err)
	}
}

// A member that is told to leave while it waits for the others to join leaves at once, and they do not wait for it.
func TestMemberLeavesWhileItJoins(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "impatient", 2), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a := w.join(t, clients, "a")
	settle(t, 10*time.Second, 2, a)
	first := a.now()
	a.linger.Store(int64(2 * time.Second))
	b := w.join(t, clients, "b")
	await(t, 5*time.Second, func() string { return "a hears that b joins" }, func() bool { return first.ctx.Err() != nil })
	began := time.Now()
	b.leave(t)
	if took := time.Since(began); took > time.Second {
		t.Errorf("b left after %v", took)
	}
	if n := len(b.all()); n != 0 {
		t.Errorf("b had %d sessions: it did not wait", n)
	}
	a.linger.Store(0)
	settle(t, 5*time.Second, 2, a)
}

// Memberships that start together connect one after the other, 20 a second.
func TestMembershipsStartPaced(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "paced", 1), groupClients(t, k.Brokers)
	groups := NewGroups(clients, nil)
	ctx, stop := context.WithCancel(t.Context())
	var members sync.WaitGroup
	var began atomic.Int64
	start := time.Now()
	for i := range 11 {
		members.Go(func() {
			err := groups.Member(ctx, sluice.Membership{Group: backend.Unique("group"), Topics: []string{topic}, Assignor: sluice.Rendezvous},
				func(ctx context.Context, _ sluice.Session) { began.Add(1); <-ctx.Done() })
			if err != nil {
				t.Errorf("member %d: %v", i, err)
			}
		})
	}
	await(t, 10*time.Second, func() string { return "11 sessions" }, func() bool { return began.Load() == 11 })
	if took := time.Since(start); took < 490*time.Millisecond {
		t.Errorf("11 memberships started within %v", took)
	}
	stop()
	members.Wait()
}
