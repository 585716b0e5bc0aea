package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicegate/sluice"
)

// submission is one call of Produce on its way.
type submission struct {
	p        *Producer
	items    []*item
	hashes   []uint32 // of the keys, where the key chooses the partition
	receipts []sluice.Receipt
	open     int
	done     chan struct{}
}

// newSubmission stamps records without a time with the time of their receipt.
func newSubmission(p *Producer, recs []sluice.NewRecord) *submission {
	s := &submission{
		p: p, items: make([]*item, len(recs)), hashes: make([]uint32, len(recs)),
		receipts: make([]sluice.Receipt, len(recs)), open: len(recs), done: make(chan struct{}),
	}
	now := time.Now().Truncate(time.Millisecond)
	all := make([]item, len(recs))
	for i := range recs {
		r := &recs[i]
		all[i] = item{rec: r, sub: s, slot: i, time: now, fixed: fixedBytes(r)}
		if !r.Timestamp.IsZero() {
			all[i].time = r.Timestamp.Truncate(time.Millisecond)
		}
		if r.Partition == sluice.AnyPartition && r.Key != nil {
			s.hashes[i] = murmur2(r.Key)
		}
		s.items[i] = &all[i]
	}
	return s
}

// answer files a receipt; the caller holds the lock.
func (s *submission) answer(slot int, r sluice.Receipt) {
	s.receipts[slot] = r
	s.open--
	if s.open > 0 {
		return
	}
	close(s.done)
	s.p.open--
	if s.p.stopping && s.p.open == 0 {
		close(s.p.drained)
	}
}

// earliest and latest are the times that a record can carry.
var earliest, latest = time.UnixMilli(0), time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)

// unfit is what is wrong with a record whatever its partition is.
func (p *Producer) unfit(t *topic, it *item) error {
	if n := len(it.rec.Key) + len(it.rec.Value); n > p.cfg.MaxRecordBytes {
		return &sluice.Error{Kind: sluice.TooLarge, Msg: fmt.Sprintf("The record has %d bytes; the limit is %d bytes.", n, p.cfg.MaxRecordBytes)}
	}
	if t.limit > 0 && batchHeaderBytes+recordBytes(it, it.time, 0) > t.limit {
		return &sluice.Error{Kind: sluice.TooLarge, Msg: t.tooLarge()}
	}
	if it.time.Before(earliest) || it.time.After(latest) {
		return &sluice.Error{Kind: sluice.Rejected, Msg: "The record's timestamp lies outside 1970 to 2261."}
	}
	return nil
}

// admit puts every record into the queue of its partition, or turns the call away. A topic that is not known yet, or
// may have got the partition that a record names, is looked up on the way.
func (p *Producer) admit(ctx context.Context, name string, sub *submission) error {
	for looked := false; ; {
		p.mu.Lock()
		t, known := p.topics[name]
		if known && (looked || !p.outgrown(t, sub)) {
			defer p.mu.Unlock()
			return p.place(t, sub)
		}
		p.mu.Unlock()
		if err := p.know(ctx, t, name); err != nil {
			return err
		}
		looked = known
	}
}

// outgrown reports whether a record names a partition that the topic did not have when it was last looked at, which is
// a while ago.
func (p *Producer) outgrown(t *topic, sub *submission) bool {
	for _, it := range sub.items {
		if int(it.rec.Partition) >= len(t.queues) {
			return t.at.Before(fresh())
		}
	}
	return false
}

// place queues the records of a call, all or none of those that could be written. The caller holds the lock.
func (p *Producer) place(t *topic, sub *submission) error {
	if p.stopping {
		return errStopping
	}
	t.used = time.Now()
	unfit := make([]error, len(sub.items))
	for i, it := range sub.items {
		number := p.choose(t, it, sub.hashes[i])
		if unfit[i] = p.unfit(t, it); unfit[i] != nil {
			continue
		}
		if number < 0 || int(number) >= len(t.queues) {
			unfit[i] = errUnknownPart
			continue
		}
		it.queue = t.queues[number]
		if it.queue.full() {
			return &sluice.Error{Kind: sluice.Overloaded, Msg: "Too many records wait for one Kafka broker.", RetryAfter: retryAfter}
		}
		if p.unreachable(it.queue) {
			return errDown
		}
	}
	if len(sub.items) > 0 {
		p.open++
	}
	for i, it := range sub.items {
		if unfit[i] != nil {
			it.state = done
			sub.answer(i, sluice.Receipt{Partition: it.rec.Partition, Offset: -1, Err: unfit[i]})
			continue
		}
		it.queue.push(it)
		if it.queue.state == idle {
			p.list(it.queue)
		}
	}
	return nil
}

// full reports whether so much waits for the partition's broker that callers are turned away.
func (q *queue) full() bool {
	if q.leader == nil {
		return q.bytes >= senderBytes
	}
	return q.leader.bytes >= senderBytes
}

// unreachable reports whether neither the partition's broker nor any other answers. Then a caller hears so at once,
// while those who came before wait for the look-up that goes on.
func (p *Producer) unreachable(q *queue) bool {
	silent := q.topic.locating && q.topic.unanswered || time.Now().Before(p.down)
	return silent && (q.leader == nil || q.leader.tries > 0)
}

// choose is the partition of a record, perhaps one that does not exist.
func (p *Producer) choose(t *topic, it *item, hash uint32) int32 {
	switch n := len(t.queues); {
	case it.rec.Partition != sluice.AnyPartition:
		return it.rec.Partition
	case n == 0:
		return -1
	case it.rec.Key != nil:
		return keyPartition(hash, n)
	default:
		return t.sticky.next(it.fixed, n, func(i int32) bool { return t.queues[i].leader.usable() })
	}
}

// leave takes the records of a call back whose time is over. It reports whether no broker at all was there to be tried
// for any of them.
func (p *Producer) leave(sub *submission, why error) (down bool) {
	var building []*batch
	p.mu.Lock()
	down = true
	for _, it := range sub.items {
		if it.state == done {
			down = false
			continue
		}
		down = down && it.state != flying && p.unreachable(it.queue)
		cause := errors.Join(why, it.queue.cause)
		r := sluice.Receipt{Partition: it.queue.number, Offset: -1}
		if it.state == flying {
			r.Err = outcomeUnknown(cause)
			building = append(building, it.batch)
		} else {
			r.Err = notWritten(cause)
		}
		it.finish(r)
		it.queue.sweep()
	}
	p.mu.Unlock()
	for _, b := range building {
		<-b.built // it still reads the caller's memory
	}
	return down
}
