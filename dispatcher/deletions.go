package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

const (
	letGoAfter  = 3 * time.Second // the bell and the drop of the lanes on every replica take less
	deleteLimit = 15 * time.Second
	deleteAgain = 5 * time.Second
	sweepAfter  = time.Minute // a late commit makes a deleted group anew
	orphanAfter = 30 * time.Second
)

var errNotOurs = errors.New("another replica leads")

// deletions sees subscriptions out: when their lanes have let go, the lead owner deletes the progress group and then
// the definition. The lead is whoever owns the first partition of the first topic, so it is one replica, whichever.
type deletions struct {
	d    *Dispatcher
	work sync.WaitGroup

	mu     sync.Mutex
	seen   map[string]time.Time // ids marked as deleting, since when
	busy   map[string]bool
	sweeps map[string]time.Time // groups to delete once more
}

func newDeletions(d *Dispatcher) *deletions {
	return &deletions{d: d, seen: map[string]time.Time{}, busy: map[string]bool{}, sweeps: map[string]time.Time{}}
}

func (x *deletions) wait() { x.work.Wait() }

// look starts what is due and says when to look again, 0 for not before a change.
func (x *deletions) look(ctx context.Context) (again time.Duration) {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	present := map[string]bool{}
	for _, s := range x.d.needs.Book.All() {
		if s.State != subscriptions.Deleting {
			continue
		}
		present[s.ID] = true
		if x.seen[s.ID].IsZero() {
			x.seen[s.ID] = now
		}
		again = time.Second
		waited := now.Sub(x.seen[s.ID])
		if waited < letGoAfter || x.busy[s.ID] || !x.d.leads(s) && waited < orphanAfter {
			continue
		}
		x.busy[s.ID] = true
		x.work.Go(func() { x.remove(ctx, s) })
	}
	for id := range x.seen {
		if !present[id] {
			delete(x.seen, id)
		}
	}
	for group, at := range x.sweeps {
		again = deleteAgain
		if now.Before(at) || x.busy[group] {
			continue
		}
		x.busy[group] = true
		x.work.Go(func() { x.sweep(ctx, group) })
	}
	return again
}

// leads is whether this replica owns the first partition of the subscription.
func (d *Dispatcher) leads(s *subscriptions.Subscription) bool {
	d.mu.Lock()
	o := d.owners[slices.Min(s.Source.Topics)]
	d.mu.Unlock()
	return o != nil && o.owns(0)
}

func (x *deletions) remove(ctx context.Context, s *subscriptions.Subscription) {
	ctx, cancel := context.WithTimeout(ctx, deleteLimit)
	defer cancel()
	var err error
	if !x.d.leads(s) {
		// A topic that is gone has no owners. Then any replica will do, or nobody ever would.
		if _, there := x.d.needs.Topics.Topic(ctx, slices.Min(s.Source.Topics)); sluice.KindOf(there) != sluice.UnknownTopic {
			err = errNotOurs
		}
	}
	if err == nil {
		err = x.d.needs.Offsets.DeleteGroup(ctx, s.ProgressGroup())
	}
	if err == nil {
		err = x.d.needs.Registry.Remove(ctx, s.ID)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.busy, s.ID)
	if errors.Is(err, errNotOurs) {
		x.seen[s.ID] = time.Now()
		return
	}
	if err != nil {
		x.seen[s.ID] = time.Now().Add(deleteAgain - letGoAfter)
		x.d.log.LogAttrs(ctx, slog.LevelWarn, "subscription cannot be removed yet", slog.String("subscription", s.ID), slog.Any("error", err))
		return
	}
	x.sweeps[s.ProgressGroup()] = time.Now().Add(sweepAfter)
	x.d.log.LogAttrs(ctx, slog.LevelInfo, "subscription removed", slog.String("subscription", s.ID))
}

// sweep deletes a group once more; if that fails an orphan without members is left, which harms nobody.
func (x *deletions) sweep(ctx context.Context, group string) {
	ctx, cancel := context.WithTimeout(ctx, deleteLimit)
	defer cancel()
	_ = x.d.needs.Offsets.DeleteGroup(ctx, group)
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.busy, group)
	delete(x.sweeps, group)
}
