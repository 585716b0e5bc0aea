package dispatcher

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
)

// The bounds of a release. All members of the group wait for the slowest, so one slow endpoint must not hold up
// everybody's rebalance; after four seconds the member rejoins regardless.
const (
	landWithin   = time.Second
	commitWithin = 2900 * time.Millisecond
	keepFor      = time.Minute // lanes without a session
)

// owner is this replica's membership of one topic's ownership group, and the claims it has from it.
type owner struct {
	d     *Dispatcher
	topic string
	stop  context.CancelFunc
	done  chan struct{}

	turn sync.Mutex // one session at a time, and none while the claims expire

	mu         sync.Mutex
	member     string
	generation int32
	claims     map[int32]*claim
	fading     []*claim  // let go, with flights that were cancelled but have not ended when last looked at
	ended      time.Time // of the latest session
	expiry     *time.Timer
}

// own joins the group of a topic.
func (d *Dispatcher) own(topic string) *owner {
	ctx, cancel := context.WithCancel(d.membership)
	d.metrics.sessions.WithLabelValues(topic).Set(0)
	o := &owner{d: d, topic: topic, stop: cancel, done: make(chan struct{}), claims: map[int32]*claim{}}
	d.work.Go(func() {
		defer close(o.done)
		o.run(ctx)
	})
	return o
}

// run is a member until ctx ends, then lets everything go. A membership that Kafka ends for good is begun anew.
func (o *owner) run(ctx context.Context) {
	wish := sluice.Membership{Group: ownershipGroup + o.topic, Topics: []string{o.topic}, Assignor: sluice.Rendezvous, Note: o.note}
	for ctx.Err() == nil {
		if err := o.d.needs.Groups.Member(ctx, wish, o.session); err != nil && ctx.Err() == nil {
			o.d.log.LogAttrs(ctx, slog.LevelError, "membership ended", slog.String("group", wish.Group), slog.Any("error", err))
			select {
			case <-ctx.Done():
			case <-time.After(lastPause):
			}
		}
	}
	o.turn.Lock()
	defer o.turn.Unlock()
	if o.expiry != nil {
		o.expiry.Stop()
	}
	o.dropAll()
	o.d.metrics.forgetTopic(o.topic)
}

// session runs the lanes of what was lent until ctx ends, then releases.
func (o *owner) session(ctx context.Context, s sluice.Session) {
	o.turn.Lock()
	defer o.turn.Unlock()
	if ctx.Err() != nil {
		return // it ended while the one before was being released
	}
	if o.expiry != nil {
		o.expiry.Stop()
	}
	m := o.d.metrics
	m.rebalances.WithLabelValues(o.topic).Inc()
	m.sessions.WithLabelValues(o.topic).Set(1)
	if !o.ended.IsZero() {
		m.gap.WithLabelValues(o.topic).Observe(time.Since(o.ended).Seconds())
	}
	lent := o.take(s)
	m.owned.WithLabelValues(o.topic).Set(float64(len(lent)))
	o.d.log.LogAttrs(ctx, slog.LevelInfo, "session begins", slog.String("topic", o.topic), slog.Any("partitions", s.Claims[o.topic]),
		slog.String("member", s.Member), slog.Int("generation", int(s.Generation)))

	var lanes sync.WaitGroup
	for _, c := range lent {
		c.begin(ctx, s)
		lanes.Go(func() { c.run(ctx) })
		lanes.Go(func() { c.watch(ctx) })
	}
	lanes.Go(func() { o.d.count(ctx, o.topic) })
	<-ctx.Done()
	lanes.Wait()
	o.release(lent)
	o.ended = time.Now()
	m.sessions.WithLabelValues(o.topic).Set(0)
	m.owned.WithLabelValues(o.topic).Set(0)
	o.expiry = time.AfterFunc(keepFor, o.expire)
}

// take sorts the claims of a new session: what nobody else can have owned meanwhile stays as it is. That is what comes
// back to the same member in the same generation (it rejoined an unchanged group) or in the next one (webhooks.md 6.3
// step 6); the rest may have been another's in between, or is now.
func (o *owner) take(s sluice.Session) []*claim {
	o.mu.Lock()
	defer o.mu.Unlock()
	same := s.Member == o.member && (s.Generation == o.generation || s.Generation == o.generation+1)
	o.member, o.generation = s.Member, s.Generation
	old := o.claims
	o.claims = map[int32]*claim{}
	var lent []*claim
	for _, number := range s.Claims[o.topic] {
		c := old[number]
		if c == nil || !same {
			c = o.d.newClaim(sluice.Partition{Topic: o.topic, Number: number, Isolation: sluice.ReadCommitted})
		} else {
			delete(old, number)
		}
		o.claims[number] = c
		lent = append(lent, c)
	}
	for _, c := range old {
		o.letGo(c)
	}
	return lent
}

// letGo drops a claim. The caller has mu.
func (o *owner) letGo(c *claim) {
	c.drop()
	if c.flights.any() {
		o.fading = append(o.fading, c)
	}
}

// release is the end of a session: nothing new, a second for what is in flight, a last commit. Where the lease ran out
// nothing may be committed any more, so nothing is waited for.
func (o *owner) release(lent []*claim) {
	for _, c := range lent {
		c.suspend()
	}
	if !slices.ContainsFunc(lent, (*claim).leased) {
		return
	}
	land(lent, time.After(landWithin))
	ctx, cancel := context.WithTimeout(context.Background(), commitWithin)
	defer cancel()
	if missing := o.d.lastWord(ctx, lent); missing > 0 {
		o.d.log.LogAttrs(ctx, slog.LevelWarn, "lanes were released without a last commit", slog.String("topic", o.topic), slog.Int("lanes", missing))
	}
}

// land waits for the flights of claims.
func land(claims []*claim, enough <-chan time.Time) {
	for _, c := range claims {
		select {
		case <-c.flights.landed():
		case <-enough:
			return
		}
	}
}

// lastWord commits all lanes of claims, those with something new first, and returns how many Kafka does not have.
func (d *Dispatcher) lastWord(ctx context.Context, claims []*claim) (missing int) {
	var news, rest []*progress.Line
	for _, c := range claims {
		for _, r := range c.runners() {
			if r.line.Pending() {
				news = append(news, r.line)
			} else {
				rest = append(rest, r.line)
			}
		}
	}
	return d.committer.Flush(ctx, news) + d.committer.Flush(ctx, rest)
}

// expire drops the lanes of a replica that found no session for long.
func (o *owner) expire() {
	if !o.turn.TryLock() {
		return // a session began
	}
	defer o.turn.Unlock()
	if time.Since(o.ended) >= keepFor {
		o.d.log.LogAttrs(context.Background(), slog.LevelError, "no session for a minute: the topic is not delivered by this replica", slog.String("topic", o.topic))
		o.dropAll()
	}
}

func (o *owner) dropAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.claims {
		o.letGo(c)
	}
	o.claims = map[int32]*claim{}
	o.member = ""
}

// lent is what the owner has now.
func (o *owner) lent() []*claim {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]*claim, 0, len(o.claims))
	for _, c := range o.claims {
		all = append(all, c)
	}
	return all
}

// owns is whether this replica runs a partition now.
func (o *owner) owns(number int32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.claims[number]
	return c != nil && !c.released()
}
