package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Whatever happens to the broker that coordinates an ownership group, the replicas go on with what they have: requests
// in flight are neither cancelled nor repeated, and nobody is without a session for more than five seconds (B29).
func TestACoordinatorThatGoesAwayDisturbsNoFlight(t *testing.T) {
	const (
		partitions = 12
		frozenFor  = 15 * time.Second // long enough for the brokers to elect another: less would show nothing
	)
	c := backend.Cluster(t, 3)
	topic := c.TopicOf(t, "orders", partitions, 3)
	gate := newGate()
	held, quick := collector(t, gate.answer), collector(t, nil)
	t.Cleanup(gate.open)
	t.Cleanup(held.Senders())
	g := gateway{brokers: c.Brokers, redis: backend.Redis(t), ports: []int{held.Port, quick.Port}}
	replicas := []*peers.Replica{g.replica(t), g.replica(t)}
	if _, err := held.Subscribe(t.Context(), replicas[0].URL, topic, map[string]any{
		"endpoint": map[string]any{"url": held.URL, "timeout": "60s"},
		"delivery": map[string]any{"max_in_flight": 96},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := quick.Subscribe(t.Context(), replicas[0].URL, topic, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "both replicas own partitions", func() bool { return owned(t, replicas[0].URL) == 6 && owned(t, replicas[1].URL) == 6 })
	group := "sluice.topic." + topic
	n := 0

	// through holds forty requests over a fault and lets them go when it is over.
	through := func(t *testing.T, mayEnd bool, fault func(t *testing.T, coordinator int) (serving time.Time)) {
		t.Helper()
		c.AwaitInSync(t, topic) // the fault to come shall be the only one
		coordinator := coordinatorOf(t, &c.Broker, group, 0)
		gate.shut()
		produced := spread(t, replicas[0].URL, topic, n, 96)
		n += 96
		eventually(t, 30*time.Second, "forty requests are held", func() bool { return gate.held() >= 40 })
		flights := gate.held()
		began := time.Now()
		serving := fault(t, coordinator)
		t.Logf("node %d, with %d requests in flight: another coordinator serves after %s", coordinator, flights, serving.Sub(began))
		if now := coordinatorOf(t, &c.Broker, group, coordinator); now == coordinator {
			t.Fatalf("node %d is the coordinator still", coordinator)
		}
		eventually(t, 30*time.Second, "both have sessions and all partitions", func() bool {
			return owned(t, replicas[0].URL)+owned(t, replicas[1].URL) == partitions
		})
		for i, r := range replicas {
			gaps := gapsOf(t, r, topic, began)
			t.Logf("replica %d was without a session for %v", i, gaps)
			if len(gaps) > 0 && !mayEnd {
				t.Errorf("replica %d lost its session though the coordinator moved in order", i)
			}
			for _, gap := range gaps {
				// Kafka's own part can be longer than all of it: the broker was the active controller as well.
				const ours = 2 * time.Second
				if began := gap.until.Add(-gap.length); gap.length > 5*time.Second && gap.length > serving.Sub(began)+ours {
					t.Errorf("replica %d had no session for %s, until %s after a coordinator served", i, gap, gap.until.Sub(serving))
				}
			}
		}
		gate.open()
		eventually(t, time.Minute, "all records reach both endpoints", func() bool {
			return held.Seen.Missing(produced) == 0 && quick.Seen.Missing(produced) == 0
		})
		for _, f := range held.Flights() {
			if f.Cut() {
				t.Errorf("the flight of %v was cancelled after %s", f.Place, f.Ended.Sub(f.Began))
			}
		}
		for name, hook := range map[string]*peers.Collector{"held": held, "quick": quick} {
			if attempts, distinct := len(hook.Attempts()), n; attempts != distinct {
				t.Errorf("%s: %d requests for %d records", name, attempts, distinct)
			}
		}
	}

	t.Run("moved in order", func(t *testing.T) {
		through(t, false, func(t *testing.T, coordinator int) time.Time {
			moveCoordinator(t, &c.Broker, coordinator)
			_, serving := c.AwaitCoordinator(t, group, topic, coordinator)
			return serving
		})
	})
	t.Run("killed", func(t *testing.T) {
		through(t, true, func(t *testing.T, coordinator int) time.Time {
			c.Kill(t, coordinator)
			_, serving := c.AwaitCoordinator(t, group, topic, coordinator)
			return serving
		})
		for node := range c.Brokers {
			c.Start(t, node+1) // the one that was killed; the others run
		}
	})
	t.Run("stopped for 15 s", func(t *testing.T) {
		through(t, true, func(t *testing.T, coordinator int) time.Time {
			c.Pause(t, coordinator)
			stopped := time.Now()
			_, serving := c.AwaitCoordinator(t, group, topic, coordinator)
			wait(t.Context(), time.Until(stopped.Add(frozenFor)))
			c.Resume(t, coordinator)
			return serving
		})
	})
}

// gate is an endpoint's answer that can be held.
type gate struct {
	mu      sync.Mutex
	waiting int
	opened  chan struct{} // nil while it is open
}

func newGate() *gate { return &gate{} }

func (g *gate) answer(ctx context.Context, _ peers.Attempt) int {
	g.mu.Lock()
	opened := g.opened
	if opened != nil {
		g.waiting++
	}
	g.mu.Unlock()
	if opened == nil {
		return http.StatusNoContent
	}
	select {
	case <-opened:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
	return http.StatusNoContent
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// gap is a time without a session.
type gap struct {
	until  time.Time
	length time.Duration
}

func (g gap) String() string { return g.length.Round(time.Millisecond).String() }

// gapsOf is the times between sessions of a replica that began after since, by its log.
func gapsOf(t *testing.T, r *peers.Replica, topic string, since time.Time) (gaps []gap) {
	t.Helper()
	begins := sessions(t, r, topic)
	for line := range strings.Lines(r.Log()) {
		var said struct {
			Time       time.Time
			Msg, Group string
		}
		if json.Unmarshal([]byte(line), &said) != nil || said.Msg != "session ends" || said.Group != "sluice.topic."+topic || said.Time.Before(since) {
			continue
		}
		i := slices.IndexFunc(begins, func(s ownership) bool { return s.Time.After(said.Time) })
		if i < 0 {
			t.Errorf("a session ended at %s and no other began", said.Time)
			continue
		}
		gaps = append(gaps, gap{begins[i].Time, begins[i].Time.Sub(said.Time)})
	}
	return gaps
}

// coordinatorOf is the node that coordinates a group, 0 while there is none. Node but is not asked: it may hang.
func coordinatorOf(t *testing.T, k *backend.Broker, group string, but int) int {
	t.Helper()
	ask := kmsg.NewPtrFindCoordinatorRequest()
	ask.CoordinatorKey, ask.CoordinatorKeys = group, []string{group}
	answer, err := request(t, k, but, ask)
	if err != nil {
		return 0
	}
	found := answer.(*kmsg.FindCoordinatorResponse)
	switch {
	case found.Version < 4 && found.ErrorCode == 0: // before KIP-699 there is one answer
		return int(found.NodeID)
	case len(found.Coordinators) == 1 && found.Coordinators[0].ErrorCode == 0:
		return int(found.Coordinators[0].NodeID)
	}
	return 0
}

// request asks any node except one, with a client of its own: what others know must not be remembered.
func request(t *testing.T, k *backend.Broker, but int, ask kmsg.Request) (kmsg.Response, error) {
	t.Helper()
	var seeds []string
	for i, addr := range k.Brokers {
		if i+1 != but {
			seeds = append(seeds, addr)
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.RequestRetries(1), kgo.RetryTimeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return client.SeedBrokers()[0].Request(ctx, ask)
}

// moveCoordinator makes another node the leader of every partition of the offsets topic that node leads, in order.
func moveCoordinator(t *testing.T, k *backend.Broker, node int) {
	t.Helper()
	const offsetsTopic = "__consumer_offsets"
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	name := offsetsTopic
	about := kmsg.NewMetadataRequestTopic()
	about.Topic = &name
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = append(metadata.Topics, about)
	described, err := metadata.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	reassign, elect := kmsg.NewPtrAlterPartitionAssignmentsRequest(), kmsg.NewPtrElectLeadersRequest()
	order, elected := kmsg.NewAlterPartitionAssignmentsRequestTopic(), kmsg.NewElectLeadersRequestTopic()
	order.Topic, elected.Topic = offsetsTopic, offsetsTopic
	for _, p := range described.Topics[0].Partitions {
		if int(p.Leader) != node {
			continue
		}
		one := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		one.Partition = p.Partition
		for _, r := range p.Replicas {
			if int(r) != node {
				one.Replicas = append(one.Replicas, r)
			}
		}
		one.Replicas = append(one.Replicas, int32(node)) // last: the first one is preferred
		order.Partitions = append(order.Partitions, one)
		elected.Partitions = append(elected.Partitions, p.Partition)
	}
	reassign.Topics, elect.Topics = append(reassign.Topics, order), append(elect.Topics, elected)
	answer, err := reassign.RequestWith(t.Context(), client)
	if err != nil || answer.ErrorCode != 0 {
		t.Fatalf("another order of replicas: %v, %v", err, answer)
	}
	led, err := elect.RequestWith(t.Context(), client)
	if err != nil || led.ErrorCode != 0 {
		t.Fatalf("elect the preferred leaders: %v, %v", err, kerr.ErrorForCode(led.ErrorCode))
	}
}
