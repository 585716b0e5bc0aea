package kafka_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// When very many partitions are followed, they move to the consumer that waits for more, and back; each brings every
// record once and in order meanwhile.
func TestACrowdChangesTheConsumerAndLosesNothing(t *testing.T) {
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "needs hundreds of partitions, which a shared broker should not have to bear; partition has a thousand on a real one")
	}
	const crowd = 220
	var polls [2]atomic.Int64 // long polls of the usual consumer, and of the crowd's
	k.Fake().ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		switch ask := q.(*kmsg.FetchRequest); {
		case ask.MaxWaitMillis > 0 && ask.MinBytes == 1:
			polls[0].Add(1)
		case ask.MaxWaitMillis > 0:
			polls[1].Add(1)
		}
		return nil, nil, false
	})
	f := newFetcher(t, k)
	busy := sluice.Partition{Topic: k.Topic(t, "busy", 1)}
	followed := collect(t, f, busy, 0)
	client := writer(t, k)
	defer client.Close()
	written, read := 0, 0
	more := func() {
		t.Helper()
		var in []sluice.NewRecord
		for range 50 {
			in = append(in, sluice.NewRecord{Value: fmt.Append(nil, written)})
			written++
		}
		if err := client.ProduceSync(t.Context(), records(busy, in)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for _, r := range followed(50) {
			if string(r.Value) != fmt.Sprint(read) {
				t.Fatalf("record %d is %s", read, r.Value)
			}
			read++
		}
	}
	until := func(consumer int) {
		t.Helper()
		for begin := time.Now(); ; {
			before := [2]int64{polls[0].Load(), polls[1].Load()}
			more()
			time.Sleep(300 * time.Millisecond) // more than the longest poll
			if polls[consumer].Load() > before[consumer] && polls[1-consumer].Load() == before[1-consumer] {
				return
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatalf("polls went from %v to %d and %d", before, polls[0].Load(), polls[1].Load())
			}
		}
	}
	until(0)
	topic := k.Topic(t, "crowd", crowd)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for n := range int32(crowd) {
		others.Go(func() {
			if err := f.Follow(ctx, sluice.Partition{Topic: topic, Number: n}, 0, func(sluice.Chunk) {}); err != nil {
				t.Error(err)
			}
		})
	}
	until(1)
	cancel()
	others.Wait()
	until(0)
	t.Logf("%d records", read)
}

// A consumer that brings nothing though there are records is found out within ten seconds when it knew of them. Until
// then nothing is added that it may still bring.
func TestAConsumerThatFallsSilentEndsFollowing(t *testing.T) {
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "no broker answers long polls with nothing on command")
	}
	f := newFetcher(t, k)
	p := sluice.Partition{Topic: k.Topic(t, "silent", 1)}
	var recs []sluice.NewRecord
	for range 12 {
		recs = append(recs, sluice.NewRecord{Value: make([]byte, 200_000)})
		produce(t, k, p, recs[len(recs)-1]) // a batch each: one answer does not hold them all
	}
	var silent atomic.Int64
	k.Fake().ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		ask := q.(*kmsg.FetchRequest)
		if ask.MaxWaitMillis == 0 || ask.Topics[0].Partitions[0].FetchOffset == 0 {
			return nil, nil, false // a one-shot fetch, or the first answer
		}
		silent.Add(1)
		time.Sleep(20 * time.Millisecond) // a long poll takes its time; the cluster stands meanwhile (its SleepControl has a data race)
		answer := ask.ResponseKind().(*kmsg.FetchResponse)
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = ask.Topics[0].Topic, ask.Topics[0].TopicID
		part := kmsg.NewFetchResponseTopicPartition()
		part.HighWatermark, part.LastStableOffset = 12, 12
		topic.Partitions = append(topic.Partitions, part)
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
	next, begin := int64(0), time.Now()
	err := f.Follow(t.Context(), p, 0, func(c sluice.Chunk) { next = c.Next })
	if sluice.KindOf(err) != sluice.Unavailable || next == 0 || next == 12 || silent.Load() < 2 {
		t.Errorf("%v at %d after %d silent answers", err, next, silent.Load())
	}
	t.Logf("after %v: %v", time.Since(begin), err)
}
