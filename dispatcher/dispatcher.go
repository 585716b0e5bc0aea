package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

const (
	ownershipGroup = "sluice.topic." // who delivers a topic's partitions
	settleFor      = 2 * time.Second // a topic must be wanted, or not, for so long before its group is joined or left
	drainWithin    = 20 * time.Second
	maxSpan        = progress.MaxSpan
)

// Dispatcher runs the lanes of this replica. Run works until Stop.
type Dispatcher struct {
	cfg           Config
	needs         Needs
	log           *slog.Logger
	metrics       *metrics
	slots         *slots
	committer     *progress.Committer
	process       process
	maxHoles      int
	metadataBytes int

	membership, flying context.Context // what goes on lives in them: memberships, attempts
	quit, ground       context.CancelFunc
	stop               chan struct{}
	stopOnce           sync.Once
	finished           chan struct{}
	stopping           atomic.Bool
	started            atomic.Bool
	work               sync.WaitGroup

	mu         sync.Mutex
	shares     map[string]*share
	partitions map[string]int32 // of topics, as last seen
	owners     map[string]*owner
	byTopic    map[string][]*subscriptions.Subscription // active ones
	bell       chan struct{}
	refused    int // topics above the limit
}

// New starts nothing. A nil Registerer keeps the metrics private.
func New(cfg Config, n Needs, log *slog.Logger, reg prometheus.Registerer) (*Dispatcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("dispatcher: %w", err)
	}
	if err := n.validate(); err != nil {
		return nil, err
	}
	log = cmp.Or(log, slog.New(slog.DiscardHandler))
	committer, err := progress.NewCommitter(cfg.Progress, n.Offsets, log, reg)
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(n.MetadataBytes, progress.MaxMetadata)
	d := &Dispatcher{
		cfg: cfg, needs: n, log: log, metrics: newMetrics(reg), slots: newSlots(cfg.Slots, cfg.InFlightBytes), committer: committer,
		process: process(rand.Uint64() | 1), maxHoles: progress.HolesWithin(limit), metadataBytes: limit,
		stop: make(chan struct{}), finished: make(chan struct{}),
		shares: map[string]*share{}, partitions: map[string]int32{}, owners: map[string]*owner{},
		byTopic: map[string][]*subscriptions.Subscription{}, bell: make(chan struct{}),
	}
	d.membership, d.quit = context.WithCancel(context.Background())
	d.flying, d.ground = context.WithCancel(context.Background())
	if reg != nil {
		reg.MustRegister(newGauges(d))
	}
	return d, nil
}

// Run follows the subscriptions until Stop or the end of ctx, which is a Stop with bounds of its own.
func (d *Dispatcher) Run(ctx context.Context) error {
	if d.started.Swap(true) {
		return errors.New("dispatcher: Run was called twice")
	}
	defer close(d.finished)
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-d.stop:
			cancel()
		case <-run.Done():
		}
	}()
	committing, stopCommits := context.WithCancel(context.WithoutCancel(ctx))
	var committer sync.WaitGroup
	committer.Go(func() { _ = d.committer.Run(committing) })
	if d.needs.Book.Ready(run) == nil {
		d.follow(run)
	}
	if ctx.Err() != nil {
		d.stopOnce.Do(func() { close(d.stop) })
	}
	d.windDown()
	stopCommits()
	committer.Wait()
	d.work.Wait()
	return nil
}

// Stop ends everything in order: lanes offer nothing new, flights land within 20 s, ledgers commit, members leave.
func (d *Dispatcher) Stop(ctx context.Context) error {
	d.stopOnce.Do(func() { close(d.stop) })
	if !d.started.Load() {
		return nil
	}
	select {
	case <-d.finished:
		return nil
	case <-ctx.Done():
		d.ground() // whatever is in flight still; its records are sent again by their next owner
		select {
		case <-d.finished:
		case <-time.After(time.Second):
		}
		return fmt.Errorf("stop the dispatcher: %w", ctx.Err())
	}
}

