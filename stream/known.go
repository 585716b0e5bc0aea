package stream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluicegate/sluice"
)

// view is what was last heard of a topic. It is never changed, so streams tell news by the pointer.
type view struct {
	log   sluice.LogTag
	count int32
	gone  bool
}

// older reports whether seen is news. A broker that lags behind may still tell fewer partitions.
func (v *view) older(seen *view) bool {
	return v.gone || seen.log != v.log || seen.count > v.count
}

// knownTopic is a topic that streams follow.
type knownTopic struct {
	name string
	view atomic.Pointer[view]

	users   int       // under Streams.mu, like the rest
	due     time.Time // of the next look
	missing time.Time // since when Kafka denies it; a broker that has just started knows nothing, so one look is not enough
}

const (
	lookPatience = 5 * time.Second
	lookAgain    = 2 * time.Second // how long a topic must be missing until it is gone
)

// clusterID asks once: a cluster keeps its id.
func (s *Streams) clusterID(ctx context.Context) (string, error) {
	if id := s.cluster.Load(); id != nil {
		return *id, nil
	}
	id, err := s.topics.ClusterID(ctx)
	if err != nil {
		return "", err
	}
	s.cluster.Store(&id)
	return id, nil
}

// see asks Kafka for a topic.
func (s *Streams) see(ctx context.Context, name string) (*view, error) {
	cluster, err := s.clusterID(ctx)
	if err != nil {
		return nil, err
	}
	t, err := s.topics.Topic(ctx, name)
	if err != nil {
		return nil, err
	}
	return &view{log: sluice.LogTagOf(cluster, t.ID), count: int32(len(t.Partitions))}, nil
}

// acquireTopic enters a topic that was just seen.
func (s *Streams) acquireTopic(name string, seen *view) *knownTopic {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[name]
	if k == nil {
		k = &knownTopic{name: name, due: time.Now().Add(s.refresh)}
		k.view.Store(seen)
		s.known[name] = k
	} else if k.view.Load().older(seen) {
		k.view.Store(seen)
	}
	k.users++
	return k
}

func (s *Streams) releaseTopic(k *knownTopic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(s.known, k.name)
	}
}

// look asks for a look at a topic soon.
func (s *Streams) look(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[name]; k != nil && k.missing.IsZero() {
		k.due = time.Time{}
	}
}

// runLooks looks at each topic in use when it is due.
func (s *Streams) runLooks() {
	tick := time.NewTicker(min(time.Second, s.refresh))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		now := time.Now()
		var due []*knownTopic
		s.mu.Lock()
		for _, k := range s.known {
			if k.due.Before(now) {
				due = append(due, k)
			}
		}
		s.mu.Unlock()
		for _, k := range due {
			ctx, cancel := context.WithTimeout(s.ctx, lookPatience)
			s.lookNow(ctx, k)
			cancel()
		}
	}
}

// lookNow looks at a topic and wakes its streams if there is news. What Kafka does not answer changes nothing.
func (s *Streams) lookNow(ctx context.Context, k *knownTopic) {
	seen, err := s.see(ctx, k.name)
	missing := sluice.KindOf(err) == sluice.UnknownTopic
	now := time.Now()
	s.mu.Lock()
	k.due = now.Add(s.refresh)
	old, news := k.view.Load(), false
	switch {
	case err == nil:
		k.missing = time.Time{}
		if news = old.older(seen); news {
			k.view.Store(seen)
		}
	case missing && k.missing.IsZero():
		k.missing = now
		k.due = now.Add(lookAgain)
	case missing && now.Sub(k.missing) < lookAgain:
		k.due = k.missing.Add(lookAgain)
	case missing && !old.gone:
		k.view.Store(&view{log: old.log, count: old.count, gone: true})
		news = true
	}
	var wake []*feed
	for key, f := range s.feeds {
		if news && key.p.Topic == k.name {
			wake = append(wake, f)
		}
	}
	s.mu.Unlock()
	for _, f := range wake {
		f.ringAll()
	}
}
