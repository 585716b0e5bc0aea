package stream

import (
	"context"
	"errors"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	shortWait    = 500 * time.Millisecond // before a place that could not go on is tried again
	readPatience = 5 * time.Second        // of one read of history, less if a heartbeat is due before
	readTurn     = 250 * time.Millisecond // the same where other partitions wait; Kafka's answer serves the next try
	askAgain     = 10 * time.Millisecond  // after a turn that was too short
	looksAbove   = 3                      // that find an offset above the end before the log counts as cut
)

// attach puts every place into its chain that can be.
func (st *Stream) attach() {
	live := true
	for _, p := range st.places {
		if p.seg == nil && p.gap == nil && !p.suspect {
			st.attachPlace(p)
		}
		live = live && p.seg != nil
	}
	st.setLive(live)
}

// attachPlace puts a place into its chain, if the chain has its offset. One that lies above the chain may be read by
// another replica already, and then waits; or the log was cut, and then it would wait for ever.
func (st *Stream) attachPlace(p *place) bool {
	seg, i, ahead, ok := p.feed.attach(p.slot.Next)
	if !ok {
		return false
	}
	if ahead && !p.cleared {
		r, err := st.streams.source.Range(st.ctx, p.p) // from the ring: the partition is followed
		if err != nil || p.slot.Next > r.End {
			p.suspect = true
			return false
		}
	}
	p.seg, p.i, p.block, p.cleared = seg, i, 0, false
	p.mark.read.Store(seg.base + int64(seg.start(i)))
	return true
}

// advance brings the places on that are not in their chains: each attaches, or gets a block of history. wait is how
// long to wait if none of them could move.
func (st *Stream) advance() (behind bool, wait time.Duration, err error) {
	moved := false
	wait = shortWait
	for _, p := range st.places {
		if p.seg != nil && p.block == 0 {
			continue
		}
		if p.seg != nil {
			behind, moved = true, true // history that the last write had no room for
			continue
		}
		if left := time.Until(p.wait); left > 0 {
			behind, wait = true, min(wait, left)
			continue
		}
		if !p.suspect && st.attachPlace(p) {
			moved = true // frames of the chain may be waiting
			behind = true
			continue
		}
		behind = true
		if moved {
			continue // one block at a time: a stream of many partitions must not hold one of each
		}
		ok, err := st.step(p)
		if err != nil {
			return true, 0, err
		}
		if !ok && time.Now().After(p.wait) {
			p.wait = time.Now().Add(shortWait)
		}
		if !ok {
			wait = min(wait, time.Until(p.wait))
		}
		moved = ok
	}
	if moved {
		wait = 0
	}
	return behind, wait, nil
}

// step reads what comes next of one place, or looks why that cannot be read. ok is false if it must wait.
func (st *Stream) step(p *place) (ok bool, err error) {
	patience := min(readPatience, max(time.Second, time.Until(st.lastWrite.Add(st.heartbeat))))
	if len(st.places) > 1 {
		patience = readTurn // a partition that does not answer must not hold up the others
	}
	ctx, cancel := context.WithTimeout(st.ctx, patience)
	defer cancel()
	if p.suspect {
		return st.inspect(ctx, p)
	}
	seg, next, err := st.streams.history(ctx, p.p, p.feed.variant, p.slot.Next)
	switch {
	case err == nil && seg != nil:
		p.seg, p.i, p.block = seg, 0, next
		p.mark.read.Store(-1)
		st.held.Store(int64(len(seg.buf)))
		return true, nil
	case err == nil:
		ok = next > p.slot.Next
		st.pass(p, next)
		return ok, nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		p.wait = time.Now().Add(askAgain)
		return false, nil
	}
	switch sluice.KindOf(err) {
	case sluice.OutOfRange:
		p.suspect = true
		return true, nil
	case sluice.UnknownTopic, sluice.UnknownPart:
		st.streams.look(p.p.Topic)
	}
	return false, nil // Kafka does not answer: heartbeats go on, and records will
}

// inspect settles a place whose offset may not exist any more. A topic that was created again has a log of its own,
// which checkTopics sees to.
func (st *Stream) inspect(ctx context.Context, p *place) (ok bool, err error) {
	st.streams.lookNow(ctx, st.known[p.topic])
	if *st.known[p.topic].view.Load() != *st.views[p.topic] {
		return true, nil
	}
	r, err := st.streams.topics.Range(ctx, p.p)
	if err != nil {
		return false, nil // no answer yet
	}
	next := p.slot.Next
	switch {
	case next < r.Start:
		return true, st.passGap(p, retention, r)
	case next > r.End:
		if p.above++; p.above < looksAbove { // a new leader may know less for a moment
			return false, nil
		}
		return true, st.passGap(p, truncated, r)
	}
	p.suspect, p.above, p.cleared = false, 0, true
	return true, nil
}

// gapAt is the gap that a place has met, or a Refusal where the request wants none.
func (st *Stream) gapAt(p *place, why reason, r sluice.Range) (*gap, error) {
	from := p.slot.Next
	if st.req.OnGap == gapError {
		return nil, outOfRange(p.p, from, r)
	}
	g := &gap{p: p.p, from: from, to: r.Start, lost: unknown, reason: why}
	if st.req.OnGap == gapLatest {
		g.to = r.End
	}
	if why == retention {
		g.lost = g.to - from
	}
	return g, nil
}

// passGap announces a gap in the middle of a stream and goes on behind it.
func (st *Stream) passGap(p *place, why reason, r sluice.Range) error {
	g, err := st.gapAt(p, why, r)
	if err != nil {
		return err
	}
	p.suspect, p.above, p.end = false, 0, r.End
	return st.write(st.out.write(st.tell(st.out.scratch(), p, g)))
}
