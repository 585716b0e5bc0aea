// Package partition is the one reader of Kafka's partitions. Whoever pushes or pulls records (a webhook lane, an SSE
// stream, a pull consumer, a replay) owns a number, the next offset it wants, and asks the Log for what lies there. It
// attaches to nothing: one that falls behind reads older offsets until it is back at the end, a paused one costs
// nothing, and to seek is to set the number. Kafka is the buffer. No reader blocks another or the feed, and none has a
// queue.
//
// Read answers from the first that holds the offset:
//
//   - the ring, the newest records of a followed partition. One live fetch per partition fills it, however many read.
//     All rings share a budget: above it, those that grow give way.
//   - the cache, chunks that were read before: one LRU by bytes over all partitions.
//   - a fetch. Readers of nearby offsets share it.
//
// A partition is followed from the first call of Changed until a minute after the last call, or the last Read near the
// end. Chunks are immutable once a reader has seen them; a slice that Read gives out is shared with everybody.
//
// What is in memory belongs to one topic, not to a name: see identify, which is asked before the cache is.
package partition

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

// Source is where partitions are read from. partitiontest has its contract as a test.
type Source interface {
	// TopicID is the topic's id (KIP-516) as it was a few seconds ago at most; zero where Kafka has none.
	TopicID(ctx context.Context, topic string) (sluice.TopicID, error)
	// Range asks for the ends, with the isolation.
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
	// Fetch reads once and waits for no record. The chunk begins at from; its Next is from only at the end.
	Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error)
	// Follow hands chunks to add as records come, each beginning where the one before ended, the first one empty. It
	// returns nil when ctx ends, else an error.
	Follow(ctx context.Context, p sluice.Partition, from int64, add func(sluice.Chunk)) error
}

// Log reads any partition from any offset. One Log serves a process.
type Log struct {
	cfg     Config
	source  Source
	log     *slog.Logger
	metrics *metrics
	store   *store
	rings   int // bytes, of all

	ctx    context.Context // ends with Stop; fetches and tails live in it
	cancel context.CancelFunc

	mu       sync.RWMutex // before a tail's, which is before the store's, which is before life
	tails    map[sluice.Partition]*tail
	followed atomic.Int64               // how many tails
	leaving  map[sluice.Partition]*tail // not followed any more, but their Follow has not returned

	life    sync.Mutex
	stopped bool
	work    sync.WaitGroup
}

// New reads nothing and starts nothing. Log and reg may be nil.
func New(c Config, s Source, log *slog.Logger, reg prometheus.Registerer) (*Log, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("partition log: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: c, source: s, log: log, tails: map[sluice.Partition]*tail{}, leaving: map[sluice.Partition]*tail{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("partition log: %w", err)
	}
	l.metrics = m
	l.store, l.rings = newStore(c.CacheBytes, m), c.rings()
	return l, nil
}

// Read gives records from an offset on, about maxBytes of keys, values and headers and at least one record, and the
// offset to go on from. It never waits for a record: nothing, with next == from, means "at the end, wait for Changed";
// nothing, with next > from, that a gap was passed (compaction, transactions). The records are shared: nobody changes
// one.
//
// Kinds: OutOfRange, which is below the start or above the end of what Kafka has, never merely above what this replica
// has seen; and those of the Source.
func (l *Log) Read(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (recs []*sluice.Record, next int64, err error) {
	if from < 0 {
		return nil, from, outOfRange(from, nil)
	}
	for turn := range 8 {
		if t := l.tail(p); t != nil {
			if recs, next, ok := t.read(from, maxBytes); ok {
				l.metrics.fromRing.Inc()
				return recs, next, nil
			}
		}
		near := int64(neighbours)
		if turn > 1 {
			near = 0 // the fetches of neighbours did not reach this far
		}
		c, hit, err := l.chunk(ctx, p, from, maxBytes, near)
		if err != nil {
			return nil, from, err
		}
		if recs, next, ok := c.cut(from, maxBytes); ok {
			if hit {
				l.metrics.fromCache.Inc()
			} else {
				l.metrics.fromFetch.Inc()
			}
			return recs, next, nil
		}
	}
	return nil, from, &sluice.Error{Kind: sluice.Retriable, Msg: "The partition moved while it was read.", RetryAfter: time.Second}
}

// Changed is closed when the end of the partition moves, and sometimes without a reason. Take it before Read, or a
// record that comes in between wakes nobody. Asking makes this replica follow the partition.
func (l *Log) Changed(p sluice.Partition) <-chan struct{} {
	l.mu.RLock()
	if t := l.tails[p]; t != nil {
		defer l.mu.RUnlock()
		return t.ask()
	}
	l.mu.RUnlock()

	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.tails[p]
	if t == nil {
		t = newTail(l, p, l.leaving[p])
		if !l.spawn(t.run) {
			t.alarm.Stop()
			return closedBell
		}
		l.tails[p] = t
		l.followed.Store(int64(len(l.tails)))
	}
	return t.ask()
}

// ringBytes is how much a ring that has just grown may hold. A ring that is quiet keeps what it has, so all of them
// together come to twice their budget at the most.
func (l *Log) ringBytes() int {
	if l.metrics.ringBytes.Load() <= int64(l.rings) {
		return l.cfg.RingBytes
	}
	return min(l.cfg.RingBytes, max(leastRing, l.rings/max(1, int(l.followed.Load()))))
}

// Range is what the partition holds. Of a followed one the end is where its ring ends, and the start may be half a
// minute old; of another both are asked for, once for all who ask at the same time.
func (l *Log) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	if t := l.tail(p); t != nil {
		if r, ok := t.known(); ok {
			return r, nil
		}
	}
	return l.ends(ctx, p)
}

// Stop ends following and fetching and waits for both, at most until ctx ends. Readers fail with Unavailable.
func (l *Log) Stop(ctx context.Context) error {
	l.life.Lock()
	l.stopped = true
	l.life.Unlock()
	l.mu.Lock()
	for p, t := range l.tails {
		l.drop(p, t)
	}
	l.mu.Unlock()
	l.cancel()
	done := make(chan struct{})
	go func() {
		l.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the partition log: %w", ctx.Err())
	}
}

func (l *Log) tail(p sluice.Partition) *tail {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.tails[p]
}

// spawn starts work that Stop waits for, unless Stop was called.
func (l *Log) spawn(work func()) bool {
	l.life.Lock()
	defer l.life.Unlock()
	if l.stopped {
		return false
	}
	l.work.Go(work)
	return true
}

func outOfRange(from int64, err error) error {
	return &sluice.Error{Kind: sluice.OutOfRange, Msg: fmt.Sprintf("Offset %d is out of range.", from), Err: err}
}

func stopping() error {
	return &sluice.Error{Kind: sluice.Unavailable, Msg: "The server is shutting down.", RetryAfter: time.Second}
}
