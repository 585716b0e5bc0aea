// Package stream serves Server-Sent Events (WHATWG HTML, 9.2) on connections it has taken over from the HTTP server.
//
// A frame is encoded once and shared by all who follow the same partition in the same variant. A feed encodes the end
// of a partition into a chain of segments; a stream is a place in each chain it follows, and writes whole frames from
// there, at most 64 KiB at a time. A stream behind the chains reads blocks of history from the partition log, also
// shared, until its next offset lies in the chain: that is all there is to meeting live, without a hole or a double.
//
// Its id is a sluice.Cursor: the next offset of every partition, opaque to clients. It says where to go on, not what
// was seen, so a client that has seen nothing holds one as well. The server never drops an event to keep up: a client
// that cannot follow is closed, comes back with its id and is served from Kafka. What Kafka does not hold any more is
// announced by a gap event.
//
// Each connection has one owner, the goroutine that writes to it, and a second one that only notices when the client
// is gone. Bells wake the owners, one wheel is the clock of all, and a sweep each second closes what is over a limit.
//
// Who owns what: Streams the registry, the feeds, the bells and what is known of the topics, under one mutex that no
// call to Kafka is made under; a feed its chain; a Stream its places in the chains, its cursor and its buffers.
package stream

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
)

// source is where records come from: partition.Log.
type source interface {
	Read(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (recs []*sluice.Record, next int64, err error)
	Changed(p sluice.Partition) <-chan struct{}
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
}

var _ source = (*partition.Log)(nil)

// topics is what Kafka knows of topics: kafka.Admin. Range asks Kafka itself, where the partition log answers from what
// this replica has seen.
type topics interface {
	ClusterID(ctx context.Context) (string, error)
	Topic(ctx context.Context, name string) (sluice.Topic, error)
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
	OffsetAt(ctx context.Context, p sluice.Partition, t time.Time) (int64, error)
}

// Streams is every stream of this replica.
type Streams struct {
	cfg     Config
	source  source
	topics  topics
	log     *slog.Logger
	metrics *metrics
	blocks  *blocks
	wheel   *wheel
	connect *rate.Limiter
	refresh time.Duration // between two looks at a topic in use

	begin   sync.Once // the first stream starts the sweeper
	ctx     context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup // sweeper, refresher, feeds
	serving sync.WaitGroup // streams

	cluster atomic.Pointer[string]

	mu         sync.Mutex
	draining   bool
	open       map[*Stream]struct{}
	addresses  map[string]int
	catchingUp int
	feeds      map[feedKey]*feed
	feedIDs    int
	bells      map[string]*bell
	known      map[string]*knownTopic
}

type feedKey struct {
	p       sluice.Partition
	variant variant
}

// New starts nothing. Log and reg may be nil.
func New(c Config, log *partition.Log, t topics, logger *slog.Logger, reg prometheus.Registerer) (*Streams, error) {
	return newStreams(c, log, t, logger, reg)
}

func newStreams(c Config, src source, t topics, logger *slog.Logger, reg prometheus.Registerer) (*Streams, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Streams{
		cfg: c, source: src, topics: t, log: logger, metrics: newMetrics(reg), blocks: newBlocks(blockBytes),
		// A wheel of one-second slots serves a lifetime of minutes; a shorter one needs finer slots to spread over.
		wheel:   newWheel(max(10*time.Millisecond, min(time.Second, c.Lifetime/64)), time.Now()),
		connect: rate.NewLimiter(rate.Limit(c.ConnectRate), 2*c.ConnectRate),
		refresh: 30 * time.Second,
		open:    map[*Stream]struct{}{}, addresses: map[string]int{},
		feeds: map[feedKey]*feed{}, bells: map[string]*bell{}, known: map[string]*knownTopic{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if most := openFiles(); most < uint64(c.MaxStreams)+spareFiles {
		logger.Warn("the limit of open files is below what the streams may need", slog.Uint64("nofile", most), slog.Int("sse_max_streams", c.MaxStreams))
	}
	return s, nil
}

// spareFiles is what the rest of the process opens.
const spareFiles = 1000

// Stop drains: new streams are refused, those that are open are told to reconnect, in slices over the configured time
// or what ctx leaves of it, and then the feeds end. Few streams take less time. When ctx ends, what is left is cut.
func (s *Streams) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	left := make([]*Stream, 0, len(s.open))
	for st := range s.open {
		left = append(left, st)
	}
	s.mu.Unlock()
	rand.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	s.farewells(ctx, left)

	done := make(chan struct{})
	go func() { s.serving.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		for _, st := range left {
			st.cut()
		}
		<-done
		err = fmt.Errorf("stop streams: %w", ctx.Err())
	}
	s.cancel()
	s.workers.Wait()
	return err
}

const (
	drainSlice = 50 * time.Millisecond
	drainRate  = 100              // streams a second, if the time is long enough
	drainLeave = 2 * time.Second  // of the time that ctx allows, for the last farewells to be written
	cutGrace   = time.Second      // between asking a stream to end and cutting its connection
	claimGrace = 10 * time.Second // an admitted stream whose connection was never handed over is given up
)

// farewells ends streams in slices: all at once, they would be a storm of connects for the other replicas.
func (s *Streams) farewells(ctx context.Context, left []*Stream) {
	window := min(s.cfg.Drain, time.Duration(len(left))*time.Second/drainRate)
	if end, ok := ctx.Deadline(); ok {
		window = max(0, min(window, time.Until(end)-drainLeave))
	}
	begun := time.Now()
	tick := time.NewTicker(drainSlice)
	defer tick.Stop()
	for done := 0; done < len(left); {
		due := len(left)
		if past := time.Since(begun); past < window {
			due = int(int64(len(left)) * int64(past) / int64(window))
		}
		for ; done < due; done++ {
			left[done].end(endDrain)
		}
		if done < len(left) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				window = 0
			}
		}
	}
}

