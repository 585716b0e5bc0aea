package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// kill -9 of one of two replicas while the endpoint holds 500 open requests: nothing is lost, what comes twice is no
// more than was in flight and what a commit interval had not stored yet, and the order per key holds.
func TestAKilledReplicaLosesNothing(t *testing.T) {
	t.Parallel() // it waits most of the time
	const (
		n     = 6_000
		held  = 500
		split = 2_000 // records that are delivered before requests are held
	)
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 6)

	var (
		mu      sync.Mutex
		holding bool
		open    int
		release = make(chan struct{})
	)
	answer := func(ctx context.Context, _ peers.Attempt) int {
		mu.Lock()
		wait := holding
		if wait {
			open++
		}
		mu.Unlock()
		if wait {
			select {
			case <-release:
			case <-ctx.Done():
			}
			mu.Lock()
			open--
			mu.Unlock()
		}
		return http.StatusNoContent
	}
	hook := collector(t, answer)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	victim, other := g.replica(t), g.replica(t)
	extra := map[string]any{
		"delivery": map[string]any{"max_in_flight": 600},
		// After an unclean takeover an ordered subscription waits so long: a short one keeps the test short.
		"endpoint": map[string]any{"url": hook.URL, "timeout": "20s"},
	}
	id, err := hook.Subscribe(t.Context(), other.URL, topic, extra)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "both replicas own partitions", func() bool { return owned(t, victim.URL) > 0 && owned(t, other.URL) > 0 })
	produced := produceSpread(t, other.URL, topic, 0, split)
	eventually(t, time.Minute, "the first records are delivered", func() bool { return hook.Seen.Missing(produced) == 0 })
	eventually(t, time.Minute, "their progress is committed", func() bool { return lag(t, other.URL, id) == 0 })
	mu.Lock()
	holding = true
	mu.Unlock()
	produced = append(produced, produceSpread(t, other.URL, topic, split, n-split)...)
	eventually(t, time.Minute, "500 requests are open", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return open >= held
	})
	atKill := len(hook.Attempts())
	mu.Lock()
	flying := open
	mu.Unlock()
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	holding = false
	mu.Unlock()
	close(release)
	t.Logf("killed one replica with %d requests open, %d made so far", flying, atKill)

	eventually(t, 2*time.Minute, "every record is delivered", func() bool { return hook.Seen.Missing(produced) == 0 })
	if err := hook.Seen.Compare(produced); err != nil {
		t.Error(err)
	}
	// What was delivered before is committed, and since then every request was held: only those may come twice.
	distinct, sightings := hook.Seen.Count()
	repeats := sightings - distinct
	t.Logf("%d records, %d repeats", distinct, repeats)
	if repeats > flying {
		t.Errorf("%d records came twice; at most the %d in flight may", repeats, flying)
	}
	keyOrder(t, hook.Seen)
	ids := map[peers.Place]string{}
	for _, a := range hook.Attempts() {
		if id, ok := ids[a.Place]; ok && id != a.ID {
			t.Errorf("%v was sent as %s and as %s", a.Place, id, a.ID)
		}
		ids[a.Place] = a.ID
	}
}

// produceSpread is produce with a key for every two records, so that key order does not limit what is in flight.
func produceSpread(t *testing.T, base, topic string, from, n int) []peers.Record {
	t.Helper()
	const batch = 500
	var all []peers.Record
	for start := from; start < from+n; start += batch {
		var records []peers.Record
		for i := start; i < min(start+batch, from+n); i++ {
			r := record(i)
			r.Key = fmt.Appendf(nil, "customer-%d", i/2) // two records a key: enough to have an order
			records = append(records, r)
		}
		if err := peers.Produce(t.Context(), base, topic, records); err != nil {
			t.Fatal(err)
		}
		all = append(all, records...)
	}
	return all
}