// follow joins and leaves groups as subscriptions come and go.
func (d *Dispatcher) follow(ctx context.Context) {
	since := map[string]time.Time{} // when a topic's being wanted, or not, began to differ from what is
	deletions := newDeletions(d)
	defer deletions.wait()
	first := true
	for {
		changed := d.needs.Book.Changed()
		wanted := d.index(d.needs.Book.All())
		next := d.settle(wanted, since, first)
		first = false
		again := deletions.look(ctx)
		if next == 0 || again > 0 && again < next {
			next = again
		}
		var timer <-chan time.Time
		if next > 0 {
			timer = time.After(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer:
		}
	}
}

// index sorts the subscriptions by topic, rings for the claims, and returns the topics that are wanted: those of every
// subscription. One that is being deleted counts too, for its lead owner has to see it out.
func (d *Dispatcher) index(all []*subscriptions.Subscription) map[string]bool {
	wanted := map[string]bool{}
	byTopic := map[string][]*subscriptions.Subscription{}
	for _, s := range all {
		for _, topic := range s.Source.Topics {
			wanted[topic] = true
			if s.State != subscriptions.Deleting {
				byTopic[topic] = append(byTopic[topic], s)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byTopic = byTopic
	close(d.bell)
	d.bell = make(chan struct{})
	return wanted
}

// settle starts and stops owners once a wish has lasted, at the start at once, and returns when to look again.
func (d *Dispatcher) settle(wanted map[string]bool, since map[string]time.Time, atOnce bool) (next time.Duration) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	differ := map[string]bool{}
	for topic := range wanted {
		if d.owners[topic] == nil {
			differ[topic] = true
		}
	}
	for topic := range d.owners {
		if !wanted[topic] {
			differ[topic] = true
		}
	}
	for topic := range since {
		if !differ[topic] {
			delete(since, topic)
		}
	}
	refused := 0
	for _, topic := range sorted(differ) {
		began, known := since[topic]
		if !known {
			began, since[topic] = now, now
		}
		if left := settleFor - now.Sub(began); left > 0 && !atOnce {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		switch {
		case !wanted[topic]:
			d.owners[topic].stop()
			delete(d.owners, topic)
		case len(d.owners) >= d.cfg.MaxTopics:
			refused++
			continue
		default:
			d.owners[topic] = d.own(topic)
		}
		delete(since, topic)
	}
	if refused > 0 && refused != d.refused {
		d.log.Error("topics are not delivered: too many have subscriptions", "topics", refused, "max", d.cfg.MaxTopics)
	}
	d.refused = refused
	d.metrics.refused.Set(float64(refused))
	return next
}

func sorted(set map[string]bool) []string {
	all := make([]string, 0, len(set))
	for s := range set {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// windDown is the ordered stop.
func (d *Dispatcher) windDown() {
	d.stopping.Store(true)
	d.mu.Lock()
	owners := make([]*owner, 0, len(d.owners))
	for _, o := range d.owners {
		owners = append(owners, o)
	}
	d.owners = map[string]*owner{}
	d.mu.Unlock()
	var claims []*claim
	for _, o := range owners {
		claims = append(claims, o.lent()...)
	}
	for _, c := range claims {
		c.suspend()
	}
	land(claims, time.After(drainWithin))
	d.quit() // each session ends with its last commit, and the member leaves
	for _, o := range owners {
		<-o.done
	}
	d.ground()
}

// of is the active subscriptions of a topic.
func (d *Dispatcher) of(topic string) []*subscriptions.Subscription {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.byTopic[topic]
}

// changed is closed when of may have changed. Take it first.
func (d *Dispatcher) changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bell
}

// count asks how many partitions a topic has, until it is told or the session ends: the replica may own none of them.
func (d *Dispatcher) count(ctx context.Context, topic string) {
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		t, err := d.needs.Topics.Topic(ctx, topic)
		if err == nil {
			d.counted(t)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// counted notes how many partitions a topic has; the limits of its subscriptions depend on it.
func (d *Dispatcher) counted(t sluice.Topic) {
	n := int32(len(t.Partitions))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.partitions[t.Name] == n {
		return
	}
	d.partitions[t.Name] = n
	for _, s := range d.shares {
		if slices.Contains(s.definition.Load().Source.Topics, t.Name) {
			d.limit(s)
		}
	}
}

func (d *Dispatcher) allShares() []*share {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*share, 0, len(d.shares))
	for _, s := range d.shares {
		all = append(all, s)
	}
	return all
}

// panicked logs a panic that cost one task.
func (d *Dispatcher) panicked(what string, p any) {
	d.metrics.panics.Inc()
	d.log.Error("panic", "in", what, "panic", p, "stack", string(debug.Stack()))
}
