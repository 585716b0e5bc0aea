package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// What docs/adr/0016 promises after Kafka was hung for longer than a session, to subscriptions with order and without:
// ten seconds, wherever the partitions go, if all replicas are back. Where one died meanwhile its partitions come as after
// any crash (A1), in order after endpoint.timeout more.
func TestPartitionsThatMoveInAnOutageRecoverInTime(t *testing.T) {
	t.Parallel()
	const (
		partitions = 12
		timeout    = 12 * time.Second // an heir that waits so long is late
		crash      = 15 * time.Second
		hungFor    = 12 * time.Second // Kafka gives every member up
	)
	var (
		k    *backend.Broker
		hang func(t *testing.T) (mend func(*testing.T))
	)
	if backend.Name() == backend.KFake {
		n := newNetwork(t)
		k, hang = kafkaBehind(t, n.to), n.hole
	} else {
		c := backend.Cluster(t, 1)
		k, hang = &c.Broker, func(t *testing.T) func(*testing.T) {
			t.Helper()
			c.Pause(t, 1)
			return func(t *testing.T) { t.Helper(); c.Resume(t, 1) }
		}
	}
	topic := k.Topic(t, "orders", partitions)
	ordered, loose := collector(t, nil), collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{ordered.Port, loose.Port}}
	stays, dies := g.replica(t), g.replica(t)
	for hook, ordering := range map[*peers.Collector]string{ordered: "key", loose: "none"} {
		if _, err := hook.Subscribe(t.Context(), stays.URL, topic, map[string]any{
			"endpoint": map[string]any{"url": hook.URL, "timeout": timeout.String()},
			"delivery": map[string]any{"ordering": ordering},
		}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Minute, "both replicas own partitions", func() bool { return owned(t, stays.URL) == 6 && owned(t, dies.URL) == 6 })
	before := spread(t, stays.URL, topic, 0, 96)
	eventually(t, time.Minute, "the first records", func() bool { return ordered.Seen.Missing(before) == 0 && loose.Seen.Missing(before) == 0 })

	// outage hangs Kafka until nobody has a session and its time is over, and returns when it is well.
	outage := func(t *testing.T, meanwhile func()) (well time.Time) {
		t.Helper()
		began, mend := time.Now(), hang(t)
		eventually(t, 15*time.Second, "both have lost their sessions", func() bool { return owned(t, stays.URL)+owned(t, dies.URL) == 0 })
		wait(t.Context(), time.Until(began.Add(hungFor)))
		meanwhile()
		mend(t)
		awaitKafka(t, k, topic)
		return time.Now()
	}
	// recovers produces for all partitions and returns how long after well each collector had them.
	recovers := func(t *testing.T, from int, well time.Time) (inOrder, without time.Duration) {
		t.Helper()
		var records, batch []peers.Record
		for i := range 96 {
			batch = append(batch, record(from+i))
			batch[i].Key = fmt.Appendf(nil, "customer-%d", from+i)
		}
		eventually(t, time.Minute, "a produce is acknowledged", func() bool {
			if peers.Produce(t.Context(), stays.URL, topic, batch) != nil {
				return false
			}
			records = append(records, batch...)
			return true
		})
		eventually(t, time.Minute, "both endpoints have them", func() bool {
			if without == 0 && loose.Seen.Missing(records) == 0 {
				without = time.Since(well)
			}
			if inOrder == 0 && ordered.Seen.Missing(records) == 0 {
				inOrder = time.Since(well)
			}
			return inOrder > 0 && without > 0
		})
		return inOrder, without
	}
	latest := func(r *peers.Replica) []int32 {
		all := sessions(t, r, topic)
		return all[len(all)-1].Partitions
	}

	t.Run("all are back", func(t *testing.T) {
		was := latest(stays)
		well := outage(t, func() {})
		inOrder, without := recovers(t, 1000, well)
		is, moved := latest(stays), 0
		for _, p := range is {
			if !slices.Contains(was, p) {
				moved++
			}
		}
		t.Logf("well again: without order after %s, in order after %s; it has %v, had %v: %d moved to it", without, inOrder, is, was, moved)
		if without > recovery || inOrder > recovery {
			t.Errorf("recovery took longer than %s", recovery)
		}
	})
	t.Run("one died meanwhile", func(t *testing.T) {
		well := outage(t, func() {
			if err := dies.Kill(); err != nil {
				t.Fatal(err)
			}
		})
		inOrder, without := recovers(t, 2000, well)
		t.Logf("well again: without order after %s, in order after %s", without, inOrder)
		if without > crash || inOrder > crash+timeout {
			t.Errorf("recovery took longer than %s, %s in order", crash, crash+timeout)
		}
		if inOrder < timeout/2 {
			t.Errorf("after %s nobody waited for what the dead replica may have had in flight", inOrder)
		}
	})
	keyOrder(t, ordered.Seen)
}
