package partition_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A live feed that falls silent, though there are records, is found out and opened anew; readers miss nothing.
func TestASilentFeedIsOpenedAnew(t *testing.T) {
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "no broker answers long polls with nothing on command")
	}
	ctx := deadline(t, time.Minute)
	p := sluice.Partition{Topic: k.Topic(t, "silent", 1)}
	var end, silenced atomic.Int64 // silenced counts from 1 while long polls are answered with nothing
	k.Fake().ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		ask := q.(*kmsg.FetchRequest)
		if silenced.Load() == 0 || ask.MaxWaitMillis == 0 {
			return nil, nil, false
		}
		silenced.Add(1)
		time.Sleep(20 * time.Millisecond) // a long poll takes its time; the cluster stands meanwhile (its SleepControl has a data race)
		answer := ask.ResponseKind().(*kmsg.FetchResponse)
		for _, topic := range ask.Topics {
			parts := kmsg.NewFetchResponseTopic()
			parts.Topic, parts.TopicID = topic.Topic, topic.TopicID
			for _, part := range topic.Partitions {
				nothing := kmsg.NewFetchResponseTopicPartition()
				nothing.Partition, nothing.HighWatermark, nothing.LastStableOffset = part.Partition, end.Load(), end.Load()
				parts.Partitions = append(parts.Partitions, nothing)
			}
			answer.Topics = append(answer.Topics, parts)
		}
		return answer, nil, true
	})
	l := kafkaLog(t, k.Brokers, partition.Default())
	w := newWriter(t, k.Brokers)
	r := startPull(ctx, t, l, p)
	w.write(ctx, p, 0, 10, 100)
	r.await(ctx, t, 10)

	silenced.Store(1)
	for silenced.Load() < 3 { // the poll that was under way is over
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("no long polls")
		}
	}
	w.write(ctx, p, 10, 10, 100)
	end.Store(20)
	t.Logf("read after %v", r.await(ctx, t, 20)) // half a minute, and five seconds more: once may be a race
	t.Logf("%d long polls were answered with nothing", silenced.Load()-1)
	silenced.Store(0)
	follow(ctx, t, l, p)
	for i := 20; i < 50; i += 10 {
		w.write(ctx, p, i, 10, 100)
		r.await(ctx, t, int64(i+10))
	}
	if !l.Live(p) {
		t.Error("the feed is not live again")
	}
}
