package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// stops are the named stops of what was acquired, in the order of acquiring.
type stops struct {
	log  *slog.Logger
	list []namedStop
}

type namedStop struct {
	name   string
	bound  time.Duration
	stop   func(context.Context) error
	beside bool // may run at the same time as the stop before it in the list
}

// add registers a stop. It gets bound to end; the next one begins regardless.
func (s *stops) add(name string, bound time.Duration, stop func(context.Context) error) {
	s.list = append(s.list, namedStop{name: name, bound: bound, stop: stop})
}

// addBeside registers a stop that shares its time with the one registered just before: both mostly wait for others.
func (s *stops) addBeside(name string, bound time.Duration, stop func(context.Context) error) {
	s.list = append(s.list, namedStop{name: name, bound: bound, stop: stop, beside: true})
}

// run stops everything, the last acquired first, and forgets it: running twice stops once.
func (s *stops) run(ctx context.Context) error {
	var errs []error
	for len(s.list) > 0 {
		first := len(s.list) - 1
		for first > 0 && s.list[first].beside {
			first--
		}
		stage := s.list[first:]
		s.list = s.list[:first]
		ended := make([]error, len(stage))
		var all sync.WaitGroup
		for i, one := range stage {
			all.Go(func() { ended[i] = s.one(ctx, one) })
		}
		all.Wait()
		errs = append(errs, ended...)
	}
	return errors.Join(errs...)
}

func (s *stops) one(ctx context.Context, n namedStop) error {
	began := time.Now()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.bound)
	defer cancel()
	err := n.stop(bounded)
	timed(ctx, s.log, "stop "+n.name, began, err)
	if err != nil {
		return fmt.Errorf("stop %s: %w", n.name, err)
	}
	return nil
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
