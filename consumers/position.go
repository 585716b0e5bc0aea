package consumers

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice"
)

// claim is a partition that the group lends to the instance, and where the instance stands in it. Its fields are guarded
// by the instance's lock.
type claim struct {
	p          sluice.Partition
	member     string
	generation int32

	known     bool  // next holds
	next      int64 // the offset to deliver next
	remember  int64 // where the instance stood when it lost the partition, or NoOffset
	last      int64 // the last record delivered under this claim, or NoOffset
	committed int64 // what Kafka holds as far as we know, or NoOffset
	moved     bool  // something was delivered, so next is for committing

	adopted bool  // next, committed, last and moved are another replica's words, until the group's commits were asked
	outside bool  // next lay outside the log: auto.offset.reset applies, whatever is committed
	err     error // why the position is not known
}

// heldOn is the claim on p in a new session: c itself if nobody else can have had the partition meanwhile.
func (c *claim) heldOn(p sluice.Partition, s sluice.Session) *claim {
	fresh := &claim{p: p, member: s.Member, generation: s.Generation, remember: sluice.NoOffset, last: sluice.NoOffset, committed: sluice.NoOffset}
	if c == nil {
		return fresh
	}
	later := s.Generation - c.generation
	if c.member == s.Member && (later == 0 || later == 1) {
		c.generation = s.Generation
		return c
	}
	if c.adopted {
		fresh.adopted, fresh.remember = true, c.next
		fresh.next, fresh.committed, fresh.last, fresh.moved = c.next, c.committed, c.last, c.moved
		return fresh
	}
	if fresh.remember = c.remember; c.known {
		fresh.remember = c.next
	}
	return fresh
}

const (
	locateTimeout = 5 * time.Second
	locatePause   = 250 * time.Millisecond // before a position that could not be found is looked for again; doubles
	locateMost    = 5 * time.Second
	locateAtOnce  = 8
	ringEvery     = 50 * time.Millisecond // a held read begins anew with each ring; a topic may have a thousand partitions
)

// locate finds the position of every claim of a session, and again when one turns out to lie outside the log. latest is
// resolved here, when the partitions are assigned, and not at the first read: what is produced in between is not missed.
func (i *Instance) locate(ctx context.Context, s *session) {
	wait := locatePause
	for ctx.Err() == nil {
		unknown := i.unknown(s)
		if len(unknown) == 0 {
			wait = locatePause
			select {
			case <-s.lost:
			case <-ctx.Done():
			}
			continue
		}
		i.look(ctx, s, unknown)
		if len(i.unknown(s)) > 0 {
			pause(ctx, wait)
			wait = min(2*wait, locateMost)
		}
	}
}

func (i *Instance) unknown(s *session) []*claim {
	i.mu.Lock()
	defer i.mu.Unlock()
	var cs []*claim
	for _, c := range s.claims {
		if !c.known && !(c.outside && c.err != nil && i.settings.Reset == ResetNone) { // that one only a seek helps
			cs = append(cs, c)
		}
	}
	return cs
}

func (i *Instance) look(ctx context.Context, s *session, cs []*claim) {
	ctx, cancel := context.WithTimeout(ctx, locateTimeout)
	defer cancel()
	var toReset, toAsk []*claim
	var parts []sluice.Partition
	i.mu.Lock()
	for _, c := range cs {
		if c.outside {
			toReset = append(toReset, c)
			continue
		}
		toAsk, parts = append(toAsk, c), append(parts, c.p)
	}
	i.mu.Unlock()

	if len(parts) > 0 {
		commits, err := i.room.needs.Offsets.Group(ctx, i.name.group, parts)
		toReset = append(toReset, i.placeCommitted(toAsk, commits, err)...)
		i.tell(ctx, s, 0)
	}
	var each errgroup.Group // one partition without a leader must not hold up the others
	each.SetLimit(locateAtOnce)
	for _, c := range toReset {
		each.Go(func() error {
			i.reset(ctx, c)
			i.tell(ctx, s, ringEvery)
			return nil
		})
	}
	_ = each.Wait()
	i.tell(ctx, s, 0)
}

// tell writes positions that were found, and rings for them, unless it did a moment ago. They are written first: if this
// replica died before, latest would mean another end to the one that goes on.
func (i *Instance) tell(ctx context.Context, s *session, every time.Duration) {
	i.mu.Lock()
	due := i.session == s && time.Since(s.rung) >= every
	if due {
		s.rung = time.Now()
	}
	i.mu.Unlock()
	if !due {
		return
	}
	i.saveNow(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ring()
}

// placeCommitted sets the positions that the group has committed, else those that the instance itself remembers, and
// returns the claims for which there is neither.
func (i *Instance) placeCommitted(cs []*claim, commits []sluice.Commit, err error) (none []*claim) {
	type part struct {
		topic  string
		number int32
	}
	stored := make(map[part]int64, len(commits))
	for _, c := range commits {
		stored[part{c.Topic, c.Partition}] = c.Offset
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, c := range cs {
		offset, ok := stored[part{c.p.Topic, c.p.Number}]
		switch {
		case c.known: // a seek was faster
		case err != nil:
			c.err = err
		case c.adopted:
			c.settle(offset)
			if c.moved {
				i.wantCommit()
			}
		case ok && offset != sluice.NoOffset:
			c.place(offset)
			c.committed = offset
		case c.remember != sluice.NoOffset:
			c.place(c.remember)
		default:
			none = append(none, c)
		}
	}
	return none
}

// settle is where an adopted claim goes on: where its owner stood, unless the group has committed beyond that since, and
// that by somebody else or after the owner's last words (rest-api.md 5.5).
func (c *claim) settle(committed int64) {
	if committed != sluice.NoOffset && committed != c.committed && committed > c.next {
		c.next, c.moved = committed, false
	}
	c.committed, c.adopted = committed, false
	c.place(c.next)
}

// wantCommit tells the membership that there is something to auto-commit.
func (i *Instance) wantCommit() {
	select {
	case i.dirty <- struct{}{}:
	default:
	}
}

func (c *claim) place(next int64) {
	c.next, c.known, c.err, c.outside = next, true, nil, false
}

// reset applies auto.offset.reset to one claim.
func (i *Instance) reset(ctx context.Context, c *claim) {
	policy := i.settings.Reset
	var r sluice.Range
	var err error
	if policy == ResetNone {
		err = &sluice.Error{Kind: sluice.Rejected, Msg: fmt.Sprintf("no valid offset for partition %s-%d, and auto.offset.reset is none", c.p.Topic, c.p.Number)}
	} else {
		r, err = i.room.needs.Log.Range(ctx, c.p)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if c.known { // a seek was faster
		return
	}
	if err != nil {
		c.err = err
		return
	}
	to := r.End
	if policy == ResetEarliest {
		to = r.Start
	}
	if c.outside {
		c.moved = false // nothing of what lies between was delivered
		i.log.Warn("position outside the log", slog.String("partition", c.p.String()), slog.Int64("from", c.next), slog.Int64("to", to))
	}
	c.place(to)
}

// outOfRange is told by a read whose position lies outside the log.
func (i *Instance) outOfRange(s *session, c *claim, at int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !c.known || c.next != at {
		return
	}
	c.known, c.outside = false, true
	i.room.metrics.resets.WithLabelValues(string(i.settings.Reset)).Inc()
	select {
	case s.lost <- struct{}{}:
	default:
	}
	i.ring()
}
