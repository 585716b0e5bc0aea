package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

const (
	downTime    = time.Second      // how long a failed look-up counts as "Kafka is down" for new callers
	refreshAge  = 15 * time.Second // leaders and partitions of topics in use are looked up again so often
	unusedAfter = 5 * time.Minute  // and not any more when nobody has written for so long
)

var (
	errStopping    = &sluice.Error{Kind: sluice.Unavailable, Msg: "The gateway is stopping.", RetryAfter: retryAfter}
	errDown        = &sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached.", RetryAfter: retryAfter}
	errUnknownPart = &sluice.Error{Kind: sluice.UnknownPart, Msg: "Partition not found."}
)

// Producer writes records, in batches across all callers: group commit. Nobody waits for a batch to fill. While one
// request is on its way to a broker, whatever arrives for that broker collects, and leaves together when the answer is
// there; so the batches grow with the load and a lone record leaves at once.
//
// A record goes through five files: admission and the partition here and in partitioner.go; the queue of its partition
// in producer_queue.go, which decides what is sent and what an answer means; its broker's loop in producer_sender.go;
// its bytes in batch.go; and what is known of its topic in producer_topics.go. One mutex guards it all, held for a few
// operations at a time and never while anything waits.
//
// What is promised: the records of one caller for one partition keep their order; a record is written once, however
// often its request had to be repeated (idempotent, KIP-98); a bad record fails alone; a receipt says whether a record
// may be in the log. Safe for concurrent use.
type Producer struct {
	cfg     Config
	log     *slog.Logger
	admin   *Admin
	sarama  *sarama.Config
	dial    dialer
	metrics *produceMetrics

	ctx    context.Context // of everything that runs: ends at the end of Stop
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	idLock sync.Mutex // one producer id is asked for at a time

	mu       sync.Mutex
	topics   map[string]*topic
	loads    map[string]*load
	senders  map[int32]*sender
	current  identity  // for queues that begin
	down     time.Time // until then Kafka counts as unreachable
	open     int       // submissions without all their receipts
	stopping bool
	drained  chan struct{} // closed when stopping and nothing is open
}

// NewProducer connects to nobody yet. letters makes it the one for dead letters and what Sluice writes about itself,
// which must not queue behind its users' records. A nil Registerer keeps the counts private.
func NewProducer(c *Clients, letters bool, reg prometheus.Registerer) (*Producer, error) {
	role := roleProduce
	if letters {
		role = roleLetters
	}
	m, err := newProduceMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("producer: %w", err)
	}
	p := &Producer{
		cfg: c.cfg, log: c.log.With("role", role), admin: NewAdmin(c), sarama: c.config(role), metrics: m,
		dial:   c.dial,
		topics: map[string]*topic{}, loads: map[string]*load{}, senders: map[int32]*sender{},
		drained: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

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

// Produce writes records to a topic and returns one receipt each, in their order. It returns when all are known, when
// ctx ends, or after ProduceTimeout; records that were not sent by then are not sent any more (Kind Retriable), those
// that were are OutcomeUnknown. An error means that nothing was attempted: UnknownTopic, Unavailable, Overloaded,
// Unauthorized, Forbidden. The caller leaves the records alone until Produce returns.
func (p *Producer) Produce(ctx context.Context, name string, recs []sluice.NewRecord) ([]sluice.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ProduceTimeout)
	defer cancel()
	sub := newSubmission(p, recs)
	if err := p.admit(ctx, name, sub); err != nil {
		return nil, err
	}
	if len(recs) == 0 {
		return sub.receipts, nil
	}
	select {
	case <-sub.done:
	case <-ctx.Done():
		p.leave(sub, ctx.Err())
	}
	p.metrics.count(name, sub.receipts)
	if err := unknownTopic(sub.receipts); err != nil {
		return nil, err
	}
	return sub.receipts, nil
}

