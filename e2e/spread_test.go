package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Thirty topics of one partition each, and replicas that start one after the other: nobody keeps what the first had.
func TestTopicsOfOnePartitionSpreadOverReplicas(t *testing.T) {
	t.Parallel() // it waits most of the time
	const topics = 30
	k := backend.Kafka(t)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	names := make([]string, topics)
	for i := range names {
		names[i] = k.Topic(t, fmt.Sprintf("single-%d", i), 1)
	}
	replicas := []*peers.Replica{g.replica(t)}
	for some := range slices.Chunk(names, 15) { // a subscription has at most sixteen topics
		extra := map[string]any{"source": map[string]any{"topics": some, "start_from": "earliest"}}
		if _, err := hook.Subscribe(t.Context(), replicas[0].URL, some[0], extra); err != nil {
			t.Fatal(err)
		}
	}
	var shares []int
	settled := func() bool {
		shares = nil
		total := 0
		for _, r := range replicas {
			n := owned(t, r.URL)
			total += n
			shares = append(shares, n)
		}
		return total == topics
	}
	eventually(t, 30*time.Second, "the first replica owns all", settled)
	for range 2 {
		replicas = append(replicas, g.replica(t))
		newest := replicas[len(replicas)-1]
		eventually(t, 30*time.Second, "the newest has joined every group", func() bool {
			return int(metric(t, newest.URL, "sluice_sessions")) == topics
		})
		eventually(t, 30*time.Second, "every topic has an owner", settled)
		t.Logf("%d replicas own %v", len(replicas), shares)
	}
	for _, n := range shares {
		if n < 3 || n > 20 {
			t.Errorf("shares of %v; each replica is to own between 3 and 20", shares)
		}
	}
	for i, name := range names {
		one := []peers.Record{record(i)}
		if err := peers.Produce(t.Context(), replicas[i%3].URL, name, one); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "each topic is delivered", func() bool {
		seen := map[string]bool{}
		for _, a := range hook.Attempts() {
			seen[a.Topic] = true
		}
		return len(seen) == topics
	})
	if n := len(hook.Attempts()); n != topics {
		t.Errorf("%d requests for %d records", n, topics)
	}
}
