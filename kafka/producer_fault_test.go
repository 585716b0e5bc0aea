package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// faulty is a back end whose brokers can be told to fail.
func faulty(t *testing.T, brokers int) *backend.Broker {
	t.Helper()
	k := backend.KafkaOf(t, brokers)
	if k.Fake() == nil {
		backend.NotRun(t, "only the embedded Kafka fails on command")
	}
	return k
}

// An answer that is lost after the broker wrote the batch does not lead to a second copy, on any Kafka: the same batch
// is sent again and recognised.
func TestLostAnswerMakesNoDuplicate(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, w := wiredProducer(t, k)
	topic := k.Topic(t, "lost", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("0")})
	for i := 1; i < 8; i++ {
		w.lose.Store(int64(i % 4))
		r := mustProduce(t, p, topic, sluice.NewRecord{Value: fmt.Append(nil, i)}, sluice.NewRecord{Value: fmt.Append(nil, i, "b")})
		if r[0].Offset != int64(2*i-1) || r[1].Offset != int64(2*i) {
			t.Fatalf("call %d: %+v", i, r)
		}
	}
	if got := readAll(t, clients, topic, 0); len(got) != 15 {
		t.Errorf("%d records in the log", len(got))
	}
	if n := w.produced.Load(); n <= 8 {
		t.Errorf("%d produce requests: nothing was lost", n)
	}
}

// With every answer lost until the caller's time is over, the receipt says that the outcome is unknown; what comes after
// is written, and never twice.
func TestUnconfirmedIsUnknown(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, w := wiredProducer(t, k)
	topic := k.Topic(t, "unknown", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("before")})
	w.lose.Store(1 << 30)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	receipts, err := p.Produce(ctx, topic, []sluice.NewRecord{{Value: []byte("unknown")}})
	if err != nil || sluice.KindOf(receipts[0].Err) != sluice.OutcomeUnknown {
		t.Errorf("%v %+v", err, receipts)
	}
	w.lose.Store(0)
	for i := range 5 {
		mustProduce(t, p, topic, sluice.NewRecord{Value: fmt.Append(nil, i)})
	}
	if got := values(t, clients, topic, 1); got["before"] != 1 || got["unknown"] > 1 || len(got)-got["unknown"] != 6 {
		t.Errorf("log: %v", got)
	}
}

// The retriable refusals of a broker are waited out inside the call; what it refuses for good fails at once, with its
// kind; what may be written is called unknown.
func TestCodesOfTheBroker(t *testing.T) {
	k := faulty(t, 3)
	p, clients, _ := wiredProducer(t, k)
	for _, c := range []struct {
		err   *kerr.Error
		count int
		want  sluice.Kind
	}{
		{kerr.NotLeaderForPartition, 3, ""},
		{kerr.LeaderNotAvailable, 3, ""},
		{kerr.UnknownTopicOrPartition, 1, ""},
		{kerr.NotEnoughReplicas, 3, ""},
		{kerr.NotEnoughReplicasAfterAppend, 2, ""},
		{kerr.RequestTimedOut, 3, ""},
		{kerr.KafkaStorageError, 2, ""},
		{kerr.ThrottlingQuotaExceeded, 2, ""},
		{kerr.OutOfOrderSequenceNumber, 1, ""},
		{kerr.InvalidProducerEpoch, 2, ""},
		{kerr.UnknownProducerID, 1, ""},
		{kerr.TopicAuthorizationFailed, 1, sluice.Forbidden},
		{kerr.ClusterAuthorizationFailed, 1, sluice.Forbidden},
		{kerr.InvalidRequiredAcks, 1, sluice.Rejected},
		{kerr.PolicyViolation, 1, sluice.Rejected},
		{kerr.MessageTooLarge, 1, sluice.TooLarge},
		{kerr.CorruptMessage, 1, sluice.Rejected},
		{kerr.InvalidRecord, 1, sluice.Rejected},
		{kerr.UnknownServerError, 1, sluice.OutcomeUnknown},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			topic := k.Topic(t, "codes", 1)
			mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("before")})
			fault := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: c.err, Count: c.count})
			receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("v")}})
			if err != nil || sluice.KindOf(receipts[0].Err) != c.want {
				t.Fatalf("%v %+v", err, receipts)
			}
			if fault.Hits() != c.count {
				t.Errorf("%d refusals", fault.Hits())
			}
			mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("after")})
			want := map[bool]int{true: 1, false: 0}[c.want == ""]
			if got := values(t, clients, topic, 1); got["before"] != 1 || got["v"] != want || got["after"] != 1 {
				t.Errorf("log: %v", got)
			}
		})
	}
}

