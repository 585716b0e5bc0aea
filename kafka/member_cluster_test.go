package kafka

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// What brokers do to sessions when they die or freeze: B28 and B29 of the fault catalogue, on three real ones.
func TestBrokersThatDieAndSessions(t *testing.T) {
	t.Parallel()
	c := backend.Cluster(t, 3)
	clients := groupClients(t, c.Brokers)
	const partitions = 12
	topic := c.TopicOf(t, "single", partitions, 1) // a dead broker's partitions have no leader
	admin, offsets := NewAdmin(clients), NewOffsets(clients)

	// begin has two members settled in a group of their own and says which nodes coordinate it and do not.
	begin := func(t *testing.T) (w *world, both []*replica, coordinator, other int) {
		t.Helper()
		w = newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
		both = []*replica{w.join(t, clients, "a"), w.join(t, clients, "b")}
		settle(t, 20*time.Second, partitions, both...)
		c.AwaitInSync(t, topic) // the fault to come shall be the only one
		addr, err := clients.coordinators().coordinator(within(t, 10*time.Second), w.group)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.Index(c.Brokers, addr)
		if i < 0 {
			t.Fatalf("the coordinator %s is none of %v", addr, c.Brokers)
		}
		return w, both, i + 1, (i+1)%3 + 1
	}
	leaderless := func() (n int) {
		found, err := admin.Topic(within(t, 10*time.Second), topic)
		if err != nil {
			return 0
		}
		for _, p := range found.Partitions {
			if p.Leader < 0 {
				n++
			}
		}
		return n
	}
	// replaced waits until another broker coordinates the group, and says since when it really does.
	replaced := func(t *testing.T, w *world, coordinator int, began time.Time) (serving time.Time) {
		t.Helper()
		named, serving := c.AwaitCoordinator(t, w.group, topic, coordinator)
		t.Logf("another coordinator is named after %v and serves after %v", named.Sub(began), serving.Sub(began))
		return serving
	}
	// goOn checks that the members are who they were, in the same or the next generation, and that nobody was without a
	// session for more than five seconds. Kafka's own part can be longer than that (the broker was the active controller as
	// well, an in-sync replica was missing): then ours, which is always this short.
	goOn := func(t *testing.T, both []*replica, before []*holding, serving time.Time) {
		t.Helper()
		const ours = 2 * time.Second // see the comment of member
		for i, r := range both {
			was, is := before[i], r.now()
			if was == is {
				t.Logf("%s: the session went on", r.name)
				continue
			}
			gap, since := r.standstill(), r.begun(was).Sub(serving)
			t.Logf("%s: generation %d, then %d; %v without a session, until %v after a coordinator served", r.name, was.session.Generation, is.session.Generation, gap, since)
			if was.session.Member != is.session.Member || is.session.Generation > was.session.Generation+1 {
				t.Errorf("%s was %s in generation %d and is %s in %d", r.name, was.session.Member, was.session.Generation, is.session.Member, is.session.Generation)
			}
			if since > ours {
				t.Errorf("%s had a session %v after there was a coordinator", r.name, since)
			}
			if gap > 5*time.Second && gap > serving.Sub(was.over)+ours {
				t.Errorf("%s had no session for %v", r.name, gap)
			}
		}
	}
	sessions := func(both []*replica) []*holding { return []*holding{both[0].now(), both[1].now()} }

	t.Run("leaderless partitions disturb no session", func(t *testing.T) {
		_, both, _, other := begin(t)
		before := sessions(both)
		c.Kill(t, other)
		await(t, 30*time.Second, func() string { return "partitions without a leader" }, func() bool { return leaderless() > 0 })
		gone := time.Now()
		await(t, 30*time.Second, func() string { return "the leader counted partitions meanwhile" }, func() bool { return time.Since(gone) > recountTime+heartbeatTime })
		for i, r := range both {
			if r.now() != before[i] {
				t.Errorf("%s has another session", r.name)
			}
		}
		c.Start(t, other)
		c.AwaitInSync(t, topic)
	})

	t.Run("the coordinator is killed", func(t *testing.T) {
		w, both, coordinator, _ := begin(t)
		before := sessions(both)
		killed := time.Now()
		c.Kill(t, coordinator)
		serving := replaced(t, w, coordinator, killed)
		settle(t, 30*time.Second, partitions, both...)
		goOn(t, both, before, serving)
		c.Start(t, coordinator)
		c.AwaitInSync(t, topic)
	})

	t.Run("the coordinator freezes for 15 s", func(t *testing.T) {
		w, both, coordinator, _ := begin(t)
		before := sessions(both)
		progress := backend.Unique("sluice.sub")
		c.Pause(t, coordinator)
		frozen := time.Now()
		var commits sync.WaitGroup
		commits.Go(func() { // those of this coordinator's groups wait, and are stored
			for i := range int64(5) {
				for n := range 4 {
					group := fmt.Sprint(progress, "-", n)
					if err := offsets.Commit(within(t, 60*time.Second), standalone(group, sluice.Commit{Topic: topic, Offset: i}))[0]; err != nil {
						t.Errorf("commit %d of %s: %v", i, group, err)
					}
				}
			}
			t.Logf("20 commits done %v after the freeze", time.Since(frozen))
		})
		serving := replaced(t, w, coordinator, frozen)
		await(t, 30*time.Second, func() string { return "15 s of freeze" }, func() bool { return time.Since(frozen) > 15*time.Second })
		c.Resume(t, coordinator)
		settle(t, 30*time.Second, partitions, both...)
		goOn(t, both, before, serving)
		commits.Wait()
		c.AwaitInSync(t, topic)
		for n := range 4 {
			got, err := offsets.Group(within(t, 20*time.Second), fmt.Sprint(progress, "-", n), []sluice.Partition{{Topic: topic}})
			if err != nil || got[0].Offset != 4 {
				t.Errorf("group %d: %v, %v", n, got, err)
			}
		}
	})
}
