package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// commitBytes is how much metadata one request carries. The broker appends a request as one batch: above about 1 MiB
// every partition of it fails with UNKNOWN_SERVER_ERROR (measured on 4.1).
const commitBytes = 512 << 10

// Commit stores the offsets and answers for each in its place: nil is stored. With Member "" and Generation -1 it is
// standalone, and StaleSession then means that a foreign consumer is in the group. TooLarge means its metadata.
func (o *Offsets) Commit(ctx context.Context, g sluice.GroupCommit) []error {
	errs := make([]error, len(g.Commits))
	for from := 0; from < len(g.Commits); {
		to, bytes := from, 0
		for to < len(g.Commits) && (to == from || bytes+len(g.Commits[to].Metadata) <= commitBytes) {
			bytes += len(g.Commits[to].Metadata)
			to++
		}
		o.commit(ctx, g, g.Commits[from:to], errs[from:to])
		from = to
	}
	for i, err := range errs {
		errs[i] = kafkaError(fmt.Sprintf("commit %s/%d of group %s", g.Commits[i].Topic, g.Commits[i].Partition, g.Group), err)
	}
	return errs
}

// commit stores some of the commits with one request. A request that is too large for the broker all the same fails
// with an error that does not say so; its halves are tried.
func (o *Offsets) commit(ctx context.Context, g sluice.GroupCommit, some []sluice.Commit, errs []error) {
	err := o.persist(ctx, g.Group, func(ctx context.Context, addr string) error {
		ask := sarama.NewOffsetCommitRequest(o.cfg, g.Group)
		ask.ConsumerID, ask.ConsumerGroupGeneration = g.Member, g.Generation
		for _, c := range some {
			// A leader epoch of 0, which AddBlock writes, is one that other consumers would hold the log against.
			ask.AddBlockWithLeaderEpoch(c.Topic, c.Partition, c.Offset, -1, 0, c.Metadata)
		}
		answer, err := exchange(ctx, o, slotOf(g.Group), addr, (*sarama.Broker).CommitOffset, ask)
		if err != nil {
			return err
		}
		for i, c := range some {
			errs[i] = nil
			code, answered := answer.Errors[c.Topic][c.Partition]
			switch {
			case !answered:
				errs[i] = fmt.Errorf("the broker did not answer for it: %w", sarama.ErrIncompleteResponse)
			case elsewhere(code):
				return code // the group's trouble, not the partition's
			case code != sarama.ErrNoError:
				errs[i] = code
			}
		}
		return nil
	})
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return
	}
	if len(some) > 1 && unknownServerError(errs) {
		half := len(some) / 2
		o.commit(ctx, g, some[:half], errs[:half])
		o.commit(ctx, g, some[half:], errs[half:])
	}
}

func unknownServerError(errs []error) bool {
	return slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, sarama.ErrUnknown) })
}
