package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/sluicegate/sluice/subscriptions"
)

// Why a progress group takes no commits: reason codes, seen in GET /subscriptions/{id}.
const (
	hijacked  = subscriptions.GroupHijacked // a foreign consumer is a member of it
	forbidden = subscriptions.Forbidden     // an ACL
)

// shut is whether the progress group takes no commits. Then nothing is sent on this replica: without commits it would be
// sent again by every next owner.
func (s *share) shut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble != ""
}

// shut stops the lanes of a subscription, and says so again each time: a report counts for some minutes only.
func (d *Dispatcher) shut(s *share, why string) {
	if !d.turn(s, why) {
		return
	}
	d.log.LogAttrs(context.Background(), slog.LevelError, "progress group takes no commits: nothing is sent",
		slog.String("subscription", s.definition.Load().ID), slog.String("reason", why))
}

// open lets them go on: a commit was stored.
func (d *Dispatcher) open(s *share) {
	if !s.shut() || !d.turn(s, "") {
		return
	}
	d.log.LogAttrs(context.Background(), slog.LevelWarn, "progress group takes commits again",
		slog.String("subscription", s.definition.Load().ID))
}

// turn tells the lanes and whoever asks; false if it is no news.
func (d *Dispatcher) turn(s *share, why string) bool {
	s.mu.Lock()
	news := s.trouble != why
	s.trouble = why
	h := s.health(time.Now())
	s.mu.Unlock()
	if d.needs.Health != nil {
		d.needs.Health.Report(context.Background(), s.definition.Load().ID, d.cfg.Replica, h)
	}
	if news {
		for _, r := range s.runners() {
			r.post(event{kind: evGroup})
		}
	}
	return news
}
