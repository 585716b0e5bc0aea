package kafka

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// BenchmarkProduce compares callers of one 1 kB record each with sarama's own idempotent SyncProducer on the same Kafka.
func BenchmarkProduce(b *testing.B) {
	k := backend.Kafka(b)
	value := make([]byte, 1000)
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("sluice/%d", callers), func(b *testing.B) {
			p := testProducer(b, testClients(b, k))
			topic := k.Topic(b, "bench", 4)
			mustProduce(b, p, topic, sluice.NewRecord{Partition: sluice.AnyPartition, Value: value})
			spread(b, callers, func(i int64) error {
				receipts, err := p.Produce(b.Context(), topic, []sluice.NewRecord{{Partition: int32(i % 4), Value: value}})
				if err == nil {
					err = receipts[0].Err
				}
				return err
			})
		})
		b.Run(fmt.Sprintf("sarama/%d", callers), func(b *testing.B) {
			conf := testClients(b, k).config(roleProduce)
			conf.Producer.Return.Successes = true
			conf.Producer.Partitioner = sarama.NewManualPartitioner
			p, err := sarama.NewSyncProducer(k.Brokers, conf)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = p.Close() }()
			topic := k.Topic(b, "bench", 4)
			spread(b, callers, func(i int64) error {
				_, _, err := p.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: int32(i % 4), Value: sarama.ByteEncoder(value)})
				return err
			})
		})
	}
}

// spread has so many callers do b.N calls.
func spread(b *testing.B, callers int, call func(int64) error) {
	b.Helper()
	b.ReportAllocs()
	b.SetBytes(1000)
	b.ResetTimer()
	var next atomic.Int64
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := call(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}
