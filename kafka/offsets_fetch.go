package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice"
)

// groupBatch is how many groups one OffsetFetch asks for, where the broker (3.0 or later) takes more than one.
const groupBatch = 500

// Group reads what a group has committed for the given partitions, in their order: NoOffset where it is nothing, and
// for a group that does not exist.
func (o *Offsets) Group(ctx context.Context, group string, parts []sluice.Partition) ([]sluice.Commit, error) {
	want := map[string][]int32{}
	for _, p := range parts {
		want[p.Topic] = append(want[p.Topic], p.Number)
	}
	commits := make([]sluice.Commit, len(parts))
	if len(parts) == 0 {
		return commits, nil
	}
	err := o.persist(ctx, group, func(ctx context.Context, addr string) error {
		ask := sarama.NewOffsetFetchRequest(o.cfg.Version, group, want)
		answer, err := exchange(ctx, o, slotOf(group), addr, (*sarama.Broker).FetchOffset, ask)
		if err != nil {
			return err
		}
		for i, p := range parts {
			if commits[i], err = committed(p, answer.GroupError(), answer.GetBlock(p.Topic, p.Number)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, kafkaError("read offsets of group "+group, err)
	}
	return commits, nil
}

// committed turns one answer into a commit. Kafka says "offset -1" for nothing; kfake, and Kafka for some groups, says
// that there is no such group.
func committed(p sluice.Partition, group sarama.KError, block *sarama.OffsetFetchResponseBlock) (sluice.Commit, error) {
	c := sluice.Commit{Topic: p.Topic, Partition: p.Number, Offset: sluice.NoOffset}
	switch {
	case group == sarama.ErrGroupIDNotFound:
	case group != sarama.ErrNoError:
		return c, group
	case block == nil:
	case block.Err != sarama.ErrNoError:
		return c, block.Err
	case block.Offset >= 0:
		c.Offset, c.Metadata = block.Offset, block.Metadata
	}
	return c, nil
}

// Groups reads what many groups have committed for one partition. A group that is missing in the answer could not be
// read; the error is that of one of them. The others are right.
func (o *Offsets) Groups(ctx context.Context, p sluice.Partition, groups []string) (map[string]sluice.Commit, error) {
	found := &reading{commits: make(map[string]sluice.Commit, len(groups))}
	for addr, here := range o.byCoordinator(ctx, groups, found) {
		found.again = append(found.again, o.batches(ctx, p, addr, here, found)...)
	}
	// What a batch did not answer for (a coordinator that moved, a broker before 3.0) is asked one by one.
	single := errgroup.Group{}
	single.SetLimit(offsetLines)
	for _, group := range found.again {
		single.Go(func() error {
			commits, err := o.Group(ctx, group, []sluice.Partition{p})
			if err != nil {
				found.fail(err)
				return nil
			}
			found.put(group, commits[0])
			return nil
		})
	}
	_ = single.Wait() // errors are in found
	return found.commits, found.err
}

// reading collects what several calls find.
type reading struct {
	mu      sync.Mutex
	commits map[string]sluice.Commit
	again   []string
	err     error
}

func (r *reading) put(group string, c sluice.Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commits[group] = c
}

func (r *reading) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = cmp.Or(r.err, err)
}

// byCoordinator looks up where the groups live; those whose coordinator is not found at once are left for later.
func (o *Offsets) byCoordinator(ctx context.Context, groups []string, found *reading) map[string][]string {
	where := map[string][]string{}
	for _, group := range groups {
		addr, err := o.coordinator(ctx, group)
		if err != nil {
			found.again = append(found.again, group)
			continue
		}
		where[addr] = append(where[addr], group)
	}
	return where
}

// batches asks one coordinator for its groups, a batch at a time on the lines in turn, and returns those it has no
// answer for.
func (o *Offsets) batches(ctx context.Context, p sluice.Partition, addr string, groups []string, found *reading) (again []string) {
	slot := 0
	for batch := range slices.Chunk(groups, groupBatch) {
		ask := sarama.NewOffsetFetchRequest(o.cfg.Version, "", nil)
		ask.Groups = ask.Groups[:0]
		for _, group := range batch {
			ask.Groups = append(ask.Groups, sarama.OffsetFetchRequestGroup{GroupId: group, Partitions: map[string][]int32{p.Topic: {p.Number}}})
		}
		answer, err := exchange(ctx, o, slot%offsetLines, addr, (*sarama.Broker).FetchOffset, ask)
		slot++
		if err != nil {
			again = append(again, batch...)
			if _, old := errors.AsType[sarama.PacketEncodingError](err); !old {
				o.forgetAll(batch)
			}
			continue
		}
		for _, group := range batch {
			one := answer.GetGroup(group)
			if one == nil {
				again = append(again, group)
				continue
			}
			c, err := committed(p, one.Err, one.GetBlock(p.Topic, p.Number))
			switch {
			case err == nil:
				found.put(group, c)
			case elsewhere(err):
				o.forget(group)
				again = append(again, group)
			default:
				found.fail(kafkaError(fmt.Sprintf("read offsets of group %s", group), err))
			}
		}
	}
	return again
}

func (o *Offsets) forgetAll(groups []string) {
	for _, group := range groups {
		o.forget(group)
	}
}
