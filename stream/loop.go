package stream

import (
	"context"
	"errors"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	writeBytes   = 64 << 10               // of one write, or one larger frame
	shortWait    = 500 * time.Millisecond // before a place that could not go on is tried again
	readPatience = 5 * time.Second        // of one read of history, less if a heartbeat is due before
	readTurn     = 250 * time.Millisecond // the same where other partitions wait; Kafka's answer serves the next try
	askAgain     = 10 * time.Millisecond  // after a turn that was too short
)

var errPanic = errors.New("panic")

// run writes until the stream ends. It formats nothing but ids.
func (st *Stream) run(head []byte) error {
	st.follow()
	st.attach()
	if err := st.hello(head); err != nil {
		return err
	}
	for {
		bell, tick := st.bell.channel(), st.streams.wheel.at(st.due()) // before looking, or a wake-up is lost
		if news, err := st.checkTopics(); err != nil {
			return err
		} else if news {
			continue // the bell may be another now
		}
		for st.collect(writeBytes) {
			if err := st.flush(); err != nil {
				return err
			}
		}
		behind, wait, err := st.advance()
		if err != nil {
			return err
		}
		st.setLive(!behind)
		if err := st.beat(); err != nil {
			return err
		}
		if st.lastWrite.After(st.endOfLife) || !time.Now().Before(st.endOfLife) {
			st.end(endLifetime)
		}
		if st.ctx.Err() != nil || st.ending.Load() != nil {
			return nil
		}
		if behind && wait == 0 {
			continue
		}
		var again <-chan time.Time
		if behind {
			again = time.After(wait) // rare: Kafka does not answer, or another replica is ahead
		}
		select {
		case <-bell:
		case <-tick:
		case <-again:
		case <-st.ctx.Done():
		}
	}
}

// due is when the stream must look at the clock again.
func (st *Stream) due() time.Time {
	if beat := st.lastWrite.Add(st.heartbeat); beat.Before(st.endOfLife) {
		return beat
	}
	return st.endOfLife
}

// hello is the first write: the head, how long to wait before a reconnect, where the stream begins, and the gaps that
// its id turned out to have. It is one packet, so that the client has an id as soon as it has anything.
func (st *Stream) hello(head []byte) error {
	b := appendRetry(st.out.scratch(), st.retry)
	p := progress{live: st.live, resumed: st.resumed}
	for _, at := range st.places {
		p.behind += max(0, at.end-at.resumesAt())
	}
	b = append(appendID(p.append(b), &st.cursor), '\n')
	for _, at := range st.places {
		if at.gap != nil {
			b = st.tell(b, at, at.gap)
			at.gap = nil
		}
	}
	st.attach() // a gap has moved its place
	return st.write(st.out.first(head, b))
}

// tell appends a gap event and moves the place behind the gap.
func (st *Stream) tell(b []byte, at *place, g *gap) []byte {
	at.slot.Next = g.to
	st.gaps++
	m := st.streams.metrics
	m.gaps.WithLabelValues(m.topicLabel(at.p.Topic), string(g.reason)).Inc()
	if g.lost > 0 {
		m.lost.WithLabelValues(m.topicLabel(at.p.Topic)).Add(float64(g.lost))
	}
	return append(appendID(g.append(b), &st.cursor), '\n')
}

// write notes the time of a write that went well, and turns one that did not into the reason it ends the stream.
func (st *Stream) write(err error) error {
	if err != nil {
		return err
	}
	st.lastWrite, st.moved = time.Now(), false
	return nil
}

func endingOf(err error) *ending {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return endDeadline
	}
	return endClient
}

// collect gathers whole frames for one write, the partitions in turn. It reports whether there are any, and none once
// the stream is to end.
func (st *Stream) collect(budget int) bool {
	if st.ctx.Err() != nil || st.lastWrite.After(st.endOfLife) {
		return false
	}
	st.out.begin()
	for range st.places {
		if full := st.take(st.places[st.turn], budget); full {
			break
		}
		if st.turn++; st.turn == len(st.places) {
			st.turn = 0
		}
	}
	return st.out.size > 0
}

// take adds the frames of one place until the write is full or there are no more.
func (st *Stream) take(p *place, budget int) (full bool) {
	for p.seg != nil {
		// The order matters: frames are published before the head, and the last of a segment before its successor.
		head, next := p.feed.head.Load(), p.seg.next.Load()
		n := int(p.seg.n.Load())
		for p.i < n && p.seg.frames[p.i].next <= p.slot.Next {
			p.i++ // another replica was ahead of this one's chain
		}
		if p.i < n {
			if full = st.takeRun(p, n, budget); full {
				return true
			}
			continue
		}
		switch {
		case p.block > 0:
			st.pass(p, p.block)
			p.seg, p.block = nil, 0
			st.held.Store(0)
			return false
		case next == broken:
			p.seg, p.suspect = nil, true
			p.mark.read.Store(-1)
			return false
		case next == nil:
			st.pass(p, head)
			return false
		}
		p.seg, p.i = next, 0
	}
	return false
}

// pass moves a place over offsets that hold no record.
func (st *Stream) pass(p *place, next int64) {
	if next > p.slot.Next {
		st.scanned += next - p.slot.Next
		p.slot.Next = next
		st.moved = true
	}
}

// takeRun adds frames [p.i, n) of a segment as far as they fit; the first of a write may be larger.
func (st *Stream) takeRun(p *place, n, budget int) (full bool) {
	seg, from := p.seg, p.seg.start(p.i)
	room := budget - st.out.size
	to := n
	if int(seg.frames[n-1].end-from) > room {
		for to = p.i; to < n && int(seg.frames[to].end-from) <= room; {
			to++
		}
		if to == p.i {
			if st.out.size > 0 {
				return true
			}
			to++
		}
	}
	end := seg.frames[to-1].end
	st.out.add(seg.bytes(from, end))
	st.events += int64(to - p.i)
	p.feed.events.Add(float64(to - p.i))
	st.scanned += seg.frames[to-1].next - p.slot.Next
	p.slot.Next = seg.frames[to-1].next
	p.i = to
	if p.block == 0 {
		p.mark.read.Store(seg.base + int64(end))
		st.out.since = seg.at.Load()
	}
	return to < n
}

// flush writes what collect gathered, with an id at its end.
func (st *Stream) flush() error {
	return st.write(st.out.flush(&st.cursor, st.plain()))
}

// beat breaks a silence: with a progress event if the position has moved without a record, else with a comment.
func (st *Stream) beat() error {
	if time.Since(st.lastWrite) < st.heartbeat {
		return nil
	}
	if !st.moved {
		return st.write(st.out.write(heartbeat))
	}
	p := progress{live: st.live, resumed: st.resumed, scanned: st.scanned, sent: st.events}
	for _, at := range st.places {
		p.behind += max(0, at.feed.head.Load()-at.slot.Next)
	}
	return st.write(st.out.write(append(appendID(p.append(st.out.scratch()), &st.cursor), '\n')))
}

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
		if p.above++; p.above < 3 { // a new leader may know less for a moment
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
