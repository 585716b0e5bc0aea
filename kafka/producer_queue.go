package kafka

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// identity is what Kafka knows an idempotent producer by. Kafka keeps the sequence per partition, and so do we: a queue
// may raise the epoch of its own partition alone (KIP-360).
type identity struct {
	producer int64
	epoch    int16
	valid    bool // the zero identity is none
}

type itemState byte

const (
	waiting itemState = iota // for a batch: surely not written
	flying                   // in a batch that was sent
	done                     // its receipt is out
)

// item is one record between its admission and its receipt.
type item struct {
	rec   *sluice.NewRecord // the caller's memory: not read any more once the item is done and its batch is built
	sub   *submission
	slot  int // of the submission's receipts
	queue *queue
	batch *batch // the one it flies in, or flew in last
	time  time.Time
	fixed int // bytes, see fixedBytes
	state itemState
}

// queue is one partition's records in the order of their admission. At most one batch of it is on its way, so order
// needs no more care. It knows nothing of brokers and sends nothing: take says what to send, settle what came of it.
// Producer.mu guards it.
type queue struct {
	topic  *topic
	number int32

	front  [][]*item // groups that go first, each as a batch of its own: what Kafka refused, whole or cut
	line   []*item   // the others; line[:gone] are taken, done ones are passed over
	gone   int
	flight *batch // being sent, or its outcome is open

	id    identity
	seq   int32
	tries int   // failures in a row
	cause error // of the last failure

	open  int // items without a receipt
	bytes int // of those

	leader *sender // nil when nobody leads the partition
	state  queueState
}

type queueState byte

const (
	idle   queueState = iota
	ready             // in its leader's list
	busy              // its batch is being sent
	parked            // until a timer or a look-up lets it go
)

// push appends a record whose queue it is.
func (q *queue) push(it *item) {
	q.line = append(q.line, it)
	q.open++
	q.bytes += it.fixed
	if q.leader != nil {
		q.leader.bytes += it.fixed
	}
}

// take is the batch to send next: the one whose outcome is open, unchanged, or a new one of at most limit bytes, or nil.
func (q *queue) take(limit int, id identity) *batch {
	if b := q.flight; b != nil {
		if b.live() {
			return b
		}
		q.forsake()
	}
	items, bytes := q.group(), 0
	if items == nil {
		items, bytes = q.fill(min(limit, batchTargetBytes))
	}
	if len(items) == 0 {
		return nil
	}
	if bytes == 0 {
		bytes = batchHeaderBytes
		for i, it := range items {
			bytes += recordBytes(it, items[0].time, i)
		}
	}
	if !q.id.valid {
		q.id, q.seq = id, 0
	}
	q.flight = &batch{queue: q, items: items, bytes: bytes, id: q.id, seq: q.seq, built: make(chan struct{})}
	for _, it := range items {
		it.state, it.batch = flying, q.flight
	}
	return q.flight
}

// group is the next of the groups in front, without those who left.
func (q *queue) group() []*item {
	for len(q.front) > 0 {
		g := slices.DeleteFunc(q.front[0], func(it *item) bool { return it.state == done })
		q.front = q.front[1:]
		if len(g) > 0 {
			return g
		}
	}
	return nil
}

// fill takes from the line while it fits, one record at least.
func (q *queue) fill(limit int) (items []*item, bytes int) {
	bytes = batchHeaderBytes
	for ; q.gone < len(q.line); q.gone++ {
		it := q.line[q.gone]
		if it.state != done {
			first := it.time
			if len(items) > 0 {
				first = items[0].time
			}
			n := recordBytes(it, first, len(items))
			if len(items) > 0 && bytes+n > limit {
				break
			}
			items, bytes = append(items, it), bytes+n
		}
		q.line[q.gone] = nil
	}
	if q.gone > len(q.line)/2 { // a line that never empties must not grow for ever
		q.line, q.gone = slices.Delete(q.line, 0, q.gone), 0
	}
	return items, bytes
}

// sweep drops the items that left the line, once they are the most of it: behind a broker that hangs nobody takes them.
func (q *queue) sweep() {
	if n := len(q.line) - q.gone; n > 64 && n > 2*q.open {
		q.line = slices.DeleteFunc(q.line[q.gone:], func(it *item) bool { return it.state == done })
		q.gone = 0
	}
}

// settle is told what became of the batch on its way: a code of the broker with its block, or an error when no answer
// came. It gives out receipts, and says what has to happen before the next take.
func (q *queue) settle(v verdict, block *sarama.ProduceResponseBlock, cause error) {
	b := q.flight
	if v == stored {
		q.stored(b, block.Offset)
		return
	}
	q.tries++
	q.cause = cause
	switch {
	case v == unsure:
		b.open = true // stays in flight
	case v == lost:
		b.open = true
		q.forsake()
	case b.open && (v == again || v == moved): // this attempt was refused, an earlier one may stand: stays in flight
	case b.open: // refused, and whether an earlier attempt stands will not be learnt
		q.forsake()
		if v == fenced {
			q.id = identity{}
		}
	default:
		q.flight = nil
		q.takeBack(b, v, block, cause)
	}
}

