package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// The clients of one replica, each alone without an answer from Kafka while the others work (B27). Without the one that
// owns, its session is over before the broker's is: nothing is sent or committed for it any more, and no partition has
// two owners. Without the others it owns what it owned, and nothing is lost.
func TestOneClientWithoutAnAnswer(t *testing.T) {
	lines := newWires(t)
	k := kafkaBehind(t, lines.to) // one for all: a hole is between it and one client of one process
	for name, roles := range map[string][]string{
		"ownership": {"sluice-own"},
		"commits":   {"sluice-commit"},
		"reading":   {"sluice-live", "sluice-catch-up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			oneClientWithout(t, k, lines, roles)
		})
	}
}

func oneClientWithout(t *testing.T, k *backend.Broker, lines *wires, roles []string) {
	const partitions = 6
	owning := roles[0] == "sluice-own"
	lasts := max(phase(time.Minute), 16*time.Second) // a session and a takeover
	topic := k.Topic(t, "orders", partitions)
	hook := collector(t, nil)
	t.Cleanup(hook.Senders())
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	victim, other := g.replica(t), g.replica(t)
	id, err := hook.Subscribe(t.Context(), other.URL, topic, map[string]any{"endpoint": map[string]any{"url": hook.URL, "timeout": "3s"}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "both replicas own partitions", func() bool { return owned(t, victim.URL) == 3 && owned(t, other.URL) == 3 })
	produced := spread(t, other.URL, topic, 0, 120)
	eventually(t, time.Minute, "deliveries begin", func() bool { return hook.Seen.Missing(produced) == 0 && lag(t, other.URL, id) == 0 })
	before := sessions(t, victim, topic)
	old := before[len(before)-1]

	mend := lines.blackHole(victim.PID(), roles...)
	began := time.Now()
	n := 120
	for ; time.Since(began) < lasts; n += 12 {
		produced = append(produced, spread(t, other.URL, topic, n, 12)...)
		wait(t.Context(), 200*time.Millisecond)
	}
	swallowed := lines.swallowed(victim.PID(), roles...)
	if swallowed == 0 {
		t.Fatalf("no byte of %v was lost", roles)
	}
	missing := hook.Seen.Missing(produced)
	mend()
	mended := time.Now()
	produced = append(produced, spread(t, other.URL, topic, n, 120)...)
	eventually(t, 30*time.Second, "every record is delivered", func() bool { return hook.Seen.Missing(produced) == 0 })
	t.Logf("%v: %d bytes lost within %s, %d of %d records late; everything delivered %s after the end",
		roles, swallowed, lasts, missing, len(produced), time.Since(mended).Round(time.Millisecond))
	if took := time.Since(mended); took > recovery {
		t.Errorf("it took %s until everything went on", took)
	}
	eventually(t, 20*time.Second, "the lag is 0", func() bool { return lag(t, other.URL, id) == 0 })
	eventually(t, 20*time.Second, "both replicas own partitions again", func() bool { return owned(t, victim.URL) == 3 && owned(t, other.URL) == 3 })
	progressed(t, hook.Flights(), began, mended, 5*time.Second)
	if err := hook.Seen.Compare(produced); err != nil {
		t.Error(err)
	}
	keyOrder(t, hook.Seen)
	distinct, sightings := hook.Seen.Count()
	t.Logf("%d records came twice", sightings-distinct)

	after := sessions(t, victim, topic)
	if !owning {
		if again := after[len(before):]; len(again) > 0 && again[0].Time.Before(mended) {
			t.Errorf("the victim had another session: %+v", again[0])
		}
		return
	}
	ended, found := endOf(victim, old.Generation)
	if !found || len(after) == len(before) {
		t.Fatalf("the session of the victim was never over:\n%s", lastLines(victim.Log(), 20))
	}
	taken := sessions(t, other, topic)
	i := slices.IndexFunc(taken, func(s ownership) bool { return s.Time.After(began) })
	if i < 0 || len(taken[i].Partitions) != partitions {
		t.Fatalf("the other replica never owned everything: %+v", taken)
	}
	t.Logf("the session was over %s after the hole began, the other owned everything %s later", ended.Sub(began), taken[i].Time.Sub(ended))
	if ended.After(taken[i].Time) {
		t.Errorf("two owners for %s", ended.Sub(taken[i].Time))
	}
	next := after[len(before)]
	for _, f := range hook.Flights() {
		if f.Sender == victim.PID() && f.Began.After(ended.Add(100*time.Millisecond)) && f.Began.Before(next.Time) {
			t.Errorf("%v was sent %s after the session was over", f.Place, f.Began.Sub(ended))
		}
	}
}
