package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"
)

func TestStopsRunInReverseOnceAndEachWithinItsBound(t *testing.T) {
	s := stops{log: slog.New(slog.DiscardHandler)}
	var order []string
	note := func(name string, err error) func(context.Context) error {
		return func(context.Context) error { order = append(order, name); return err }
	}
	s.add("first", time.Second, note("first", nil))
	s.add("hangs", time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return note("hangs", ctx.Err())(ctx) })
	s.add("last", time.Second, note("last", errors.New("no")))
	err := s.run(t.Context())
	if want := []string{"last", "hangs", "first"}; !slices.Equal(order, want) {
		t.Errorf("stopped in the order %v, want %v", order, want)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the one that hung is not reported: %v", err)
	}
	if err := s.run(t.Context()); err != nil || len(order) != 3 {
		t.Errorf("a second run stopped again: %v %v", order, err)
	}
}

// Two that wait for others share their time: each of these ends only when the other has begun.
func TestStopsBesideEachOtherShareTheirTime(t *testing.T) {
	s := stops{log: slog.New(slog.DiscardHandler)}
	lanes, streams := make(chan struct{}), make(chan struct{})
	meet := func(mine, other chan struct{}) func(context.Context) error {
		return func(ctx context.Context) error {
			close(mine)
			select {
			case <-other:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	s.add("lanes", 5*time.Second, meet(lanes, streams))
	s.addBeside("streams", 5*time.Second, meet(streams, lanes))
	if err := s.run(t.Context()); err != nil {
		t.Error(err)
	}
}
