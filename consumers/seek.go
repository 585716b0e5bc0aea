package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice"
)

// Target says where one partition is to go on.
type Target struct {
	Topic     string
	Partition int32
	To        Place
	Offset    int64     // for ToOffset: the next to read
	Time      time.Time // for ToTime: at the first record with that time or a later one, else at the end
}

// Place is what a Target means.
type Place byte

// The places.
const (
	ToOffset Place = iota
	ToBeginning
	ToEnd
	ToTime
)

// Seek moves positions, all of them or none. It waits its turn behind a read that is held, and for an assignment within
// the instance's timeout. What was sought counts as delivered: a commit without offsets stores it. Kinds: NotFound;
// IllegalState for a partition that is not assigned by then; Unavailable, NoLeader, UnknownTopic, UnknownPart where
// Kafka must be asked.
func (i *Instance) Seek(ctx context.Context, targets []Target) error {
	if err := i.enter(); err != nil {
		return err
	}
	defer i.leave()
	if !i.take(ctx, i.reading) {
		if ctx.Err() != nil {
			return &sluice.Error{Kind: sluice.Overloaded, Msg: "A read of this consumer is still under way."}
		}
		return i.cutShort(ctx)
	}
	defer i.reading.free()
	patience, cancel := context.WithTimeout(ctx, i.patience(Want{}))
	defer cancel()
	for {
		s, bell, err := i.current()
		if s != nil {
			offsets, err := i.resolve(ctx, s, targets)
			if err != nil {
				return err
			}
			if i.move(s, targets, offsets) {
				i.saveNow(ctx)
				return nil
			}
			continue // the group rebalanced meanwhile
		}
		if errors.Is(err, errNotSubscribed) || len(targets) == 0 {
			return notAssigned(targets)
		}
		select {
		case <-bell:
		case <-i.ended:
			return i.cutShort(ctx)
		case <-patience.Done():
			if err != nil {
				return err // why the group cannot be joined
			}
			if err := i.unreachable(ctx); err != nil {
				return err
			}
			return notAssigned(targets)
		}
	}
}

func notAssigned(targets []Target) error {
	if len(targets) == 0 {
		return nil
	}
	return noAssignment(targets[0])
}

func noAssignment(t Target) error {
	return &sluice.Error{Kind: sluice.IllegalState, Msg: fmt.Sprintf("No current assignment for partition %s-%d", t.Topic, t.Partition)}
}

func (s *session) claim(t Target) *claim {
	for _, c := range s.claims {
		if c.p.Topic == t.Topic && c.p.Number == t.Partition {
			return c
		}
	}
	return nil
}

// resolve finds the offsets of all targets before any of them is moved.
func (i *Instance) resolve(ctx context.Context, s *session, targets []Target) ([]int64, error) {
	for _, t := range targets {
		if s.claim(t) == nil {
			return nil, noAssignment(t)
		}
	}
	offsets := make([]int64, len(targets))
	each, ctx := errgroup.WithContext(ctx)
	each.SetLimit(locateAtOnce)
	for n, t := range targets {
		if t.To == ToOffset {
			offsets[n] = t.Offset
			continue
		}
		each.Go(func() (err error) {
			offsets[n], err = i.offsetOf(ctx, t)
			return err
		})
	}
	return offsets, each.Wait()
}

func (i *Instance) offsetOf(ctx context.Context, t Target) (int64, error) {
	p := sluice.Partition{Topic: t.Topic, Number: t.Partition, Isolation: i.settings.Isolation}
	if t.To == ToTime {
		return i.room.needs.Topics.OffsetAt(ctx, p, t.Time)
	}
	// Kafka is asked: what the log remembers may lack the record that somebody wrote a moment before the seek.
	r, err := i.room.needs.Topics.Range(ctx, p)
	if err == nil && t.To == ToBeginning {
		return r.Start, nil
	}
	return r.End, err
}

// move reports false if the session does not lend the partitions any more.
func (i *Instance) move(s *session, targets []Target, offsets []int64) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.session != s || !s.Valid() {
		return false
	}
	for n, t := range targets {
		c := s.claim(t)
		c.place(offsets[n])
		c.moved = true
	}
	i.wantCommit()
	i.ring()
	return true
}
