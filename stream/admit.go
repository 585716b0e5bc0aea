package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice"
)

const (
	admitPatience = 5 * time.Second // for everything that Kafka is asked
	admitAtOnce   = 32              // questions of one request at a time
	catchUpFrom   = 1000            // records behind the end: more than that takes one of the catch-up places
)

// Admit checks a request against Kafka and the caps, makes its offsets concrete, and takes a place for it. The caller
// hands over the connection by Serve within ten seconds, or gives the place back by Release. Errors are Refusals, or
// ours.
func (s *Streams) Admit(ctx context.Context, req Request) (*Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, admitPatience)
	defer cancel()
	st, err := s.admit(ctx, req)
	if err != nil {
		err = refusalOf(err)
		s.metrics.connects.WithLabelValues("refused").Inc()
		if r, ok := errors.AsType[*Refusal](err); ok && r.Code != 0 {
			s.metrics.refusals.WithLabelValues(strconv.Itoa(r.Code)).Inc()
		}
		return nil, err
	}
	return st, nil
}

func (s *Streams) admit(ctx context.Context, req Request) (*Stream, error) {
	st := &Stream{streams: s, req: req, born: time.Now(), heartbeat: req.Heartbeat, retry: s.cfg.Retry + rand.N(2*time.Second)}
	if st.heartbeat == 0 {
		st.heartbeat = s.cfg.Heartbeat
	}
	life := s.cfg.Lifetime
	st.endOfLife = st.born.Add(life - rand.N(life/5+1))
	if err := s.findPartitions(ctx, st); err != nil {
		return nil, err
	}
	r, err := parseResume(req)
	if err != nil {
		return nil, err
	}
	if err := r.concerns(st); err != nil {
		return nil, err
	}
	if err := s.takePlace(st); err != nil {
		return nil, err
	}
	if err := s.makeConcrete(ctx, st, r); err != nil {
		st.Release()
		return nil, err
	}
	return st, nil
}

// findPartitions looks the topics up and lists the partitions that the request asks for.
func (s *Streams) findPartitions(ctx context.Context, st *Stream) error {
	total := 0
	views := make([]*view, len(st.req.Topics))
	ask, askCtx := errgroup.WithContext(ctx)
	for i, name := range st.req.Topics {
		ask.Go(func() (err error) {
			views[i], err = s.see(askCtx, name)
			return err
		})
	}
	if err := ask.Wait(); err != nil {
		return err
	}
	for i, name := range st.req.Topics {
		for _, sp := range st.req.Subset[name] {
			if sp.high >= views[i].count {
				return refuse(codeUnknownPart, "Partition not found.")
			}
		}
		for n := range views[i].count {
			if st.req.follows(name, n) {
				st.places = append(st.places, &place{p: sluice.Partition{Topic: name, Number: n}, topic: i})
			}
		}
		total += int(views[i].count)
	}
	for _, o := range st.req.Offsets {
		if i := st.topicIndex(o.Topic); i < 0 || o.Partition >= views[i].count {
			return refuse(codeUnknownPart, "Partition not found.")
		}
	}
	if len(st.places) > s.cfg.MaxPartitions {
		return refuse(codePartitions, fmt.Sprintf(`Too many partitions: %d of at most %d; use "partitions" and several streams.`, len(st.places), s.cfg.MaxPartitions))
	}
	st.views = views
	st.buildCursor()
	return nil
}

// takePlace enters the stream if all caps allow it.
func (s *Streams) takePlace(st *Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return refuseForNow(codeDraining, "Replica is draining.")
	case len(s.open) >= s.cfg.MaxStreams:
		return refuseForNow(codeFull, "Replica is full.")
	case st.req.Address != "" && s.addresses[st.req.Address] >= s.cfg.MaxPerAddress:
		return refuseForNow(codeTooMany, fmt.Sprintf("Too many streams for this address (%d).", s.cfg.MaxPerAddress))
	case !s.connect.Allow():
		return refuseForNow(codeTooMany, msgTooManyConnects)
	}
	s.begin.Do(func() {
		s.workers.Go(s.sweep)
		s.workers.Go(s.runLooks)
		s.workers.Go(s.turnWheel)
	})
	s.open[st] = struct{}{}
	s.addresses[st.req.Address]++
	s.serving.Add(1)
	return nil
}