// unknownTopic is the error of a call whose topic went away under it.
func unknownTopic(receipts []sluice.Receipt) error {
	for _, r := range receipts {
		if sluice.KindOf(r.Err) != sluice.UnknownTopic {
			return nil
		}
	}
	return errUnknownTopic
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
		if s := it.queue.leader; s != nil && s.bytes >= senderBytes {
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

// unreachable reports whether neither the partition's broker nor any other answers. Then a caller hears so at once.
func (p *Producer) unreachable(q *queue) bool {
	return (q.leader == nil || q.leader.tries > 0) && time.Now().Before(p.down)
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

// leave takes the records of a call back whose time is over.
func (p *Producer) leave(sub *submission, why error) {
	var building []*batch
	p.mu.Lock()
	for _, it := range sub.items {
		if it.state == done {
			continue
		}
		cause := errors.Join(why, it.queue.cause)
		r := sluice.Receipt{Partition: it.queue.number, Offset: -1}
		if it.state == flying {
			r.Err = outcomeUnknown(cause)
			building = append(building, it.batch)
		} else {
			r.Err = notWritten(cause)
		}
		it.finish(r)
	}
	p.mu.Unlock()
	for _, b := range building {
		<-b.built // it still reads the caller's memory
	}
}

func notWritten(cause error) error {
	e := &sluice.Error{Kind: sluice.Retriable, Msg: "Kafka did not take the record in time; it was not written.", Err: cause}
	if code, ok := errors.AsType[sarama.KError](cause); ok {
		e.Msg = brokerText(code)
	}
	return e
}

// identify sees to a producer id for queues that begin. It asks without the lock: the other brokers go on.
func (p *Producer) identify() error {
	p.idLock.Lock()
	defer p.idLock.Unlock()
	p.mu.Lock()
	valid := p.current.valid
	p.mu.Unlock()
	if valid {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, lookTime)
	defer cancel()
	answer, err := askAny(ctx, p.admin.meta.brokers, (*sarama.Broker).InitProducerID, func() *sarama.InitProducerIDRequest {
		return &sarama.InitProducerIDRequest{Version: 4, ProducerID: -1, ProducerEpoch: -1}
	})
	if err == nil && answer.Err != sarama.ErrNoError {
		err = answer.Err
	}
	if err != nil {
		return fmt.Errorf("init producer id: %w", err)
	}
	p.mu.Lock()
	p.current = identity{producer: answer.ProducerID, epoch: answer.ProducerEpoch, valid: true}
	p.mu.Unlock()
	return nil
}

// Run keeps what is known about the topics in use fresh, until ctx ends or Stop is called. Without it a new partition
// shows only when somebody names it, and a moved leader when it refuses.
func (p *Producer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	for pause(ctx, refreshAge/3) {
		p.mu.Lock()
		now := time.Now()
		for _, t := range p.topics {
			if now.Sub(t.at) > refreshAge && now.Sub(t.used) < unusedAfter {
				p.locate(t)
			}
		}
		p.mu.Unlock()
	}
	return nil
}

// Stop turns new callers away and waits until all records have their receipts, or ctx ends: then those that are left get
// theirs, and the error says how many calls they belong to.
func (p *Producer) Stop(ctx context.Context) error {
	p.mu.Lock()
	first := !p.stopping
	p.stopping = true
	if first && p.open == 0 {
		close(p.drained)
	}
	p.mu.Unlock()
	var err error
	select {
	case <-p.drained:
	case <-ctx.Done():
		err = p.abandon(ctx.Err())
	}
	p.cancel()
	p.tasks.Wait()
	return err
}

// abandon gives every record that is left its receipt.
func (p *Producer) abandon(why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.open
	for _, t := range p.topics {
		for _, q := range t.queues {
			q.fail(notWritten(why))
			if q.flight != nil {
				q.cause = errors.Join(why, q.cause)
				q.forsake()
			}
		}
	}
	return fmt.Errorf("producer: %d calls had not ended: %w", left, why)
}