// Without enough replicas a record waits until its caller's time is over, and is reported as what it surely is: not
// written. When the replicas went missing after the append, it may be.
func TestNotEnoughReplicas(t *testing.T) {
	k := faulty(t, 1)
	p, clients, _ := wiredProducer(t, k)
	for _, c := range []struct {
		err  *kerr.Error
		want sluice.Kind
		text string
	}{
		{kerr.NotEnoughReplicas, sluice.Retriable, "in-sync replicas"},
		{kerr.NotEnoughReplicasAfterAppend, sluice.OutcomeUnknown, "outcome unknown"},
	} {
		topic := k.Topic(t, "replicas", 1)
		fault := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: c.err, Count: -1})
		ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
		receipts, err := p.Produce(ctx, topic, []sluice.NewRecord{{Value: []byte("v")}})
		cancel()
		if e, ok := errors.AsType[*sluice.Error](receipts[0].Err); err != nil || !ok || e.Kind != c.want || !strings.Contains(e.Msg, c.text) {
			t.Errorf("%v %+v", err, receipts)
		}
		if fault.Hits() < 2 {
			t.Errorf("tried %d times", fault.Hits())
		}
		fault.Remove()
		mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("after")})
		if got := values(t, clients, topic, 1); got["v"] > 1 || c.want == sluice.Retriable && got["v"] != 0 || got["after"] != 1 {
			t.Errorf("log: %v", got)
		}
	}
}

// A broker that hangs gathers no more than its share of memory: then callers for it are turned away at once, with all
// their records, and others are not.
func TestFullBrokerTurnsCallersAway(t *testing.T) {
	k := faulty(t, 2)
	p, _, w := wiredProducer(t, k)
	topic := k.Topic(t, "full", 2, "max.message.bytes=25165824")
	for i := range int32(2) {
		if err := k.Fake().MoveTopicPartition(topic, i, i); err != nil {
			t.Fatal(err)
		}
		mustProduce(t, p, topic, sluice.NewRecord{Partition: i, Value: []byte("before")})
	}
	w.hang(k.Brokers[1])
	ctx, cancel := context.WithCancel(context.Background())
	value := make([]byte, 16<<20)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			receipts, err := p.Produce(ctx, topic, []sluice.NewRecord{{Partition: 1, Value: value}})
			if err != nil || receipts[0].Err == nil {
				t.Errorf("%v %+v", err, receipts)
			}
		})
	}
	eventually(t, "full", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.senders[1].bytes > senderBytes })
	_, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Partition: 0, Value: []byte("v")}, {Partition: 1, Value: []byte("v")}})
	var e *sluice.Error
	if !errors.As(err, &e) || e.Kind != sluice.Overloaded || e.RetryAfter == 0 {
		t.Errorf("%v", err)
	}
	if r := mustProduce(t, p, topic, sluice.NewRecord{Partition: sluice.AnyPartition, Value: []byte("v")}); r[0] != (sluice.Receipt{Partition: 0, Offset: 1}) {
		t.Errorf("beside it: %+v", r)
	}
	cancel()
	wait.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.senders[1].bytes; n != 0 {
		t.Errorf("%d bytes still count", n)
	}
}

