package partition_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// kafkaLog is a log over the back end, with clients of its own.
func kafkaLog(t *testing.T, brokers []string, c partition.Config) *partition.Log {
	t.Helper()
	cfg := kafka.Default()
	cfg.Brokers = brokers
	clients, err := kafka.Connect(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clients.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	l, err := partition.New(c, kafka.NewFetcher(clients), slog.New(slog.NewTextHandler(testWriter{t}, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, l) })
	return l
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.Log(string(b))
	return len(b), nil
}

// writer produces to one partition.
type writer struct {
	t      testing.TB
	client *kgo.Client
}

func newWriter(t testing.TB, brokers []string, opts ...kgo.Opt) *writer {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(100_000), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.ProduceRequestTimeout(4 * time.Second), kgo.RequestTimeoutOverhead(time.Second), // it gives a broker that hangs up before the test does
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &writer{t, client}
}

// write appends n records of a size whose values begin with their number.
func (w *writer) write(ctx context.Context, p sluice.Partition, from, n, size int) {
	w.t.Helper()
	var recs []*kgo.Record
	for i := range n {
		v := make([]byte, size)
		copy(v, fmt.Sprintf("%d ", from+i))
		recs = append(recs, &kgo.Record{Topic: p.Topic, Partition: p.Number, Value: v})
	}
	if err := w.client.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		w.t.Errorf("produce to %v: %v", p, err)
	}
}

func number(r *sluice.Record) (n int) {
	_, _ = fmt.Sscan(string(r.Value[:min(20, len(r.Value))]), &n)
	return n
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// One partition is read once per replica, however many follow it: the wire is measured, whatever the code says.
func TestAHundredReadersCostOneReading(t *testing.T) {
	k := backend.Kafka(t)
	p := sluice.Partition{Topic: k.Topic(t, "fanout", 1)}
	w := newWriter(t, k.Brokers)
	ctx := deadline(t, time.Minute)
	const backlog, live, size = 10_000, 20_000, 1_000
	w.write(ctx, p, 0, backlog, size)

	l := kafkaLog(t, k.Brokers, partition.Default())
	follow(ctx, t, l, p)
	before := received(t, k.Brokers)
	var readers sync.WaitGroup
	var bad atomic.Int64
	read := func(from, to int64) {
		readers.Go(func() {
			recs, err := readTo(ctx, l, p, from, to, 256<<10)
			if err != nil || len(recs) != int(to-from) {
				t.Errorf("%d records of %d: %v", len(recs), to-from, err)
			}
			for i, r := range recs {
				if r.Offset != from+int64(i) {
					bad.Add(1)
				}
			}
		})
	}
	for range 50 {
		read(0, backlog+live)
		read(backlog, backlog+live)
	}
	for i := 0; i < live; i += 1_000 {
		w.write(ctx, p, backlog+i, 1_000, size)
	}
	readers.Wait()
	many := received(t, k.Brokers) - before

	before = received(t, k.Brokers)
	one := kafkaLog(t, k.Brokers, partition.Default())
	for from := int64(0); from < backlog+live; {
		_, next, err := one.Read(ctx, p, from, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		from = next
	}
	once := received(t, k.Brokers) - before
	ratio := float64(many) / float64(once)
	t.Logf("100 readers received %d B, one reading %d B: %.3f", many, once, ratio)
	if ratio > 1.05 || bad.Load() > 0 || once < (backlog+live)*size {
		t.Errorf("ratio %.3f, %d wrong offsets", ratio, bad.Load())
	}
}

// Readers that are behind, each a little elsewhere, share what they read.
func TestLaggardsShareTheirReading(t *testing.T) {
	k := backend.Kafka(t)
	p := sluice.Partition{Topic: k.Topic(t, "laggards", 1)}
	w := newWriter(t, k.Brokers)
	ctx := deadline(t, time.Minute)
	const n, size = 20_000, 1_000
	w.write(ctx, p, 0, n, size)
	l := kafkaLog(t, k.Brokers, partition.Default())
	before := received(t, k.Brokers)
	var readers sync.WaitGroup
	for i := range 50 {
		readers.Go(func() {
			for from := int64(i * 83); from < n; {
				_, next, err := l.Read(ctx, p, from, 100<<10)
				if err != nil {
					t.Error(err)
					return
				}
				from = next
			}
		})
	}
	readers.Wait()
	ratio := float64(received(t, k.Brokers)-before) / (n * size)
	t.Logf("50 readers up to 4,000 offsets apart received %.2f times the records", ratio)
	if ratio > 2 {
		t.Errorf("ratio %.2f", ratio)
	}
}

// follow returns when the partition is followed: the reader at the end is answered without a fetch.
func follow(ctx context.Context, t *testing.T, l *partition.Log, p sluice.Partition) {
	t.Helper()
	for {
		bell := l.Changed(p)
		if l.Live(p) {
			return
		}
		select {
		case <-bell:
		case <-ctx.Done():
			t.Fatal("not followed")
		}
	}
}

// A record of a quiet partition must not keep alive the answers in which a busy one of the same broker came.
func TestAQuietPartitionBesideABusyOneHoldsItsOwnBytesOnly(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "quiet", 2)
	quiet, busy := sluice.Partition{Topic: topic}, sluice.Partition{Topic: topic, Number: 1}
	w := newWriter(t, k.Brokers)
	ctx := deadline(t, time.Minute)
	c := partition.Config{RingBytes: 256 << 10, RingRecords: 10_000, CacheBytes: 1 << 20}
	l := kafkaLog(t, k.Brokers, c)
	follow(ctx, t, l, quiet)
	follow(ctx, t, l, busy)
	const rounds = 100
	for i := range rounds {
		var both sync.WaitGroup
		both.Go(func() { w.write(ctx, busy, i*500, 500, 1_000) })
		both.Go(func() { w.write(ctx, quiet, i, 1, 1_000) })
		both.Wait()
	}
	kept, err := readTo(ctx, l, quiet, 0, rounds, 1<<20)
	if err != nil || len(kept) != rounds {
		t.Fatalf("%d records, %v", len(kept), err)
	}
	if _, err := readTo(ctx, l, busy, rounds*500-100, rounds*500, 1<<20); err != nil {
		t.Fatal(err)
	}
	with := heap()
	runtime.KeepAlive(kept) // until here
	stop(t, l)
	l.Forget()
	held := with - heap()
	t.Logf("%d B held", held)
	if most := int64(2*c.RingBytes + c.CacheBytes + rounds*64<<10/8); held > most+2<<20 {
		t.Errorf("the log and %d records of 1,000 B hold %d B, budgets %d B", rounds, held, most)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
