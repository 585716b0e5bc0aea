package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Redis away, hung, or slower than its callers' patience: records come and go as ever, the subscription API says in its
// bound that it cannot be used, and ten seconds after the end it can (C1, C6).
func TestRedisInTroubleStopsNoRecord(t *testing.T) {
	for name, fault := range map[string]func(*testing.T, *network, *backend.Server) (mend func(*testing.T)){
		"away": func(t *testing.T, _ *network, s *backend.Server) func(*testing.T) {
			t.Helper()
			s.Stop(t)
			return func(t *testing.T) { t.Helper(); s.Start(t) }
		},
		"hung": func(t *testing.T, n *network, s *backend.Server) func(*testing.T) {
			t.Helper()
			if s.Pause(t) {
				return func(t *testing.T) { t.Helper(); s.Resume(t) }
			}
			return n.hole(t) // an embedded one cannot be stopped by a signal
		},
		"slow": func(t *testing.T, n *network, _ *backend.Server) func(*testing.T) { t.Helper(); return n.slow(t, 2000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait most of the time
			server, n := backend.RedisServer(t), newNetwork(t)
			addr, err := n.to(strings.TrimSuffix(strings.TrimPrefix(server.URL, "redis://"), "/0"))
			if err != nil {
				t.Fatal(err)
			}
			withoutRedis(t, "redis://"+addr, func(t *testing.T) func(*testing.T) { t.Helper(); return fault(t, n, server) })
		})
	}
}

func withoutRedis(t *testing.T, redis string, begin func(*testing.T) (mend func(*testing.T))) {
	const (
		bound   = 3 * time.Second // of the API, whose own patience with Redis is one second
		latency = 5 * time.Second // of a record, on a busy machine
	)
	lasts := max(phase(time.Minute), 20*time.Second) // what a stop of Redis may cost nobody
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 3)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: redis, ports: []int{hook.Port}}
	r := g.replica(t)
	id, err := hook.Subscribe(t.Context(), r.URL, topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tail := peers.Follow(ctx, r.URL, topic, "from=earliest&heartbeat=5s")
	produced := spread(t, r.URL, topic, 0, 100)
	eventually(t, time.Minute, "deliveries begin", func() bool { return hook.Seen.Missing(produced) == 0 && tail.Seen.Missing(produced) == 0 })
	resident := residentBytes(t, r)

	mend := begin(t)
	began := time.Now()
	peak, slowest := resident, time.Duration(0)
	refusals := 0
	for i := 100; time.Since(began) < lasts; i += 20 {
		more := spread(t, r.URL, topic, i, 20)
		produced = append(produced, more...)
		sent := time.Now()
		eventually(t, latency, "records reach webhook and stream without Redis", func() bool {
			return hook.Seen.Missing(more) == 0 && tail.Seen.Missing(more) == 0
		})
		slowest = max(slowest, time.Since(sent))
		for _, call := range []func() error{
			func() error { _, err := hook.Subscribe(t.Context(), r.URL, topic, nil); return err },
			func() error {
				return peers.Call(t.Context(), http.MethodDelete, r.URL+"/subscriptions/"+id, "", nil, http.StatusAccepted, nil)
			},
		} {
			asked := time.Now()
			err := call()
			if took := time.Since(asked); took > bound {
				t.Errorf("the subscription API took %s", took)
			}
			wantRefusal(t, "a change without Redis", err, http.StatusServiceUnavailable, 50321)
			refusals++
		}
		answersWithin(t, bound, http.StatusOK, 0, r.URL+"/__live")
		answersWithin(t, bound, http.StatusOK, 0, r.URL+"/__gtg")
		peak = max(peak, residentBytes(t, r))
	}
	if refusals == 0 {
		t.Fatal("the subscription API was never asked: nothing shows that there was a fault")
	}
	mend(t)
	well := time.Now()
	eventually(t, recovery, "a subscription can be made again", func() bool {
		var made string
		made, err = hook.Subscribe(t.Context(), r.URL, topic, map[string]any{"source": map[string]any{"topics": []string{topic}, "start_from": "latest"}})
		_, refused := errors.AsType[*peers.StatusError](err)
		if err != nil && !refused {
			t.Fatal(err)
		}
		return made != ""
	})
	t.Logf("%d refusals within %s; a record took at most %s; well again after %s; %d MiB resident before, %d at most",
		refusals, lasts, slowest, time.Since(well), resident>>20, peak>>20)
	if peak > maxResident {
		t.Errorf("%d MiB of resident memory", peak>>20)
	}
	last := spread(t, r.URL, topic, 100_000, 20)
	produced = append(produced, last...)
	eventually(t, latency+recovery, "records go on", func() bool { return hook.Seen.Missing(produced) == 0 && tail.Seen.Missing(produced) == 0 })
	if err := hook.Seen.Compare(produced); err != nil {
		t.Error(err)
	}
	perSubscription := map[string]int{}
	for _, f := range hook.Flights() {
		perSubscription[f.Subscription]++
		if f.Number > 1 {
			t.Errorf("%v needed attempt %d", f.Place, f.Number)
		}
	}
	if n := perSubscription[id]; n != len(produced) {
		t.Errorf("%d requests for %d records", n, len(produced))
	}
	if sessions := metric(t, r.URL, "sluice_rebalances_total"); sessions != 1 {
		t.Errorf("%v sessions of the ownership group: it does not rest on Redis", sessions)
	}
	cancel()
	if err := tail.Wait(); err != nil {
		t.Error(fmt.Errorf("SSE: %w", err))
	}
}
