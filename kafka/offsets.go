package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

const (
	offsetLines  = 16              // connections to one broker: a commit waits 5 ms there, so they are throughput
	offsetTime   = 6 * time.Second // for one try; the broker itself gives up a commit after five
	offsetBudget = 30 * time.Second
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
	turn chan struct{}
	link *link
}

// NewOffsets opens no connection. What it opens, Clients.Close closes.
func NewOffsets(c *Clients) *Offsets {
	o := &Offsets{
		cfg: c.config(roleCommit), finder: c.coordinators(), dial: c.dial,
		where: map[string]string{}, lines: map[lineKey]*line{},
	}
	c.closeWith(o.close)
	return o
}

// slotOf spreads groups over the lines.
func slotOf(group string) int { return int(hash64(group, 0, "") % offsetLines) }

// coordinator is from memory where it can be.
func (o *Offsets) coordinator(ctx context.Context, group string) (string, error) {
	o.mu.Lock()
	addr, ok := o.where[group]
	o.mu.Unlock()
	if ok {
		return addr, nil
	}
	addr, err := o.finder.coordinator(ctx, group)
	if err != nil {
		return "", err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.where[group] = addr
	return addr, nil
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
		used := l.link != nil
		if !used {
			if l.link, err = openLink(ctx, o.cfg, o.dial, addr); err != nil {
				return none, err
			}
		}
		broker := l.link.broker
		answer, err := call(ctx, l.link, offsetTime, func(q Q) (A, error) { return f(broker, q) }, ask)
		if err == nil || !unreachable(err) {
			return answer, err
		}
		l.link.close()
		l.link = nil
		if !used || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			return answer, err
		}
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

func (o *Offsets) close() {
	o.mu.Lock()
	o.closed = true
	lines := o.lines
	o.lines = nil
	o.mu.Unlock()
	for _, l := range lines {
		l.turn <- struct{}{} // a call under way ends within offsetTime
		if l.link != nil {
			l.link.close()
			l.link = nil
		}
		<-l.turn
	}
}
