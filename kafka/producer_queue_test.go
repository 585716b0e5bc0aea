package kafka

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"pgregory.net/rapid"

	"github.com/sluicegate/sluice"
)

// fakeLog is one partition as Kafka keeps it for idempotent producers: of each it knows the epoch and the last five
// batches, refuses gaps and old epochs, and recognises what it has.
type fakeLog struct {
	records   []string
	producers map[int64]*fakeProducer
}

type fakeProducer struct {
	epoch int16
	next  int32
	last  []fakeBatch
}

type fakeBatch struct {
	seq    int32
	n      int
	offset int64
}

func (l *fakeLog) append(b *batch) (sarama.KError, int64) {
	p, known := l.producers[b.id.producer]
	switch {
	case !known:
		p = &fakeProducer{}
		l.producers[b.id.producer] = p
	case b.id.epoch < p.epoch:
		return sarama.ErrInvalidProducerEpoch, -1
	case b.id.epoch > p.epoch:
		if b.seq != 0 {
			return sarama.ErrOutOfOrderSequenceNumber, -1
		}
		p.last = nil
	default:
		for _, old := range p.last {
			if old.seq == b.seq && old.n == len(b.items) {
				return sarama.ErrNoError, old.offset
			}
		}
		if b.seq != p.next {
			return sarama.ErrOutOfOrderSequenceNumber, -1
		}
	}
	offset := int64(len(l.records))
	for _, it := range b.items {
		l.records = append(l.records, fmt.Sprint(it.slot))
	}
	p.epoch, p.next = b.id.epoch, sequenceAfter(b.seq, len(b.items))
	p.last = append(p.last, fakeBatch{b.seq, len(b.items), offset})
	p.last = p.last[max(0, len(p.last)-5):]
	return sarama.ErrNoError, offset
}

