package kafka

import (
	"encoding/binary"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// parseBlock turns the answer for one partition into a chunk that begins at from: it drops the records below from
// (batches come whole), control batches and, for ReadCommitted, the data of aborted transactions, and copies the rest.
// Next lies behind the last complete batch, whatever it held. With cut true the answer held no whole batch.
func parseBlock(block *sarama.FetchResponseBlock, p sluice.Partition, from int64) (chunk sluice.Chunk, cut bool) {
	chunk = sluice.Chunk{From: from, Next: from, End: block.HighWaterMarkOffset}
	if p.Isolation == sluice.ReadCommitted && block.LastStableOffset >= 0 {
		chunk.End = min(chunk.End, block.LastStableOffset)
	}
	raw := rawRecords{from: from}
	aborted := newAborted(block.AbortedTransactions)
	for _, set := range block.RecordsSet {
		var next int64
		switch {
		case set.MsgSet != nil:
			next = raw.addMessages(set.MsgSet)
			cut = set.MsgSet.PartialTrailingMessage && next <= from
		case set.RecordBatch != nil && set.RecordBatch.PartialTrailingRecord:
			// It comes alone, behind nothing or behind emptied batches; what it begins with is where to go on.
			next = set.RecordBatch.FirstOffset
			cut = next <= from
		case set.RecordBatch != nil:
			hidden := aborted.hides(set.RecordBatch) && p.Isolation == sluice.ReadCommitted
			if !set.RecordBatch.Control && !hidden {
				raw.addBatch(set.RecordBatch)
			}
			next = set.RecordBatch.LastOffset() + 1
		}
		chunk.Next = max(chunk.Next, next)
	}
	if len(block.RecordsSet) == 0 {
		chunk.Next = max(chunk.Next, emptiedNext(block))
		cut = block.Partial && chunk.Next == from
	}
	chunk.Records, chunk.Bytes = raw.copy(p)
	return chunk, cut
}

// emptiedNext is the offset behind the batches of a block that hold no records any more. Compaction keeps such batches
// for the idempotent producer's sake; sarama drops them from RecordsSet and keeps what they say in a field of its own,
// without which a reader stands still at an answer that looks like the end. Reading it is cheaper and surer than the
// other way, a PartitionConsumer of its own whose first message may never come. A test fails when the field is renamed.
func emptiedNext(block *sarama.FetchResponseBlock) int64 {
	next := reflect.ValueOf(block).Elem().FieldByName("recordsNextOffset")
	if !next.IsValid() || next.IsNil() {
		return -1
	}
	return next.Elem().Int()
}

// aborted knows, batch by batch in log order, whose transactions are open that will be aborted (KIP-98).
type aborted struct {
	coming []*sarama.AbortedTransaction // by first offset
	open   map[int64]bool               // by producer id
}

func newAborted(list []*sarama.AbortedTransaction) aborted {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *sarama.AbortedTransaction) int { return int(min(max(a.FirstOffset-b.FirstOffset, -1), 1)) })
	return aborted{coming: list, open: map[int64]bool{}}
}

// hides reports whether the batch belongs to an aborted transaction.
func (a *aborted) hides(batch *sarama.RecordBatch) bool {
	for len(a.coming) > 0 && a.coming[0].FirstOffset <= batch.LastOffset() {
		a.open[a.coming[0].ProducerID] = true
		a.coming = a.coming[1:]
	}
	if batch.Control {
		if abortMarker(batch) {
			delete(a.open, batch.ProducerID)
		}
		return true
	}
	return batch.IsTransactional && a.open[batch.ProducerID]
}

// abortMarker reads the key of a control record: int16 version, int16 type, of which 0 is abort.
func abortMarker(batch *sarama.RecordBatch) bool {
	if len(batch.Records) == 0 || len(batch.Records[0].Key) < 4 {
		return false
	}
	return binary.BigEndian.Uint16(batch.Records[0].Key[2:]) == 0
}

// rawRecords are records that still alias the answer they came in.
type rawRecords struct {
	from int64
	list []rawRecord
}

type rawRecord struct {
	offset     int64
	time       time.Time
	appended   bool
	key, value []byte
	headers    []*sarama.RecordHeader
}

func (r *rawRecords) addBatch(batch *sarama.RecordBatch) {
	r.list = slices.Grow(r.list, len(batch.Records))
	for _, record := range batch.Records {
		offset := batch.FirstOffset + record.OffsetDelta
		if offset < r.from {
			continue
		}
		at := batch.FirstTimestamp
		switch {
		case batch.LogAppendTime:
			at = batch.MaxTimestamp
		case !at.IsZero():
			at = at.Add(record.TimestampDelta)
		}
		r.list = append(r.list, rawRecord{offset, at, batch.LogAppendTime, record.Key, record.Value, record.Headers})
	}
}

// addMessages adds a message set of the formats before Kafka 0.11 and returns the offset behind it. Compressed messages
// are wrapped in one; with magic 1 their offsets count from the wrapper's, which has the last (KIP-31).
func (r *rawRecords) addMessages(set *sarama.MessageSet) (next int64) {
	for _, outer := range set.Messages {
		inner := outer.Messages()
		for _, message := range inner {
			offset, at := message.Offset, message.Msg.Timestamp
			if outer.Msg.Version >= 1 && len(inner) > 0 {
				offset += outer.Offset - inner[len(inner)-1].Offset
			}
			if outer.Msg.LogAppendTime {
				at = outer.Msg.Timestamp
			}
			if offset >= r.from {
				r.list = append(r.list, rawRecord{offset, at, outer.Msg.LogAppendTime, message.Msg.Key, message.Msg.Value, nil})
			}
		}
		next = outer.Offset + 1
	}
	return next
}
