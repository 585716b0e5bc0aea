package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// With too few replicas in sync a record is surely not written, and said to be so; what was in flight when the replica
// died may be written, and is called unknown. A partition that has its replicas goes on.
func tooFewReplicas(t *testing.T, c *backend.RealCluster) {
	k := &c.Broker
	strict := k.TopicOf(t, "strict", 3, 2, "min.insync.replicas=2")
	loose := k.TopicOf(t, "loose", 1, 3, "min.insync.replicas=2")
	clients := testClients(t, k)
	p := testProducer(t, clients)
	admin := NewAdmin(clients)
	described, err := admin.Topic(testContext(t), strict)
	if err != nil {
		t.Fatal(err)
	}
	const victim = 2
	var poor int32 = -1 // a partition that the victim follows
	for _, part := range described.Partitions {
		if part.Leader != victim && slices.Contains(part.Replicas, victim) {
			poor = part.Number
		}
	}
	if poor < 0 {
		t.Fatalf("no partition is followed by broker %d: %+v", victim, described.Partitions)
	}
	mustProduce(t, p, strict, sluice.NewRecord{Partition: poor, Value: []byte("before")})

	inFlight := make(chan error, 1)
	stop, ended := context.WithCancel(context.Background())
	go func() { // one after the other, over the fault
		var last error
		for n := 0; stop.Err() == nil && last == nil; n++ {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			receipts, err := p.Produce(ctx, strict, []sluice.NewRecord{{Partition: poor, Value: fmt.Append(nil, "flight ", n)}})
			cancel()
			if last = err; err == nil {
				last = receipts[0].Err
			}
		}
		inFlight <- last
	}()
	c.Kill(t, victim)
	eventually(t, "the victim is out of sync", func() bool {
		described, err := admin.Topic(testContext(t), strict)
		return err == nil && !described.Partitions[poor].InSyncReplica(victim)
	})
	last := <-inFlight
	ended()
	t.Logf("over the fault: %v", last)
	if kind := sluice.KindOf(last); kind != sluice.Retriable && kind != sluice.OutcomeUnknown {
		t.Errorf("over the fault: %v", last)
	}

	surely := map[string]bool{}
	for n, refused := 0, 0; refused < 2; n++ { // the first may wait behind what was in flight, or still be appended
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		value := fmt.Sprint("refused ", n)
		receipts, err := p.Produce(ctx, strict, []sluice.NewRecord{{Partition: poor, Value: []byte(value)}})
		cancel()
		if err != nil || n == 20 {
			t.Fatalf("%v %+v", err, receipts)
		}
		e, ok := errors.AsType[*sluice.Error](receipts[0].Err)
		if !ok || e.Kind != sluice.Retriable && (e.Kind != sluice.OutcomeUnknown || refused > 0) {
			t.Fatalf("%+v", receipts)
		}
		surely[value] = e.Kind == sluice.Retriable
		switch {
		case e.Kind == sluice.OutcomeUnknown:
		case strings.Contains(e.Msg, "in-sync replicas"):
			refused++
		case !strings.Contains(e.Msg, "it was not written"):
			t.Errorf("%v", e)
		}
	}
	mustProduce(t, p, loose, sluice.NewRecord{Value: []byte("beside")})

	var waited sync.WaitGroup
	waited.Go(func() { mustProduce(t, p, strict, sluice.NewRecord{Partition: poor, Value: []byte("waited")}) })
	c.Start(t, victim)
	waited.Wait()
	got := map[string]int{}
	flights := 0
	for _, r := range readAll(t, clients, strict, poor) {
		got[string(r.Value)]++
		if bytes.HasPrefix(r.Value, []byte("flight ")) {
			if want := fmt.Sprint("flight ", flights); string(r.Value) != want {
				t.Errorf("%q where %q belongs", r.Value, want)
			}
			flights++
		}
		if surely[string(r.Value)] {
			t.Errorf("%q was reported as not written", r.Value)
		}
	}
	if got["before"] != 1 || got["waited"] != 1 {
		t.Errorf("log: %v", got)
	}
}

// A broker forgets or disputes what it knows of us: a sequence that does not follow, an epoch that is over, a producer id
// that it never gave out. Each heals inside the call, on any Kafka, and nothing is doubled.
func TestSequenceErrorsHeal(t *testing.T) {
	k := backend.Kafka(t)
	for name, spoil := range map[string]func(*queue){
		"a gap":            func(q *queue) { q.seq += 7 },
		"a repeat of old":  func(q *queue) { q.seq = 0 },
		"an old epoch":     func(q *queue) { q.id.epoch-- },
		"an unknown id":    func(q *queue) { q.id.producer += 1_000_000 },
		"a foreign future": func(q *queue) { q.id.epoch += 3; q.seq = 5 },
	} {
		t.Run(name, func(t *testing.T) {
			p, clients, w := wiredProducer(t, k)
			topic := k.Topic(t, "sequences", 1)
			for i := range 8 {
				mustProduce(t, p, topic, sluice.NewRecord{Value: fmt.Append(nil, "before ", i)})
			}
			p.mu.Lock()
			q := p.topics[topic].queues[0]
			if q.id.epoch == 0 { // so that there is an older one
				q.raiseEpoch()
			}
			p.mu.Unlock()
			mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("before 8")})
			requests := w.produced.Load()
			p.mu.Lock()
			spoil(q)
			p.mu.Unlock()
			receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("v")}, {Value: []byte("w")}})
			if err != nil {
				t.Fatal(err)
			}
			mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("after")})
			got := values(t, clients, topic, 1)
			for i, v := range []string{"v", "w"} {
				if receipts[i].Err != nil || got[v] != 1 {
					t.Errorf("%s: %+v, %d in the log", v, receipts[i], got[v])
				}
			}
			if got["after"] != 1 || len(got) != 12 {
				t.Errorf("log: %v", got)
			}
			t.Logf("%d requests for two calls", w.produced.Load()-requests)
		})
	}
}

