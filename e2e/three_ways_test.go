package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A record that went in over HTTP comes out over webhook, SSE and pull: every one, with the bytes, the partition and
// the offset that the receipt named.
func TestAllThreeWaysOutSeeEveryRecord(t *testing.T) {
	const n = 20_000
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 3)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t)

	if _, err := hook.Subscribe(t.Context(), r.URL, topic, map[string]any{"delivery": map[string]any{"max_in_flight": 128}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tail := peers.Follow(ctx, r.URL, topic, "from=earliest")
	instance, err := peers.NewInstance(ctx, r.URL, backend.Unique("readers"), topic)
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan error, 1)
	go func() { polled <- instance.Poll(ctx) }()

	produced := produce(t, r.URL, topic, 0, n)
	for name, seen := range map[string]*peers.Seen{"webhook": hook.Seen, "SSE": tail.Seen, "pull": instance.Seen} {
		eventually(t, 3*time.Minute, name+" has seen every record", func() bool { return seen.Missing(produced) == 0 })
		if err := seen.Compare(produced); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if distinct, sightings := seen.Count(); sightings != distinct {
			t.Errorf("%s: %d repeats without a fault", name, sightings-distinct)
		}
	}
	keyOrder(t, hook.Seen)
	cancel()
	if err := <-polled; err != nil {
		t.Errorf("pull: %v", err)
	}
	if err := tail.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
	if err := instance.Delete(t.Context()); err != nil {
		t.Errorf("delete the instance: %v", err)
	}
}
