package stream

import (
	"cmp"
	"slices"
	"time"
)

// turnWheel is the hand of the clock.
func (s *Streams) turnWheel() {
	tick := time.NewTicker(s.wheel.width)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.wheel.advance(now)
		case <-s.ctx.Done():
			return
		}
	}
}

// sweep looks at every stream once a second and closes what is over a limit, without waiting for a write to fail.
func (s *Streams) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.sweepOnce(now)
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Streams) sweepOnce(now time.Time) {
	s.mu.Lock()
	open := make([]*Stream, 0, len(s.open))
	for st := range s.open {
		open = append(open, st)
	}
	feeds := make([]*feed, 0, len(s.feeds))
	for key, f := range s.feeds {
		if f.users == 0 && now.Sub(f.unused) > feedIdle {
			f.stop()
			delete(s.feeds, key)
			continue
		}
		feeds = append(feeds, f)
	}
	s.mu.Unlock()

	for _, f := range feeds {
		f.history = append(f.history, f.total.Load())
		if most := int(s.cfg.MaxLag/time.Second) + 1; len(f.history) > most {
			f.history = slices.Delete(f.history, 0, len(f.history)-most)
		}
	}
	oldest := map[*feed]int64{} // where the chain begins that somebody still needs
	var held int64
	var worst int
	lags := make(map[*Stream]int64, len(open))
	for _, st := range open {
		if !st.claimed.Load() {
			if now.Sub(st.born) > claimGrace && st.claimed.CompareAndSwap(false, true) {
				st.Release() // the server lost the connection between admission and hand-over
			}
			continue
		}
		held += st.held.Load()
		bytes, seconds := st.lag(oldest)
		lags[st], worst = bytes, max(worst, seconds)
		switch {
		case bytes > s.cfg.MaxLagBytes || time.Duration(seconds)*time.Second >= s.cfg.MaxLag:
			st.endOrCut(endSlow)
		case st.ending.Load() != nil:
			st.endOrCut(nil)
		}
	}
	s.metrics.lag.Set(float64(worst))
	s.limitBuffer(feeds, oldest, held, lags)
}

// lag is how far a live stream is behind the worst of its chains: in bytes of all, and in seconds. It notes where each
// chain begins that the stream needs.
func (st *Stream) lag(oldest map[*feed]int64) (bytes int64, seconds int) {
	st.streams.mu.Lock()
	marks := st.marks
	st.streams.mu.Unlock()
	for _, at := range marks {
		read := at.read.Load()
		if read < 0 {
			continue
		}
		f := at.feed
		bytes += f.total.Load() - read
		if from, ok := oldest[f]; !ok || read < from {
			oldest[f] = read
		}
		// history[i] is what the chain had when there were len-1-i seconds to now
		for i, total := range f.history {
			if total > read {
				seconds = max(seconds, len(f.history)-1-i)
				break
			}
		}
	}
	return bytes, seconds
}

// endOrCut ends a stream; if it has not ended a second later, its writer is blocked and the connection is cut.
func (st *Stream) endOrCut(why *ending) {
	if st.ending.Load() == nil {
		st.end(why)
		return
	}
	if st.endedAt.CompareAndSwap(0, time.Now().UnixNano()) {
		return
	}
	if time.Since(time.Unix(0, st.endedAt.Load())) >= cutGrace {
		st.streams.mu.Lock()
		conn := st.conn
		st.streams.mu.Unlock()
		if conn != nil {
			_ = conn.SetWriteDeadline(time.Unix(1, 0))
		}
	}
}

// limitBuffer closes the streams that are furthest behind while the frames they keep alive are too many.
func (s *Streams) limitBuffer(feeds []*feed, oldest map[*feed]int64, held int64, lags map[*Stream]int64) {
	total := held
	for _, f := range feeds {
		f.mu.Lock()
		from := f.oldest.base
		f.mu.Unlock()
		if needed, ok := oldest[f]; ok {
			from = min(from, needed)
		}
		total += f.total.Load() - from
	}
	s.metrics.buffer.Set(float64(total))
	if total <= s.cfg.BufferBytes {
		return
	}
	worst := make([]*Stream, 0, len(lags))
	for st, bytes := range lags {
		if bytes > 0 || st.held.Load() > 0 {
			worst = append(worst, st)
		}
	}
	slices.SortFunc(worst, func(a, b *Stream) int { return cmp.Compare(lags[b], lags[a]) })
	for _, st := range worst[:(len(worst)+9)/10] { // a tenth each second: shared segments go with their last reader
		st.endOrCut(endBuffer)
	}
}
