package consumers

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	commitPatience = 10 * time.Second       // through a rebalance (rest-api.md 5.6)
	answerPatience = 5 * time.Second        // for an answer that is being written to a client
	commitPause    = 250 * time.Millisecond // before a commit that Kafka could not take is sent again
)

// Delivered is the last record that an instance was given of a partition.
type Delivered struct {
	Topic     string
	Partition int32
	Last      int64
}

// Commit stores what was delivered, of the partitions that the group lends to the instance, and returns when Kafka has
// it. A commit that meets a rebalance is sent again after it. Kinds: NotFound; Retriable if that took too long;
// Forbidden and what else Kafka refuses.
func (i *Instance) Commit(ctx context.Context) ([]Delivered, error) {
	if err := i.enter(); err != nil {
		return nil, err
	}
	defer i.leave()
	if err := i.commitDelivered(ctx); err != nil {
		return nil, err
	}
	return i.delivered(), nil
}

func (i *Instance) commitDelivered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	i.awaitAnswer(ctx, answerPatience)
	err := i.persist(ctx, i.pending)
	if k := sluice.KindOf(err); k == sluice.UnknownTopic || k == sluice.UnknownPart {
		err = i.persist(ctx, i.pending) // without what has gone
	}
	i.count("request", err)
	return err
}

// CommitOffsets stores what the client says: the next offset to read of each partition. Without a subscription it is a
// standalone commit, which Kafka takes only while the group has no members: Kind IllegalState.
func (i *Instance) CommitOffsets(ctx context.Context, commits []sluice.Commit) error {
	if err := i.enter(); err != nil {
		return err
	}
	defer i.leave()
	return i.commitGiven(ctx, commits)
}

func (i *Instance) commitGiven(ctx context.Context, commits []sluice.Commit) error {
	if len(commits) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	err := i.persist(ctx, func(*session) []sluice.Commit { return commits })
	i.count("request", err)
	return err
}

// CommitLater and CommitOffsetsLater are for clients that do not wait: the commit follows, also when the instance is
// deleted meanwhile.
func (i *Instance) CommitLater() error { return i.later(i.commitDelivered) }

// CommitOffsetsLater is CommitOffsets without the wait.
func (i *Instance) CommitOffsetsLater(commits []sluice.Commit) error {
	return i.later(func(ctx context.Context) error { return i.commitGiven(ctx, commits) })
}

func (i *Instance) later(commit func(context.Context) error) error {
	if err := i.enter(); err != nil {
		return err
	}
	i.mu.Lock()
	before := i.follows
	done := make(chan struct{})
	i.follows = done
	i.mu.Unlock()
	started := i.start(func() {
		defer i.leave()
		defer close(done)
		if before != nil {
			<-before
		}
		if err := commit(context.Background()); err != nil {
			i.log.Warn("commit failed", slog.Any("error", err))
		}
	})
	if !started {
		close(done)
		i.leave()
		return i.cutShort(context.Background())
	}
	return nil
}

// persist sends what there is to commit until Kafka has it.
func (i *Instance) persist(ctx context.Context, what func(*session) []sluice.Commit) error {
	var last error
	for {
		i.mu.Lock()
		s, member, bell := i.session, i.member, i.bell
		i.mu.Unlock()
		if member == nil {
			return standalone(i.send(ctx, nil, what))
		}
		if len(what(s)) == 0 {
			if settling := i.settling(s); !settling {
				return nil
			}
			if !i.awaitBell(ctx, bell, commitPause) {
				return i.overdue(ctx, last)
			}
			continue
		}
		wait := time.Duration(0)
		if s != nil && s.Valid() {
			err := i.send(ctx, s, what)
			if s.Generation == standaloneGeneration {
				err = standalone(err)
			}
			switch sluice.KindOf(err) {
			case sluice.StaleSession: // the rebalance is faster than its news
			case sluice.Retriable, sluice.Unavailable, sluice.NoLeader, sluice.Overloaded, sluice.OutcomeUnknown:
			default:
				return err
			}
			last, wait = err, commitPause
		}
		if !i.awaitBell(ctx, bell, wait) {
			return i.overdue(ctx, last)
		}
	}
}

// settling is whether an adopted instance does not know yet what it has to commit.
func (i *Instance) settling(s *session) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return s != nil && slices.ContainsFunc(s.claims, func(c *claim) bool { return c.adopted && c.moved })
}

// awaitBell waits for a change of the instance, or for a while if that is not zero. It reports false if ctx or the
// instance ended first.
func (i *Instance) awaitBell(ctx context.Context, bell <-chan struct{}, wait time.Duration) bool {
	var after <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-bell:
	case <-after:
	case <-ctx.Done():
		return false
	case <-i.ended:
		return false
	}
	return true
}

// overdue says why a commit was given up.
func (i *Instance) overdue(ctx context.Context, last error) error {
	switch {
	case i.hasEnded():
		return i.cutShort(ctx)
	case sluice.KindOf(last) == sluice.Unavailable:
		return last
	}
	if err := i.unreachable(context.WithoutCancel(ctx)); err != nil { // a session ends before anybody says why
		return err
	}
	return &sluice.Error{Kind: sluice.Retriable, Msg: "the group was rebalancing all the time", Err: last}
}

