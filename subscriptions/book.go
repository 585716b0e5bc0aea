package subscriptions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
)

// Book is every definition in memory, kept in step with Redis by Run. It never forgets because Redis does: only an id
// that was deleted in order leaves it.
type Book struct {
	store *Store
	log   *slog.Logger

	up      prometheus.Gauge
	held    prometheus.Gauge
	refused *prometheus.CounterVec

	mu       sync.Mutex
	byID     map[string]*Subscription
	sorted   []*Subscription // nil when byID changed since
	changed  chan struct{}
	loaded   chan struct{}
	isLoaded bool

	// Of Run alone.
	down     bool
	troubles map[string]string // id -> what was last logged about it
}

// NewBook does no I/O. reg may be nil.
func NewBook(s *Store, log *slog.Logger, reg prometheus.Registerer) (*Book, error) {
	if s == nil {
		return nil, errors.New("subscriptions: the book needs a store")
	}
	auto := promauto.With(reg)
	return &Book{
		store: s,
		log:   orDiscard(log),
		up:    auto.NewGauge(prometheus.GaugeOpts{Name: "sluice_redis_up", Help: "1 while Redis answers the resync of the definitions."}),
		held:  auto.NewGauge(prometheus.GaugeOpts{Name: "sluice_definitions", Help: "Subscriptions in memory."}),
		refused: auto.NewCounterVec(prometheus.CounterOpts{Name: "sluice_definitions_refused_total",
			Help: "Entries of Redis that were not followed, at each look: unreadable, rolled_back (a lower revision than in memory), vanished (missing without having been deleted)."}, []string{"reason"}),
		byID:     map[string]*Subscription{},
		changed:  make(chan struct{}),
		loaded:   make(chan struct{}),
		troubles: map[string]string{},
	}, nil
}

// All is every subscription in the order of ids, those being deleted included. The slice is shared: do not change it.
func (b *Book) All() []*Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sorted == nil {
		b.sorted = slices.SortedFunc(maps.Values(b.byID), func(x, y *Subscription) int { return strings.Compare(x.ID, y.ID) })
	}
	return b.sorted
}

// Find is one of All, or nil.
func (b *Book) Find(id string) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.byID[id]
}

// Changed is closed at the next change. Take it before All.
func (b *Book) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// Loaded reports whether Redis was read once in full.
func (b *Book) Loaded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isLoaded
}

// Ready waits for the first load.
func (b *Book) Ready(ctx context.Context) error {
	select {
	case <-b.loaded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run follows Redis until ctx ends and returns nil then. While Redis is down it tries on and All stays as it is.
func (b *Book) Run(ctx context.Context) error {
	hearing := b.store.rdb.Subscribe(ctx, bell)
	defer func() { _ = hearing.Close() }() // says only that the connection is gone already
	heard := hearing.ChannelWithSubscriptions(redis.WithChannelSize(1000))
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
			again.Reset(b.look(ctx, b.resync))
		case m, open := <-heard:
			if !open {
				return errors.New("subscriptions: the bell's connection was closed")
			}
			ids, missed := drain(m, heard)
			if missed { // the connection is new: what rang meanwhile was not heard
				again.Reset(b.look(ctx, b.resync))
				continue
			}
			if len(ids) > 0 {
				again.Reset(b.look(ctx, func(ctx context.Context) error { return b.reread(ctx, ids) }))
			}
		}
	}
}

// drain takes what has rung already, so that a burst of changes is one read.
func drain(first any, more <-chan any) (ids []string, missed bool) {
	for m := first; ; {
		switch m := m.(type) {
		case *redis.Subscription:
			missed = true
		case *redis.Message:
			var r ring
			if json.Unmarshal([]byte(m.Payload), &r) == nil && r.ID != "" && r.Kind == "doc" && !slices.Contains(ids, r.ID) {
				ids = append(ids, r.ID)
			}
		}
		if len(ids) >= 500 {
			return ids, missed
		}
		select {
		case next, open := <-more:
			if !open {
				return ids, missed
			}
			m = next
		default:
			return ids, missed
		}
	}
}

