package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// stops are the named stops of what was acquired, in the order of acquiring.
type stops struct {
	log  *slog.Logger
	list []namedStop
}

type namedStop struct {
	name  string
	bound time.Duration
	stop  func(context.Context) error
}

// add registers a stop. It gets bound to end; the next one begins regardless.
func (s *stops) add(name string, bound time.Duration, stop func(context.Context) error) {
	s.list = append(s.list, namedStop{name, bound, stop})
}

// run stops everything, the last acquired first, and forgets it: running twice stops once.
func (s *stops) run(ctx context.Context) error {
	var errs []error
	for len(s.list) > 0 {
		last := s.list[len(s.list)-1]
		s.list = s.list[:len(s.list)-1]
		began := time.Now()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), last.bound)
		err := last.stop(bounded)
		cancel()
		timed(ctx, s.log, "stop "+last.name, began, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", last.name, err))
		}
	}
	return errors.Join(errs...)
}

// background runs a long-lived part until its stop, and tells failed when it ends by itself before that.
func (g *Gateway) background(name string, bound time.Duration, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if err != nil && ctx.Err() == nil {
			g.fail(fmt.Errorf("%s: %w", name, err))
		}
		done <- err
	}()
	g.stops.add(name, bound, func(bounded context.Context) error {
		cancel()
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		case <-bounded.Done():
			return bounded.Err()
		}
	})
}

// fail ends Run with the first failure.
func (g *Gateway) fail(err error) {
	select {
	case g.failed <- err:
	default:
	}
}
