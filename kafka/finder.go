package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

const (
	askTime      = time.Second            // for one broker to name a coordinator, connecting included
	patientTime  = 4 * time.Second        // the same, while no broker at all is as fast as that
	doubtTime    = 500 * time.Millisecond // at most one second opinion in so long, for each costs a connection
	skipTime     = 10 * time.Second       // a broker that did not is asked last for so long
	refreshTime  = 30 * time.Second       // the list of brokers is read again, when somebody asks
	restAfterAll = 200 * time.Millisecond // when no broker answered, the next callers get the same error for so long
)

// finder knows which broker coordinates a group. There is one per process. It asks brokers directly, on a connection of
// its own, because a shared client hangs with the broker it happens to ask (measured: 7.7 s).
type finder struct {
	cfg  *sarama.Config
	dial dialer
	turn chan struct{} // holds one: who has taken it asks, and owns all below

	brokers []string // addresses: the configured ones, and those that metadata named
	seeds   []string
	read    time.Time            // when metadata was read
	failed  map[string]time.Time // by address: when it last failed to answer
	link    *link                // to the broker that answered last
	bound   time.Duration        // for one broker now: askTime, or patientTime
	allAt   time.Time            // when no broker at all answered
	allErr  error
	doubted time.Time // when a second opinion was asked for
	closed  bool
}

func newFinder(cfg *sarama.Config, dial dialer, seeds []string) *finder {
	f := &finder{cfg: cfg, dial: dial, turn: make(chan struct{}, 1), seeds: seeds, failed: map[string]time.Time{}, bound: askTime}
	f.brokers = slices.Clone(seeds)
	return f
}

// coordinator is the address of group's coordinator. The error is a sarama.KError when a broker answered with one.
func (f *finder) coordinator(ctx context.Context, group string) (string, error) {
	return f.another(ctx, group, "")
}

// another is coordinator for who has lost one and hopes for another. While the lost one is named still, a second broker
// is asked: the first may be the last to hear who took over.
func (f *finder) another(ctx context.Context, group, lost string) (string, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("find coordinator: %w", ctx.Err())
	}
	if f.closed {
		return "", sarama.ErrClosedClient
	}
	if f.allErr != nil && time.Since(f.allAt) < restAfterAll {
		return "", f.allErr
	}
	if lost != "" {
		f.failed[lost] = time.Now() // it would hang again
		if f.link != nil && f.link.addr == lost {
			f.drop()
		}
	}
	var errs []error
	first := ""
	for _, addr := range f.candidates() {
		if first != "" && f.failedLately(addr) {
			break // no second opinion is worth a second
		}
		began := time.Now()
		answer, err := f.ask(ctx, addr, group)
		if ctx.Err() != nil {
			return "", fmt.Errorf("find coordinator: %w", ctx.Err())
		}
		if err == nil && time.Since(began) < askTime {
			f.bound = askTime
		}
		if err != nil {
			f.failed[addr] = time.Now()
			errs = append(errs, err)
			continue
		}
		f.allErr = nil
		switch {
		case !errors.Is(answer.Err, sarama.ErrNoError):
			return "", fmt.Errorf("find coordinator: %w", answer.Err)
		case answer.Coordinator == nil || answer.Coordinator.ID() < 0:
			return "", fmt.Errorf("find coordinator: %w", sarama.ErrConsumerCoordinatorNotAvailable)
		}
		named := answer.Coordinator.Addr()
		if named != lost || first != "" || time.Since(f.doubted) < doubtTime {
			return named, nil
		}
		first, f.doubted = named, time.Now()
	}
	if first != "" {
		return first, nil
	}
	f.bound = patientTime // they hang, or are slow: the next question finds out
	f.allAt, f.allErr = time.Now(), fmt.Errorf("find coordinator: %w", errors.Join(errs...))
	return "", f.allErr
}

// candidates is every broker: the one that answered last, the others in random order, and those that failed lately at
// the end. They are not left out altogether, or a lone broker would be missed for ten seconds after a restart.
func (f *finder) candidates() []string {
	var fresh, stale []string
	for _, i := range rand.Perm(len(f.brokers)) {
		addr := f.brokers[i]
		switch {
		case f.link != nil && f.link.addr == addr: // first, below
		case f.failedLately(addr):
			stale = append(stale, addr)
		default:
			fresh = append(fresh, addr)
		}
	}
	if f.link != nil {
		fresh = slices.Insert(fresh, 0, f.link.addr)
	}
	return append(fresh, stale...)
}

func (f *finder) failedLately(addr string) bool { return time.Since(f.failed[addr]) < skipTime }

// ask puts the question to one broker. A connection that was idle may have been closed by the broker meanwhile: that
// one is opened again once.
func (f *finder) ask(ctx context.Context, addr, group string) (*sarama.FindCoordinatorResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, f.bound)
	defer cancel()
	if f.link != nil && f.link.addr == addr {
		answer, err := f.put(ctx, group)
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
	}
	f.drop()
	opened, err := openLink(ctx, f.cfg, f.dial, addr)
	if err != nil {
		return nil, err
	}
	f.link = opened
	return f.put(ctx, group)
}

func (f *finder) put(ctx context.Context, group string) (*sarama.FindCoordinatorResponse, error) {
	l := f.link
	answer, err := call(ctx, l, f.bound, l.broker.FindCoordinator, &sarama.FindCoordinatorRequest{
		Version: 3, CoordinatorKey: group, CoordinatorType: sarama.CoordinatorGroup,
	})
	if err != nil {
		f.drop()
		return nil, err
	}
	delete(f.failed, l.addr)
	if time.Since(f.read) > refreshTime {
		f.refresh(ctx, l)
	}
	return answer, nil
}

// refresh reads the list of brokers, so that the configured ones may all go away. The topic in the question only keeps
// the answer small: without any, the broker would describe every topic.
func (f *finder) refresh(ctx context.Context, l *link) {
	answer, err := call(ctx, l, f.bound, l.broker.GetMetadata, sarama.NewMetadataRequest(f.cfg.Version, []string{"__consumer_offsets"}))
	if err != nil {
		f.drop() // the coordinator is known all the same
		return
	}
	f.read = time.Now()
	f.brokers = slices.Clone(f.seeds)
	for _, b := range answer.Brokers {
		if !slices.Contains(f.brokers, b.Addr()) {
			f.brokers = append(f.brokers, b.Addr())
		}
	}
	for addr, at := range f.failed {
		if time.Since(at) > skipTime {
			delete(f.failed, addr)
		}
	}
}

func (f *finder) drop() {
	if f.link != nil {
		f.link.close()
		f.link = nil
	}
}

// close waits for the question under way.
func (f *finder) close() {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	f.closed = true
	f.drop()
}

// coordinators is the process's one finder.
func (c *Clients) coordinators() *finder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finder == nil {
		c.finder = newFinder(c.config(roleOwn), c.dial, c.cfg.Brokers)
		c.bare = append(c.bare, c.finder.close)
	}
	return c.finder
}

// closeWith has close called when the clients are closed.
func (c *Clients) closeWith(bare func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bare = append(c.bare, bare)
}
