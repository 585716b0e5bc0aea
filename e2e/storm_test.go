package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Three replicas that join and leave every two seconds, and an endpoint that holds each request for four: the other
// subscription of the topic goes on, and what is in flight for a partition that stays is neither cancelled nor repeated.
func TestAStormOfReplicasStopsNobody(t *testing.T) {
	const (
		partitions = 12
		held       = 4 * time.Second
		every      = 2 * time.Second
	)
	storm := max(phase(time.Minute), 6*every)
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", partitions)
	slow := collector(t, func(ctx context.Context, _ peers.Attempt) int {
		select {
		case <-time.After(held):
		case <-ctx.Done():
		}
		return http.StatusNoContent
	})
	t.Cleanup(slow.Senders())
	quick := collector(t, nil)
	t.Cleanup(quick.Senders())
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{slow.Port, quick.Port}}
	steady := g.replica(t)
	extra := map[string]any{
		"endpoint": map[string]any{"url": slow.URL, "timeout": "10s"}, // what an ordered subscription waits after an unclean takeover
		"retry":    map[string]any{"schedule": []string{"0s", "1s", "1s", "1s", "1s"}},
		"delivery": map[string]any{"max_in_flight": 480},
	}
	if _, err := slow.Subscribe(t.Context(), steady.URL, topic, extra); err != nil {
		t.Fatal(err)
	}
	if _, err := quick.Subscribe(t.Context(), steady.URL, topic, nil); err != nil {
		t.Fatal(err)
	}
	all := []*peers.Replica{steady}
	guests := []*peers.Replica{g.replica(t), g.replica(t)}
	all = append(all, guests...)
	eventually(t, time.Minute, "all three own partitions", func() bool {
		return owned(t, all[0].URL) > 0 && owned(t, all[1].URL) > 0 && owned(t, all[2].URL) > 0
	})
	produced := spread(t, steady.URL, topic, 0, 96)
	eventually(t, 30*time.Second, "both endpoints get requests", func() bool {
		return quick.Seen.Missing(produced) == 0 && len(slow.Flights()) > 0
	})

	// The storm, beside a producer that never pauses for long.
	var (
		mu     sync.Mutex
		comers []*peers.Replica
		faults []error
		churn  sync.WaitGroup
	)
	began := time.Now()
	ends := began.Add(storm)
	ctx, cancel := context.WithDeadline(t.Context(), ends)
	defer cancel()
	for i, guest := range guests {
		churn.Go(func() { // one leaves while the other is there, in turn
			wait(ctx, time.Duration(i)*every)
			for r := guest; ctx.Err() == nil; {
				stopping, stopped := context.WithTimeout(context.Background(), 60*time.Second)
				err := r.Stop(stopping)
				stopped()
				if err == nil {
					r, err = g.start(t)
				}
				mu.Lock()
				if err != nil {
					faults = append(faults, err)
					mu.Unlock()
					return
				}
				comers = append(comers, r)
				mu.Unlock()
				wait(ctx, every)
			}
		})
	}
	for n := len(produced); time.Now().Before(ends); n += 24 {
		produced = append(produced, spread(t, steady.URL, topic, n, 24)...)
		wait(ctx, 400*time.Millisecond)
	}
	churn.Wait()
	for _, err := range faults {
		t.Errorf("a replica that joined or left: %v", err)
	}
	all = append(all, comers...)
	changes := len(sessions(t, steady, topic))
	t.Logf("%d replicas came within %s, the steady one had %d sessions", len(comers), storm, changes)
	if len(comers) < 2 || changes < 4 {
		t.Fatal("that was no storm")
	}

	eventually(t, time.Minute, "every record reaches the quick endpoint", func() bool { return quick.Seen.Missing(produced) == 0 })
	eventually(t, 2*time.Minute, "every record reaches the slow endpoint", func() bool { return slow.Seen.Missing(produced) == 0 })
	for name, c := range map[string]*peers.Collector{"quick": quick, "slow": slow} {
		if err := c.Seen.Compare(produced); err != nil {
			t.Errorf("the %s endpoint: %v", name, err)
		}
		keyOrder(t, c.Seen)
		distinct, sightings := c.Seen.Count()
		t.Logf("the %s endpoint: %d records, %d answered twice", name, distinct, sightings-distinct)
	}
	progressed(t, quick.Flights(), began, ends, 5*time.Second)
	if unharmed(t, topic, slow.Flights(), all...) == 0 {
		t.Error("no flight lived through a new session; this shows nothing")
	}
	unharmed(t, topic, quick.Flights(), all...)
}

// progressed fails the test when nothing was delivered for longer than within between began and ended.
func progressed(t *testing.T, flights []peers.Flight, began, ended time.Time, within time.Duration) {
	t.Helper()
	times := []time.Time{began}
	for _, f := range flights {
		if f.Status/100 == 2 && f.Ended.After(began) && f.Ended.Before(ended) {
			times = append(times, f.Ended)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	times = append(times, ended)
	longest := time.Duration(0)
	for i := range times[1:] {
		longest = max(longest, times[i+1].Sub(times[i]))
	}
	t.Logf("the longest time without a delivery was %s", longest)
	if longest > within {
		t.Errorf("nothing was delivered for %s, the bound is %s", longest, within)
	}
}

// spread produces n records, two for each key, in one request.
func spread(t *testing.T, base, topic string, from, n int) []peers.Record {
	t.Helper()
	var records []peers.Record
	for i := from; i < from+n; i++ {
		r := record(i)
		r.Key = fmt.Appendf(nil, "customer-%d", i/2)
		records = append(records, r)
	}
	if err := peers.Produce(t.Context(), base, topic, records); err != nil {
		t.Fatal(err)
	}
	return records
}

// wait lets a fault last. It returns when d is over or ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