// takeBack deals with a batch of which surely nothing was written.
func (q *queue) takeBack(b *batch, v verdict, block *sarama.ProduceResponseBlock, cause error) {
	named := v == spoiled && q.failNamed(b, block, cause)
	items := slices.DeleteFunc(b.items, func(it *item) bool { return it.state == done })
	switch v {
	case gap:
		q.raiseEpoch()
	case fenced:
		q.id = identity{}
	case denied:
		q.tries = 0 // an answer is an answer: the next batch need not wait
		for _, it := range items {
			it.finish(sluice.Receipt{Partition: q.number, Offset: -1, Err: kafkaError("produce to "+q.String(), cause)})
		}
		return
	case spoiled:
		q.tries = 0 // bad records say nothing about the broker
		if !named {
			q.cut(items, cause)
			return
		}
	}
	q.putBack(items)
}

// cut halves a batch that the broker refused for one of its records, until the bad one stands alone.
func (q *queue) cut(items []*item, cause error) {
	if len(items) == 1 {
		if it := items[0]; batchHeaderBytes+recordBytes(it, it.time, 0) <= q.topic.limit {
			q.topic.limitStale = true
		}
		items[0].finish(sluice.Receipt{Partition: q.number, Offset: -1, Err: q.spoilt(cause, "")})
		return
	}
	half := len(items) / 2
	q.putBack(items[half:])
	q.putBack(items[:half:half])
}

// failNamed fails the records that the broker named (KIP-467), if it did.
func (q *queue) failNamed(b *batch, block *sarama.ProduceResponseBlock, cause error) (named bool) {
	if block == nil {
		return false
	}
	for _, e := range block.RecordErrors {
		if e.BatchIndex < 0 || int(e.BatchIndex) >= len(b.items) {
			continue
		}
		text := ""
		if e.BatchIndexErrorMessage != nil {
			text = *e.BatchIndexErrorMessage
		}
		b.items[e.BatchIndex].finish(sluice.Receipt{Partition: q.number, Offset: -1, Err: q.spoilt(cause, text)})
		named = true
	}
	return named
}

func (q *queue) putBack(items []*item) {
	if len(items) == 0 {
		return
	}
	for _, it := range items {
		it.state = waiting
	}
	q.front = slices.Insert(q.front, 0, items)
}

// stored gives out the receipts. Offset is -1 where Kafka says no more than that it has the batch already.
func (q *queue) stored(b *batch, offset int64) {
	for i, it := range b.items {
		r := sluice.Receipt{Partition: q.number, Offset: offset + int64(i)}
		if offset < 0 {
			r.Offset = -1
		}
		it.finish(r)
	}
	q.flight, q.tries, q.cause = nil, 0, nil
	q.seq = sequenceAfter(b.seq, len(b.items))
}

// forsake gives up the batch on its way. The next one begins a new epoch: if the old one arrives late, Kafka refuses it.
func (q *queue) forsake() {
	b := q.flight
	q.flight = nil
	for _, it := range b.items {
		it.finish(sluice.Receipt{Partition: q.number, Offset: -1, Err: outcomeUnknown(q.cause)})
	}
	q.raiseEpoch()
}

func (q *queue) raiseEpoch() {
	q.seq = 0
	if q.id.epoch == math.MaxInt16 {
		q.id = identity{}
		return
	}
	q.id.epoch++
}

// fail gives every record its receipt: those that were sent are of unknown outcome, the others get err.
func (q *queue) fail(err error) {
	if q.flight != nil && q.state != busy {
		q.forsake()
	}
	for _, g := range append(q.front, q.line[q.gone:]) {
		for _, it := range g {
			it.finish(sluice.Receipt{Partition: q.number, Offset: -1, Err: err})
		}
	}
	q.front, q.line, q.gone = nil, nil, 0
}

// finish gives an item its receipt, once.
func (it *item) finish(r sluice.Receipt) {
	if it.state == done {
		return
	}
	if it.state == waiting {
		it.rec = nil // may stay in a line for long
	}
	it.state = done
	q := it.queue
	q.open--
	q.bytes -= it.fixed
	if q.leader != nil {
		q.leader.bytes -= it.fixed
	}
	it.sub.answer(it.slot, r)
	// A batch has records of many calls and a call records in many batches: while one of them is in use, they would all be.
	it.sub, it.batch = nil, nil
}

func (q *queue) String() string { return fmt.Sprintf("%s/%d", q.topic.name, q.number) }

// sequenceAfter wraps as Kafka does: after the largest int32 comes 0.
func sequenceAfter(seq int32, n int) int32 {
	return int32((int64(seq) + int64(n)) % (math.MaxInt32 + 1))
}
