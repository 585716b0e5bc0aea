package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

const (
	offsetLines  = 16              // connections to one broker: a commit waits 5 ms there, so they are throughput
	offsetTime   = 6 * time.Second // for one try; the broker itself gives up a commit after five
	offsetBudget = 30 * time.Second
	restAfterCut = 500 * time.Millisecond // whoever waited for a line that failed hears so, and does not wait in turn
	whereLimit   = 100_000
)

// Offsets reads and writes the committed offsets of groups, with or without membership. Groups are hashed over up to
// offsetLines connections to each coordinator, opened as they are needed; on one connection calls go one by one.
//
// A call whose coordinator moved, loads or cannot be reached is tried again, at the coordinator that a new look-up
// names, until its context ends; without a deadline for 30 s.
type Offsets struct {
	cfg    *sarama.Config
	finder *finder
	dial   dialer

	looking chan struct{} // holds one: who has taken it looks a coordinator up

	mu     sync.Mutex
	where  map[string]string // address of the coordinator by group, as last found
	lines  map[lineKey]*line
	closed bool
}

type lineKey struct {
	slot int
	addr string
}

// line is one connection of the pool. Its owner is whoever has taken turn.
type line struct {
	turn     chan struct{}
	link     atomic.Pointer[link] // the owner's; close cuts it under a call that hangs
	failed   error                // why the last call got no answer
	failedAt time.Time
}

// NewOffsets opens no connection. What it opens, Clients.Close closes.
func NewOffsets(c *Clients) *Offsets {
	o := &Offsets{
		cfg: c.config(roleCommit), finder: c.coordinators(), dial: c.dial,
		looking: make(chan struct{}, 1), where: map[string]string{}, lines: map[lineKey]*line{},
	}
	c.closeWith(o.close)
	return o
}

// slotOf spreads groups over the lines.
func slotOf(group string) int { return int(hash64(group, 0, "") % offsetLines) }

// coordinator is from memory where it can be. Many callers ask for the same many groups at once, one for each partition
// of a topic, so each looks again after it has waited.
func (o *Offsets) coordinator(ctx context.Context, group string) (string, error) {
	if addr, ok := o.remembered(group); ok {
		return addr, nil
	}
	select {
	case o.looking <- struct{}{}:
		defer func() { <-o.looking }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if addr, ok := o.remembered(group); ok {
		return addr, nil
	}
	addr, err := o.finder.coordinator(ctx, group)
	if err != nil {
		return "", err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.where) >= whereLimit {
		clear(o.where) // callers choose the names of groups; those in use are found again
	}
	o.where[group] = addr
	return addr, nil
}

func (o *Offsets) remembered(group string) (addr string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	addr, ok = o.where[group]
	return addr, ok
}

func (o *Offsets) forget(group string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.where, group)
}

func (o *Offsets) line(slot int, addr string) (*line, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, sarama.ErrClosedClient
	}
	key := lineKey{slot, addr}
	l, ok := o.lines[key]
	if !ok {
		l = &line{turn: make(chan struct{}, 1)}
		o.lines[key] = l
	}
	return l, nil
}

// exchange makes one call on a line. A connection that was idle may have been closed by the broker: then once more on a
// new one, which is safe because all these calls may be repeated.
func exchange[Q, A any](ctx context.Context, o *Offsets, slot int, addr string, f func(*sarama.Broker, Q) (A, error), ask Q) (A, error) {
	var none A
	l, err := o.line(slot, addr)
	if err != nil {
		return none, err
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return none, ctx.Err()
	}
	for {
		open := l.link.Load()
		used := open != nil
		if !used {
			if open, err = o.reach(ctx, l, addr); err != nil {
				return none, err
			}
		}
		broker := open.broker
		answer, err := call(ctx, open, offsetTime, func(q Q) (A, error) { return f(broker, q) }, ask)
		if err == nil || !unreachable(err) {
			return answer, err
		}
		open.close()
		l.link.Store(nil)
		if !used || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			l.fail(ctx, err)
			return answer, err
		}
	}
}

// reach opens the connection of a line, whose turn the caller has.
func (o *Offsets) reach(ctx context.Context, l *line, addr string) (*link, error) {
	if time.Since(l.failedAt) < restAfterCut {
		return nil, l.failed
	}
	if o.isClosed() {
		return nil, sarama.ErrClosedClient
	}
	opened, err := openLink(ctx, o.cfg, o.dial, addr)
	if err != nil {
		l.fail(ctx, err)
		return nil, err
	}
	l.link.Store(opened)
	if o.isClosed() { // meanwhile, and close may not have seen this one
		opened.wire.cut()
	}
	return opened, nil
}

// fail remembers a failure for those who wait, unless it is the caller's own: its time was up, or it went away.
func (l *line) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		l.failed, l.failedAt = err, time.Now()
	}
}

// persist tries until it works, ctx ends, or the error is not the coordinator's whereabouts.
func (o *Offsets) persist(ctx context.Context, group string, try func(ctx context.Context, addr string) error) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, offsetBudget)
		defer cancel()
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		addr, err := o.coordinator(ctx, group)
		if err == nil {
			err = try(ctx, addr)
		}
		if err == nil || !elsewhere(err) {
			return err
		}
		o.forget(group)
		if !pause(ctx, wait) {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// elsewhere reports whether the call may work at another broker, or at this one a little later.
func elsewhere(err error) bool {
	if errors.Is(err, sarama.ErrClosedClient) {
		return false
	}
	code, ok := errors.AsType[sarama.KError](err)
	return coordinatorMoved(err) || code == sarama.ErrOffsetsLoadInProgress || !ok && (unreachable(err) || errors.Is(err, context.DeadlineExceeded))
}

// DeleteGroup removes a group and its offsets. One that does not exist is fine; one with members is a Conflict.
func (o *Offsets) DeleteGroup(ctx context.Context, group string) error {
	err := o.persist(ctx, group, func(ctx context.Context, addr string) error {
		answer, err := exchange(ctx, o, slotOf(group), addr, (*sarama.Broker).DeleteGroups,
			&sarama.DeleteGroupsRequest{Version: 2, Groups: []string{group}})
		if err != nil {
			return err
		}
		if code := answer.GroupErrorCodes[group]; code != sarama.ErrNoError && code != sarama.ErrGroupIDNotFound {
			return code
		}
		return nil
	})
	if err == nil {
		o.forget(group)
	}
	return kafkaError(fmt.Sprintf("delete group %s", group), err)
}

func (o *Offsets) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// close cuts every connection; calls under way fail.
func (o *Offsets) close() {
	o.mu.Lock()
	o.closed = true
	lines := o.lines
	o.lines = nil
	o.mu.Unlock()
	for _, l := range lines {
		if open := l.link.Load(); open != nil {
			open.wire.cut()
		}
	}
	for _, l := range lines {
		l.turn <- struct{}{}
		if open := l.link.Swap(nil); open != nil {
			open.close()
		}
		<-l.turn
	}
}
