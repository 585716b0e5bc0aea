package e2e

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// SIGTERM under load: not ready at once, requests in flight land, progress is committed, the other replica goes on
// without sending anything again, streams come back by themselves, and the process exits 0.
func TestSIGTERMUnderLoadRepeatsNothing(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 6)
	hook := collector(t, func(context.Context, peers.Attempt) int {
		<-time.After(20 * time.Millisecond) // an endpoint that takes its time, so that some are always in flight
		return http.StatusNoContent
	})
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	first, second := g.replica(t, "--sse-drain=2s", "--drain-delay=1s"), g.replica(t)
	id, err := hook.Subscribe(t.Context(), first.URL, topic, map[string]any{"delivery": map[string]any{"max_in_flight": 64}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "both replicas own partitions", func() bool { return owned(t, first.URL) > 0 && owned(t, second.URL) > 0 })

	produced := produceSpread(t, second.URL, topic, 0, 3_000)
	eventually(t, time.Minute, "deliveries are under way", func() bool { distinct, _ := hook.Seen.Count(); return distinct > 300 })
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- first.Stop(ctx) }()
	eventually(t, 5*time.Second, "/__gtg says 503 while it still serves", func() bool {
		var status *peers.StatusError
		err := peers.Call(ctx, http.MethodGet, first.URL+"/__gtg", "", nil, http.StatusOK, nil)
		return errors.As(err, &status) && status.Status == http.StatusServiceUnavailable
	})
	if err := peers.Call(ctx, http.MethodGet, first.URL+"/topics", "", nil, http.StatusOK, nil); err != nil {
		t.Errorf("while it drains requests are still served: %v", err)
	}
	if missing := hook.Seen.Missing(produced); missing == 0 {
		t.Fatal("everything was delivered before the stop began; this shows nothing")
	}
	if err := <-stopped; err != nil {
		t.Fatalf("exit after SIGTERM: %v\n%s", err, lastLines(first.Log(), 20))
	}
	eventually(t, time.Minute, "the other replica delivers the rest", func() bool { return hook.Seen.Missing(produced) == 0 })
	if err := hook.Seen.Compare(produced); err != nil {
		t.Error(err)
	}
	if distinct, sightings := hook.Seen.Count(); sightings != distinct {
		t.Errorf("%d records came twice though every request fits the drain", sightings-distinct)
	}
	keyOrder(t, hook.Seen)
	eventually(t, 30*time.Second, "the lag is 0", func() bool { return lag(t, second.URL, id) == 0 })
}
