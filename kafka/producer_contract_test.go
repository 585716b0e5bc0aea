package kafka

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// produces is the seam: whoever produces for Sluice passes producerContract, on every back end.
type produces interface {
	Produce(ctx context.Context, topic string, recs []sluice.NewRecord) ([]sluice.Receipt, error)
}

func TestProducerContract(t *testing.T) {
	producerContract(t, func(t *testing.T, k *backend.Broker) (produces, *Clients) {
		clients := testClients(t, k)
		return testProducer(t, clients), clients
	})
}

func producerContract(t *testing.T, start func(*testing.T, *backend.Broker) (produces, *Clients)) {
	for name, promise := range map[string]func(*testing.T, *backend.Broker, produces, *Clients){
		"bytes come through":            contractBytes,
		"order in a partition":          contractOrder,
		"order between concurrent":      contractConcurrentOrder,
		"unknown topic is fast":         contractUnknownTopic,
		"unknown partition fails alone": contractUnknownPartition,
		"too large fails alone":         contractTooLarge,
		"a full topic limit fits":       contractExactLimit,
		"bad timestamp fails alone":     contractTimestamp,
		"one bad record of a batch":     contractBadRecord,
		"16 MiB":                        contractLargest,
		"nothing is nothing":            contractEmpty,
	} {
		t.Run(name, func(t *testing.T) {
			k := backend.Kafka(t)
			p, clients := start(t, k)
			promise(t, k, p, clients)
		})
	}
}

func produce(t *testing.T, p produces, topic string, recs ...sluice.NewRecord) []sluice.Receipt {
	t.Helper()
	receipts, err := p.Produce(testContext(t), topic, recs)
	if err != nil {
		t.Fatal(err)
	}
	if len(receipts) != len(recs) {
		t.Fatalf("%d receipts for %d records", len(receipts), len(recs))
	}
	return receipts
}

// Null and empty, headers in order with repeated names, and the timestamp arrive as they were.
func contractBytes(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	topic := k.Topic(t, "bytes", 1)
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	recs := []sluice.NewRecord{
		{Key: nil, Value: nil},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte{0, 0xff, 0x80}, Value: bytes.Repeat([]byte{0xfe, 0}, 5000), Timestamp: at},
		{Value: []byte("h"), Headers: []sluice.Header{{Name: "a", Value: []byte("1")}, {Name: "", Value: []byte{}}, {Name: "a", Value: nil}}},
		{Value: []byte("earlier"), Timestamp: at.Add(-time.Minute)},
	}
	before := time.Now().Truncate(time.Millisecond)
	receipts := produce(t, p, topic, recs...)
	got := readAll(t, c, topic, 0)
	if len(got) != len(recs) {
		t.Fatalf("%d records", len(got))
	}
	for i, r := range got {
		want := recs[i]
		if receipts[i].Err != nil || receipts[i].Partition != 0 || receipts[i].Offset != r.Offset || r.Offset != int64(i) {
			t.Errorf("receipt %d = %+v, record at %d", i, receipts[i], r.Offset)
		}
		if !bytes.Equal(r.Key, want.Key) || (r.Key == nil) != (want.Key == nil) || !bytes.Equal(r.Value, want.Value) || (r.Value == nil) != (want.Value == nil) {
			t.Errorf("record %d: key %q value %q", i, r.Key, r.Value)
		}
		if fmt.Sprintf("%q", r.Headers) != fmt.Sprintf("%q", want.Headers) {
			t.Errorf("record %d: headers %q", i, r.Headers)
		}
		for j, h := range r.Headers {
			if (h.Value == nil) != (want.Headers[j].Value == nil) {
				t.Errorf("record %d: header %d is null: %v", i, j, h.Value == nil)
			}
		}
		if !want.Timestamp.IsZero() && !r.Timestamp.Equal(want.Timestamp) {
			t.Errorf("record %d: time %v, want %v", i, r.Timestamp, want.Timestamp)
		}
		if want.Timestamp.IsZero() && (r.Timestamp.Before(before) || r.Timestamp.After(time.Now())) {
			t.Errorf("record %d: time %v is not that of its receipt", i, r.Timestamp)
		}
	}
}

