package dispatcher

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// look is one lane of a read-back.
type look struct {
	id     string
	group  string
	r      *runner
	commit sluice.Commit
	read   bool
	find   finding
	do     remedy
}

// soon is when the next read-back is due; the first of a session comes anywhere within the interval, so that replicas
// that began together do not ask together.
func (c *claim) soon(first bool) time.Time {
	every := c.d.cfg.ReadBack
	if first {
		return time.Now().Add(time.Duration(rand.Int64N(int64(every))))
	}
	return time.Now().Add(every - every/10 + time.Duration(rand.Int64N(int64(every)/5+1)))
}

// readBack compares what is committed with what the lanes committed. Somebody else may write to their groups: an operator
// with Kafka's own tools, a replica that was frozen, a consumer that took the name of a group.
func (c *claim) readBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	c.guard(ctx)
	looks := c.looks()
	if len(looks) == 0 {
		return
	}
	for _, l := range looks {
		l.r.listen(true)
		defer l.r.listen(false)
	}
	topic, err := c.d.needs.Topics.Topic(ctx, c.p.Topic)
	if err != nil {
		return // who reads will say so
	}
	c.read(ctx, looks, topic.ID)
	c.suspect(ctx, looks, topic.ID)
	var moved []*look
	for _, l := range looks {
		if !c.valid() {
			return // what was found may be a successor's
		}
		if !l.read {
			continue
		}
		c.d.metrics.readBacks.WithLabelValues(string(l.find)).Inc()
		switch l.do {
		case leave:
		case repeat:
			c.notice(l)
			l.r.line.Again()
		case outbid:
			c.notice(l)
			l.r.outbid()
		case standBy:
			c.notice(l)
			c.bench(l.r)
		case adopt, renew:
			moved = append(moved, l)
		}
	}
	c.move(ctx, moved, topic)
}

// looks is the lanes to compare. Those whose group takes no commits say nothing, and what is found there is not an
// operator's; they try again instead.
func (c *claim) looks() (looks []*look) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, r := range c.lanes {
		if r.share.shut() {
			r.line.Again()
			continue
		}
		looks = append(looks, &look{id: id, r: r, group: r.share.definition.Load().ProgressGroup()})
	}
	return looks
}

func (c *claim) read(ctx context.Context, looks []*look, topic sluice.TopicID) {
	names := make([]string, len(looks))
	for i, l := range looks {
		names[i], l.read = l.group, false
	}
	commits, _ := c.d.needs.Offsets.Groups(ctx, c.p, names) // what could be read is right; the rest waits for the next time
	for _, l := range looks {
		if l.commit, l.read = commits[l.group]; l.read {
			l.find, l.do = judge(l.commit, topic, l.r.claimed())
		}
	}
}

// suspect looks twice at commits that are not ours. A consumer that joins a group commits without our metadata too, and
// to follow it would lose what it skipped. It is told by its membership, also afterwards.
func (c *claim) suspect(ctx context.Context, looks []*look, topic sluice.TopicID) {
	foreign := slices.DeleteFunc(slices.Clone(looks), func(l *look) bool { return !l.read || l.find != external })
	if len(foreign) == 0 {
		return
	}
	names := make([]string, len(foreign))
	for i, l := range foreign {
		names[i] = l.group
	}
	states, _ := c.d.needs.Offsets.Describe(ctx, names)
	c.read(ctx, foreign, topic) // again: the group may have been made anew since
	for _, l := range foreign {
		state, known := states[l.group]
		switch {
		case l.find != external:
		case !known:
			l.read = false
		case !state.Untouched():
			l.find, l.do = trespassed, repeat
		}
	}
}

// move lets lanes go on elsewhere, or on another topic of the same name.
func (c *claim) move(ctx context.Context, looks []*look, topic sluice.Topic) {
	if len(looks) == 0 {
		return
	}
	all := make([]found, len(looks))
	for i, l := range looks {
		all[i] = found{Commit: l.commit, Topic: topic.ID, Number: c.p.Number, Resolved: l.r.share.definition.Load().Source.Resolved[c.p.Topic]}
	}
	if err := c.measure(ctx, all); err != nil || !c.valid() {
		return // the next time
	}
	c.topic.Store(&topic)
	c.d.needs.Log.Recognize(topic.Name, topic.ID)
	for i, l := range looks {
		ours, abroad := l.r.claimed().Mark, l.r.abroad()
		in := inherit(all[i])
		if l.do == adopt {
			in = adopted(all[i], ours)
		}
		in.Mark.Term = max(in.Mark.Term, ours.Term+1) // whatever this lane has under way is older
		in.Abrupt = abroad
		c.notice(l)
		c.start(l.r.share.definition.Load(), in)
	}
	c.d.committer.Now()
}