// look runs one read of Redis and says when the next resync is due.
func (b *Book) look(ctx context.Context, read func(context.Context) error) time.Duration {
	readCtx, cancel := context.WithTimeout(ctx, resyncTimeout)
	defer cancel()
	err := read(readCtx)
	if ctx.Err() != nil {
		return resyncEvery
	}
	if down := err != nil; down != b.down {
		b.down = down
		if down {
			b.log.Error("redis does not answer; definitions are served from memory", "error", err)
		} else {
			b.log.Info("redis answers again")
		}
	}
	if b.down {
		b.up.Set(0)
		return time.Second
	}
	b.up.Set(1)
	return resyncEvery
}

// trouble logs what is wrong with a definition when it changes, not each time it is seen.
func (b *Book) trouble(id, what string) {
	switch before, known := b.troubles[id]; {
	case what == "" && known:
		delete(b.troubles, id)
		b.log.Info("definition is in order again", "subscription", id)
	case what != "" && what != before:
		b.troubles[id] = what
		b.log.Error("definition in redis is not followed", "subscription", id, "reason", what)
	}
}

// resync reads all revisions and the documents that differ.
func (b *Book) resync(ctx context.Context) error {
	revisions, err := b.store.rdb.HGetAll(ctx, keyRev).Result()
	if err != nil {
		return fmt.Errorf("read all revisions: %w", err)
	}
	var differ []string
	for id, text := range revisions {
		if s := b.Find(id); s == nil || text != s.revision() {
			differ = append(differ, id)
		}
	}
	for _, s := range b.All() {
		if _, there := revisions[s.ID]; !there {
			differ = append(differ, s.ID)
		}
	}
	for some := range slices.Chunk(differ, 500) {
		if err := b.reread(ctx, some); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isLoaded {
		b.isLoaded = true
		close(b.loaded)
	}
	return nil
}

// reread applies what Redis has for ids.
func (b *Book) reread(ctx context.Context, ids []string) error {
	docs, err := b.store.documents(ctx, ids)
	if err != nil {
		return fmt.Errorf("read documents: %w", err)
	}
	next := map[string]*Subscription{} // nil: forget it
	var missing []string
	for i, id := range ids {
		if docs[i] == nil {
			missing = append(missing, id)
			continue
		}
		s, err := decode(id, docs[i])
		if err != nil {
			b.refuse(id, "unreadable", err.Error())
			continue
		}
		switch old := b.Find(id); {
		case old == nil || s.Revision > old.Revision:
			next[id] = s
			b.trouble(id, "")
		case s.Revision < old.Revision:
			b.refuse(id, "rolled_back", "Redis has a lower revision than memory")
		default:
			b.trouble(id, "")
		}
	}
	if err := b.gone(ctx, missing, next); err != nil {
		return err
	}
	b.apply(next)
	return nil
}

// gone decides about ids that Redis does not have. Only a deletion that was seen, or that left its mark, counts: a
// flush, an eviction or a fail-over must not stop deliveries.
func (b *Book) gone(ctx context.Context, missing []string, next map[string]*Subscription) error {
	var asked, marks []string
	for _, id := range missing {
		switch old := b.Find(id); {
		case old == nil:
		case old.State == Deleting:
			next[id] = nil
		default:
			asked, marks = append(asked, id), append(marks, keyGone+id)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	found, err := b.store.rdb.MGet(ctx, marks...).Result()
	if err != nil {
		return fmt.Errorf("ask what was deleted: %w", err)
	}
	for i, id := range asked {
		if found[i] != nil {
			next[id] = nil
			continue
		}
		b.refuse(id, "vanished", "it is missing in Redis and nobody deleted it; kept")
	}
	return nil
}

func (b *Book) refuse(id, reason, why string) {
	b.refused.WithLabelValues(reason).Inc()
	b.trouble(id, why)
}

func (b *Book) apply(next map[string]*Subscription) {
	if len(next) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range next {
		if s == nil {
			delete(b.byID, id)
			delete(b.troubles, id)
			continue
		}
		b.byID[id] = s
	}
	b.sorted = nil
	b.held.Set(float64(len(b.byID)))
	close(b.changed)
	b.changed = make(chan struct{})
}
