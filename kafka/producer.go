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
// A record meets its partition in producer_admission.go (and partitioner.go), waits in the queue of producer_queue.go,
// becomes bytes in batch.go, leaves by its broker's loop in producer_sender.go, and gets its receipt from the queue, by
// the table of producer_verdict.go. What is known of topics and leaders is in producer_topics.go. One mutex guards it
// all, held for a few operations at a time and never while anything waits.
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
	down     time.Time // until then Kafka counts as unreachable for new callers
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
		if p.leave(sub, ctx.Err()) {
			return nil, errDown
		}
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
		p.refresh(time.Now())
	}
	return nil
}

// refresh looks up the topics that were written to lately and not looked at for a while.
func (p *Producer) refresh(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.topics {
		if now.Sub(t.at) > refreshAge && now.Sub(t.used) < unusedAfter {
			p.locate(t)
		}
	}
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
	p.mu.Lock()
	p.cancel() // under the lock, where tasks begin: none does from here on
	p.mu.Unlock()
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
				<-q.flight.built // reads the callers' memory until then, and takes no lock
				q.cause = errors.Join(why, q.cause)
				q.forsake()
			}
		}
	}
	return fmt.Errorf("producer: %d calls had not ended: %w", left, why)
}
