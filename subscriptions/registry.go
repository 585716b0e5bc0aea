package subscriptions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice"
)

type topics interface {
	Topic(ctx context.Context, name string) (sluice.Topic, error)
}

type offsets interface {
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
	OffsetAt(ctx context.Context, p sluice.Partition, t time.Time) (int64, error)
}

type commits interface {
	Commit(ctx context.Context, c sluice.GroupCommit) []error
}

// guard says whether an endpoint's address may be called: nil, Kind Invalid, or another failure.
type guard interface {
	Check(ctx context.Context, url string) error
}

// Needs is what a Registry works with. Book may be nil: then reads fail while Redis is down.
type Needs struct {
	Store   *Store
	Book    *Book
	Topics  topics
	Offsets offsets
	Commits commits
	Guard   guard
}

// Registry validates and writes definitions. Every change is a compare-and-set on the revision, then the bell.
type Registry struct {
	Needs
	log *slog.Logger
}

// NewRegistry does no I/O.
func NewRegistry(n Needs, log *slog.Logger) (*Registry, error) {
	if n.Store == nil || n.Topics == nil || n.Offsets == nil || n.Commits == nil || n.Guard == nil {
		return nil, errors.New("subscriptions: the registry needs a store, topics, offsets, commits and a guard")
	}
	return &Registry{Needs: n, log: orDiscard(log)}, nil
}

// Create makes a subscription from a document of the API: an *Invalid with all faults, or Kinds Malformed, TooLarge,
// UnknownTopic, StoreDown, and those of Kafka. The offsets stand in Kafka before the document stands in Redis, so
// nothing ever resolves start_from again; a failure in between leaves a group that nobody uses. Show what it returns
// through Revealed.
func (r *Registry) Create(ctx context.Context, owner string, body []byte) (*Subscription, error) {
	var f faults
	s, err := parseDraft(body, &f)
	if err != nil {
		return nil, err
	}
	if err := f.check(ctx, r.Guard, s); err != nil {
		return nil, err
	}
	if err := r.resolve(ctx, s); err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	s.ID, s.Owner, s.Revision = newID(now), owner, 1
	s.CreatedAt, s.UpdatedAt = Time{now}, Time{now}
	s.Signing.Secrets[0].ID, s.Signing.Secrets[0].CreatedAt = "1", Time{now}
	if err := r.pin(ctx, s); err != nil {
		return nil, err
	}
	doc, err := encode(s)
	if err != nil {
		return nil, fmt.Errorf("encode a subscription: %w", err)
	}
	if err := r.swap(ctx, s.ID, "", s.Revision, doc); err != nil {
		return nil, err
	}
	return s, nil
}

// Get is the subscription as Redis has it now; from memory while Redis is down or has lost it. Kind NotFound,
// StoreDown.
func (r *Registry) Get(ctx context.Context, id string) (*Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	raw, err := r.Store.rdb.HGet(ctx, keyDoc, id).Bytes()
	if err == nil {
		s, err := decode(id, raw)
		if err != nil {
			return nil, fmt.Errorf("read a subscription: %w", err)
		}
		return s, nil
	}
	if s := r.remembered(ctx, id); s != nil {
		return s, nil
	}
	if errors.Is(err, redis.Nil) {
		return nil, notFound()
	}
	return nil, storeError("read a subscription", err)
}

// remembered is the Book's copy, unless the id was deleted in order.
func (r *Registry) remembered(ctx context.Context, id string) *Subscription {
	if r.Book == nil {
		return nil
	}
	s := r.Book.Find(id)
	if s == nil || s.State == Deleting {
		return nil
	}
	if n, err := r.Store.rdb.Exists(ctx, keyGone+id).Result(); err == nil && n > 0 {
		return nil
	}
	return s
}

// ListOptions selects and pages. Limit is 1 to 100, 0 for 100; After is the cursor of the page before, "" for the
// first.
type ListOptions struct {
	Owner string // "" for all
	Topic string
	State string
	Limit int
	After string
}

func (o ListOptions) wants(s *Subscription) bool {
	return (o.Owner == "" || s.Owner == o.Owner) && (o.State == "" || s.State == o.State) &&
		(o.Topic == "" || slices.Contains(s.Source.Topics, o.Topic))
}

