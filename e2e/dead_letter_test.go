package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A record that the endpoint does not take is given up after its attempts and stands in sluice.dlq, where SSE and pull
// read it; the records behind it are delivered.
func TestAGivenUpRecordIsReadableAsADeadLetter(t *testing.T) {
	t.Parallel() // it waits most of the time
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 1)
	hook := collector(t, func(_ context.Context, a peers.Attempt) int {
		if strings.HasPrefix(string(a.Value), "refuse") {
			return http.StatusUnprocessableEntity
		}
		return http.StatusNoContent
	})
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t)
	if _, err := hook.Subscribe(t.Context(), r.URL, topic, map[string]any{
		"retry": map[string]any{"schedule": []string{"0s", "100ms", "100ms", "100ms", "100ms"}},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	letters := peers.Follow(ctx, r.URL, "sluice.dlq", "from=earliest")
	instance, err := peers.NewInstance(ctx, r.URL, backend.Unique("letters"), "sluice.dlq")
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan error, 1)
	go func() { polled <- instance.Poll(ctx) }()

	// The topic of dead letters is shared by all tests on a real Kafka: this value is nobody else's.
	unique := backend.Unique("refuse me")
	batch := []peers.Record{{Key: []byte("k"), Value: []byte(unique)}, {Key: []byte("k"), Value: []byte("take me")}}
	if err := peers.Produce(ctx, r.URL, topic, batch); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the record behind the refused one is delivered", func() bool { return hook.Seen.Missing(batch[1:]) == 0 })
	if n := attemptsAt(hook, batch[0].Offset); n != 4 {
		t.Errorf("the refused record was tried %d times, want 4", n)
	}
	for name, seen := range map[string]*peers.Seen{"SSE": letters.Seen, "pull": instance.Seen} {
		eventually(t, 30*time.Second, name+" reads the dead letter", func() bool {
			for _, l := range seen.Order() {
				if string(l.Value) == unique && string(l.Key) == "k" {
					return true
				}
			}
			return false
		})
	}
	cancel()
	if err := <-polled; err != nil {
		t.Errorf("pull: %v", err)
	}
	if err := letters.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
	if err := instance.Delete(t.Context()); err != nil {
		t.Errorf("delete the instance: %v", err)
	}
}