// A batch that the broker refuses without naming a record is halved until the bad one stands alone.
func TestBisect(t *testing.T) {
	k := faulty(t, 1)
	p, clients, _ := wiredProducer(t, k)
	topic := k.Topic(t, "bisect", 1)
	k.Fake().ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		req := q.(*kmsg.ProduceRequest)
		for _, part := range req.Topics[0].Partitions {
			if !bytes.Contains(part.Records, []byte("poison")) {
				return nil, nil, false
			}
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic = req.Topics[0].Topic
		for _, part := range req.Topics[0].Partitions {
			answer := kmsg.NewProduceResponseTopicPartition()
			answer.Partition, answer.ErrorCode = part.Partition, kerr.InvalidRecord.Code
			topic.Partitions = append(topic.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	var recs []sluice.NewRecord
	bad := map[int]bool{0: true, 13: true, 14: true, 99: true}
	for i := range 100 {
		value := fmt.Appendf(nil, "good %02d", i)
		if bad[i] {
			value = []byte("poison")
		}
		recs = append(recs, sluice.NewRecord{Value: value})
	}
	receipts, err := p.Produce(testContext(t), topic, recs)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(-1)
	for i, r := range receipts {
		if bad[i] != (sluice.KindOf(r.Err) == sluice.Rejected) || !bad[i] && (r.Err != nil || r.Offset != last+1) {
			t.Errorf("record %d: %+v", i, r)
		}
		last = max(last, r.Offset)
	}
	if got := readAll(t, clients, topic, 0); len(got) != 96 {
		t.Errorf("%d records in the log", len(got))
	}
}

// Leaders move every 50 ms and answers get lost, while many write: nothing is lost, nothing doubled, and each caller's
// records stay in order.
func TestLeadersMoveUnderLoad(t *testing.T) {
	k := faulty(t, 3)
	p, clients, w := wiredProducer(t, k)
	topic := k.Topic(t, "moving", 6)
	stop := make(chan struct{})
	var nemesis sync.WaitGroup
	nemesis.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				k.Fake().ShufflePartitionLeaders()
				w.lose.Store(rand.N[int64](3))
			}
		}
	})
	const callers, calls = 20, 60
	var wait sync.WaitGroup
	begin := time.Now()
	for caller := range callers {
		wait.Go(func() {
			for i := range calls {
				receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{
					{Partition: int32(caller % 6), Value: fmt.Appendf(nil, "%d:%d", caller, 2*i)},
					{Partition: int32(caller % 6), Value: fmt.Appendf(nil, "%d:%d", caller, 2*i+1)}})
				if err != nil || receipts[0].Err != nil || receipts[1].Err != nil || receipts[1].Offset <= receipts[0].Offset {
					t.Errorf("caller %d: %v %+v", caller, err, receipts)
					return
				}
			}
		})
	}
	wait.Wait()
	close(stop)
	nemesis.Wait()
	t.Logf("%d records in %v, %d produce requests", 2*callers*calls, time.Since(begin), w.produced.Load())
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
	for caller := range callers {
		if next[caller] != 2*calls {
			t.Errorf("caller %d: %d records", caller, next[caller])
		}
	}
}

// A clean move of a leader costs a call well under a second.
func TestMovedLeaderIsFoundAtOnce(t *testing.T) {
	k := faulty(t, 3)
	p, _, _ := wiredProducer(t, k)
	topic := k.Topic(t, "moved", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("v")})
	for i := range 6 {
		if err := k.Fake().MoveTopicPartition(topic, 0, int32(i%3)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("v")})
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Errorf("move %d cost %v", i, took)
		}
	}
}

