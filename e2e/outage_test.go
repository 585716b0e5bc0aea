package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// outage is how long a dependency stays away.
const outage = 20 * time.Second

// Redis away: deliveries go on from memory, only the subscription API says so.
func TestRedisAwayStopsNoDelivery(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 3)
	hook := collector(t, nil)
	redis := backend.RedisServer(t)
	g := gateway{brokers: k.Brokers, redis: redis.URL, ports: []int{hook.Port}}
	r := g.replica(t)
	id, err := hook.Subscribe(t.Context(), r.URL, topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	produced := produce(t, r.URL, topic, 0, 100)
	eventually(t, 30*time.Second, "deliveries begin", func() bool { return hook.Seen.Missing(produced) == 0 })

	redis.Stop(t)
	var status *peers.StatusError
	eventually(t, 10*time.Second, "the subscription API says 503", func() bool {
		_, err := hook.Subscribe(t.Context(), r.URL, topic, nil)
		return errors.As(err, &status) && status.Status == http.StatusServiceUnavailable
	})
	var body struct {
		ErrorCode int `json:"error_code"`
	}
	if err := json.Unmarshal([]byte(status.Body), &body); err != nil || body.ErrorCode != 50321 {
		t.Errorf("the subscription API answered %s, want error_code 50321", status.Body)
	}
	down := time.Now()
	for i := 100; time.Since(down) < outage; i += 50 {
		more := produce(t, r.URL, topic, i, 50)
		produced = append(produced, more...)
		eventually(t, 5*time.Second, "deliveries go on without Redis", func() bool { return hook.Seen.Missing(more) == 0 })
	}
	if err := peers.Call(t.Context(), http.MethodGet, r.URL+"/__gtg", "", nil, http.StatusOK, nil); err != nil {
		t.Errorf("without Redis the replica is still good to go: %v", err)
	}
	redis.Start(t)
	produced = append(produced, produce(t, r.URL, topic, 100_000, 100)...)
	eventually(t, 30*time.Second, "deliveries go on with the empty Redis that came back", func() bool { return hook.Seen.Missing(produced) == 0 })
	if err := hook.Seen.Compare(produced); err != nil {
		t.Error(err)
	}
	t.Logf("subscription %s got %d records through the outage", id, len(produced))
}

// Kafka away: produce says so in its bound, streams keep their heartbeat, endpoints see nothing; when it is back
// everything goes on by itself and nothing that was acknowledged is lost.
func TestKafkaAwayLosesNothing(t *testing.T) {
	k := backend.Cluster(t, 1)
	topic := k.Topic(t, "orders", 3)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t, "--produce-timeout=5s")
	if _, err := hook.Subscribe(t.Context(), r.URL, topic, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tail := peers.Follow(ctx, r.URL, topic, "from=earliest&heartbeat=5s")
	produced := produce(t, r.URL, topic, 0, 1000)
	eventually(t, time.Minute, "deliveries begin", func() bool { return hook.Seen.Missing(produced) == 0 && tail.Seen.Missing(produced) == 0 })

	beats := heartbeats(ctx, t, r.URL+"/topics/"+topic+"/events?heartbeat=5s")
	k.Kill(t, 1)
	down := time.Now()
	var status *peers.StatusError
	began := time.Now()
	err := peers.Produce(t.Context(), r.URL, topic, []peers.Record{record(9999)})
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("a produce without Kafka took %s", took)
	}
	if err == nil {
		t.Fatal("a produce without Kafka was acknowledged")
	}
	if errors.As(err, &status) && status.Status != http.StatusServiceUnavailable {
		t.Errorf("a produce without Kafka: %v, want 503 or a slot that says what is known", err)
	}
	if err := peers.Call(t.Context(), http.MethodGet, r.URL+"/__live", "", nil, http.StatusOK, nil); err != nil {
		t.Errorf("liveness depends on Kafka: %v", err)
	}
	seenBefore := beats.count()
	eventually(t, outage+10*time.Second, "heartbeats without Kafka", func() bool {
		return time.Since(down) > outage && beats.count() >= seenBefore+2
	})
	attempts := len(hook.Attempts())

	k.Start(t, 1)
	var more []peers.Record
	eventually(t, time.Minute, "produce works again", func() bool {
		batch := []peers.Record{record(20_000), record(20_001), record(20_002)}
		if err := peers.Produce(t.Context(), r.URL, topic, batch); err != nil {
			return false
		}
		more = append(more, batch...)
		return true
	})
	eventually(t, time.Minute, "webhook and SSE go on", func() bool { return hook.Seen.Missing(more) == 0 && tail.Seen.Missing(more) == 0 })
	if missing := hook.Seen.Missing(produced); missing > 0 {
		t.Errorf("%d records were lost", missing)
	}
	if got := len(hook.Attempts()) - attempts; got > len(more)+3 { // the outcome of record 9999 may be that it was written
		t.Errorf("%d requests after the outage for %d new records", got, len(more))
	}
	cancel()
	if err := tail.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
	<-beats.done
}

// beatCounter counts the comment lines of one stream.
type beatCounter struct {
	lines chan struct{}
	n     int
	done  chan struct{}
}

func (b *beatCounter) count() int {
	for {
		select {
		case <-b.lines:
			b.n++
		default:
			return b.n
		}
	}
}

// heartbeats reads a stream of its own until ctx ends.
func heartbeats(ctx context.Context, t *testing.T, url string) *beatCounter {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d", url, resp.StatusCode)
	}
	b := &beatCounter{lines: make(chan struct{}, 1000), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		defer resp.Body.Close()
		buf, line := make([]byte, 4096), []byte{}
		for {
			n, err := resp.Body.Read(buf)
			for _, c := range buf[:n] {
				if c != '\n' {
					line = append(line, c)
					continue
				}
				if bytes.HasPrefix(line, []byte(":")) {
					b.lines <- struct{}{}
				}
				line = line[:0]
			}
			if err != nil {
				if !errors.Is(err, io.EOF) && ctx.Err() == nil {
					t.Errorf("the stream was cut: %v", err)
				}
				return
			}
		}
	}()
	return b
}
