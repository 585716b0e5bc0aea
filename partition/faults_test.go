package partition_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// pull reads on as a lane does, over errors too, and tells how far it has come. It checks that nothing is left out or
// comes twice.
type pull struct {
	mu    sync.Mutex
	next  int64
	last  error
	moved chan struct{}
}

func startPull(ctx context.Context, t testing.TB, l *partition.Log, p sluice.Partition) *pull {
	t.Helper()
	r := &pull{moved: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		from := int64(0)
		for ctx.Err() == nil {
			bell := l.Changed(p)
			recs, next, err := l.Read(ctx, p, from, 256<<10)
			for i, record := range recs {
				if record.Offset != from+int64(i) || int64(number(record)) != record.Offset {
					t.Errorf("%v: offset %d with %d after %d", p, record.Offset, number(record), from+int64(i))
					return
				}
			}
			r.mu.Lock()
			r.next, r.last = next, err
			r.mu.Unlock()
			select {
			case r.moved <- struct{}{}:
			default:
			}
			switch {
			case err != nil:
				select {
				case <-time.After(200 * time.Millisecond):
				case <-ctx.Done():
				}
			case next == from:
				select {
				case <-bell:
				case <-ctx.Done():
				}
			}
			from = next
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return r
}

// await returns how long it took until everything below next was read.
func (r *pull) await(ctx context.Context, t testing.TB, next int64) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		r.mu.Lock()
		at, err := r.next, r.last
		r.mu.Unlock()
		if at >= next {
			return time.Since(begin)
		}
		select {
		case <-r.moved:
		case <-ctx.Done():
			t.Fatalf("stands at %d, wants %d; last error %v", at, next, err)
		}
	}
}

// What only several real brokers can do to a reader, on one cluster; the last leaves it broken.
func TestReadersOverThreeRealBrokers(t *testing.T) {
	c := backend.Cluster(t, 3)
	t.Run("leaders move and connections break", func(t *testing.T) { stir(t, &c.Broker, moveLeaders) })
	t.Run("one that dies or hangs costs its own partitions only", func(t *testing.T) { diesOrHangs(t, c) })
	t.Run("an unclean election is told to readers", func(t *testing.T) { unclean(t, c) })
}

// A broker that dies costs its own partitions seconds and the others nothing. One that hangs costs no more.
func diesOrHangs(t *testing.T, c *backend.RealCluster) {
	ctx := deadline(t, 3*time.Minute)
	safe := c.TopicOf(t, "safe", 3, 3, "min.insync.replicas=1")
	lone := c.TopicOf(t, "lone", 3, 1) // each partition on one broker alone
	l := kafkaLog(t, c.Brokers, partition.Default())
	w := newWriter(t, c.Brokers)
	pulls := map[sluice.Partition]*pull{}
	written := map[sluice.Partition]int{}
	for _, topic := range []string{safe, lone} {
		for n := range int32(3) {
			p := sluice.Partition{Topic: topic, Number: n}
			pulls[p] = startPull(ctx, t, l, p)
		}
	}
	write := func(p sluice.Partition) {
		w.write(ctx, p, written[p], 50, 100)
		written[p] += 50
	}
	all := func(which func(sluice.Partition) bool) (slowest time.Duration) {
		for p := range pulls {
			if which(p) {
				write(p)
				slowest = max(slowest, pulls[p].await(ctx, t, int64(written[p])))
			}
		}
		return slowest
	}
	any := func(sluice.Partition) bool { return true }
	all(any)

	const broken = 2
	leader := leaders(ctx, t, w.client, safe, lone)
	alive := func(p sluice.Partition) bool { return leader[p] != broken }
	for name, fault := range map[string]struct{ begin, end func(testing.TB, int) }{
		"dies": {c.Kill, c.Start}, "hangs": {c.Pause, c.Resume},
	} {
		leader = leaders(ctx, t, w.client, safe, lone)
		fault.begin(t, broken)
		if took := all(alive); took > 3*time.Second {
			t.Errorf("%s: a partition of another broker took %v", name, took)
		}
		took := all(func(p sluice.Partition) bool { return p.Topic == safe })
		t.Logf("%s: partitions with a new leader took %v", name, took)
		fault.end(t, broken)
		took = all(any)
		t.Logf("%s: all partitions afterwards took %v", name, took)
	}
}

// leaders is who leads each partition.
func leaders(ctx context.Context, t testing.TB, client *kgo.Client, topics ...string) map[sluice.Partition]int32 {
	t.Helper()
	found, err := askLeaders(ctx, client, topics...)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func askLeaders(ctx context.Context, client *kgo.Client, topics ...string) (map[sluice.Partition]int32, error) {
	ask := kmsg.NewPtrMetadataRequest()
	for _, name := range topics {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		ask.Topics = append(ask.Topics, topic)
	}
	answer, err := ask.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	found := map[sluice.Partition]int32{}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			found[sluice.Partition{Topic: *topic.Topic, Number: p.Partition}] = p.Leader
		}
	}
	return found, nil
}

