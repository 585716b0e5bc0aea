package partition_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/partition/partitiontest"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// renewed is values of a topic that was made anew: as many as the old one had, and all of them different.
func renewed(from, to int) (recs []sluice.NewRecord) {
	for i := from; i < to; i++ {
		recs = append(recs, sluice.NewRecord{Value: fmt.Append(nil, "new ", i)})
	}
	return recs
}

// What was read of a topic is never read as the one of the same name that followed it, though offsets and sizes fit.
func TestMemoryOfATopicIsNotThatOfItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 100)...)
		for range 2 { // from Kafka, then from memory
			if recs, err := readTo(t.Context(), l, orders, 0, 100, 1000); err != nil || len(recs) != 100 {
				t.Fatal(len(recs), err)
			}
		}
		fetches, _, _ := m.Counts()
		m.Create(orders)
		m.Produce(orders, renewed(0, 100)...)
		recs, _, err := l.Read(t.Context(), orders, 50, 1000)
		if err != nil || string(recs[0].Value) != "new 50" {
			t.Errorf("%q, %v", recs[0].Value, err)
		}
		if now, _, _ := m.Counts(); now != fetches+1 {
			t.Errorf("%d fetches after %d", now, fetches)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	})
}

// A followed topic is made anew and filled beyond the old end between two looks of the live feed, which notices nothing.
func TestAFollowedTopicMadeAnewIsRecognized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		l.Changed(orders)
		synctest.Wait()
		m.Produce(orders, values(0, 100)...)
		synctest.Wait()
		m.Create(orders)
		m.Produce(orders, renewed(0, 200)...)
		for begin := time.Now(); ; time.Sleep(time.Second) {
			l.Changed(orders) // a reader stands at the end
			recs, _, err := l.Read(t.Context(), orders, 50, 1000)
			if err == nil && string(recs[0].Value) == "new 50" {
				t.Logf("after %v", time.Since(begin))
				break
			}
			if time.Since(begin) > 31*time.Second {
				t.Fatalf("%q, %v", recs[0].Value, err)
			}
		}
		m.Produce(orders, renewed(200, 210)...)
		time.Sleep(10 * time.Second)
		if recs, _, err := l.Read(t.Context(), orders, 205, 1000); err != nil || string(recs[0].Value) != "new 205" || !l.Live(orders) {
			t.Error(recs, err, l.Live(orders))
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	})
}

// slow is a Source that keeps its answers back until the gate opens.
type slow struct {
	*partitiontest.Memory
	gate chan struct{}
}

func (s slow) Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error) {
	c, err := s.Memory.Fetch(ctx, p, from, maxBytes)
	<-s.gate
	return c, err
}

// An answer about the old topic that comes when the new one is known is not kept.
func TestALateAnswerOfTheOldTopicIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := slow{partitiontest.NewMemory(), make(chan struct{})}
		source.Create(orders)
		source.Produce(orders, values(0, 100)...)
		l, err := partition.New(partition.Default(), source, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer stop(t, l)
		late := make(chan error)
		go func() {
			_, _, err := l.Read(t.Context(), orders, 0, 1<<20)
			late <- err
		}()
		synctest.Wait() // it has its answer, which is under way
		source.Create(orders)
		source.Produce(orders, renewed(0, 100)...)
		l.Changed(orders) // following looks who the topic is
		synctest.Wait()
		close(source.gate)
		if err := <-late; err != nil {
			t.Error(err)
		}
		if recs, _, err := l.Read(t.Context(), orders, 0, 1<<20); err != nil || string(recs[0].Value) != "new 0" {
			t.Errorf("%q, %v", recs[0].Value, err)
		}
	})
}

// again deletes a topic and makes it again, behind the back of whoever read it.
func again(ctx context.Context, t testing.TB, k *backend.Broker, topic string) {
	t.Helper()
	k.Delete(t, topic)
	client := newWriter(t, k.Brokers).client
	until := func(there bool) {
		t.Helper()
		for {
			if there { // 2.8 deletes in the background, and meanwhile says "exists"
				create := kmsg.NewPtrCreateTopicsRequest()
				create.TimeoutMillis = 5_000
				create.Topics = append(create.Topics, kmsg.CreateTopicsRequestTopic{Topic: topic, NumPartitions: 1, ReplicationFactor: 1})
				if _, err := create.RequestWith(ctx, client); err != nil {
					t.Fatal(err)
				}
			}
			leader, found := leaders(ctx, t, client, topic)[sluice.Partition{Topic: topic}]
			if found == there && (!there || leader >= 0) {
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("never: the topic is there %v", there)
			}
		}
	}
	until(false)
	until(true)
}

// The same on a Kafka: the topic is deleted and made again with as many records, and nobody follows it.
func TestAnUnfollowedTopicMadeAnewIsNotServedFromMemory(t *testing.T) {
	k := backend.Kafka(t)
	ctx := deadline(t, time.Minute)
	p := sluice.Partition{Topic: k.Topic(t, "unfollowed", 1)}
	l := kafkaLog(t, k.Brokers, partition.Default())
	newWriter(t, k.Brokers).write(ctx, p, 0, 100, 100)
	if recs := readUntil(ctx, t, l, p, 100); number(recs[99]) != 99 {
		t.Fatal(number(recs[99]))
	}
	again(ctx, t, k, p.Topic)
	newWriter(t, k.Brokers).write(ctx, p, 1_000, 100, 100)
	made := time.Now()
	for { // a look at the topic may be three seconds old; from then on the old records are never seen again
		recs := readUntil(ctx, t, l, p, 100)
		first, last := number(recs[0]), number(recs[99])
		if first == 1_000 && last == 1_099 {
			break
		}
		if time.Since(made) > 4*time.Second {
			t.Fatalf("reads %d to %d", first, last)
		}
	}
	t.Logf("read after %v", time.Since(made))
}

// Who knows that a topic was made anew before the log does, and begins to read it, is not given what is in memory.
func TestAReaderThatKnowsOfANewTopicReadsNoneOfTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		l.Changed(orders)
		synctest.Wait()
		m.Produce(orders, values(0, 100)...)
		synctest.Wait() // in the ring
		m.Create(orders)
		m.Produce(orders, renewed(0, 100)...)
		id, err := m.TopicID(t.Context(), orders.Topic)
		if err != nil {
			t.Fatal(err)
		}
		l.Recognize(orders.Topic, id)
		if recs, err := readTo(t.Context(), l, orders, 0, 100, 1000); err != nil || len(recs) != 100 || string(recs[0].Value) != "new 0" {
			t.Errorf("%d records, %v", len(recs), err)
		}
	})
}
