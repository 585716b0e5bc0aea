package kafka_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/partition/partitiontest"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// fetcherBench is a Fetcher, and another library to write what it reads.
func fetcherBench(t *testing.T, k *backend.Broker, topicConfigs ...string) partitiontest.Bench {
	t.Helper()
	return partitiontest.Bench{
		Source: newFetcher(t, k),
		Partition: func(t testing.TB) sluice.Partition {
			return sluice.Partition{Topic: k.Topic(t, "fetch", 1, topicConfigs...)}
		},
		Produce: func(t testing.TB, p sluice.Partition, recs ...sluice.NewRecord) { produce(t, k, p, recs...) },
		Transact: func(t testing.TB, p sluice.Partition, commit bool, recs ...sluice.NewRecord) {
			transact(t, k, p, commit, recs...)
		},
		DeleteBefore: func(t testing.TB, p sluice.Partition, offset int64) { deleteBefore(t, k, p, offset) },
	}
}

func newFetcher(t testing.TB, k *backend.Broker) *kafka.Fetcher {
	t.Helper()
	cfg := kafka.Default()
	cfg.Brokers = k.Brokers
	clients, err := kafka.Connect(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clients.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return kafka.NewFetcher(clients)
}

func writer(t testing.TB, k *backend.Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(k.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(20 << 20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// produce appends records, as one batch if they fit.
func produce(t testing.TB, k *backend.Broker, p sluice.Partition, recs ...sluice.NewRecord) {
	t.Helper()
	client := writer(t, k)
	defer client.Close()
	if err := client.ProduceSync(t.Context(), records(p, recs)...).FirstErr(); err != nil {
		t.Fatalf("produce to %v: %v", p, err)
	}
}

func transact(t testing.TB, k *backend.Broker, p sluice.Partition, commit bool, recs ...sluice.NewRecord) {
	t.Helper()
	client := writer(t, k, kgo.TransactionalID(backend.Unique("fetch")))
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), records(p, recs)...).FirstErr(); err != nil {
		t.Fatalf("produce to %v: %v", p, err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
		t.Fatalf("end transaction: %v", err)
	}
}

func records(p sluice.Partition, in []sluice.NewRecord) (out []*kgo.Record) {
	for _, r := range in {
		record := &kgo.Record{Topic: p.Topic, Partition: p.Number, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
		for _, h := range r.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
		out = append(out, record)
	}
	return out
}

func deleteBefore(t testing.TB, k *backend.Broker, p sluice.Partition, offset int64) {
	t.Helper()
	client := writer(t, k)
	defer client.Close()
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Partition, part.Offset = p.Number, offset
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = p.Topic, append(topic.Partitions, part)
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis, request.Topics = 10_000, append(request.Topics, topic)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for _, shard := range client.RequestSharded(ctx, request) {
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
