package consumers

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	autoCommitEvery = 5 * time.Second
	patternEvery    = 5 * time.Second // with the 3 s that the list of topics may be old: new topics within 10 s
	joinPause       = 5 * time.Second // before a group that refused us is asked again
	settlePatience  = time.Second     // of a rebalance for the answer that is being written
	releasePatience = 3 * time.Second // of a rebalance, for the last auto-commit; at four seconds the member rejoins
)

// membership is one stay in the group: from a subscription to its end, over any number of generations.
type membership struct {
	i      *Instance
	wish   Wish
	cancel context.CancelFunc
	done   chan struct{} // closed when the group was left
}

// session is one generation: what the group has lent to this member, in the order of topics and partitions.
type session struct {
	sluice.Session
	claims []*claim
	lost   chan struct{} // holds a token when a position must be found anew
	rung   time.Time     // when the last position was told
}

// join makes the wish the instance's and goes for it in the background, once a membership before it has left. The slot
// changing is held.
func (i *Instance) join(w Wish) {
	ctx, cancel := context.WithCancel(context.Background())
	m := &membership{i: i, wish: w, cancel: cancel, done: make(chan struct{})}
	i.mu.Lock()
	defer i.mu.Unlock()
	before := i.leaving
	if i.member != nil {
		before = i.member.done
	}
	i.member, i.refused = m, nil
	maps.DeleteFunc(i.claims, func(p sluice.Partition, _ *claim) bool { return !w.holds(p) })
	i.ring()
	i.work.Go(func() {
		defer close(m.done)
		defer cancel()
		if before != nil {
			<-before
		}
		m.run(ctx)
	})
}

// run is a member for as long as ctx lasts. What Kafka refuses for good is told to the reads and asked again.
func (m *membership) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.stay(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.i.log.Warn("consumer group refused", slog.Any("error", err))
			m.i.refuse(m, err)
		}
		pause(ctx, joinPause)
	}
}

func (m *membership) stay(ctx context.Context) error {
	wanted := sluice.Membership{Group: m.i.name.group, Topics: m.wish.Topics, Assignor: sluice.RangeAssignor}
	groups := m.i.room.needs.Groups
	if m.wish.Assigned != nil {
		m.serve(ctx, taken(m.wish.Assigned))
		return nil
	}
	if m.wish.match == nil {
		return groups.Member(ctx, wanted, m.serve)
	}
	for ctx.Err() == nil {
		matching := m.matching(ctx, nil)
		if matching == nil {
			return nil
		}
		wanted.Topics = matching
		some, cancel := context.WithCancel(ctx)
		m.i.work.Go(func() {
			defer cancel()
			m.matching(some, matching)
		})
		err := groups.Member(some, wanted, m.serve)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// taken is the session of partitions that nobody lent: it has neither member nor generation, and lasts as long as the
// assignment does.
func taken(parts []sluice.Partition) sluice.Session {
	s := sluice.Session{Generation: standaloneGeneration, Claims: map[string][]int32{}, Valid: func() bool { return true }}
	for _, p := range parts {
		s.Claims[p.Topic] = append(s.Claims[p.Topic], p.Number)
	}
	return s
}

// standaloneGeneration is Kafka's word for a commit by somebody who is no member of the group.
const standaloneGeneration = -1

// matching waits until the topics that match are some, and others than old. It returns nil when ctx ends.
func (m *membership) matching(ctx context.Context, old []string) []string {
	for {
		all, err := m.i.room.needs.Topics.Topics(ctx)
		now := m.wish.of(all)
		if err == nil && len(now) > 0 && !slices.Equal(now, old) {
			return now
		}
		if !pause(ctx, patternEvery) {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (i *Instance) refuse(m *membership, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.member == m {
		i.refused = err
		i.ring()
	}
}

// serve is one session: positions are found, delivered records are committed now and then, and before the partitions go.
func (m *membership) serve(ctx context.Context, granted sluice.Session) {
	i := m.i
	s := i.begin(m, granted)
	if s == nil {
		return // the subscription has changed
	}
	// Not waited for here: a broker that hangs must not hold up the rebalance of the whole group.
	i.work.Go(func() { i.locate(ctx, s) })
	commit := time.NewTimer(autoCommitEvery)
	defer commit.Stop()
	armed := len(i.pending(s)) > 0 // of a claim that stayed
	if !armed {
		commit.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			i.release(ctx, s)
			return
		case <-i.dirty:
			if !armed {
				armed = true
				commit.Reset(autoCommitEvery)
			}
		case <-commit.C:
			armed = false
			i.autoCommit(ctx, s)
		}
	}
}

// begin makes granted the instance's session. A claim that the same member held in the generation before, or in this
// one, cannot have been anybody else's meanwhile and stays as it is; for the others the group's commits rule.
func (i *Instance) begin(m *membership, granted sluice.Session) *session {
	s := &session{Session: granted, lost: make(chan struct{}, 1)}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.member != m {
		return nil
	}
	if i.claims == nil {
		i.claims = map[sluice.Partition]*claim{}
	}
	for topic, numbers := range granted.Claims {
		for _, number := range numbers {
			p := sluice.Partition{Topic: topic, Number: number, Isolation: i.settings.Isolation}
			c := i.claims[p].heldOn(p, granted)
			i.claims[p] = c
			s.claims = append(s.claims, c)
		}
	}
	slices.SortFunc(s.claims, func(a, b *claim) int { return inOrder(a.p, b.p) })
	i.session, i.refused = s, nil
	i.ring()
	i.log.Info("consumer instance holds partitions", slog.Int("generation", int(granted.Generation)), slog.Int("partitions", len(s.claims)))
	return s
}

// release ends a session: no record of it is taken any more, the answer that is being written gets a moment, and what
// was delivered is committed if auto-commit is on.
func (i *Instance) release(ended context.Context, s *session) {
	i.mu.Lock()
	if i.session == s {
		i.session = nil
		i.ring()
	}
	i.mu.Unlock()
	if !i.autoCommits() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ended), releasePatience)
	defer cancel()
	i.awaitAnswer(ctx, settlePatience)
	i.autoCommit(ctx, s)
}

// awaitAnswer waits for an answer that is being written, never for one that is being held.
func (i *Instance) awaitAnswer(ctx context.Context, patience time.Duration) {
	i.mu.Lock()
	writing := i.writing
	i.mu.Unlock()
	if writing == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-writing:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// current is the session that lends partitions now, if any, and the bell that rings when that changes.
func (i *Instance) current() (s *session, bell <-chan struct{}, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.why != "":
		return nil, i.bell, errEnded
	case i.member == nil:
		return nil, i.bell, errNotSubscribed
	case i.refused != nil:
		return nil, i.bell, i.refused
	}
	if i.session != nil && i.session.Valid() {
		s = i.session
	}
	return s, i.bell, nil
}

var (
	errEnded         = errors.New("the instance has ended") // never shown
	errNotSubscribed = &sluice.Error{Kind: sluice.IllegalState, Msg: "Consumer is not subscribed to any topics or assigned any partitions"}
)