// A broker that hangs costs its own partitions and no others. Records that were not sent leave with their context and
// are not written; those that were are of unknown outcome; records without a key go elsewhere meanwhile.
func TestHungBrokerDelaysNobodyElse(t *testing.T) {
	k := faulty(t, 3)
	p, clients, w := wiredProducer(t, k, func(c *Config) { c.ProduceTimeout = 3 * time.Second })
	topic := k.Topic(t, "hung", 3)
	for i := range int32(3) {
		if err := k.Fake().MoveTopicPartition(topic, i, i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int32(3) {
		mustProduce(t, p, topic, sluice.NewRecord{Partition: i, Value: []byte("before")})
	}
	w.hang(k.Brokers[1])

	var wait sync.WaitGroup
	before := w.produced.Load()
	sent := make(chan struct{})
	wait.Go(func() {
		begin := time.Now()
		receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Partition: 1, Value: []byte("sent")}})
		if err != nil || sluice.KindOf(receipts[0].Err) != sluice.OutcomeUnknown {
			t.Errorf("sent: %v %+v", err, receipts)
		}
		if took := time.Since(begin); took < 2900*time.Millisecond || took > 4*time.Second {
			t.Errorf("answered after %v", took)
		}
		close(sent)
	})
	eventually(t, "sent", func() bool { return w.produced.Load() > before })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	receipts, err := p.Produce(ctx, topic, []sluice.NewRecord{{Partition: 1, Value: []byte("queued")}})
	if err != nil || sluice.KindOf(receipts[0].Err) != sluice.Retriable {
		t.Errorf("queued: %v %+v", err, receipts)
	}

	for i := 0; ; i++ { // until the other caller has its answer
		begin := time.Now()
		mustProduce(t, p, topic, sluice.NewRecord{Partition: int32(i%2) * 2, Value: []byte("beside")})
		if took := time.Since(begin); took > 500*time.Millisecond {
			t.Fatalf("another broker's partition took %v", took)
		}
		if i > 20 && len(sent) == 0 {
			select {
			case <-sent:
			case <-time.After(10 * time.Millisecond):
				continue
			}
			break
		}
	}
	wait.Wait()
	for range 50 {
		r := mustProduce(t, p, topic, sluice.NewRecord{Partition: sluice.AnyPartition, Value: make([]byte, 1000)})
		if r[0].Partition == 1 {
			t.Fatal("a record without a key went to the broker that hangs")
		}
	}
	w.heal(k.Brokers[1])
	mustProduce(t, p, topic, sluice.NewRecord{Partition: 1, Value: []byte("after")})
	got := values(t, clients, topic, 3)
	if got["queued"] != 0 || got["sent"] > 1 || got["after"] != 1 {
		t.Errorf("log: queued %d, sent %d, after %d", got["queued"], got["sent"], got["after"])
	}
}

// A broker that is down: records for it leave as surely not written, and are written when it is back in time.
func TestBrokerDown(t *testing.T) {
	k := backend.Kafka(t)
	clients := testClients(t, k)
	w := &wires{}
	clients.dial = w.dial // of the producer: metadata goes on
	p := testProducer(t, clients)
	topic := k.Topic(t, "down", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("before")})

	w.switchOff(true)
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	receipts, err := p.Produce(ctx, topic, []sluice.NewRecord{{Value: []byte("given up")}})
	if err != nil || receipts[0].Err == nil {
		t.Fatalf("%v %+v", err, receipts)
	}
	first := sluice.KindOf(receipts[0].Err)

	var wait sync.WaitGroup
	wait.Go(func() { mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("waited")}) })
	eventually(t, "it waits", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.open == 1 })
	w.switchOff(false)
	wait.Wait()
	got := values(t, clients, topic, 1)
	if got["before"] != 1 || got["waited"] != 1 || got["given up"] > 0 && first == sluice.Retriable {
		t.Errorf("log: %v; given up as %v", got, first)
	}
}

