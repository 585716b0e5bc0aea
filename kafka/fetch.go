package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

const (
	catchUpLinks = 4 // one-shot fetches to one broker run at most this many at a time
	fetchTries   = 5 // of one call: at once, at once again, then after 100, 200 and 400 ms
)

// Fetcher reads partitions: one-shot on connections that never long-poll, and continuously on the live client, which
// does nothing else. It is the Source of the partition log. Safe for concurrent use.
type Fetcher struct {
	clients *Clients
	admin   *Admin
	pool    [catchUpLinks]*brokers // each has one connection to a broker

	mu        sync.Mutex
	slots     map[string]*slots // by broker address
	consumers map[feed]sarama.Consumer
	crowds    map[sluice.Isolation]crowd
}

// NewFetcher dials nobody. Its connections close with c.
func NewFetcher(c *Clients) *Fetcher {
	f := &Fetcher{clients: c, admin: NewAdmin(c), slots: map[string]*slots{}, consumers: map[feed]sarama.Consumer{}, crowds: map[sluice.Isolation]crowd{}}
	for i := range f.pool {
		f.pool[i] = newBrokers(c.config(roleCatchUp), c.dial, c.cfg.Brokers)
		c.closeWith(f.pool[i].close)
	}
	return f
}

// Fetch reads once, without waiting for a record, what the partition holds from an offset on: about maxBytes, and at
// least one batch. A chunk whose Next is From stands at the end. The chunk owns its memory.
//
// Kinds: OutOfRange, UnknownTopic, UnknownPart, NoLeader, Unavailable.
func (f *Fetcher) Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error) {
	for n := min(max(maxBytes, 1), f.clients.cfg.FetchMaxBytes); ; n = min(max(n*4, 1<<20), f.clients.cfg.FetchMaxBytes) {
		block, err := f.block(ctx, p, from, n)
		if err != nil {
			return sluice.Chunk{}, err
		}
		chunk, cut := parseBlock(block, p, from)
		if !cut {
			return chunk, nil
		}
		// Only message sets of brokers before KIP-74 can come without one whole batch.
		if n >= f.clients.cfg.FetchMaxBytes {
			return sluice.Chunk{}, &sluice.Error{Kind: sluice.TooLarge, Msg: "A record exceeds kafka-fetch-max-bytes."}
		}
	}
}

// block fetches from the partition's leader, with the tries that a moved leader and a lost connection need.
func (f *Fetcher) block(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (*sarama.FetchResponseBlock, error) {
	var since time.Time // metadata of any age will do, until a try fails
	for try := 1; ; try++ {
		block, err := f.blockOnce(ctx, p, from, maxBytes, since)
		if err == nil {
			return block, nil
		}
		_, final := errors.AsType[*sluice.Error](err)
		if final || try == fetchTries || !(leaderMoved(err) || unreachable(err) || errors.Is(err, sarama.ErrUnknownTopicOrPartition)) {
			return nil, kafkaError("fetch "+p.String(), err)
		}
		since = time.Now()
		if try > 1 && !pause(ctx, 50*time.Millisecond<<(try-1)) {
			return nil, kafkaError("fetch "+p.String(), err)
		}
	}
}

func (f *Fetcher) blockOnce(ctx context.Context, p sluice.Partition, from int64, maxBytes int, since time.Time) (*sarama.FetchResponseBlock, error) {
	topic, err := f.admin.meta.topic(ctx, p.Topic, since)
	if err != nil {
		return nil, err
	}
	addr, err := f.admin.leader(topic, p.Number)
	if err != nil {
		return nil, err
	}
	n, release, err := f.take(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer release()
	answer, err := askAt(ctx, f.pool[n], addr, (*sarama.Broker).Fetch, func() *sarama.FetchRequest {
		q := &sarama.FetchRequest{
			Version: 12, MinBytes: 1, MaxBytes: int32(maxBytes), Isolation: sarama.ReadUncommitted,
			SessionEpoch: -1, // no fetch session (KIP-227)
		}
		if p.Isolation == sluice.ReadCommitted {
			q.Isolation = sarama.ReadCommitted
		}
		q.AddBlock(p.Topic, p.Number, from, int32(maxBytes), -1)
		return q
	})
	if err != nil {
		return nil, err
	}
	block := answer.GetBlock(p.Topic, p.Number)
	switch {
	case answer.ErrorCode != 0:
		return nil, sarama.KError(answer.ErrorCode)
	case block == nil:
		return nil, sarama.ErrIncompleteResponse
	case block.Err != sarama.ErrNoError:
		return nil, block.Err
	}
	return block, nil
}

// TopicID is the topic's id as it was at most three seconds ago; zero on brokers without ids.
func (f *Fetcher) TopicID(ctx context.Context, topic string) (sluice.TopicID, error) {
	found, err := f.admin.Topic(ctx, topic)
	return found.ID, err
}

// Range is Admin's, so that it waits for no fetch.
func (f *Fetcher) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	return f.admin.Range(ctx, p)
}

// slots are the connections to one broker. Calls on one are served one at a time, so each is lent to one call; who finds
// none free waits in line.
type slots struct {
	free chan int // places in the pool
	used int      // places that were ever lent
}

// take lends a connection to a broker; another one is opened only when all that are open are lent.
func (f *Fetcher) take(ctx context.Context, addr string) (n int, release func(), err error) {
	f.mu.Lock()
	s := f.slots[addr]
	if s == nil {
		s = &slots{free: make(chan int, catchUpLinks)}
		f.slots[addr] = s
	}
	select {
	case n = <-s.free:
	default:
		n = -1
		if s.used < catchUpLinks {
			n = s.used
			s.used++
		}
	}
	f.mu.Unlock()
	if n < 0 {
		select {
		case n = <-s.free:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
	return n, func() { s.free <- n }, nil
}