// send makes one commit as the member of s, or standalone without one, and returns the worst of the errors. Commits of
// one instance reach Kafka one after the other, each with what is to be committed when its turn comes.
func (i *Instance) send(ctx context.Context, s *session, what func(*session) []sluice.Commit) error {
	select {
	case i.committing <- struct{}{}:
	case <-ctx.Done():
		return &sluice.Error{Kind: sluice.Retriable, Msg: "an earlier commit of this consumer is still under way", Err: ctx.Err()}
	}
	defer i.committing.free()
	commits := what(s)
	if len(commits) == 0 {
		return nil
	}
	c := sluice.GroupCommit{Group: i.name.group, Generation: standaloneGeneration, Commits: commits}
	if s != nil {
		c.Member, c.Generation = s.Member, s.Generation
	}
	errs := i.room.needs.Offsets.Commit(ctx, c)
	i.mu.Lock()
	defer i.mu.Unlock()
	var worst error
	for n, err := range errs {
		c := i.claims[sluice.Partition{Topic: commits[n].Topic, Number: commits[n].Partition, Isolation: i.settings.Isolation}]
		if err == nil && c != nil {
			c.committed = commits[n].Offset
			i.unsaved.Store(true)
		}
		switch sluice.KindOf(err) {
		case sluice.UnknownTopic, sluice.UnknownPart:
			if c != nil && c.next == commits[n].Offset {
				c.moved = false // the partition is gone, and with it what there was to commit
			}
		case sluice.TooLarge: // its metadata, not the request
			err = &sluice.Error{Kind: sluice.Rejected, Msg: "The metadata of the commit is too large.", Err: err}
		}
		if err != nil && (worst == nil || sluice.KindOf(worst) == sluice.StaleSession) {
			worst = err
		}
	}
	return worst
}

func standalone(err error) error {
	if sluice.KindOf(err) != sluice.StaleSession {
		return err
	}
	return &sluice.Error{Kind: sluice.IllegalState, Err: err,
		Msg: "The group has members, so that only they can commit; this consumer is not subscribed to any topics and no member"}
}

// pending is what was delivered and not committed. Between two sessions it is what may come back with the next one.
func (i *Instance) pending(s *session) (commits []sluice.Commit) {
	i.mu.Lock()
	defer i.mu.Unlock()
	add := func(c *claim) {
		if c.moved && (c.known || s == nil && c.adopted) && c.next != c.committed {
			commits = append(commits, sluice.Commit{Topic: c.p.Topic, Partition: c.p.Number, Offset: c.next})
		}
	}
	if s != nil {
		for _, c := range s.claims {
			add(c)
		}
		return commits
	}
	for _, c := range i.claims {
		add(c)
	}
	return commits
}

// delivered is what the instance was given of the partitions it holds, in order.
func (i *Instance) delivered() (ds []Delivered) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.session == nil {
		return nil
	}
	for _, c := range i.session.claims {
		if c.last != sluice.NoOffset {
			ds = append(ds, Delivered{c.p.Topic, c.p.Number, c.last})
		}
	}
	return ds
}

// autoCommit stores what was delivered in session s, once; what Kafka does not take now goes with the next.
func (i *Instance) autoCommit(ctx context.Context, s *session) {
	if !i.autoCommits() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, releasePatience)
	defer cancel()
	if len(i.pending(s)) == 0 {
		return
	}
	err := i.send(ctx, s, i.pending)
	i.count("auto", err)
	i.mu.Lock()
	news := sluice.KindOf(err) != i.told
	i.told = sluice.KindOf(err)
	i.mu.Unlock()
	if err == nil {
		return
	}
	if news {
		i.log.Warn("auto-commit failed", slog.Any("error", err))
	}
	select {
	case i.dirty <- struct{}{}:
	default:
	}
}

func (i *Instance) count(kind string, err error) {
	result := "ok"
	if err != nil {
		result = string(sluice.KindOf(err))
	}
	i.room.metrics.commits.WithLabelValues(kind, result).Inc()
}

// Committed is what Kafka holds for the instance's group: of parts, or of the partitions it is lent now. Partitions
// without a commit are left out.
func (i *Instance) Committed(ctx context.Context, parts []sluice.Partition) ([]sluice.Commit, error) {
	if err := i.enter(); err != nil {
		return nil, err
	}
	defer i.leave()
	if parts == nil {
		parts = i.assignment()
	}
	if len(parts) == 0 {
		return nil, i.unreachable(ctx) // no assignment may mean no Kafka, and is no answer then
	}
	all, err := i.room.needs.Offsets.Group(ctx, i.name.group, parts)
	if err != nil {
		return nil, err
	}
	var some []sluice.Commit
	for _, c := range all {
		if c.Offset != sluice.NoOffset {
			some = append(some, c)
		}
	}
	return some, nil
}