// When no broker at all answers, a call that could not be attempted fails at once; one that waits has its answer in
// time; and all recovers without help.
func TestKafkaDown(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, w := wiredProducer(t, k, func(c *Config) { c.ProduceTimeout = 2 * time.Second })
	topic := k.Topic(t, "off", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("before")})
	w.switchOff(true)
	begin := time.Now()
	receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("waits")}})
	if took := time.Since(begin); err != nil || receipts[0].Err == nil || took > 3*time.Second {
		t.Errorf("waiting: %v %+v after %v", err, receipts, took)
	}
	eventually(t, "callers are turned away at once", func() bool {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err := p.Produce(ctx, topic, []sluice.NewRecord{{Value: []byte("turned away")}})
		return sluice.KindOf(err) == sluice.Unavailable && time.Since(begin) < 15*time.Millisecond
	})
	// Between two look-ups a call is taken and waits for the next one. Nothing of it was attempted either, and 503 says so.
	p.mu.Lock()
	p.down = time.Time{}
	for _, q := range p.topics[topic].queues {
		q.topic.unanswered = false
	}
	p.mu.Unlock()
	if receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("turned away late")}}); sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("a call that waited in vain: %v %+v", err, receipts)
	}
	if _, err := p.Produce(testContext(t), backend.Unique("new"), []sluice.NewRecord{{}}); sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("unknown topic without Kafka: %v", err)
	}
	w.switchOff(false)
	eventually(t, "it recovers", func() bool {
		receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("after")}})
		return err == nil && receipts[0].Err == nil
	})
	if got := values(t, clients, topic, 1); got["before"] != 1 || got["turned away"]+got["turned away late"] != 0 || got["after"] == 0 {
		t.Errorf("log: %v", got)
	}
}

// A topic that is deleted under its writers is unknown well under a second later, and not made again; one of the same
// name that follows takes records, all of them.
func TestDeletedTopicIsUnknown(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, _ := wiredProducer(t, k)
	name := k.Topic(t, "deleted", 1)
	mustProduce(t, p, name, sluice.NewRecord{Value: []byte("old")})
	k.Delete(t, name)
	eventually(t, "deleted", func() bool {
		clients.meta.mu.Lock()
		delete(clients.meta.topics, name)
		clients.meta.mu.Unlock()
		_, err := NewAdmin(clients).Topic(testContext(t), name)
		return sluice.KindOf(err) == sluice.UnknownTopic
	})
	begin := time.Now()
	_, err := p.Produce(testContext(t), name, []sluice.NewRecord{{Value: []byte("v")}})
	if sluice.KindOf(err) != sluice.UnknownTopic || time.Since(begin) > 900*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	if _, err := NewAdmin(clients).Topic(testContext(t), name); sluice.KindOf(err) != sluice.UnknownTopic {
		t.Errorf("it is back: %v", err)
	}
	eventually(t, "it is made again", func() bool { // 2.8 deletes in the background, and meanwhile says "exists"
		err := NewAdmin(clients).CreateTopic(testContext(t), sluice.TopicSpec{Name: name, Partitions: 1})
		_, looked := clients.metadata().topic(testContext(t), name, time.Now())
		return err == nil && looked == nil
	})
	for i := range 3 {
		if r := mustProduce(t, p, name, sluice.NewRecord{Value: []byte("new")}); r[0].Offset != int64(i) {
			t.Errorf("record %d: %+v", i, r)
		}
	}
}

// Stop waits for what is on its way, turns others away, and gives up only when its own context ends.
func TestStopDrains(t *testing.T) {
	k := backend.Kafka(t)
	clients, w := wiredClients(t, k)
	topic := k.Topic(t, "stop", 1)
	start := func() *Producer {
		p, err := NewProducer(clients, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("first")})
		return p
	}

	p := start()
	running := make(chan error, 1)
	go func() { running <- p.Run(context.Background()) }()
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("v")}})
			if err == nil && receipts[0].Err != nil || err != nil && sluice.KindOf(err) != sluice.Unavailable {
				t.Errorf("%v %+v", err, receipts)
			}
		})
	}
	if err := p.Stop(testContext(t)); err != nil {
		t.Error(err)
	}
	wait.Wait()
	if err := <-running; err != nil {
		t.Error(err)
	}
	if _, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{}}); sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("after Stop: %v", err)
	}

	p = start()
	for _, addr := range k.Brokers {
		w.hang(addr)
	}
	before := w.produced.Load()
	wait.Go(func() {
		receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("hangs")}})
		if err != nil || sluice.KindOf(receipts[0].Err) != sluice.OutcomeUnknown {
			t.Errorf("hung: %v %+v", err, receipts)
		}
	})
	eventually(t, "sent", func() bool { return w.produced.Load() > before })
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := p.Stop(ctx); err == nil {
		t.Error("Stop hides what it gave up")
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Stop took %v", took)
	}
	wait.Wait()
}
