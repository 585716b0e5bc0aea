package partition_test

import (
	"context"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A thousand partitions are followed by one replica: quickly, in little memory, and what comes on any of them is read.
// The CPU times are those of a real Kafka; kfake's own would count.
func TestAThousandPartitionsAreFollowed(t *testing.T) {
	const partitions = 1_000
	var k *backend.Broker
	switch backend.Name() {
	case backend.KFake:
		k = backend.Kafka(t)
	case backend.Kafka28:
		backend.NotRun(t, "Kafka 2.8 takes most of a minute to make so many partitions; runs on kafka41")
	default:
		k = &backend.Cluster(t, 1).Broker // a shared broker should not have to bear it
	}
	ctx := deadline(t, 3*time.Minute)
	topic := k.Topic(t, "crowd", partitions)
	l := kafkaLog(t, k.Brokers, partition.Default())
	w := newWriter(t, k.Brokers)
	first := make([]*kgo.Record, partitions) // a broker names itself as the leader before it has made the partition
	for n := range first {
		first[n] = &kgo.Record{Topic: topic, Partition: int32(n), Value: []byte("0 ")}
	}
	if err := w.client.ProduceSync(ctx, first...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	before, goroutines := heap(), runtime.NumGoroutine()

	all := make([]sluice.Partition, partitions)
	begin := time.Now()
	for n := range all {
		all[n] = sluice.Partition{Topic: topic, Number: int32(n)}
		l.Changed(all[n])
	}
	for _, p := range all {
		follow(ctx, t, l, p)
	}
	t.Logf("followed after %v", time.Since(begin))
	held := heap() - before
	t.Logf("%d B of heap and %d goroutines", held, runtime.NumGoroutine()-goroutines)
	if held > 64<<20 {
		t.Errorf("%d B of heap for %d partitions at rest", held, partitions)
	}

	window := 2 * time.Second
	if os.Getenv("TEST_LONG") != "" {
		window = 15 * time.Second
	}
	t.Logf("at rest: %.1f %% of a core", 100*busy(ctx, window))

	// One record each, spread over the window, as a crowd of quiet partitions has them.
	var slowest, total time.Duration
	var mu sync.Mutex
	var readers sync.WaitGroup
	stamps := make([]time.Time, partitions)
	for n, p := range all {
		readers.Go(func() {
			for {
				bell := l.Changed(p)
				recs, _, err := l.Read(ctx, p, 1, 1<<20)
				if err != nil {
					t.Errorf("%v: %v", p, err)
					return
				}
				if len(recs) > 0 {
					mu.Lock()
					took := time.Since(stamps[n])
					slowest, total = max(slowest, took), total+took
					mu.Unlock()
					return
				}
				select {
				case <-bell:
				case <-ctx.Done():
					t.Errorf("%v: nothing came", p)
					return
				}
			}
		})
	}
	begin = time.Now()
	spent := cpu()
	for n, p := range all {
		mu.Lock()
		stamps[n] = time.Now()
		mu.Unlock()
		w.client.Produce(ctx, &kgo.Record{Topic: topic, Partition: p.Number, Value: []byte("1 ")}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce to %v: %v", p, err)
			}
		})
		pace(ctx, begin.Add(window*time.Duration(n)/partitions))
	}
	readers.Wait()
	took := time.Since(begin)
	t.Logf("%d records in %v: %.1f %% of a core, latency %v on average, %v at most", partitions, took,
		100*float64(cpu()-spent)/float64(took), total/partitions, slowest)
}

// busy is the share of a core that the process uses meanwhile.
func busy(ctx context.Context, window time.Duration) float64 {
	begin, spent := time.Now(), cpu()
	pace(ctx, begin.Add(window))
	return float64(cpu()-spent) / float64(time.Since(begin))
}

// pace waits for a moment.
func pace(ctx context.Context, until time.Time) {
	select {
	case <-time.After(time.Until(until)):
	case <-ctx.Done():
	}
}

// cpu is the time that the process has used.
func cpu() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