// Whatever a broker answers, loses and refuses, and whoever leaves in between: every record gets one receipt; what is
// reported written stands in the log once, at its offset and in order; what is reported as surely not written is not
// there; and what is of unknown outcome is there at most once.
func TestQueueTellsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 90
		sub := &submission{p: &Producer{}, receipts: make([]sluice.Receipt, n), open: n, done: make(chan struct{})}
		sub.p.open = 1
		q := &queue{topic: &topic{name: "t", limit: 5000}, leader: &sender{}}
		log := &fakeLog{producers: map[int64]*fakeProducer{}}
		current := identity{producer: 7, valid: true}
		bad := map[int]bool{}
		items := make([]*item, n)
		pushed := 0
		push := func() {
			if pushed == n {
				return
			}
			rec := &sluice.NewRecord{Value: make([]byte, rapid.IntRange(0, 2000).Draw(t, "size"))}
			items[pushed] = &item{rec: rec, sub: sub, slot: pushed, queue: q, time: time.UnixMilli(1), fixed: fixedBytes(rec)}
			bad[pushed] = rapid.IntRange(0, 9).Draw(t, "bad") == 0
			q.push(items[pushed])
			pushed++
		}
		leave := func() {
			if pushed == 0 {
				return
			}
			it := items[rapid.IntRange(0, pushed-1).Draw(t, "who")]
			if it.state == done {
				return
			}
			err := notWritten(errors.New("left"))
			if it.state == flying {
				err = outcomeUnknown(errors.New("left"))
			}
			it.finish(sluice.Receipt{Offset: -1, Err: err})
			q.sweep()
		}
		var delayed []*batch // written late, by a connection that hung
		send := func(fault int) {
			b := q.take(q.topic.limit, current)
			if b == nil {
				return
			}
			if size := b.bytes; size > q.topic.limit && len(b.items) > 1 {
				t.Fatalf("a batch of %d records has %d bytes", len(b.items), size)
			}
			sent := *b
			sent.items = slices.Clone(b.items)
			settle := func(code sarama.KError, offset int64) {
				q.settle(verdictOf(code), &sarama.ProduceResponseBlock{Err: code, Offset: offset}, code)
				if verdictOf(code) == fenced {
					current.producer++
				}
			}
			switch fault {
			case 1:
				settle(sarama.ErrNotLeaderForPartition, -1)
			case 2:
				settle(sarama.ErrNotEnoughReplicas, -1)
			case 3:
				log.append(&sent)
				settle(sarama.ErrRequestTimedOut, -1)
			case 4: // the answer is lost
				log.append(&sent)
				q.settle(unsure, nil, errors.New("connection lost"))
			case 5: // the request is lost, or comes late
				delayed = append(delayed, &sent)
				q.settle(unsure, nil, errors.New("connection lost"))
			case 6:
				settle(sarama.ErrTopicAuthorizationFailed, -1)
			case 7:
				settle(sarama.ErrUnknown, -1)
			case 8:
				settle(sarama.ErrInvalidProducerEpoch, -1)
			default:
				for _, it := range sent.items {
					if bad[it.slot] {
						settle(sarama.ErrInvalidRecord, -1)
						return
					}
				}
				settle(log.append(&sent))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"push":  func(*rapid.T) { push() },
			"leave": func(*rapid.T) { leave() },
			"send":  func(t *rapid.T) { send(rapid.IntRange(0, 12).Draw(t, "fault")) },
			"late": func(*rapid.T) {
				if len(delayed) > 0 {
					log.append(delayed[0])
					delayed = delayed[1:]
				}
			},
			"": func(t *rapid.T) {
				open, bytes := 0, 0
				for _, it := range items[:pushed] {
					if it.state != done {
						open, bytes = open+1, bytes+it.fixed
					}
				}
				if q.open != open || q.bytes != bytes || q.leader.bytes != bytes {
					t.Fatalf("queue counts %d records, %d bytes (leader %d); there are %d, %d", q.open, q.bytes, q.leader.bytes, open, bytes)
				}
			},
		})
		for pushed < n {
			push()
		}
		for range 20 * n {
			send(0)
		}
		if q.open != 0 || sub.open != 0 {
			t.Fatalf("%d records have no receipt", sub.open)
		}
		last := int64(-1)
		for slot, r := range sub.receipts {
			times := 0
			for _, v := range log.records {
				if v == fmt.Sprint(slot) {
					times++
				}
			}
			switch kind := sluice.KindOf(r.Err); {
			case r.Err == nil && (times != 1 || log.records[r.Offset] != fmt.Sprint(slot)):
				t.Fatalf("record %d is %d times in the log, and not at %d", slot, times, r.Offset)
			case r.Err == nil && r.Offset <= last:
				t.Fatalf("record %d at %d comes before its forerunner at %d", slot, r.Offset, last)
			case kind == sluice.OutcomeUnknown && times > 1:
				t.Fatalf("record %d of unknown outcome is %d times in the log", slot, times)
			case r.Err != nil && kind != sluice.OutcomeUnknown && times != 0:
				t.Fatalf("record %d was reported %q and is in the log", slot, kind)
			case bad[slot] && r.Err == nil:
				t.Fatalf("bad record %d was written", slot)
			}
			if r.Err == nil {
				last = r.Offset
			}
		}
	})
}

// Sequences wrap as in Kafka's DefaultRecordBatch.incrementSequence, epochs end in a new producer id.
func TestSequencesWrap(t *testing.T) {
	if got := sequenceAfter(math.MaxInt32, 1); got != 0 {
		t.Errorf("after the last comes %d", got)
	}
	if got := sequenceAfter(math.MaxInt32-1, 3); got != 1 {
		t.Errorf("got %d", got)
	}
	q := &queue{id: identity{producer: 1, epoch: math.MaxInt16, valid: true}, seq: 9}
	if q.raiseEpoch(); q.id.valid || q.seq != 0 {
		t.Errorf("after the last epoch: %+v", q.id)
	}
}
