package kafka

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// What only several real brokers can do to a producer, on one cluster.
func TestProducerOverThreeRealBrokers(t *testing.T) {
	t.Parallel() // like others here that wait for most of their time
	c := backend.Cluster(t, 3)
	admin := NewAdmin(testClients(t, &c.Broker))
	for _, fault := range []struct {
		name string
		test func(*testing.T, *backend.RealCluster)
	}{
		{"one that hangs leaves the latency of the others", hungBeside},
		{"too few replicas", tooFewReplicas},
		{"one dies and another freezes", diesAndFreezes},
	} {
		eventually(t, "all brokers are there", func() bool {
			ids, err := admin.Brokers(testContext(t))
			return err == nil && len(ids) == 3
		})
		t.Run(fault.name, func(t *testing.T) { fault.test(t, c) })
	}
}

// One of three brokers dies under 64 callers, comes back, and later another one freezes: no record fails, none is lost or
// doubled, and each caller's order holds. A call waits at most until Kafka has given the dead one up (its session is
// 9 s). A partition whose only replica is gone disturbs nobody, and its records are reported as not written.
func diesAndFreezes(t *testing.T, c *backend.RealCluster) {
	k := &c.Broker
	topic := k.TopicOf(t, "killed", 6, 3, "min.insync.replicas=2")
	lone := k.TopicOf(t, "lone", 3, 1)
	clients := testClients(t, k)
	p := testProducer(t, clients)
	admin := NewAdmin(clients)
	described, err := admin.Topic(testContext(t), lone)
	if err != nil {
		t.Fatal(err)
	}
	orphan := int32(-1)
	for _, part := range described.Partitions {
		if part.Leader == 1 {
			orphan = part.Number
		}
	}

	const callers = 64
	var wrote [callers]int
	var slowest atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	for caller := range callers {
		wait.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				begin := time.Now()
				receipts, err := p.Produce(context.Background(), topic, []sluice.NewRecord{{Partition: int32(caller % 6), Value: fmt.Appendf(nil, "%d:%d", caller, n)}})
				if err != nil || receipts[0].Err != nil {
					t.Errorf("caller %d, record %d: %v %+v", caller, n, err, receipts)
					return
				}
				wrote[caller] = n + 1
				slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	progress := func(what string, within time.Duration) {
		t.Helper()
		begin := time.Now()
		for number := range int32(6) {
			before := int64(-1)
			eventually(t, fmt.Sprintf("%s: partition %d goes on", what, number), func() bool {
				now, err := admin.Range(testContext(t), sluice.Partition{Topic: topic, Number: number})
				if err == nil && before < 0 {
					before = now.End
				}
				return err == nil && now.End > before+20
			})
		}
		took := time.Since(begin)
		t.Logf("%s: all partitions went on after %v", what, took)
		if took > within {
			t.Errorf("that is more than %v", within)
		}
	}
	progress("start", 5*time.Second)
	c.Kill(t, 1)
	progress("one killed", 16*time.Second)
	if orphan >= 0 {
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		receipts, err := p.Produce(short, lone, []sluice.NewRecord{{Partition: orphan, Value: []byte("nowhere")}, {Partition: (orphan + 1) % 3, Value: []byte("v")}})
		cancel()
		if err != nil || sluice.KindOf(receipts[0].Err) != sluice.Retriable || receipts[1].Err != nil {
			t.Errorf("leaderless: %v %+v", err, receipts)
		}
	}
	c.Start(t, 1)
	eventually(t, "it is in sync again", func() bool {
		described, err := admin.Topic(testContext(t), topic)
		for _, part := range described.Partitions {
			if len(part.InSync) < 3 {
				return false
			}
		}
		return err == nil
	})
	c.Pause(t, 2)
	progress("one frozen", 25*time.Second)
	c.Resume(t, 2)
	stop()
	wait.Wait()
	t.Logf("slowest call %v", time.Duration(slowest.Load()))
	if took := time.Duration(slowest.Load()); took > 25*time.Second {
		t.Errorf("a call took %v", took)
	}
	next := map[int]int{}
	for number := range int32(6) {
		for _, r := range readAll(t, clients, topic, number) {
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
	total := 0
	for caller, n := range wrote {
		if next[caller] != n {
			t.Errorf("caller %d: %d records in the log, %d written", caller, next[caller], n)
		}
		total += n
	}
	t.Logf("%d records, none lost, none doubled", total)
}
