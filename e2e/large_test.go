package e2e

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A record as large as the product allows, between small ones of its key, goes in over HTTP and comes out over SSE and
// pull. A webhook is sent 1 MiB at most: it gets what stands around it, and a dead letter is written.
func TestARecordOf16MiBComesOutAndHoldsUpNobody(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "large", 2, "max.message.bytes=25165824")
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t)
	id, err := hook.Subscribe(t.Context(), r.URL, topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tail := peers.Follow(ctx, r.URL, topic, "from=earliest")
	pull, err := peers.NewInstance(ctx, r.URL, backend.Unique("readers"), topic)
	if err != nil {
		t.Fatal(err)
	}
	polled := make(chan error, 1)
	go func() { polled <- pull.Poll(ctx) }()
	large := bytes.Repeat([]byte{'0', 0xff}, 8<<20)[1:] // 16 MiB with the key
	var produced, small []peers.Record
	for _, value := range [][]byte{[]byte("before"), large, []byte("after")} {
		one := []peers.Record{{Key: []byte("k"), Value: value}}
		if err := peers.Produce(ctx, r.URL, topic, one); err != nil {
			t.Fatal(err)
		}
		if produced = append(produced, one...); len(value) < len(large) {
			small = append(small, one...)
		}
	}
	for _, way := range []struct {
		name string
		seen *peers.Seen
		all  []peers.Record
	}{{"webhook", hook.Seen, small}, {"SSE", tail.Seen, produced}, {"pull", pull.Seen, produced}} {
		eventually(t, time.Minute, way.name+" has seen every record", func() bool { return way.seen.Missing(way.all) == 0 })
		if err := way.seen.Compare(way.all); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
		keyOrder(t, way.seen)
	}
	eventually(t, 20*time.Second, "the lag is 0", func() bool { return lag(t, r.URL, id) == 0 })
	if n := metric(t, r.URL, "sluice_dlq_total{reason=\"oversize\""); n != 1 {
		t.Errorf("%v dead letters, want the large one", n)
	}
	t.Logf("%d MiB resident", residentBytes(t, r)>>20)
	cancel()
	if err := <-polled; err != nil {
		t.Errorf("pull: %v", err)
	}
	if err := tail.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
}