func contractOrder(t *testing.T, k *backend.Broker, p produces, _ *Clients) {
	topic := k.Topic(t, "order", 3)
	var recs []sluice.NewRecord
	for i := range 3000 {
		recs = append(recs, sluice.NewRecord{Partition: int32(i % 3), Value: bytes.Repeat([]byte("x"), rand.N(2000))})
	}
	next := map[int32]int64{}
	for i, r := range produce(t, p, topic, recs...) {
		if r.Err != nil || r.Partition != recs[i].Partition || r.Offset != next[r.Partition] {
			t.Fatalf("record %d: %+v, want offset %d", i, r, next[r.Partition])
		}
		next[r.Partition]++
	}
}

// What one caller writes, call after call, stays in order, whatever others write beside it.
func contractConcurrentOrder(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	topic := k.Topic(t, "concurrent", 2)
	const callers, calls = 24, 20
	var wait sync.WaitGroup
	for caller := range callers {
		wait.Go(func() {
			n := 0
			for range calls {
				var recs []sluice.NewRecord
				for range 1 + rand.N(4) {
					recs = append(recs, sluice.NewRecord{Partition: int32(caller % 2), Value: fmt.Appendf(nil, "%d:%d", caller, n)})
					n++
				}
				receipts, err := p.Produce(testContext(t), topic, recs)
				if err != nil {
					t.Error(err)
					return
				}
				for i, r := range receipts {
					if r.Err != nil || i > 0 && r.Offset <= receipts[i-1].Offset {
						t.Errorf("receipts %+v", receipts)
						return
					}
				}
			}
			wantOrder.Store(fmt.Sprintf("%s/%d", topic, caller), n)
		})
	}
	wait.Wait()
	next := map[int]int{}
	for number := range int32(2) {
		for _, r := range readAll(t, c, topic, number) {
			var caller, n int
			if _, err := fmt.Sscanf(string(r.Value), "%d:%d", &caller, &n); err != nil {
				t.Fatal(err)
			}
			if n != next[caller] {
				t.Fatalf("caller %d: record %d where %d belongs", caller, n, next[caller])
			}
			next[caller]++
		}
	}
	for caller := range callers {
		if n, _ := wantOrder.Load(fmt.Sprintf("%s/%d", topic, caller)); n != next[caller] {
			t.Errorf("caller %d: %d records of %v", caller, next[caller], n)
		}
	}
}

var wantOrder sync.Map // how many records a caller wrote

func contractUnknownTopic(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	for _, name := range []string{backend.Unique("nowhere"), "a/b", "", ".."} {
		begin := time.Now()
		_, err := p.Produce(testContext(t), name, []sluice.NewRecord{{Value: []byte("v")}})
		if sluice.KindOf(err) != sluice.UnknownTopic || time.Since(begin) > 900*time.Millisecond {
			t.Errorf("%q: %v after %v", name, err, time.Since(begin))
		}
		if _, err := NewAdmin(c).Topic(testContext(t), name); sluice.KindOf(err) != sluice.UnknownTopic {
			t.Errorf("%q was created: %v", name, err)
		}
	}
}

func contractUnknownPartition(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	topic := k.Topic(t, "partitions", 2)
	receipts := produce(t, p, topic,
		sluice.NewRecord{Partition: 1, Value: []byte("a")},
		sluice.NewRecord{Partition: 2, Value: []byte("b")},
		sluice.NewRecord{Partition: -7, Value: []byte("c")},
		sluice.NewRecord{Partition: 0, Value: []byte("d")})
	for i, want := range []sluice.Kind{"", sluice.UnknownPart, sluice.UnknownPart, ""} {
		if got := sluice.KindOf(receipts[i].Err); got != want {
			t.Errorf("record %d: %q", i, got)
		}
	}
	if got := values(t, c, topic, 2); len(got) != 2 || got["a"] != 1 || got["d"] != 1 {
		t.Errorf("log: %v", got)
	}
}

// A record above the topic's limit or above ours fails alone, and its text names the limit.
func contractTooLarge(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	topic := k.Topic(t, "small", 1, "max.message.bytes=5000")
	receipts := produce(t, p, topic,
		sluice.NewRecord{Value: []byte("before")},
		sluice.NewRecord{Value: make([]byte, 6000)},
		sluice.NewRecord{Value: make([]byte, 16<<20+1)},
		sluice.NewRecord{Value: []byte("after")})
	for i, limit := range []string{"", "5000", "16777216", ""} {
		err := receipts[i].Err
		if limit == "" && err != nil || limit != "" && (sluice.KindOf(err) != sluice.TooLarge || !strings.Contains(err.Error(), limit)) {
			t.Errorf("record %d: %v", i, err)
		}
	}
	if got := values(t, c, topic, 1); len(got) != 2 {
		t.Errorf("log: %d values", len(got))
	}
}

