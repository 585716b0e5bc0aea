package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// takeOver starts lanes where their groups say they stand.
func (c *claim) takeOver(ctx context.Context, fresh []*subscriptions.Subscription) error {
	ctx, cancel := context.WithTimeout(ctx, readPositions)
	defer cancel()
	topic, err := c.d.needs.Topics.Topic(ctx, c.p.Topic)
	if err != nil {
		return err
	}
	c.topic.Store(&topic)
	c.d.needs.Log.Recognize(topic.Name, topic.ID)
	c.d.counted(topic)
	names := make([]string, len(fresh))
	for i, def := range fresh {
		names[i] = def.ProgressGroup()
	}
	commits, err := c.d.needs.Offsets.Groups(ctx, c.p, names)
	if err != nil {
		return err
	}
	all := make([]found, len(fresh))
	for i, def := range fresh {
		commit, ok := commits[def.ProgressGroup()]
		if !ok {
			commit.Offset = sluice.NoOffset
		}
		all[i] = found{Commit: commit, Topic: topic.ID, Resolved: def.Source.Resolved[c.p.Topic], Number: c.p.Number,
			Finder: c.d.process, Flying: c.flights.any(), Company: c.session.Load().company}
	}
	if err := c.distrust(ctx, names, all); err != nil {
		return err
	}
	if err := c.measure(ctx, all); err != nil {
		return err
	}
	for i, def := range fresh {
		in := inherit(all[i])
		in.Silent = in.Abrupt
		c.start(def, in)
	}
	c.d.committer.Now() // pin the positions, and let a zombie be seen by its term
	return nil
}

// distrust looks who wrote the commits that are not ours. An operator's are followed. What a member of the group committed
// wrote over ours, and nobody was sent what it consumed: the lane begins where the subscription did, for twice is better
// than never.
func (c *claim) distrust(ctx context.Context, names []string, all []found) error {
	var moved []string
	for i, f := range all {
		if f.moved() {
			moved = append(moved, names[i])
		}
	}
	if len(moved) == 0 {
		return nil
	}
	states, err := c.d.needs.Offsets.Describe(ctx, moved)
	if err != nil {
		return err
	}
	for i := range all {
		state, known := states[names[i]]
		all[i].Trespassed = known && all[i].moved() && !state.Untouched()
	}
	return nil
}

// measure asks what the partition holds, again while a position seems to lie above its end.
func (c *claim) measure(ctx context.Context, all []found) error {
	for look := 1; ; look++ {
		held, err := c.d.needs.Topics.Range(ctx, c.p)
		if err != nil {
			return err
		}
		above := false
		for i := range all {
			all[i].Range = held
			above = above || all[i].beyond()
		}
		if !above || look >= lookTwice {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// start makes a lane and lets it go, in the place of the one that there may be.
func (c *claim) start(def *subscriptions.Subscription, in inheritance) {
	now := time.Now()
	c.mu.Lock()
	old := c.lanes[def.ID]
	c.mu.Unlock()
	r := newRunner(c, def, in, old)
	if in.Moved {
		c.d.log.LogAttrs(context.Background(), slog.LevelWarn, "position changed", r.who(), slog.String("found", string(external)), slog.Int64("offset", in.From))
	}
	if in.Cause != "" {
		c.d.lost(r.share, c.p, in.loss, in.Ledger.Low())
	}
	c.d.log.LogAttrs(context.Background(), slog.LevelDebug, "lane begins", r.who(), slog.Int64("low", in.Ledger.Low()),
		slog.Int("holes", in.Ledger.Len()), slog.Uint64("term", in.Mark.Term))
	if def.Delivery.Ordering != subscriptions.OrderNone {
		until := now
		if in.Abrupt {
			// A predecessor that was cut off may still have the head of a key in flight, for as long as an attempt takes.
			until = now.Add(def.Endpoint.Timeout.Std())
		}
		r.wait(until, in)
	}
	r.share.mu.Lock()
	paused := r.share.pausedTill
	r.share.mu.Unlock()
	if paused.After(now) {
		r.post(event{kind: evHold, until: paused})
	}
	if r.share.shut() {
		r.post(event{kind: evGroup})
	}
	c.mu.Lock()
	c.lanes[def.ID] = r
	c.mu.Unlock()
	r.line.Changed(0)
	if c.released() {
		r.post(event{kind: evSuspend}) // the session ended meanwhile; the next one wakes it
	} else {
		r.post(event{kind: evTimer})
	}
}

// restart lets a lane begin anew from what is committed.
func (c *claim) restart(r *runner) {
	c.mu.Lock()
	for id, one := range c.lanes {
		if one == r {
			delete(c.lanes, id)
		}
	}
	c.mu.Unlock()
	r.drop()
	select {
	case c.renew <- struct{}{}:
	default:
	}
}
