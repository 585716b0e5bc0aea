// Package e2e runs the real binary and speaks to it only over HTTP.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// binary is built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err == nil {
		binary, err = peers.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Faults mostly wait, so three of them at a time are no load for two cores. The flags are not parsed yet: -parallel
	// decides still.
	if err := flag.Set("test.parallel", "3"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if code == 0 {
		// A link of the proxy library that was stalled when it was closed never ends; it is no goroutine of ours.
		if err := goleak.Find(
			goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
			goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// gateway is what the replicas of one test share.
type gateway struct {
	brokers []string
	redis   string
	ports   []int // loopback ports of webhook receivers
}

// replica starts one `sluice serve` and stops it at the end of the test, unless the test has ended it.
func (g gateway) replica(t *testing.T, args ...string) *peers.Replica {
	t.Helper()
	r, err := g.start(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start is replica for goroutines of a test.
func (g gateway) start(t *testing.T, args ...string) (*peers.Replica, error) {
	t.Helper()
	port := backend.FreePort(t)
	var loopback []string
	for _, p := range g.ports {
		loopback = append(loopback, fmt.Sprint(p))
	}
	env := []string{
		"SLUICE_KAFKA_BROKERS=" + strings.Join(g.brokers, ","),
		"SLUICE_REDIS_URL=" + g.redis,
		fmt.Sprintf("SLUICE_LISTEN=127.0.0.1:%d", port),
		"SLUICE_AUTH=none", "SLUICE_ALLOW_NO_AUTH=true",
		"SLUICE_WEBHOOK_ALLOW_LOOPBACK=" + strings.Join(loopback, ","),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r, err := peers.Start(ctx, binary, fmt.Sprintf("http://127.0.0.1:%d", port), env, append([]string{"serve"}, args...)...)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		select {
		case <-r.Exited():
		default:
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			if err := r.Stop(ctx); err != nil {
				t.Errorf("SIGTERM: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", r.URL, lastLines(r.Log(), 60))
		}
	})
	return r, nil
}

// collector is a webhook endpoint that ends with the test and must have seen only good signatures.
func collector(t *testing.T, answer func(context.Context, peers.Attempt) int) *peers.Collector {
	t.Helper()
	c, err := peers.Collect(peers.Secret(), answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the collector: %v", err)
		}
		if err := c.Faults(); err != nil {
			t.Errorf("requests that a receiver would refuse: %v", err)
		}
	})
	return c
}

// produce sends n records with keys and values that tell them apart, in batches, and returns them with their places.
func produce(t *testing.T, base, topic string, from, n int) []peers.Record {
	t.Helper()
	const batch = 500
	var all []peers.Record
	for start := from; start < from+n; start += batch {
		var records []peers.Record
		for i := start; i < min(start+batch, from+n); i++ {
			records = append(records, record(i))
		}
		if err := peers.Produce(t.Context(), base, topic, records); err != nil {
			t.Fatal(err)
		}
		all = append(all, records...)
	}
	return all
}

func record(i int) peers.Record {
	return peers.Record{
		Key:   fmt.Appendf(nil, "customer-%d", i%97),
		Value: fmt.Appendf(nil, `{"id":%d,"text":"%s","total":%d.50}`, i, strings.Repeat("é", i%40), i),
	}
}

// eventually waits until done says so, looking again at each sighting and every 100 ms.
func eventually(t *testing.T, within time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// keyOrder fails the test when the first sighting of a key's records is not in the order of the log.
func keyOrder(t *testing.T, seen *peers.Seen) {
	t.Helper()
	type lane struct {
		partition int32
		key       string
	}
	highest, first := map[lane]int64{}, map[peers.Place]bool{}
	for _, r := range seen.Order() {
		if first[r.Place] {
			continue
		}
		first[r.Place] = true
		l := lane{r.Partition, string(r.Key)}
		if last, ok := highest[l]; ok && r.Offset < last {
			t.Errorf("key %q of partition %d: offset %d came after %d", r.Key, r.Partition, r.Offset, last)
		}
		highest[l] = max(highest[l], r.Offset)
	}
}

// owned is how many partitions the replica delivers, by its own metric.
func owned(t *testing.T, base string) int {
	t.Helper()
	return int(metric(t, base, "sluice_owned_partitions"))
}

// metric is the sum of what a replica exports under names that begin so, labels included.
func metric(t *testing.T, base, prefix string) (total float64) {
	t.Helper()
	resp, err := http.Get(base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, prefix) {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			total += n
		}
	}
	return total
}

// phase is how long a fault lasts: a tenth of its full length, which TEST_LONG=1 restores.
func phase(full time.Duration) time.Duration {
	if os.Getenv("TEST_LONG") != "" {
		return full
	}
	return full / 10
}

// lag is what Kafka says the subscription has not done yet, over all partitions.
func lag(t *testing.T, base, id string) int64 {
	t.Helper()
	var doc struct {
		Status struct {
			Position []struct {
				Lag int64 `json:"lag"`
			} `json:"position"`
		} `json:"status"`
	}
	if err := peers.Call(t.Context(), http.MethodGet, base+"/subscriptions/"+id, "", nil, http.StatusOK, &doc); err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, p := range doc.Status.Position {
		total += p.Lag
	}
	return total
}

func lastLines(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
