package conformance

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// inKafka reads what stands in a partition from an offset on, n records, past the server under test.
func (s *server) inKafka(t *testing.T, topic string, partition int32, from int64, n int) []*kgo.Record {
	t.Helper()
	reader, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...), kgo.FetchMaxWait(100*time.Millisecond), kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(32<<20),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all []*kgo.Record
	for len(all) < n {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s-%d from %d: %d of %d records: %v", topic, partition, from, len(all), n, err)
		}
		all = append(all, fetches.Records()...)
	}
	return all[:n]
}

// unknown is the name of a topic that nobody has made. A server that makes topics by itself has it removed afterwards.
func (s *server) unknown(t *testing.T) string {
	t.Helper()
	name := backend.Unique("nosuch")
	if !s.ours {
		t.Cleanup(func() { s.kafka.Delete(t, name) })
	}
	return name
}

// kafkaHas reports whether Kafka has a topic of that name, internal or not.
func (s *server) kafkaHas(t *testing.T, topic string) bool {
	t.Helper()
	asker, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	about := kmsg.NewMetadataRequestTopic()
	about.Topic = &topic
	ask := kmsg.NewPtrMetadataRequest()
	ask.Topics = append(ask.Topics, about)
	answer, err := ask.RequestWith(t.Context(), asker)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Topics[0].ErrorCode == 0
}

// intoKafka writes records past the server under test, each to the partition it names.
func (s *server) intoKafka(t *testing.T, topic string, records ...kgo.Record) {
	t.Helper()
	writer, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(32<<20), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	pointers := make([]*kgo.Record, 0, len(records))
	for r := range slices.Values(records) {
		pointers = append(pointers, &r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := writer.ProduceSync(ctx, pointers...).FirstErr(); err != nil {
		t.Fatalf("write to %s: %v", topic, err)
	}
}
