package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A replica that stands still for longer than its session, and then goes on as if nothing had happened, must see for
// itself that it owns nothing any more: it sends nothing and commits nothing for the old session, and order is kept.
func TestAFrozenReplicaWakesUpFenced(t *testing.T) {
	t.Parallel() // it waits most of the time
	const (
		partitions = 6
		session    = 10 * time.Second // of the ownership groups
	)
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", partitions)
	hook := collector(t, func(ctx context.Context, _ peers.Attempt) int {
		wait(ctx, 100*time.Millisecond)
		return http.StatusNoContent
	})
	t.Cleanup(hook.Senders())
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	frozen, other := g.replica(t), g.replica(t)
	id, err := hook.Subscribe(t.Context(), other.URL, topic, map[string]any{
		"endpoint": map[string]any{"url": hook.URL, "timeout": "3s"}, // what the successor waits: a key may still be in flight
		"retry":    map[string]any{"schedule": []string{"0s", "1s", "1s", "1s", "1s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	progress := watchCommits(t, k, "sluice.sub."+id)
	eventually(t, time.Minute, "both replicas own partitions", func() bool { return owned(t, frozen.URL) > 0 && owned(t, other.URL) > 0 })
	before := sessions(t, frozen, topic)
	old := before[len(before)-1]
	produced := produceSpread(t, other.URL, topic, 0, 6_000)
	flying := func() (n int) {
		for _, f := range hook.Flights() {
			if f.Sender == frozen.PID() && f.Ended.IsZero() {
				n++
			}
		}
		return n
	}
	eventually(t, 30*time.Second, "both deliver, some of it is committed, some in flight", func() bool {
		distinct, _ := hook.Seen.Count()
		return distinct > 500 && flying() > 3 && len(progress.list()) > 2*partitions
	})

	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	inTheAir := flying()
	eventually(t, session+10*time.Second, "the other replica owns everything", func() bool { return owned(t, other.URL) == partitions })
	t.Logf("frozen with %d in flight; the other owns everything after %s", inTheAir, time.Since(stopped))
	eventually(t, 20*time.Second, "it delivers what was the frozen one's", func() bool {
		return slices.ContainsFunc(hook.Flights(), func(f peers.Flight) bool {
			return f.Sender == other.PID() && f.Status == http.StatusNoContent && slices.Contains(old.Partitions, f.Partition)
		})
	})
	for n := 6_000; time.Since(stopped) < max(phase(30*time.Second), session); n += 60 {
		produced = append(produced, produceSpread(t, other.URL, topic, n, 60)...)
		wait(t.Context(), 200*time.Millisecond)
	}
	if hook.Seen.Missing(produced) == 0 {
		t.Error("there was nothing left to send when it woke up; this shows less than it should")
	}
	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	woken := time.Now()
	eventually(t, 20*time.Second, "it owns partitions again", func() bool { return owned(t, frozen.URL) > 0 })
	t.Logf("woken after %s, owning again %s later", woken.Sub(stopped), time.Since(woken))
	eventually(t, 2*time.Minute, "every record is delivered", func() bool { return hook.Seen.Missing(produced) == 0 })

	// Its log says when the old session was over for it, and when it got another.
	fenced, found := endOf(frozen, old.Generation)
	again := slices.IndexFunc(sessions(t, frozen, topic), func(s ownership) bool { return s.Time.After(woken) })
	if !found || again < 0 {
		t.Fatalf("it had no end of session %d, or no session after it woke:\n%s", old.Generation, frozen.Log())
	}
	next := sessions(t, frozen, topic)[again]
	if late := fenced.Sub(woken); late > time.Second {
		t.Errorf("the old session was over %s after it woke up", late)
	}
	if next.Member == old.Member {
		t.Errorf("it came back as %s: its session was never over", next.Member)
	}
	unsure := inTheAir // what may come twice: in flight, or not committed yet
	for _, f := range hook.Flights() {
		since := f.Began.Sub(stopped)
		switch {
		case since > time.Second && f.Began.Before(next.Time) && f.Sender != other.PID():
			t.Errorf("%v was sent by %d %s after the freeze began, %s before it had a session", f.Place, f.Sender, since, next.Time.Sub(f.Began))
		case f.Sender == frozen.PID() && since > -2*time.Second && f.Ended.Before(stopped):
			unsure++
		}
	}
	progress.noneLate(t)
	if err := hook.Seen.Compare(produced); err != nil {
		t.Error(err)
	}
	keyOrder(t, hook.Seen)
	distinct, sightings := hook.Seen.Count()
	t.Logf("%d records, %d came twice; %d commits", distinct, sightings-distinct, len(progress.list()))
	if sightings-distinct > unsure {
		t.Errorf("%d records came twice; %d were in flight or younger than two commit intervals", sightings-distinct, unsure)
	}
	eventually(t, 30*time.Second, "the lag is 0", func() bool { return lag(t, other.URL, id) == 0 })
}

// endOf is when the group member of a replica said that a generation had ended for it.
func endOf(r *peers.Replica, generation int32) (at time.Time, found bool) {
	for line := range strings.Lines(r.Log()) {
		var said struct {
			Time       time.Time
			Msg        string
			Generation int32
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "session ends" && said.Generation == generation {
			return said.Time, true
		}
	}
	return at, false
}
