package kafka_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Compaction leaves gaps, and batches without a record: it keeps the last batch of each idempotent producer for its
// sequence number. A reader that takes the silence of such a batch for the end of the log stands still for ever.
func TestEmptiedBatchesAreNotTheEnd(t *testing.T) {
	t.Parallel() // it waits for the cleaner
	k := backend.Kafka(t)
	f := newFetcher(t, k)
	p := sluice.Partition{Topic: k.Topic(t, "compacted", 1, "cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.001",
		"min.compaction.lag.ms=0", "max.compaction.lag.ms=100")}
	const emptied = 60
	for i := range emptied { // each call has a producer id of its own
		produce(t, k, p, sluice.NewRecord{Key: []byte("same"), Value: fmt.Append(nil, i)})
	}
	produce(t, k, p, sluice.NewRecord{Key: []byte("same"), Value: []byte("kept")}, sluice.NewRecord{Key: []byte("other"), Value: []byte("kept")})
	time.Sleep(200 * time.Millisecond) // past segment.ms by the broker's clock; the next record rolls the segment
	produce(t, k, p, sluice.NewRecord{Key: []byte("last"), Value: []byte("kept")})
	if k.Real() {
		awaitCleaner(t, f, p, 3)
	} else {
		k.Fake().Compact()
	}

	r, err := f.Range(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, maxBytes := range []int{1, 200, 64 << 10} { // a batch without records takes 61 B
		var got []string
		steps := 0
		for from := r.Start; from < r.End; steps++ {
			c, err := f.Fetch(t.Context(), p, from, maxBytes)
			if err != nil {
				t.Fatal(err)
			}
			if c.Next <= from {
				t.Fatalf("at most %d B: stands still at %d of %d", maxBytes, from, c.End)
			}
			for _, r := range c.Records {
				got = append(got, fmt.Sprint(r.Offset, " ", string(r.Key), " ", string(r.Value)))
			}
			from = c.Next
		}
		want := []string{fmt.Sprint(emptied, " same kept"), fmt.Sprint(emptied+1, " other kept"), fmt.Sprint(emptied+2, " last kept")}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("at most %d B: got %v, want %v", maxBytes, got, want)
		}
		t.Logf("at most %d B: %d fetches", maxBytes, steps)
	}
	for i, r := range collect(t, f, p, r.Start)(3) { // and who follows passes them, too
		if want := []string{"same kept", "other kept", "last kept"}[i]; string(r.Key)+" "+string(r.Value) != want {
			t.Errorf("followed record %d is %s %s", i, r.Key, r.Value)
		}
	}
}

// awaitCleaner returns when compaction has left so many records. A real broker's cleaner looks every 15 s, and may come
// when only some segments are closed.
func awaitCleaner(t *testing.T, f *kafka.Fetcher, p sluice.Partition, records int) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(250 * time.Millisecond) {
		found := 0
		for from, end := int64(0), int64(1); from < end; {
			c, err := f.Fetch(t.Context(), p, from, 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			if c.Next <= from {
				return // the test says where it stands still
			}
			from, end = c.Next, c.End
			found += len(c.Records)
		}
		if found <= records {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the cleaner does not come: %d records", found)
		}
	}
}