// A record that fits the topic's limit to the byte is written, with one more it is not: our sizes are those of the wire.
func contractExactLimit(t *testing.T, k *backend.Broker, p produces, _ *Clients) {
	topic := k.Topic(t, "exact", 1, "max.message.bytes=5000")
	rec := sluice.NewRecord{Key: []byte("key"), Headers: []sluice.Header{{Name: "h", Value: []byte("v")}, {Name: "n"}}}
	size := func(n int) int {
		rec.Value = make([]byte, n)
		it := &item{fixed: fixedBytes(&rec)}
		return batchHeaderBytes + recordBytes(it, it.time, 0)
	}
	n := 4000
	for size(n) < 5000 {
		n++
	}
	size(n)
	if r := produce(t, p, topic, rec)[0]; r.Err != nil {
		t.Errorf("exactly the limit: %v", r.Err)
	}
	size(n + 1)
	if r := produce(t, p, topic, rec)[0]; sluice.KindOf(r.Err) != sluice.TooLarge {
		t.Errorf("one byte more: %v", r.Err)
	}
	var many []sluice.NewRecord
	for range 500 {
		many = append(many, sluice.NewRecord{Key: []byte("k"), Value: make([]byte, rand.N(900))})
	}
	for i, r := range produce(t, p, topic, many...) {
		if r.Err != nil || r.Offset != int64(i+1) {
			t.Fatalf("record %d of many: %+v", i, r)
		}
	}
}

func contractTimestamp(t *testing.T, k *backend.Broker, p produces, _ *Clients) {
	topic := k.Topic(t, "times", 1)
	receipts := produce(t, p, topic,
		sluice.NewRecord{Value: []byte("a"), Timestamp: time.Unix(-1, 0)},
		sluice.NewRecord{Value: []byte("b"), Timestamp: time.Unix(0, 0)},
		sluice.NewRecord{Value: []byte("c"), Timestamp: time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC)},
		sluice.NewRecord{Value: []byte("d")})
	for i, want := range []sluice.Kind{sluice.Rejected, "", sluice.Rejected, ""} {
		if got := sluice.KindOf(receipts[i].Err); got != want {
			t.Errorf("record %d: %v", i, receipts[i].Err)
		}
	}
}

// A record that the broker refuses does not take its batch down: here null keys on a compacted topic.
func contractBadRecord(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	if !k.Real() {
		backend.NotRun(t, "kfake refuses no single records; TestBisect stands in for it")
	}
	topic := k.Topic(t, "compacted", 1, "cleanup.policy=compact")
	var recs []sluice.NewRecord
	for i := range 50 {
		rec := sluice.NewRecord{Key: []byte("k"), Value: fmt.Appendf(nil, "%d", i)}
		if i%17 == 3 {
			rec.Key = nil
		}
		recs = append(recs, rec)
	}
	for i, r := range produce(t, p, topic, recs...) {
		if want := i%17 == 3; (sluice.KindOf(r.Err) == sluice.Rejected) != want || !want && r.Err != nil {
			t.Errorf("record %d: %v", i, r.Err)
		}
	}
	if got := len(readAll(t, c, topic, 0)); got != 47 {
		t.Errorf("%d records in the log", got)
	}
}

func contractLargest(t *testing.T, k *backend.Broker, p produces, c *Clients) {
	topic := k.Topic(t, "large", 1, "max.message.bytes=25165824")
	value := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	receipts := produce(t, p, topic, sluice.NewRecord{Value: value}, sluice.NewRecord{Value: []byte("small")})
	if receipts[0].Err != nil || receipts[1].Err != nil {
		t.Fatalf("%+v", receipts)
	}
	got := readAll(t, c, topic, 0)
	if len(got) != 2 || !bytes.Equal(got[0].Value, value) {
		t.Errorf("%d records", len(got))
	}
}

func contractEmpty(t *testing.T, k *backend.Broker, p produces, _ *Clients) {
	if receipts := produce(t, p, k.Topic(t, "empty", 1)); len(receipts) != 0 {
		t.Errorf("%+v", receipts)
	}
}