// acquireFeed gives the feed of a partition in a variant, a new one that begins at end if there is none.
func (s *Streams) acquireFeed(p sluice.Partition, v variant, end int64) *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := feedKey{p, v}
	f := s.feeds[key]
	if f == nil {
		s.feedIDs++
		f = &feed{id: s.feedIDs, p: p, variant: v, streams: s, events: s.metrics.events.WithLabelValues(s.metrics.topicLabel(p.Topic))}
		f.tail = newSegment(end, 0, smallSegment)
		f.oldest = f.tail
		f.head.Store(end)
		ctx, cancel := context.WithCancel(s.ctx)
		f.stop = cancel
		s.feeds[key] = f
		s.workers.Go(func() { f.run(ctx) })
	}
	f.users++
	return f
}

func (s *Streams) releaseFeed(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.users--; f.users == 0 {
		f.unused = time.Now()
	}
}

// acquireBell gives the bell of a set of feeds; the caller must use the feeds.
func (s *Streams) acquireBell(feeds []*feed) *bell {
	key := make([]byte, 0, 8*len(feeds))
	for _, f := range feeds {
		key = fmt.Appendf(key, "%d ", f.id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bells[string(key)]
	if b == nil {
		b = newBell(s.cfg.Coalesce)
		b.key, b.feeds = string(key), feeds
		s.bells[b.key] = b
		for _, f := range feeds {
			f.mu.Lock()
			f.bells = append(f.bells[:len(f.bells):len(f.bells)], b) // a ringer may be walking over the old one
			f.mu.Unlock()
		}
	}
	b.users++
	return b
}

func (s *Streams) releaseBell(b *bell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.users--; b.users > 0 {
		return
	}
	delete(s.bells, b.key)
	for _, f := range b.feeds {
		f.mu.Lock()
		var rest []*bell
		for _, other := range f.bells {
			if other != b {
				rest = append(rest, other)
			}
		}
		f.bells = rest
		f.mu.Unlock()
	}
}

func (s *Streams) encoder(p sluice.Partition, v variant) *encoder {
	return newEncoder(p, v, s.cfg.MaxRecordBytes, s.metrics.gaps.WithLabelValues(s.metrics.topicLabel(p.Topic), string(tooLarge)))
}

func (s *Streams) panicked(where string, v any, stack []byte) {
	s.metrics.panics.Inc()
	s.log.Error("panic", slog.String("where", where), slog.Any("value", v), slog.String("stack", string(stack)))
}

// Serve runs the stream on a connection until either ends, and closes it. head is the head of the HTTP response. The
// caller has given the connection away; it calls Serve in a goroutine of its own.
func (st *Stream) Serve(conn net.Conn, head []byte) {
	defer conn.Close()
	if !st.claimed.CompareAndSwap(false, true) {
		return // it came too late and the slot is somebody else's
	}
	defer st.Release()
	defer func() {
		if v := recover(); v != nil {
			st.streams.panicked("stream", v, debug.Stack())
		}
	}()
	st.serve(conn, head)
}
