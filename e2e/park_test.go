package e2e

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// One record is refused and parked, two hundred above it are delivered, the replica is killed: the next one does not
// send the two hundred again beyond what the last commit interval had not stored, and the parked record's attempts go
// on counting.
func TestAParkedRecordKeepsItsAttemptsOverAKill(t *testing.T) {
	t.Parallel() // it waits most of the time
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 1)
	var mended atomic.Bool
	hook := collector(t, func(_ context.Context, a peers.Attempt) int {
		if a.Offset == 0 && !mended.Load() {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	first := g.replica(t)
	id, err := hook.Subscribe(t.Context(), first.URL, topic, map[string]any{
		"delivery": map[string]any{"ordering": "key"},
		"endpoint": map[string]any{"url": hook.URL, "timeout": "1s"},
		"retry":    map[string]any{"schedule": []string{"0s", "1s", "2s", "4s", "8s", "8s", "8s", "8s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bad := peers.Record{Key: []byte("bad"), Value: []byte("refuse me")}
	batch := []peers.Record{bad}
	for i := range 200 {
		batch = append(batch, record(i))
	}
	if err := peers.Produce(t.Context(), first.URL, topic, batch); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "200 records above the parked one are delivered", func() bool { return hook.Seen.Missing(batch[1:]) == 0 })
	eventually(t, 30*time.Second, "the parked record has been tried three times", func() bool { return attemptsAt(hook, 0) >= 3 })
	// The commit that says so: the status reads it back from Kafka.
	eventually(t, 10*time.Second, "the progress is committed", func() bool { return committedAbove(t, first.URL, id, 200) })
	tried := attemptsAt(hook, 0)
	before := len(hook.Attempts())
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Exited():
	default:
		t.Fatal("the replica is still alive")
	}
	g.replica(t)
	eventually(t, time.Minute, "the parked record is tried again", func() bool { return attemptsAt(hook, 0) > tried })
	mended.Store(true)
	eventually(t, time.Minute, "the parked record is delivered", func() bool { return hook.Seen.Missing(batch) == 0 })

	again := 0
	for _, a := range hook.Attempts()[before:] {
		if a.Offset != 0 {
			again++
			continue
		}
		if a.Number < tried {
			t.Errorf("after %d attempts the next one was number %d", tried, a.Number)
		}
	}
	if again > 0 {
		t.Errorf("%d of the 200 delivered records were sent again though their progress was committed", again)
	}
	keyOrder(t, hook.Seen)
}

func attemptsAt(c *peers.Collector, offset int64) int {
	n := 0
	for _, a := range c.Attempts() {
		if a.Offset == offset {
			n++
		}
	}
	return n
}

// committedAbove reports whether the subscription's progress, as Kafka holds it, has exactly one hole and says that all
// but it below end is done.
func committedAbove(t *testing.T, base, id string, end int64) bool {
	t.Helper()
	var doc struct {
		Status struct {
			Position []struct {
				Committed, End, Lag int64
				Holes               int
				Done                int64 `json:"done_above"`
			} `json:"position"`
		} `json:"status"`
	}
	if err := peers.Call(t.Context(), http.MethodGet, base+"/subscriptions/"+id, "", nil, http.StatusOK, &doc); err != nil {
		t.Fatal(err)
	}
	for _, p := range doc.Status.Position {
		if p.Committed == 0 && p.Holes == 1 && p.End > end {
			return true
		}
	}
	return false
}
