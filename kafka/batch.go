package kafka

import (
	"math/bits"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

const (
	batchHeaderBytes = 61      // of a record batch, format v2 (KIP-98)
	batchTargetBytes = 1 << 20 // a batch of many records grows no further; one record may be larger
)

// batch is the records of one partition that go to Kafka together, under one sequence number. It is built once and sent
// again unchanged: only so does Kafka recognise what it has already (KIP-98).
type batch struct {
	queue *queue
	items []*item
	bytes int // exactly as on the wire
	id    identity
	seq   int32
	// open says that an attempt may have been written, though Kafka did not confirm it.
	open bool

	built chan struct{} // closed when wire no longer needs the callers' memory
	wire  *sarama.RecordBatch
}

// build copies the records: a batch can outlive the calls it came from.
func (b *batch) build() {
	if b.wire != nil {
		return
	}
	defer close(b.built)
	size := 0
	for _, it := range b.items {
		size += len(it.rec.Key) + len(it.rec.Value)
		for _, h := range it.rec.Headers {
			size += len(h.Name) + len(h.Value)
		}
	}
	arena := make([]byte, 0, size)
	keep := func(p []byte) []byte {
		if p == nil {
			return nil // Kafka's null, which is not the empty value
		}
		from := len(arena)
		arena = append(arena, p...)
		return arena[from:len(arena):len(arena)]
	}
	records := make([]sarama.Record, len(b.items))
	wire := &sarama.RecordBatch{
		Version:         2,
		ProducerID:      b.id.producer,
		ProducerEpoch:   b.id.epoch,
		FirstSequence:   b.seq,
		LastOffsetDelta: int32(len(b.items) - 1),
		FirstTimestamp:  b.items[0].time,
		MaxTimestamp:    b.items[0].time,
		Records:         make([]*sarama.Record, len(b.items)),
	}
	for i, it := range b.items {
		r := &records[i]
		r.OffsetDelta = int64(i)
		r.TimestampDelta = it.time.Sub(wire.FirstTimestamp)
		r.Key, r.Value = keep(it.rec.Key), keep(it.rec.Value)
		for _, h := range it.rec.Headers {
			r.Headers = append(r.Headers, &sarama.RecordHeader{Key: keep([]byte(h.Name)), Value: keep(h.Value)})
		}
		if it.time.After(wire.MaxTimestamp) {
			wire.MaxTimestamp = it.time
		}
		wire.Records[i] = r
	}
	b.wire = wire
}

// live reports whether anybody still waits for a record of the batch.
func (b *batch) live() bool {
	for _, it := range b.items {
		if it.state != done {
			return true
		}
	}
	return false
}

// recordBytes is what a record takes as the n-th of a batch whose first record has the time first.
func recordBytes(it *item, first time.Time, n int) int {
	body := 1 + varintBytes(it.time.Sub(first).Milliseconds()) + varintBytes(int64(n)) + it.fixed
	return varintBytes(int64(body)) + body
}

// fixedBytes is the part of a record's size that does not depend on its place in a batch.
func fixedBytes(r *sluice.NewRecord) int {
	n := fieldBytes(r.Key) + fieldBytes(r.Value) + varintBytes(int64(len(r.Headers)))
	for _, h := range r.Headers {
		n += varintBytes(int64(len(h.Name))) + len(h.Name) + fieldBytes(h.Value)
	}
	return n
}

func fieldBytes(p []byte) int {
	if p == nil {
		return 1 // -1
	}
	return varintBytes(int64(len(p))) + len(p)
}

// varintBytes is the length of v as a zigzag varint.
func varintBytes(v int64) int {
	return (bits.Len64(uint64(v<<1^v>>63)|1) + 6) / 7
}
