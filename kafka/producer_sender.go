package kafka

import (
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

const (
	requestTargetBytes = 16 << 20        // a request takes no further batch beyond this; Kafka's limit is 100 MiB
	ackTime            = 8 * time.Second // for the broker to have all in-sync replicas; below the read timeout
	slowTime           = time.Second     // a broker that takes longer gets no more records that may go elsewhere
	avoidTime          = 5 * time.Second // and so does one that failed within this time
	senderBytes        = 64 << 20        // records waiting for one broker, before callers are turned away
)

// sender is one broker's loop: one request in flight carries a batch of every partition that is ready, and meanwhile the
// next ones collect. It alone uses its connection; a broker that hangs hangs its own sender.
type sender struct {
	p    *Producer
	id   int32
	wake chan struct{} // holds one: there may be ready queues

	// Producer.mu guards these.
	ready []*queue
	bytes int       // of all records whose partition the broker leads
	tries int       // failures to reach it, in a row
	tried time.Time // when it failed last
	sent  time.Time // when the request in flight left

	link *link // of the loop alone
}

// usable reports whether records that may go anywhere should go here.
func (s *sender) usable() bool {
	if s == nil || s.bytes >= senderBytes || s.tries > 0 && time.Since(s.tried) < avoidTime {
		return false
	}
	return s.sent.IsZero() || time.Since(s.sent) < slowTime
}

func (s *sender) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sender is the loop of a broker, started at its first use. The caller holds the lock.
func (p *Producer) sender(id int32) *sender {
	s, ok := p.senders[id]
	if !ok {
		s = &sender{p: p, id: id, wake: make(chan struct{}, 1)}
		p.senders[id] = s
		p.tasks.Go(s.run)
	}
	return s
}

func (s *sender) run() {
	defer s.hangUp()
	for {
		select {
		case <-s.wake:
		case <-s.p.ctx.Done():
			return
		}
		for s.p.ctx.Err() == nil && s.round() {
		}
	}
}

func (s *sender) hangUp() {
	if s.link != nil {
		s.link.close()
		s.link = nil
	}
}

// round is one request. The connection and the producer id come first: until both are there the records stay where
// they can still leave, and are surely not written.
func (s *sender) round() (more bool) {
	p := s.p
	p.mu.Lock()
	work := len(s.ready) > 0
	p.mu.Unlock()
	if !work {
		return false
	}
	if err := s.prepare(); err != nil {
		pause(p.ctx, p.unreached(s, err))
		return true
	}
	batches := p.take(s)
	if len(batches) == 0 {
		return true
	}
	answer, err := s.send(batches)
	if err != nil {
		s.hangUp()
	}
	p.settle(s, batches, answer, err)
	return true
}

// prepare connects and sees to a producer id.
func (s *sender) prepare() error {
	if s.link == nil {
		addr := s.p.admin.meta.address(s.id)
		if addr == "" {
			return fmt.Errorf("broker %d: %w", s.id, sarama.ErrBrokerNotFound)
		}
		l, err := openLink(s.p.ctx, s.p.sarama, s.p.dial, addr)
		if err != nil {
			return err
		}
		s.link = l
	}
	return s.p.identify()
}

// send puts all batches into one request and waits for the answer.
func (s *sender) send(batches []*batch) (*sarama.ProduceResponse, error) {
	request := &sarama.ProduceRequest{
		Version:      10, // lowered to what the broker offers
		RequiredAcks: sarama.WaitForAll,
		Timeout:      int32(ackTime / time.Millisecond),
	}
	for _, b := range batches {
		b.build()
		request.AddBatch(b.queue.topic.name, b.queue.number, b.wire)
		s.p.metrics.batchBytes.Observe(float64(b.bytes))
	}
	const bound = 30 * time.Second // sarama's own write and read timeouts are shorter, and end a silent broker's call
	return call(s.p.ctx, s.link, bound, s.link.broker.Produce, request)
}

// take collects a batch of every ready queue, as far as the request goes.
func (p *Producer) take(s *sender) []*batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.tries = 0
	if !p.current.valid {
		return nil // given up since it was seen to
	}
	var batches []*batch
	bytes := 0
	n := 0
	for ; n < len(s.ready) && bytes < requestTargetBytes; n++ {
		q := s.ready[n]
		limit := q.topic.limit
		if limit == 0 {
			limit = batchTargetBytes
		}
		b := q.take(limit, p.current)
		if b == nil {
			q.state = idle
			continue
		}
		q.state = busy
		bytes += b.bytes
		batches = append(batches, b)
	}
	s.ready = slices.Delete(s.ready, 0, n)
	if len(batches) > 0 {
		s.sent = time.Now()
	}
	return batches
}

// settle gives every batch its part of the answer. Without an answer all of them may be written.
func (p *Producer) settle(s *sender, batches []*batch, answer *sarama.ProduceResponse, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.sent = time.Time{}
	if err != nil {
		s.tries, s.tried = s.tries+1, time.Now()
		p.log.Warn("no answer to a produce request", "broker", s.id, "batches", len(batches), "error", err)
	}
	for _, b := range batches {
		q := b.queue
		if q.flight != b {
			continue // given up meanwhile, at the end of Stop
		}
		block, v, cause := verdictOn(b, answer, err)
		q.settle(v, block, cause)
		if v == fenced && p.current.producer == b.id.producer {
			p.current = identity{}
		}
		if q.topic.limitStale {
			p.locate(q.topic)
		}
		switch {
		case q.open == 0 && q.flight == nil:
			q.state = idle
		case v == moved || err != nil:
			p.park(q)
		default:
			p.later(q)
		}
	}
}

// unreached notes that a broker could not be reached, has its partitions looked up again, and says how long to wait.
// When Kafka does not let us in, the records fail at once.
func (p *Producer) unreached(s *sender, err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.tries, s.tried = s.tries+1, time.Now()
	if s.tries == 1 {
		p.log.Warn("broker not reached", "broker", s.id, "error", err)
	}
	e := kafkaError(fmt.Sprintf("reach broker %d", s.id), err)
	if kind := sluice.KindOf(e); kind == sluice.Unauthorized || kind == sluice.Forbidden {
		for _, q := range s.ready {
			q.fail(e)
			q.state = idle
		}
		s.ready = nil
		return 0 // nothing waits: the next caller's records try again
	}
	for _, q := range s.ready {
		q.cause = err
		p.locate(q.topic)
	}
	return backoff(s.tries)
}

// list puts a queue into its leader's list, or parks it until it has one. The caller holds the lock.
func (p *Producer) list(q *queue) {
	if q.leader == nil {
		p.park(q)
		return
	}
	q.state = ready
	q.leader.ready = append(q.leader.ready, q)
	q.leader.ring()
}

func (p *Producer) park(q *queue) {
	q.state = parked
	p.locate(q.topic)
}

// later lists a queue after the wait that its failures ask for: none after the first.
func (p *Producer) later(q *queue) {
	if q.tries < 2 {
		p.list(q)
		return
	}
	q.state = parked
	time.AfterFunc(backoff(q.tries-1), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if q.state == parked && p.ctx.Err() == nil {
			p.list(q)
		}
	})
}

// lead gives a queue to another broker, or to none.
func (p *Producer) lead(q *queue, s *sender) {
	old := q.leader
	if old == s {
		return
	}
	if old != nil {
		old.bytes -= q.bytes
		old.ready = slices.DeleteFunc(old.ready, func(r *queue) bool { return r == q })
	}
	q.leader = s
	if s != nil {
		s.bytes += q.bytes
	}
	if q.state == ready {
		p.list(q)
	}
}