// takeCatchUp takes a place among the streams that read history.
func (s *Streams) takeCatchUp(st *Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.catchingUp >= s.cfg.MaxCatchUp {
		return refuseForNow(codeCatchingUp, "Too many streams are catching up.")
	}
	s.catchingUp++
	st.catchingUp = true
	s.metrics.catchUp.Set(float64(s.catchingUp))
	return nil
}

// giveCatchUp gives it back, once the stream is live or over.
func (s *Streams) giveCatchUp(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.catchingUp {
		st.catchingUp = false
		s.catchingUp--
		s.metrics.catchUp.Set(float64(s.catchingUp))
	}
}

// Release gives the place back. It may be called more than once, and after Serve does nothing.
func (st *Stream) Release() {
	st.released.Do(func() {
		s := st.streams
		s.giveCatchUp(st)
		s.mu.Lock()
		delete(s.open, st)
		if s.addresses[st.req.Address]--; s.addresses[st.req.Address] <= 0 {
			delete(s.addresses, st.req.Address)
		}
		s.mu.Unlock()
		s.serving.Done()
	})
}

// makeConcrete gives every partition its next offset. From here on none is "latest": what a silent partition receives
// while the client is away would be lost.
func (s *Streams) makeConcrete(ctx context.Context, st *Stream, r *resume) error {
	ask, askCtx := errgroup.WithContext(ctx)
	ask.SetLimit(admitAtOnce)
	for _, p := range st.places {
		ask.Go(func() error { return s.begins(askCtx, st, r, p) })
	}
	if err := ask.Wait(); err != nil {
		return err
	}
	gaps := false
	behind := int64(0)
	for _, p := range st.places {
		gaps = gaps || p.gap != nil
		behind += max(0, p.end-p.resumesAt())
	}
	st.resumed = st.req.LastEventID != ""
	switch {
	case gaps:
		st.result = "resumed_gap"
	case st.resumed:
		st.result = "resumed"
	default:
		st.result = "new"
	}
	if behind > catchUpFrom {
		return s.takeCatchUp(st)
	}
	return nil
}

// begins settles where one partition begins.
func (s *Streams) begins(ctx context.Context, st *Stream, r *resume, p *place) error {
	rng, err := s.source.Range(ctx, p.p)
	if err != nil {
		return err
	}
	p.end = rng.End
	at := r.position(st, p)
	switch at.how {
	case fromEarliest:
		p.slot.Next = rng.Start
		return nil
	case fromLatest:
		p.slot.Next = rng.End
		return nil
	case fromTimestamp:
		p.slot.Next, err = s.topics.OffsetAt(ctx, p.p, at.time)
		return err
	}
	p.slot.Next = at.offset
	var why reason
	switch {
	case at.otherLog:
		why = otherLog
	case at.offset < rng.Start:
		why = retention
	case at.offset > rng.End:
		if rng, why, err = s.aboveEnd(ctx, p.p, at.offset); err != nil {
			return err
		}
		p.end, p.cleared = rng.End, why == ""
	}
	if why == "" {
		return nil
	}
	g, err := st.gapAt(p, why, rng)
	if err != nil {
		s.log.Info("a stream begins in a gap", slog.String("partition", p.p.String()), slog.String("reason", string(why)))
		return err
	}
	p.gap = g
	if why == otherLog {
		p.slot.Next = g.to // the old offset means nothing under the new log's tag
	}
	return nil
}

// aboveEnd asks Kafka itself about an offset above what this replica has seen: another one may be ahead by
// milliseconds, and a new leader may know less for a moment.
func (s *Streams) aboveEnd(ctx context.Context, p sluice.Partition, offset int64) (r sluice.Range, why reason, err error) {
	for try := 0; ; try++ {
		if r, err = s.topics.Range(ctx, p); err != nil {
			return r, "", err
		}
		switch {
		case offset < r.Start:
			return r, retention, nil
		case offset <= r.End:
			return r, "", nil
		case try == looksAbove-1:
			return r, truncated, nil
		}
		select {
		case <-time.After(150 * time.Millisecond):
		case <-ctx.Done():
			return r, "", ctx.Err()
		}
	}
}
