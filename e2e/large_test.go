package e2e

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Records as large as the product allows, between small ones of their keys, go in over HTTP and come out over SSE and pull.
// A webhook is sent 1 MiB at most: it gets what stands around them, in order, and they become dead letters.
func TestRecordsOf16MiBComeOutAndHoldUpNobody(t *testing.T) {
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
	const large = 4 // of two keys in turn; key and value have 16 MiB
	var produced, small []peers.Record
	for i := range large {
		for _, value := range [][]byte{{'b', byte(i)}, bytes.Repeat([]byte{'0' + byte(i), 0xff}, 8<<20)[2:], {'a', byte(i)}} {
			one := []peers.Record{{Key: []byte{'k', '0' + byte(i%2)}, Value: value}}
			if err := peers.Produce(ctx, r.URL, topic, one); err != nil {
				t.Fatal(err)
			}
			if produced = append(produced, one...); len(value) < 1<<20 {
				small = append(small, one...)
			}
		}
	}
	eventually(t, time.Minute, "the pull consumer has seen every record", func() bool {
		if _, err := pull.Read(ctx); err != nil {
			t.Fatal(err)
		}
		return pull.Seen.Missing(produced) == 0
	})
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
	if n := metric(t, r.URL, "sluice_dlq_total{reason=\"oversize\""); n != large {
		t.Errorf("%v dead letters of %d", n, large)
	}
	t.Logf("%d MiB resident", residentBytes(t, r)>>20)
	cancel()
	if err := tail.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
}
