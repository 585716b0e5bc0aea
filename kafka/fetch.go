package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

const (
	catchUpClients = 4 // one-shot fetches to one broker run at most this many at a time
	fetchTries     = 5 // of one call: at once, at once again, then after 100, 200 and 400 ms
)

// Fetcher reads partitions: one-shot on the catch-up clients, which never long-poll, and continuously on the live
// client, which does nothing else. It is the Source of the partition log.
type Fetcher struct {
	clients *Clients

	mu        sync.Mutex
	slots     map[int32]*slots // by broker
	consumers map[sluice.Isolation]sarama.Consumer
}

// NewFetcher dials nobody.
func NewFetcher(c *Clients) *Fetcher {
	return &Fetcher{clients: c, slots: map[int32]*slots{}, consumers: map[sluice.Isolation]sarama.Consumer{}}
}

// Fetch reads once, without waiting for a record, what the partition holds from an offset on: about maxBytes, and at
// least one batch. A chunk whose Next is From stands at the end. The chunk owns its memory.
//
// Kinds: OutOfRange, UnknownTopic, UnknownPart, NoLeader, Unavailable. A broker that hangs is given up after the read
// timeout of the connection, which may be later than ctx.
func (f *Fetcher) Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error) {
	n := int32(min(max(maxBytes, 1), f.clients.cfg.FetchMaxBytes))
	for {
		var block *sarama.FetchResponseBlock
		err := f.onLeader(ctx, p, func(broker *sarama.Broker, epoch int32) (err error) {
			block, err = fetchBlock(broker, epoch, p, from, n)
			return err
		})
		if err != nil {
			return sluice.Chunk{}, err
		}
		chunk, cut, err := parseBlock(block, p, from)
		if err != nil {
			return sluice.Chunk{}, kafkaError("fetch "+p.String(), err)
		}
		if !cut {
			return chunk, nil
		}
		// Only message sets of brokers before KIP-74 can come without one whole batch.
		if n >= int32(f.clients.cfg.FetchMaxBytes) {
			return sluice.Chunk{}, &sluice.Error{Kind: sluice.TooLarge, Msg: "A record exceeds kafka-fetch-max-bytes."}
		}
		n = int32(min(max(int(n)*4, 1<<20), f.clients.cfg.FetchMaxBytes))
	}
}

func fetchBlock(broker *sarama.Broker, epoch int32, p sluice.Partition, from int64, n int32) (*sarama.FetchResponseBlock, error) {
	request := &sarama.FetchRequest{
		Version: 12, MinBytes: 1, MaxBytes: n, Isolation: isolation(p.Isolation),
		SessionEpoch: -1, // no fetch session (KIP-227)
	}
	request.AddBlock(p.Topic, p.Number, from, n, epoch)
	response, err := broker.Fetch(request)
	if err != nil {
		return nil, err
	}
	if response.ErrorCode != 0 {
		return nil, sarama.KError(response.ErrorCode)
	}
	block := response.GetBlock(p.Topic, p.Number)
	if block == nil {
		return nil, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return nil, block.Err
	}
	return block, nil
}

// Range asks the leader for both ends; End is the last stable offset when the isolation is ReadCommitted.
func (f *Fetcher) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	var r sluice.Range
	err := f.onLeader(ctx, p, func(broker *sarama.Broker, _ int32) (err error) {
		if r.Start, err = listOffset(broker, p, sarama.OffsetOldest); err != nil {
			return err
		}
		r.End, err = listOffset(broker, p, sarama.OffsetNewest)
		return err
	})
	return r, err
}

func listOffset(broker *sarama.Broker, p sluice.Partition, which int64) (int64, error) {
	request := sarama.NewOffsetRequest(sarama.MaxVersion)
	request.IsolationLevel = isolation(p.Isolation) // client.GetOffset would ignore it
	request.AddBlock(p.Topic, p.Number, which, 1)
	response, err := broker.GetAvailableOffsets(request)
	if err != nil {
		return 0, err
	}
	block := response.GetBlock(p.Topic, p.Number)
	if block == nil {
		return 0, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return 0, block.Err
	}
	return block.Offset, nil
}

// onLeader calls the partition's leader, with the retries that a moved leader and an idle connection need. It gives
// back errors with their Kind.
func (f *Fetcher) onLeader(ctx context.Context, p sluice.Partition, call func(*sarama.Broker, int32) error) error {
	lookup, err := f.clients.client(roleCatchUp, 0)
	if err != nil {
		return kafkaError("open a catch-up client", err)
	}
	for try := 1; ; try++ {
		err = f.once(ctx, lookup, p, call)
		unknown := isUnknown(err)
		if err == nil || ctx.Err() != nil || try == fetchTries || (unknown && try > 1) || !(unknown || leaderMoved(err) || unreachable(err)) {
			break
		}
		if rerr := lookup.RefreshMetadata(p.Topic); rerr != nil {
			err = rerr // no topic, no leader, no broker: a refresh has tried for a while already
			break
		}
		if try > 1 && !sleep(ctx, 50*time.Millisecond<<(try-1)) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case isUnknown(err):
		if numbers, perr := lookup.Partitions(p.Topic); perr == nil && len(numbers) > 0 {
			return &sluice.Error{Kind: sluice.UnknownPart, Msg: "Partition not found.", Err: err}
		}
	}
	return kafkaError("read "+p.String(), err)
}

// once takes a free connection to the leader and calls it.
func (f *Fetcher) once(ctx context.Context, lookup sarama.Client, p sluice.Partition, call func(*sarama.Broker, int32) error) error {
	leader, epoch, err := lookup.LeaderAndEpoch(p.Topic, p.Number)
	if err != nil {
		return err
	}
	n, release, err := f.take(ctx, leader.ID())
	if err != nil {
		return err
	}
	defer release()
	client, err := f.clients.client(roleCatchUp, n)
	if err != nil {
		return err
	}
	broker, err := client.Broker(leader.ID())
	if err == sarama.ErrBrokerNotFound { // this client has not learnt the brokers yet
		if err = client.RefreshMetadata(p.Topic); err == nil {
			broker, err = client.Broker(leader.ID())
		}
	}
	if err != nil {
		return err
	}
	if err = call(broker, epoch); err != nil && unreachable(err) {
		_ = broker.Close() // else it stays open and dead; it is opened again at its next use
	}
	return err
}

// slots are the connections to one broker. Calls on one are served one at a time, so each is lent to one call; who finds
// none free waits in line.
type slots struct {
	free chan int // numbers of catch-up clients
	open int
}

// take lends a connection to a broker, opening clients only as they are needed.
func (f *Fetcher) take(ctx context.Context, broker int32) (n int, release func(), err error) {
	f.mu.Lock()
	s := f.slots[broker]
	if s == nil {
		s = &slots{free: make(chan int, catchUpClients)}
		f.slots[broker] = s
	}
	select {
	case n = <-s.free:
	default:
		n = -1
		if s.open < catchUpClients {
			n = s.open
			s.open++
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

func isUnknown(err error) bool { return err == sarama.ErrUnknownTopicOrPartition }

func isolation(i sluice.Isolation) sarama.IsolationLevel {
	if i == sluice.ReadUncommitted {
		return sarama.ReadUncommitted
	}
	return sarama.ReadCommitted
}

// sleep reports whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
