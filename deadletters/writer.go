package deadletters

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
)

// Topic is where letters go unless a setting says otherwise; migrate makes it.
const Topic = "sluice.dlq"

type producer interface {
	Produce(ctx context.Context, topic string, records []sluice.NewRecord) ([]sluice.Receipt, error)
}

type topics interface {
	Topic(ctx context.Context, name string) (sluice.Topic, error)
}

// Writer writes letters. It is safe for concurrent use.
type Writer struct {
	producer producer
	topics   topics
	topic    string
	instance string

	mu         sync.Mutex
	partitions int32     // of topic; 0 before the first look
	looked     time.Time // when partitions was read
}

// NewWriter does no I/O. The producer must write with acks=all; topics says how many partitions the topic has, for
// letters without a key; instance is the name of this replica and its version.
func NewWriter(p producer, t topics, topic, instance string) *Writer {
	return &Writer{producer: p, topics: t, topic: topic, instance: instance}
}

// Write returns nil once the letter is in the log of all in-sync replicas: only then is its record done. A letter that
// is too large is written again without what the endpoint said; if it still is, the Kind is TooLarge (dlq_too_large).
// Any other error is Kafka's and worth another try; an unknown outcome then makes a second letter with the same id.
func (w *Writer) Write(ctx context.Context, l Letter) error {
	partition, err := w.partition(ctx, l)
	if err != nil {
		return fmt.Errorf("write a dead letter: %w", err)
	}
	err = w.produce(ctx, l, partition, false)
	if sluice.KindOf(err) == sluice.TooLarge {
		err = w.produce(ctx, l, partition, true)
	}
	if err != nil {
		return fmt.Errorf("write a dead letter: %w", err)
	}
	return nil
}

// produce stamps the letter with the present: with the record's own time an old one would be deleted by the topic's
// retention as soon as it is written.
func (w *Writer) produce(ctx context.Context, l Letter, partition int32, short bool) error {
	receipts, err := w.producer.Produce(ctx, w.topic, []sluice.NewRecord{{
		Partition: partition,
		Key:       l.Record.Key,
		Value:     l.Record.Value,
		Headers:   l.headers(w.instance, short),
		Timestamp: time.Now(),
	}})
	if err != nil {
		return err
	}
	if len(receipts) != 1 {
		return fmt.Errorf("%d receipts for one record", len(receipts))
	}
	return receipts[0].Err
}

// partition leaves records with a key to the producer's hash. Those without one go by the hash of their origin, so that
// the letters of one partition stay together and in order.
func (w *Writer) partition(ctx context.Context, l Letter) (int32, error) {
	if l.Record.Key != nil {
		return sluice.AnyPartition, nil
	}
	count, err := w.count(ctx)
	if err != nil {
		return 0, err
	}
	origin := sluice.Partition{Topic: l.Record.Topic, Number: l.Record.Partition}
	return int32(murmur2([]byte(origin.String()))&0x7fffffff) % count, nil
}

func (w *Writer) count(ctx context.Context) (int32, error) {
	w.mu.Lock()
	known, fresh := w.partitions, time.Since(w.looked) < time.Minute
	w.mu.Unlock()
	if known > 0 && fresh {
		return known, nil
	}
	topic, err := w.topics.Topic(ctx, w.topic)
	if err != nil {
		return 0, err
	}
	if len(topic.Partitions) == 0 {
		return 0, fmt.Errorf("%s has no partitions", w.topic)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partitions, w.looked = int32(len(topic.Partitions)), time.Now()
	return w.partitions, nil
}

// murmur2 is the hash of Kafka's default partitioner (org.apache.kafka.common.utils.Utils.murmur2).
func murmur2(data []byte) uint32 {
	const m = 0x5bd1e995
	h := 0x9747b28c ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> 24
		k *= m
		h = h*m ^ k
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
