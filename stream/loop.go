package stream

import (
	"errors"
	"time"
)

// writeBytes is the most of one write, unless a single frame is larger.
const writeBytes = 64 << 10

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
