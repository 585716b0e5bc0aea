package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	keepEvery  = time.Second // positions are written at most so often (rest-api.md 5.5)
	saveAtOnce = 8
)

// Run keeps the roster true: it announces this replica, prolongs the leases of its instances and writes their positions,
// until ctx ends. Without a roster there is nothing to do.
func (r *Registry) Run(ctx context.Context) error {
	if r.roster == nil {
		return nil
	}
	if r.secret == "" {
		r.log.Warn("no replica secret: requests for consumer instances of other replicas are not forwarded; set SLUICE_REPLICA_SECRET")
	}
	document, err := json.Marshal(replicaDocument{URL: r.cfg.ReplicaURL, Version: rosterSchema})
	if err != nil {
		return err
	}
	tick := time.NewTicker(min(keepEvery, r.cfg.ReplicaLease/4))
	defer tick.Stop()
	announced := time.Time{}
	down := false
	for {
		var err error
		if now := time.Now(); now.Sub(announced) >= r.cfg.ReplicaLease/3 {
			if err = r.roster.announce(ctx, string(document)); err == nil {
				announced = now
			}
		}
		if err == nil {
			err = r.keep(ctx)
		}
		if failed := err != nil && ctx.Err() == nil; failed != down { // a repeated failure is logged when it changes
			if down = failed; down {
				r.log.Warn("registry of consumer instances cannot be written", slog.Any("error", err))
			} else {
				r.log.Info("registry of consumer instances is written again")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// keep writes the instances that have something to write, or whose lease is a third through. It gives up for this time
// when Redis does not answer.
func (r *Registry) keep(ctx context.Context) error {
	now := time.Now()
	var due []*Instance
	r.mu.Lock()
	for _, i := range r.open {
		if i.unsaved.Load() || time.Unix(0, i.leased.Load()).Sub(now) < r.cfg.ReplicaLease*2/3 {
			due = append(due, i)
		}
	}
	ended := make([]*Instance, 0, len(r.unstruck))
	for i := range r.unstruck {
		ended = append(ended, i)
	}
	r.mu.Unlock()
	each, ctx := errgroup.WithContext(ctx)
	each.SetLimit(saveAtOnce)
	for _, i := range ended {
		each.Go(func() error { return r.strike(ctx, i) })
	}
	for _, i := range due {
		each.Go(func() error {
			err := i.save(ctx, writeChanges)
			if errors.Is(err, errElsewhere) {
				i.log.Warn("consumer instance is another replica's now", slog.Any("error", err))
				r.end(i, reasonMoved)
				return nil
			}
			return err
		})
	}
	return each.Wait()
}

// strike takes an instance that has ended out of the roster, now or when Redis is back.
func (r *Registry) strike(ctx context.Context, i *Instance) error {
	err := r.roster.strike(ctx, i.name, i.reasonText())
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.unstruck[i] = true
	} else {
		delete(r.unstruck, i)
	}
	return err
}