func TestATopicMadeAnewIsReadAnew(t *testing.T) {
	k := backend.Kafka(t)
	ctx := deadline(t, time.Minute)
	p := sluice.Partition{Topic: k.Topic(t, "anew", 1)}
	l := kafkaLog(t, k.Brokers, partition.Default())
	w := newWriter(t, k.Brokers)
	follow(ctx, t, l, p)
	w.write(ctx, p, 0, 100, 100)
	if recs, err := readTo(ctx, l, p, 0, 100, 1<<20); err != nil || len(recs) != 100 {
		t.Fatal(len(recs), err)
	}

	k.Delete(t, p.Topic)
	deleted := time.Now()
	for {
		bell := l.Changed(p)
		_, _, err := l.Read(ctx, p, 100, 1<<20)
		if sluice.KindOf(err) == sluice.UnknownTopic {
			break
		}
		if err != nil {
			t.Logf("meanwhile: %v", err)
		}
		select { // a waiter hears of it
		case <-bell:
		case <-ctx.Done():
			t.Fatalf("the topic is gone and a reader still waits; last error %v", err)
		}
	}

	took := time.Since(deleted)
	t.Logf("known to be gone after %v", took)
	if took > 8*time.Second { // sarama alone tries for 15 s
		t.Error("that is late")
	}

	k.Create(t, p.Topic, 1, 1)
	w = newWriter(t, k.Brokers)
	w.write(ctx, p, 1_000, 10, 100)
	r := readUntil(ctx, t, l, p, 10)
	if len(r) != 10 || number(r[0]) != 1_000 {
		t.Fatalf("%d records, the first is %d", len(r), number(r[0]))
	}
	w.write(ctx, p, 1_010, 10, 100)
	if r := readUntil(ctx, t, l, p, 20); len(r) != 20 || number(r[19]) != 1_019 {
		t.Fatal(len(r))
	}
}

// readUntil is readTo from the start for a reader that tries again.
func readUntil(ctx context.Context, t testing.TB, l *partition.Log, p sluice.Partition, to int64) []*sluice.Record {
	t.Helper()
	for {
		recs, err := readTo(ctx, l, p, 0, to, 1<<20)
		if err == nil {
			return recs
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// Aborted transactions and their markers at the end of a partition are passed, or lag would show for ever.
func TestAReaderPassesMarkersAtTheEnd(t *testing.T) {
	k := backend.Kafka(t)
	ctx := deadline(t, time.Minute)
	p := sluice.Partition{Topic: k.Topic(t, "markers", 1)}
	l := kafkaLog(t, k.Brokers, partition.Default())
	follow(ctx, t, l, p)
	w := newWriter(t, k.Brokers, kgo.TransactionalID(backend.Unique("markers")))
	for i, commit := range []bool{true, false, true, false} {
		if err := w.client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		w.write(ctx, p, i*10, 9, 100)
		if err := w.client.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
			t.Fatal(err)
		}
	}
	recs, err := readTo(ctx, l, p, 0, 40, 1<<20)
	if err != nil || len(recs) != 18 {
		t.Fatalf("%d records of 18, %v", len(recs), err)
	}
	for i, r := range recs {
		if want := int64(i%9 + i/9*20); r.Offset != want || number(r) != int(want) {
			t.Errorf("record %d is %d, want %d", i, r.Offset, want)
		}
	}
	if r, err := l.Range(ctx, p); err != nil || fmt.Sprint(r) != "{0 40}" {
		t.Errorf("range %v, %v", r, err)
	}
}

// With all brokers gone readers fail within seconds, and when Kafka is back they go on by themselves.
func TestReadersGoOnWhenKafkaIsBack(t *testing.T) {
	c := backend.Cluster(t, 1)
	ctx := deadline(t, 2*time.Minute)
	p := sluice.Partition{Topic: c.Topic(t, "outage", 1)}
	l := kafkaLog(t, c.Brokers, partition.Default())
	r := startPull(ctx, t, l, p)
	w := newWriter(t, c.Brokers)
	w.write(ctx, p, 0, 100, 100)
	r.await(ctx, t, 100)

	c.Kill(t, 1)
	begin := time.Now()
	if _, _, err := l.Read(ctx, p, 50, 100); err != nil {
		t.Errorf("what is in memory: %v", err)
	}
	other := sluice.Partition{Topic: p.Topic, Isolation: sluice.ReadUncommitted}
	if _, _, err := l.Read(ctx, other, 50, 100); sluice.KindOf(err) != sluice.Unavailable || time.Since(begin) > 5*time.Second {
		t.Errorf("what is not: %v after %v", err, time.Since(begin))
	}
	if _, err := l.Range(ctx, other); sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("range: %v", err)
	}

	c.Start(t, 1)
	w.write(ctx, p, 100, 100, 100)
	took := r.await(ctx, t, 200)
	t.Logf("%v after the write", took)
	if took > 10*time.Second {
		t.Errorf("readers took %v", took)
	}
}
