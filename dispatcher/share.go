package dispatcher

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicegate/sluice/subscriptions"
)

// share is one subscription on this replica: what its lanes have in common.
type share struct {
	account
	definition atomic.Pointer[subscriptions.Subscription]
	plan       atomic.Pointer[plan]
	label      string // of its metrics

	mu         sync.Mutex
	lanes      map[*runner]struct{}
	passed     time.Time // the latest success
	failures   int       // in a row
	reported   time.Time
	pausedTill time.Time
	lastError  *subscriptions.LastError
	trouble    string // why the progress group takes no commits; "" if it does
}

// planOf is the definition as a lane needs it.
func planOf(s *subscriptions.Subscription, holes int) *plan {
	p := &plan{
		retries: retries{ClientAttempts: clientErrorAttempts, MaxAge: maxAge, RetryAfterCap: retryAfterCap},
		Name:    keyHash([]byte(s.ID)), Ordering: s.Delivery.Ordering, Window: max(s.Delivery.MaxInFlight, 1), MaxHoles: holes, MaxSpan: maxSpan,
	}
	for _, wait := range s.Retry.Schedule {
		p.Schedule = append(p.Schedule, wait.Std())
	}
	if len(p.Schedule) == 0 {
		p.Schedule = []time.Duration{0}
	}
	if p.Ordering == subscriptions.OrderPartition {
		p.Window = 1
	}
	return p
}

// pass notes a success: evidence that the endpoint is up.
func (s *share) pass(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.After(s.passed) {
		s.passed = at
	}
}

// passedSince is whether some record was delivered since then. A zero time has no since.
func (s *share) passedSince(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !t.IsZero() && !s.passed.Before(t)
}

// pause tells the other lanes that the endpoint asked everybody to wait.
func (s *share) pause(but *runner, until time.Time) {
	s.mu.Lock()
	if until.After(s.pausedTill) {
		s.pausedTill = until
	}
	others := make([]*runner, 0, len(s.lanes))
	for r := range s.lanes {
		if r != but {
			others = append(others, r)
		}
	}
	s.mu.Unlock()
	for _, r := range others {
		r.post(event{kind: evHold, until: until})
	}
}

// healthEvery is how often a subscription without trouble says so.
const healthEvery = 10 * time.Second

// seen keeps what GET /subscriptions/{id} shows of a subscription, and passes it on when it is news.
func (d *Dispatcher) seen(s *share, now time.Time, failed *subscriptions.LastError) {
	if d.needs.Health == nil {
		return
	}
	s.mu.Lock()
	news := now.Sub(s.reported) >= healthEvery
	if failed != nil {
		s.failures, s.lastError, news = s.failures+1, failed, true
	} else if s.failures > 0 {
		s.failures, news = 0, true
	}
	if !news {
		s.mu.Unlock()
		return
	}
	h := s.health(now)
	s.mu.Unlock()
	d.needs.Health.Report(context.Background(), s.definition.Load().ID, d.cfg.Replica, h)
}

// health is what there is to report. The caller has mu.
func (s *share) health(now time.Time) subscriptions.LaneHealth {
	s.reported = now
	h := subscriptions.LaneHealth{At: subscriptions.Time{Time: now}, Reason: s.trouble, ConsecutiveFailures: s.failures, LastError: s.lastError}
	if !s.passed.IsZero() {
		h.LastSuccess = &subscriptions.Time{Time: s.passed}
	}
	return h
}

// enter finds or makes the share of a subscription and counts a lane in.
func (d *Dispatcher) enter(r *runner, def *subscriptions.Subscription) *share {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.shares[def.ID]
	if s == nil {
		s = &share{lanes: map[*runner]struct{}{}, label: "_all"}
		if len(d.shares) < d.cfg.LabelledUpTo {
			s.label = def.ID
		}
		d.shares[def.ID] = s
	}
	if old := s.definition.Load(); old == nil || def.Revision > old.Revision {
		s.definition.Store(def)
		s.plan.Store(planOf(def, d.maxHoles))
	}
	s.mu.Lock()
	s.lanes[r] = struct{}{}
	s.mu.Unlock()
	d.limit(s)
	return s
}

// leave counts a lane out; the last one takes the metrics of the subscription with it.
func (d *Dispatcher) leave(r *runner) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := r.share
	s.mu.Lock()
	delete(s.lanes, r)
	last := len(s.lanes) == 0
	s.mu.Unlock()
	if !last {
		d.limit(s)
		return
	}
	id := s.definition.Load().ID
	if d.shares[id] == s {
		delete(d.shares, id)
	}
	if s.label == id {
		d.metrics.forget(id)
	}
}

// limit sets how much of max_in_flight falls to this replica: by the partitions it owns of all that there are, and one
// for each lane at least. The caller has d.mu.
func (d *Dispatcher) limit(s *share) {
	def := s.definition.Load()
	s.mu.Lock()
	owned := len(s.lanes)
	s.mu.Unlock()
	all := 0
	for _, topic := range def.Source.Topics {
		all += int(d.partitions[topic])
	}
	all = max(all, owned, 1)
	host := ""
	if at, err := url.Parse(def.Endpoint.URL); err == nil { // a definition was validated
		host = strings.ToLower(at.Host)
	}
	d.slots.limit(&s.account, max(owned, (def.Delivery.MaxInFlight*owned+all-1)/all), host)
}

func (s *share) runners() []*runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*runner, 0, len(s.lanes))
	for r := range s.lanes {
		all = append(all, r)
	}
	return all
}
