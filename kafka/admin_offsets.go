package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// Range is what the partition holds for its isolation: up to the high watermark or the last stable offset. Kind
// UnknownTopic, UnknownPart, NoLeader, Unavailable.
func (a *Admin) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	start, err := a.listOffset(ctx, p, sarama.OffsetOldest)
	if err != nil {
		return sluice.Range{}, err
	}
	end, err := a.listOffset(ctx, p, sarama.OffsetNewest)
	if err != nil {
		return sluice.Range{}, err
	}
	return sluice.Range{Start: min(start, end), End: end}, nil // a delete between the two may move the start
}

// OffsetAt is the first offset whose record has the time t or a later one, the end of the partition when there is none.
func (a *Admin) OffsetAt(ctx context.Context, p sluice.Partition, t time.Time) (int64, error) {
	offset, err := a.listOffset(ctx, p, max(t.UnixMilli(), 0)) // below 0 are Kafka's words for start and end
	if err != nil || offset >= 0 {
		return offset, err
	}
	return a.listOffset(ctx, p, sarama.OffsetNewest) // Kafka says -1 for "nothing so late", and no error
}

// listOffset asks the partition's leader, and once more where it moved.
func (a *Admin) listOffset(ctx context.Context, p sluice.Partition, at int64) (int64, error) {
	doing := "list offsets of " + p.String()
	since := fresh()
	const tries = 5
	for try := 1; ; try++ {
		offset, err := a.listOffsetOnce(ctx, p, at, since)
		if err == nil || try == tries || !(leaderMoved(err) || unreachable(err)) {
			return offset, kafkaError(doing, err)
		}
		since = time.Now()
		if !pause(ctx, backoff(try)/2) {
			return 0, kafkaError(doing, ctx.Err())
		}
	}
}

func (a *Admin) listOffsetOnce(ctx context.Context, p sluice.Partition, at int64, since time.Time) (int64, error) {
	topic, err := a.meta.topic(ctx, p.Topic, since)
	if err != nil {
		return 0, err
	}
	addr, err := a.leader(topic, p.Number)
	if err != nil {
		return 0, err
	}
	answer, err := askAt(ctx, a.meta.brokers, addr, (*sarama.Broker).GetAvailableOffsets, func() *sarama.OffsetRequest {
		q := sarama.NewOffsetRequest(sarama.MaxVersion)
		if p.Isolation == sluice.ReadCommitted {
			q.IsolationLevel = sarama.ReadCommitted
		}
		q.AddBlock(p.Topic, p.Number, at, 1)
		return q
	})
	if err != nil {
		return 0, err
	}
	block := answer.GetBlock(p.Topic, p.Number)
	switch {
	case block == nil:
		return 0, sarama.ErrIncompleteResponse
	case block.Err != sarama.ErrNoError:
		return 0, block.Err
	}
	return block.Offset, nil
}

// leader is the address of a partition's leader.
func (a *Admin) leader(topic sluice.Topic, number int32) (string, error) {
	if number < 0 || int(number) >= len(topic.Partitions) {
		return "", &sluice.Error{Kind: sluice.UnknownPart, Msg: "Partition not found.", Err: fmt.Errorf("%s/%d", topic.Name, number)}
	}
	if addr := a.meta.address(topic.Partitions[number].Leader); addr != "" {
		return addr, nil
	}
	return "", sarama.ErrLeaderNotAvailable
}
