package partition_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Retention passes a reader that lags: it is told so, with where the log begins now, and never skips in silence. Those at
// the end do not notice.
func TestRetentionPassesAReader(t *testing.T) {
	k := backend.Kafka(t)
	ctx := deadline(t, time.Minute)
	p := sluice.Partition{Topic: k.Topic(t, "retention", 1)}
	l := kafkaLog(t, k.Brokers, partition.Config{RingBytes: 64 << 10, RingRecords: 16, CacheBytes: 1 << 20})
	w := newWriter(t, k.Brokers)
	end := startPull(ctx, t, l, p)
	const n, size, passed = 200, 20_000, 150
	for i := 0; i < n; i += 20 {
		w.write(ctx, p, i, 20, size)
	}
	end.await(ctx, t, n)
	recs, next, err := l.Read(ctx, p, 0, 5*size)
	if err != nil || len(recs) == 0 || next >= 100 {
		t.Fatal(len(recs), next, err)
	}
	deleteBefore(ctx, t, w.client, p, passed)

	// What is still in memory may be read; then the reader is told.
	for err == nil && next < passed {
		if recs, next, err = l.Read(ctx, p, next, 5*size); len(recs) > 0 && int64(number(recs[0])) != recs[0].Offset {
			t.Fatalf("offset %d has %d", recs[0].Offset, number(recs[0]))
		}
	}
	if sluice.KindOf(err) != sluice.OutOfRange {
		t.Fatalf("at %d of a log that begins at %d: %v", next, passed, err)
	}
	if r, err := l.Range(ctx, p); err != nil || r != (sluice.Range{Start: passed, End: n}) {
		t.Errorf("range %v, %v", r, err)
	}
	if recs, err := readTo(ctx, l, p, passed, n, 1<<20); err != nil || len(recs) != n-passed || number(recs[0]) != passed {
		t.Error(len(recs), err)
	}
	w.write(ctx, p, n, 20, size)
	end.await(ctx, t, n+20)
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}

func deleteBefore(ctx context.Context, t testing.TB, client *kgo.Client, p sluice.Partition, offset int64) {
	t.Helper()
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Partition, part.Offset = p.Number, offset
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = p.Topic, append(topic.Partitions, part)
	ask := kmsg.NewPtrDeleteRecordsRequest()
	ask.TimeoutMillis, ask.Topics = 10_000, append(ask.Topics, topic)
	for _, shard := range client.RequestSharded(ctx, ask) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, topic := range shard.Resp.(*kmsg.DeleteRecordsResponse).Topics {
			if err := kerr.ErrorForCode(topic.Partitions[0].ErrorCode); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// An unclean election: the only replica in sync dies, one that lagged behind becomes the leader, and the log is shorter
// than what was read. Readers beyond its end are told; what was lost is forgotten; what is written in its place is read,
// and nothing of it is missed by whoever goes on at the new end.
func unclean(t *testing.T, c *backend.RealCluster) {
	ctx := deadline(t, 3*time.Minute)
	w := newWriter(t, c.Brokers)
	// Two replicas, on brokers 1 and 2; the third keeps the quorum.
	p := sluice.Partition{Topic: backend.Unique("unclean")}
	t.Cleanup(func() { c.Delete(t, p.Topic) })
	spec := kmsg.NewCreateTopicsRequestTopic()
	spec.Topic, spec.NumPartitions, spec.ReplicationFactor = p.Topic, -1, -1
	spec.ReplicaAssignment = append(spec.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Replicas: []int32{1, 2}})
	for name, value := range map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"} {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = name, &value
		spec.Configs = append(spec.Configs, config)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis, create.Topics = 15_000, append(create.Topics, spec)
	if answer, err := create.RequestWith(ctx, w.client); err != nil || answer.Topics[0].ErrorCode != 0 {
		t.Fatal(answer, err)
	}

	l := kafkaLog(t, c.Brokers, partition.Default())
	const kept, lost = 100, 50
	w.write(ctx, p, 0, kept, 100)
	follow(ctx, t, l, p)
	c.Kill(t, 2) // lags from here on
	w.write(ctx, p, kept, lost, 100)
	if recs, err := readTo(ctx, l, p, 0, kept+lost, 1<<20); err != nil || len(recs) != kept+lost {
		t.Fatal(len(recs), err)
	}
	c.Kill(t, 1)
	c.Start(t, 2)
	for leaders(ctx, t, w.client, p.Topic)[p] != 2 {
		pace(ctx, time.Now().Add(100*time.Millisecond))
	}

	begin := time.Now()
	for {
		bell := l.Changed(p)
		recs, next, err := l.Read(ctx, p, kept+lost, 1<<20)
		if sluice.KindOf(err) == sluice.OutOfRange {
			break
		}
		if err == nil && (next != kept+lost || len(recs) > 0) {
			t.Fatalf("%d records of a log that is not there", len(recs))
		}
		select {
		case <-bell:
		case <-time.After(time.Second):
		case <-ctx.Done():
			t.Fatalf("nobody was told; last error %v", err)
		}
	}
	t.Logf("told after %v", time.Since(begin))
	end := endOf(ctx, t, l, p)
	if end != kept {
		t.Fatalf("the log ends at %d", end)
	}
	w = newWriter(t, c.Brokers)
	w.write(ctx, p, 1_000, 100, 100)
	recs, err := readTo(ctx, l, p, 0, kept+100, 1<<20)
	if err != nil || len(recs) != kept+100 {
		t.Fatal(len(recs), err)
	}
	for i, r := range recs {
		if want := i + max(0, min(1, i/kept))*(1_000-kept); number(r) != want {
			t.Fatalf("offset %d has %d, want %d", i, number(r), want)
		}
	}
}

// endOf is the end of the partition, once Kafka tells.
func endOf(ctx context.Context, t testing.TB, l *partition.Log, p sluice.Partition) int64 {
	t.Helper()
	for {
		r, err := l.Range(ctx, p)
		if err == nil {
			return r.End
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		pace(ctx, time.Now().Add(100*time.Millisecond))
	}
}