// List is one page in the order of ids, which is that of creation, and the cursor of the next, "" for none. Documents
// that cannot be read are left out. While Redis is down it answers from memory, which also adds what Redis lost.
func (r *Registry) List(ctx context.Context, o ListOptions) (page []*Subscription, next string, err error) {
	if o.Limit <= 0 || o.Limit > 100 {
		o.Limit = 100
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	ids, err := r.Store.rdb.HKeys(ctx, keyRev).Result()
	if err != nil {
		if r.Book == nil || !r.Book.Loaded() {
			return nil, "", storeError("list subscriptions", err)
		}
		return o.page(r.Book.All())
	}
	ids = r.withLost(ids)
	from, found := slices.BinarySearch(ids, o.After)
	if found {
		from++
	}
	var all []*Subscription
	for some := range slices.Chunk(ids[from:], 200) {
		docs, err := r.Store.documents(ctx, some)
		if err != nil {
			return nil, "", storeError("list subscriptions", err)
		}
		for i, raw := range docs {
			s, err := decode(some[i], raw)
			if raw == nil && r.Book != nil {
				s = r.Book.Find(some[i])
			} else if err != nil {
				continue
			}
			if s != nil && o.wants(s) {
				all = append(all, s)
			}
		}
		if len(all) > o.Limit {
			break
		}
	}
	return o.page(all)
}

// withLost sorts ids, with those that Redis lost and memory still delivers.
func (r *Registry) withLost(ids []string) []string {
	slices.Sort(ids)
	if r.Book == nil {
		return ids
	}
	var lost []string
	for _, s := range r.Book.All() {
		if _, there := slices.BinarySearch(ids, s.ID); !there && s.State != Deleting {
			lost = append(lost, s.ID)
		}
	}
	if lost == nil {
		return ids
	}
	return slices.Sorted(slices.Values(append(ids, lost...)))
}

func (o ListOptions) page(all []*Subscription) (page []*Subscription, next string, err error) {
	for _, s := range all {
		if s.ID <= o.After || !o.wants(s) {
			continue
		}
		if len(page) == o.Limit {
			return page, page[len(page)-1].ID, nil
		}
		page = append(page, s)
	}
	return page, "", nil
}

// Delete marks the subscription as deleting; it is gone once its lanes let go and somebody calls Remove. Marking it
// again is no error. Kinds NotFound, Conflict (another change came in between), StoreDown.
func (r *Registry) Delete(ctx context.Context, id string) error {
	for range 3 {
		err := r.mark(ctx, id)
		if sluice.KindOf(err) != sluice.Conflict {
			return err
		}
	}
	return &sluice.Error{Kind: sluice.Conflict, Msg: "The subscription is being changed by somebody else."}
}

func (r *Registry) mark(ctx context.Context, id string) error {
	s, err := r.Get(ctx, id)
	if err != nil {
		return err
	}
	if s.State == Deleting {
		return nil
	}
	readCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	expected := strconv.FormatInt(s.Revision, 10)
	raw, err := r.Store.rdb.HGet(readCtx, keyDoc, id).Bytes()
	if errors.Is(err, redis.Nil) { // Redis lost it, memory did not
		expected = ""
		raw, err = encode(s)
	}
	if err != nil {
		return storeError("read a subscription", err)
	}
	doc, err := patch(raw, map[string]any{"state": Deleting, "revision": s.Revision + 1, "updated_at": Time{time.Now()}})
	if err != nil {
		return err
	}
	return r.swap(ctx, id, expected, s.Revision+1, doc)
}

// Remove takes a subscription that is deleting out of the store. For the owner of its lead partition, after the lanes
// let go and the progress group is deleted. An id that is gone already is no error; Kinds Conflict, StoreDown.
func (r *Registry) Remove(ctx context.Context, id string) error {
	readCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	raw, err := r.Store.rdb.HGet(readCtx, keyDoc, id).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		return storeError("read a subscription", err)
	}
	s, err := decode(id, raw)
	if err != nil {
		return fmt.Errorf("remove a subscription: %w", err)
	}
	if s.State != Deleting {
		return &sluice.Error{Kind: sluice.Conflict, Msg: "The subscription is not being deleted."}
	}
	keys := []string{keyDoc, keyRev, keyGone + id}
	answer, err := bury.Run(readCtx, r.Store.rdb, keys, id, s.Revision, int64(goneFor/time.Second)).Text()
	if err != nil {
		return storeError("remove a subscription", err)
	}
	if answer != "ok" {
		return &sluice.Error{Kind: sluice.Conflict, Msg: "The subscription was changed meanwhile."}
	}
	r.ring(ctx, id, s.Revision)
	return nil
}

// swap writes revision over expected ("" for none) and rings.
func (r *Registry) swap(ctx context.Context, id, expected string, revision int64, doc []byte) error {
	writeCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	keys := []string{keyDoc, keyRev, keyGone + id}
	answer, err := swap.Run(writeCtx, r.Store.rdb, keys, id, expected, revision, doc).Text()
	switch {
	case err != nil:
		return storeError("write a subscription", err)
	case answer != "ok":
		return &sluice.Error{Kind: sluice.Conflict, Msg: "The subscription was changed by somebody else."}
	}
	r.ring(ctx, id, revision)
	return nil
}

// ring is best effort: a bell that is lost costs the others at most one resync.
func (r *Registry) ring(ctx context.Context, id string, revision int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	text, err := json.Marshal(ring{ID: id, Revision: revision, Kind: "doc"})
	if err == nil {
		err = r.Store.rdb.Publish(ctx, bell, text).Err()
	}
	if err != nil {
		r.log.Warn("the bell did not ring; replicas will notice at their next resync", "subscription", id, "error", err)
	}
}

// ring is what the bell says.
type ring struct {
	ID       string `json:"id"`
	Revision int64  `json:"revision"`
	Kind     string `json:"kind"`
}

func notFound() error {
	return &sluice.Error{Kind: sluice.NotFound, Msg: "Subscription not found."}
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

// documents reads many; a missing one is nil.
func (s *Store) documents(ctx context.Context, ids []string) ([][]byte, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	values, err := s.rdb.HMGet(ctx, keyDoc, ids...).Result()
	if err != nil {
		return nil, err
	}
	docs := make([][]byte, len(values))
	for i, v := range values {
		if text, ok := v.(string); ok {
			docs[i] = []byte(strings.Clone(text))
		}
	}
	return docs, nil
}
