package consumers

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/sluicegate/sluice"
)

// Wish is what an instance wants to read: topics, or all topics whose whole name matches a pattern (RE2), or partitions
// that it takes without asking a group.
type Wish struct {
	Topics   []string
	Pattern  string
	Assigned []sluice.Partition

	match *regexp.Regexp
}

func (w *Wish) check() error {
	if w.Pattern != "" {
		var err error
		w.match, err = compile(w.Pattern)
		return err
	}
	for _, topic := range w.Topics {
		if !legalTopic(topic) {
			return &sluice.Error{Kind: sluice.Invalid, Msg: "topics must hold legal topic names (was " + topic + ")"}
		}
	}
	var once []string
	for _, topic := range w.Topics { // in the order they were asked for
		if !slices.Contains(once, topic) {
			once = append(once, topic)
		}
	}
	w.Topics = once
	return nil
}

// legalTopic is Kafka's rule. A name outside it would be refused by the coordinator's leader, for the whole group.
func legalTopic(name string) bool {
	return name != "" && len(name) <= 249 && name != "." && name != ".." && strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	}) < 0
}

// of is the topics that the wish names, all being those that Kafka has.
func (w *Wish) of(all []string) []string {
	if w.match == nil {
		return w.Topics
	}
	var some []string
	for _, topic := range all {
		if w.match.MatchString(topic) && !strings.HasPrefix(topic, "__") {
			some = append(some, topic)
		}
	}
	return some
}

func (w *Wish) equal(other *Wish) bool {
	mine, theirs := slices.Sorted(slices.Values(w.Topics)), slices.Sorted(slices.Values(other.Topics))
	return w.Pattern == other.Pattern && slices.Equal(mine, theirs) && slices.Equal(w.Assigned, other.Assigned)
}

// alike says that one may follow the other without an Unsubscribe in between.
func (w *Wish) alike(other *Wish) bool {
	return (w.Pattern == "") == (other.Pattern == "") && (w.Assigned == nil) == (other.Assigned == nil)
}

// holds is whether the wish may go on with a claim on p.
func (w *Wish) holds(p sluice.Partition) bool {
	switch {
	case w.Assigned != nil:
		return slices.Contains(w.Assigned, p)
	case w.match != nil:
		return true // which topics match is asked again and again
	}
	return slices.Contains(w.Topics, p.Topic)
}

// Subscribe replaces the subscription and returns at once; the group is joined in the background, and reads wait for it.
// The same wish again changes nothing. Kinds: Invalid; IllegalState for a change between topics and pattern.
func (i *Instance) Subscribe(ctx context.Context, w Wish) error {
	if len(w.Topics) == 0 && w.Pattern == "" {
		return i.Unsubscribe(ctx)
	}
	if err := w.check(); err != nil {
		return err
	}
	return i.turnTo(ctx, w)
}

// Assign takes partitions without asking the group, whose commits it shares all the same. It replaces the assignment
// before; a partition that is in both goes on at its position. None at all is the same as Unsubscribe. Kinds: Invalid;
// IllegalState after a subscription.
func (i *Instance) Assign(ctx context.Context, parts []sluice.Partition) error {
	if len(parts) == 0 {
		return i.Unsubscribe(ctx)
	}
	var w Wish
	for _, p := range parts {
		if !legalTopic(p.Topic) {
			return &sluice.Error{Kind: sluice.Invalid, Msg: "partitions must name legal topics (was " + p.Topic + ")"}
		}
		p.Isolation = i.settings.Isolation
		w.Assigned = append(w.Assigned, p)
	}
	slices.SortFunc(w.Assigned, inOrder)
	w.Assigned = slices.Compact(w.Assigned)
	return i.turnTo(ctx, w)
}

func inOrder(a, b sluice.Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
}

// turnTo makes w the wish of the instance.
func (i *Instance) turnTo(ctx context.Context, w Wish) error {
	return i.change(ctx, func(old *membership) error {
		switch {
		case old == nil:
			i.join(w)
		case !old.wish.alike(&w):
			return errExclusive
		case !old.wish.equal(&w):
			old.cancel()
			i.join(w)
		}
		return nil
	})
}

var errExclusive = &sluice.Error{Kind: sluice.IllegalState, Msg: "Subscription to topics, partitions and pattern are mutually exclusive"}

// Unsubscribe leaves the group, after a last auto-commit if that is on, and forgets all positions. It is fine if there
// was no subscription.
func (i *Instance) Unsubscribe(ctx context.Context) error {
	return i.change(ctx, func(old *membership) error {
		if old == nil {
			return nil
		}
		old.cancel()
		wait, cancel := context.WithTimeout(ctx, leavePatience)
		defer cancel()
		select {
		case <-old.done:
		case <-wait.Done(): // it goes on leaving; a later join waits for it
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.member, i.leaving = nil, old.done
		i.session, i.claims, i.refused = nil, nil, nil
		i.ring()
		return nil
	})
}

// change runs fn with the present membership, when no other change is under way. A held read is not waited for: it sees
// its session end.
func (i *Instance) change(ctx context.Context, fn func(old *membership) error) error {
	if err := i.enter(); err != nil {
		return err
	}
	defer i.leave()
	if !i.take(ctx, i.changing) {
		return i.cutShort(ctx)
	}
	defer i.changing.free()
	i.mu.Lock()
	why, old := i.why, i.member
	i.mu.Unlock()
	if why != "" {
		return i.cutShort(ctx)
	}
	if err := fn(old); err != nil {
		return err
	}
	i.mu.Lock()
	changed := i.member != old
	i.mu.Unlock()
	if changed {
		i.saveNow(ctx)
	}
	return nil
}

// cutShort says why a wait ended: the instance's end, else the caller's.
func (i *Instance) cutShort(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.why != "" {
		return i.over()
	}
	return context.Cause(ctx)
}

// Subscription lists the topics asked for, or those that match the pattern now. Kind Unavailable if only Kafka could tell.
func (i *Instance) Subscription(ctx context.Context) ([]string, error) {
	if err := i.enter(); err != nil {
		return nil, err
	}
	defer i.leave()
	i.mu.Lock()
	member := i.member
	i.mu.Unlock()
	if member == nil {
		return nil, nil
	}
	if member.wish.match == nil {
		return member.wish.Topics, nil
	}
	all, err := i.room.needs.Topics.Topics(ctx)
	if err != nil {
		return nil, err
	}
	return member.wish.of(all), nil
}

// someTopic is one of the topics asked for, or "" for a pattern.
func (i *Instance) someTopic() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.member == nil || len(i.member.wish.Topics) == 0 {
		return ""
	}
	return i.member.wish.Topics[0]
}

// Assignment is what the group lends to the instance now, or what it has taken.
func (i *Instance) Assignment() ([]sluice.Partition, error) {
	if err := i.enter(); err != nil {
		return nil, err
	}
	defer i.leave()
	return i.assignment(), nil
}

func (i *Instance) assignment() []sluice.Partition {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.member != nil && i.member.wish.Assigned != nil {
		return slices.Clone(i.member.wish.Assigned)
	}
	if i.session == nil {
		return nil
	}
	parts := make([]sluice.Partition, 0, len(i.session.claims))
	for _, c := range i.session.claims {
		parts = append(parts, c.p)
	}
	return parts
}
