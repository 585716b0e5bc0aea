package partition

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	minFetchBytes = 64 << 10
	maxFetchBytes = 1 << 20
	// neighbours is how many offsets behind the start of a fetch under way a reader waits for that fetch.
	neighbours   = 1_000
	fetchTimeout = 15 * time.Second // of one fetch with its retries; the Source gives up a hung broker sooner
)

// flight is one fetch under way. It belongs to nobody: it goes on when the reader that began it has left.
type flight struct {
	from  int64
	id    sluice.TopicID // when it began
	done  chan struct{}
	chunk *chunk
	err   error
}

// identify drops what is in memory of a topic when the name belongs to another one by now. A topic that was deleted and
// made again has the same offsets, and nothing else in common: no answer about offsets can tell the two apart. The id
// that is remembered is never younger than what is in memory, for it was asked for before.
//
// It costs nothing but a look at what the Source knows already, except every few seconds. Brokers without ids (before
// 2.8) give no protection; there a change shows only when the new topic is shorter.
func (l *Log) identify(ctx context.Context, topic string) error {
	id, err := l.source.TopicID(ctx, topic)
	if err != nil {
		if gone(err) {
			l.discard(topic, nil)
		}
		return err
	}
	l.Recognize(topic, id)
	return nil
}

// Recognize is for whoever has just learned which topic a name belongs to, and is about to read from an offset of that
// one: what is in memory of another is dropped before the next look would find out.
func (l *Log) Recognize(topic string, id sluice.TopicID) {
	s := l.store
	s.mu.Lock()
	before, known := s.ids[topic]
	if !known {
		s.ids[topic] = id
	}
	s.mu.Unlock()
	if known && before != id {
		l.log.Warn("topic was made anew", slog.String("topic", topic), slog.String("id", id.String()), slog.String("was", before.String()))
		l.discard(topic, &id)
	}
}

// discard drops all that is in memory of a topic, and gives its name to the one with that id, or to none. Rings come
// first: what leaves a ring goes to the store.
func (l *Log) discard(topic string, id *sluice.TopicID) {
	l.mu.RLock()
	for p, t := range l.tails {
		if p.Topic == topic {
			t.anew()
		}
	}
	l.mu.RUnlock()
	l.store.forgetTopic(topic, id)
}

// chunk is a chunk near from: out of the cache, or what a fetch brought, a neighbour's included. It need not hold from.
func (l *Log) chunk(ctx context.Context, p sluice.Partition, from int64, want int, near int64) (c *chunk, hit bool, err error) {
	base := int64(-1)
	if t := l.tail(p); t != nil {
		base = t.baseAbove(from)
	}
	s := l.store
	s.mu.Lock()
	if _, known := s.ids[p.Topic]; !known || find(s.chunks[p], from) != nil {
		s.mu.Unlock()
		if err := l.identify(ctx, p.Topic); err != nil {
			return nil, false, err
		}
		s.mu.Lock()
	}
	if c := s.get(p, from); c != nil {
		s.mu.Unlock()
		return c, true, nil
	}
	f := s.running(p, from, near)
	if f == nil {
		f = &flight{from: from, id: s.ids[p.Topic], done: make(chan struct{})}
		n := s.budget(p, from, want, base)
		if !l.spawn(func() { l.fetch(p, f, n) }) {
			s.mu.Unlock()
			return nil, false, stopping()
		}
		s.flights[p] = append(s.flights[p], f)
	}
	s.mu.Unlock()

	l.metrics.waiting.Add(1)
	defer l.metrics.waiting.Add(-1)
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, false, waitError(ctx)
	case <-l.ctx.Done():
		return nil, false, stopping()
	}
	if f.err != nil && f.from != from && sluice.KindOf(f.err) == sluice.OutOfRange {
		return &chunk{from: -1, next: -1}, false, nil // the neighbour's offset, not ours
	}
	return f.chunk, false, f.err
}

func (s *store) running(p sluice.Partition, from, near int64) *flight {
	for _, f := range s.flights[p] {
		if f.from <= from && from <= f.from+near {
			return f
		}
	}
	return nil
}

// fetch brings a flight home. The chunk is in the cache before the flight is off the list, so that who misses the one
// finds the other.
func (l *Log) fetch(p sluice.Partition, f *flight, maxBytes int) {
	ctx, cancel := context.WithTimeout(l.ctx, fetchTimeout)
	defer cancel()
	begin := time.Now()
	in, err := l.source.Fetch(ctx, p, f.from, maxBytes)
	l.metrics.fetchSeconds.Observe(time.Since(begin).Seconds())
	switch sluice.KindOf(err) {
	case "":
		f.chunk = &chunk{from: in.From, next: in.Next, recs: in.Records, bytes: in.Bytes}
		if t := l.tail(p); t != nil {
			t.heard(in.End)
		}
	case sluice.OutOfRange:
		f.err = l.judge(ctx, p, f.from, err)
	default:
		if gone(err) {
			l.discard(p.Topic, nil)
		}
		f.err = err
	}

	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, known := s.ids[p.Topic]; f.chunk != nil && known && id == f.id {
		s.insert(p, f.chunk)
	}
	if rest := slices.DeleteFunc(s.flights[p], func(other *flight) bool { return other == f }); len(rest) > 0 {
		s.flights[p] = rest
	} else {
		delete(s.flights, p)
	}
	close(f.done)
}

// judge looks whether an offset that a broker refused really lies outside. A broker that has just become the leader, or
// is not it any more, may be wrong.
func (l *Log) judge(ctx context.Context, p sluice.Partition, from int64, refused error) error {
	r, err := l.source.Range(ctx, p)
	if err != nil {
		return err
	}
	l.store.forget(p, r)
	if t := l.tail(p); t != nil {
		t.begins(r.Start)
	}
	if from < r.Start || from > r.End {
		return outOfRange(from, refused)
	}
	return &sluice.Error{Kind: sluice.Retriable, Msg: "The partition moved while it was read.", RetryAfter: time.Second, Err: refused}
}

// question is one Range under way.
type question struct {
	done chan struct{}
	r    sluice.Range
	err  error
}

// ends asks the Source for a range, once for all who ask at the same time.
func (l *Log) ends(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	s := l.store
	s.mu.Lock()
	q := s.questions[p]
	if q == nil {
		q = &question{done: make(chan struct{})}
		asked := l.spawn(func() {
			ctx, cancel := context.WithTimeout(l.ctx, fetchTimeout)
			defer cancel()
			q.r, q.err = l.source.Range(ctx, p)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.questions, p)
			close(q.done)
		})
		if !asked {
			s.mu.Unlock()
			return sluice.Range{}, stopping()
		}
		s.questions[p] = q
	}
	s.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
		return sluice.Range{}, waitError(ctx)
	case <-l.ctx.Done():
		return sluice.Range{}, stopping()
	}
	if t := l.tail(p); t != nil && q.err == nil {
		t.begins(q.r.Start)
	}
	return q.r, q.err
}

// gone reports whether the partition does not exist.
func gone(err error) bool {
	kind := sluice.KindOf(err)
	return kind == sluice.UnknownTopic || kind == sluice.UnknownPart
}

// waitError is why a reader stopped waiting: its own deadline means that Kafka was slow; a cancelled one is passed on.
func waitError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka did not answer in time.", RetryAfter: time.Second, Err: ctx.Err()}
	}
	return context.Cause(ctx)
}