// bench stops a lane until the next read-back. If the session lives until then, nobody else has the partition after
// all, and the lane is taken over like any other.
func (c *claim) bench(r *runner) {
	c.mu.Lock()
	for id, one := range c.lanes {
		if one == r {
			delete(c.lanes, id)
			c.benched[id] = true
		}
	}
	c.mu.Unlock()
	r.drop()
}

// unbench gives every lane another chance.
func (c *claim) unbench() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.benched)
}

// notice says what was found where it is not what it should be, and what becomes of it.
func (c *claim) notice(l *look) {
	level := slog.LevelWarn
	switch l.find {
	case vanished, recreated, superseded, trespassed:
		level = slog.LevelError
	}
	c.d.log.LogAttrs(context.Background(), level, "position read back is not ours", l.r.who(), slog.String("found", string(l.find)),
		slog.String("then", l.do.String()), slog.Int64("offset", l.commit.Offset), slog.Int64("ours", l.r.stands()))
}

// guard looks whether the groups that this claim answers for are as they should be: a group that a member was in forgets
// its offsets by another clock, whatever is committed since, so it is made anew (webhooks.md 7.3).
func (c *claim) guard(ctx context.Context) {
	if c.p.Number != 0 {
		return
	}
	led := map[string]*share{}
	var names []string
	for _, r := range c.runners() {
		def := r.share.definition.Load()
		if slices.Min(def.Source.Topics) == c.p.Topic && def.State != subscriptions.Deleting {
			led[def.ProgressGroup()] = r.share
			names = append(names, def.ProgressGroup())
		}
	}
	if len(names) == 0 {
		return
	}
	states, _ := c.d.needs.Offsets.Describe(ctx, names)
	for group, state := range states {
		s := led[group]
		switch {
		case s == nil || state.Untouched() || !c.valid():
		case state.Members > 0:
			c.d.shut(s, hijacked)
		default:
			c.remake(ctx, s, group, state)
		}
	}
}

// remake deletes a group that had members and writes its offsets again: what other replicas committed, then what this one
// knows. They notice what is missing at their next read-back.
func (c *claim) remake(ctx context.Context, s *share, group string, was sluice.GroupState) {
	def := s.definition.Load()
	var parts []sluice.Partition
	for _, name := range def.Source.Topics {
		topic, err := c.d.needs.Topics.Topic(ctx, name)
		if err != nil {
			continue
		}
		for n := range topic.Partitions {
			parts = append(parts, sluice.Partition{Topic: name, Number: int32(n)})
		}
	}
	commits, err := c.d.needs.Offsets.Group(ctx, group, parts)
	if err != nil || !slices.ContainsFunc(commits, func(one sluice.Commit) bool { return one.Offset != sluice.NoOffset }) {
		return // a group that is not there has no age; what vanished is the read-back's affair
	}
	ours := slices.DeleteFunc(commits, func(one sluice.Commit) bool { return !ownWork(one) })
	switch err := c.d.needs.Offsets.DeleteGroup(ctx, group); {
	case sluice.KindOf(err) == sluice.Conflict:
		c.d.shut(s, hijacked)
		return
	case err != nil:
		return // at the next read-back
	}
	if len(ours) > 0 {
		c.d.needs.Offsets.Commit(ctx, sluice.GroupCommit{Group: group, Generation: -1, Commits: ours})
	}
	for _, r := range s.runners() {
		r.line.Again()
	}
	c.d.committer.Now()
	c.d.metrics.readBacks.WithLabelValues(string(remade)).Inc()
	c.d.log.LogAttrs(ctx, slog.LevelWarn, "group had a member: made anew", slog.String("subscription", def.ID),
		slog.String("group", group), slog.String("state", was.State), slog.String("protocol", was.Protocol), slog.Int("offsets", len(ours)))
}