// MESSAGE_TOO_LARGE for a whole batch: the one record in its middle that is too large fails, its neighbours of the same
// call and of others are written, in order. The limit came after Kafka was asked for it.
func TestTooLargeInTheMiddleOfABatch(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, w := wiredProducer(t, k)
	topic := k.Topic(t, "middle", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("first")})
	setLimit(t, k, topic, "5000")
	requests := w.produced.Load()
	recs := make([]sluice.NewRecord, 21)
	for i := range recs {
		recs[i].Value = fmt.Appendf(nil, "%02d", i)
	}
	recs[10].Value = make([]byte, 6_000)
	receipts, err := p.Produce(testContext(t), topic, recs)
	if err != nil {
		t.Fatal(err)
	}
	offset := int64(1)
	for i, r := range receipts {
		if i == 10 {
			if sluice.KindOf(r.Err) != sluice.TooLarge {
				t.Errorf("the large one: %+v", r)
			}
			continue
		}
		if r.Err != nil || r.Offset != offset {
			t.Errorf("record %d: %+v, want offset %d", i, r, offset)
		}
		offset++
	}
	if got := readAll(t, clients, topic, 0); len(got) != 21 {
		t.Errorf("%d records in the log", len(got))
	}
	if n := w.produced.Load() - requests; n < 3 {
		t.Errorf("%d requests: the broker refused no batch", n)
	}
}

// A broker that hangs costs the partitions of the others nothing: their latency under load stays what it was beside it.
func hungBeside(t *testing.T, c *backend.RealCluster) {
	k := &c.Broker
	topic := k.TopicOf(t, "beside", 3, 1) // each partition on one broker alone
	clients := testClients(t, k)
	p := testProducer(t, clients)
	described, err := NewAdmin(clients).Topic(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	const hung = 3
	var healthy []int32
	ill := int32(-1)
	for _, part := range described.Partitions {
		if part.Leader == hung {
			ill = part.Number
		} else {
			healthy = append(healthy, part.Number)
		}
	}
	if ill < 0 {
		t.Fatalf("broker %d leads nothing: %+v", hung, described.Partitions)
	}
	measure := func() (median, p90 time.Duration) {
		var mu sync.Mutex
		var took []time.Duration
		var wait sync.WaitGroup
		for caller := range 16 {
			wait.Go(func() {
				for range 40 {
					begin := time.Now()
					mustProduceIn(t, p, topic, sluice.NewRecord{Partition: healthy[caller%len(healthy)], Value: make([]byte, 1000)})
					mu.Lock()
					took = append(took, time.Since(begin))
					mu.Unlock()
				}
			})
		}
		wait.Wait()
		slices.Sort(took)
		return took[len(took)/2], took[len(took)*9/10]
	}
	measure() // connections, and a JVM that is warm
	median, p90 := measure()

	c.Pause(t, hung)
	ctx, cancel := context.WithCancel(context.Background())
	var stuck sync.WaitGroup
	defer stuck.Wait()
	defer cancel()
	for range 64 { // callers that wait for it the while
		stuck.Go(func() {
			for ctx.Err() == nil {
				short, cancel := context.WithTimeout(ctx, 2*time.Second)
				receipts, err := p.Produce(short, topic, []sluice.NewRecord{{Partition: ill, Value: make([]byte, 1000)}})
				cancel()
				if err == nil && receipts[0].Err == nil {
					t.Error("a broker that hangs has answered")
					return
				}
			}
		})
	}
	eventually(t, "callers are stuck", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.open > 32 })
	thenMedian, thenP90 := measure()
	t.Logf("median %v, then %v; p90 %v, then %v", median, thenMedian, p90, thenP90)
	// Some requests are shared with nobody now, and the machine is others' too: much more than that is the hung broker.
	if thenMedian > 4*median+20*time.Millisecond {
		t.Errorf("the median went from %v to %v", median, thenMedian)
	}
	cancel()
	c.Resume(t, hung)
}

// mustProduceIn is mustProduce for goroutines of a test.
func mustProduceIn(t testing.TB, p *Producer, topic string, record sluice.NewRecord) {
	receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{record})
	if err != nil || receipts[0].Err != nil {
		t.Errorf("%v %+v", err, receipts)
	}
}
