package kafka_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

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
		k.Fake().SleepControl(func() { time.Sleep(50 * time.Millisecond) })
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
