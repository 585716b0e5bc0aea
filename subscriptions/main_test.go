package subscriptions

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// numbers stands in for Kafka: what a topic's partitions hold and what was committed.
type numbers struct {
	topics map[string][]sluice.Range

	mu        sync.Mutex
	committed []sluice.GroupCommit
	refuse    error
}

func (k *numbers) Topic(_ context.Context, name string) (sluice.Topic, error) {
	spans, there := k.topics[name]
	if !there {
		return sluice.Topic{}, &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}
	}
	t := sluice.Topic{Name: name, ID: sluice.TopicID{1, 2, 3}}
	for i := range spans {
		t.Partitions = append(t.Partitions, sluice.PartitionState{Number: int32(i)})
	}
	return t, nil
}

func (k *numbers) Range(_ context.Context, p sluice.Partition) (sluice.Range, error) {
	if p.Isolation != sluice.ReadCommitted {
		return sluice.Range{}, errors.New("asked with the wrong isolation")
	}
	return k.topics[p.Topic][p.Number], nil
}

// OffsetAt has one record a second since 1970, and like Kafka nothing for the future.
func (k *numbers) OffsetAt(_ context.Context, p sluice.Partition, at time.Time) (int64, error) {
	if at.After(time.Now()) {
		return -1, nil
	}
	return min(k.topics[p.Topic][p.Number].Start+at.Unix(), k.topics[p.Topic][p.Number].End), nil
}

func (k *numbers) Commit(_ context.Context, c sluice.GroupCommit) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.committed = append(k.committed, c)
	errs := make([]error, len(c.Commits))
	if k.refuse != nil {
		errs[len(errs)-1] = k.refuse
	}
	return errs
}

// gate refuses one URL.
type gate string

func (g gate) Check(_ context.Context, url string) error {
	if url == string(g) {
		return &sluice.Error{Kind: sluice.Invalid, Msg: "refused"}
	}
	return nil
}

type house struct {
	kafka    *numbers
	server   *backend.Server
	store    *Store
	book     *Book
	registry *Registry
}

func open(t *testing.T) *house {
	t.Helper()
	h := &house{kafka: &numbers{topics: map[string][]sluice.Range{"orders": {{Start: 5, End: 10}, {Start: 0, End: 7}, {}}, "users": {{Start: 1, End: 2}}}}}
	h.server = backend.RedisServer(t)
	h.store = storeAt(t, h.server.URL)
	h.book = newBook(t, h.store)
	var err error
	h.registry, err = NewRegistry(Needs{Store: h.store, Book: h.book, Topics: h.kafka, Offsets: h.kafka, Commits: h.kafka, Guard: gate("https://10.0.0.1/")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func storeAt(t *testing.T, url string) *Store {
	t.Helper()
	s, err := OpenStore(Config{RedisURL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newBook(t *testing.T, s *Store) *Book {
	t.Helper()
	b, err := NewBook(s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// follow runs a book until the test ends and waits for its first load.
func follow(t *testing.T, b *Book) *Book {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	ready, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if err := b.Ready(ready); err != nil {
		t.Fatalf("the book did not load: %v", err)
	}
	return b
}

func (h *house) create(t *testing.T) *Subscription {
	t.Helper()
	s, err := h.registry.Create(t.Context(), "ann", []byte(`{"source":{"topics":["orders"]},"endpoint":{"url":"https://example.com/hook"}}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // between looks, not instead of them
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
