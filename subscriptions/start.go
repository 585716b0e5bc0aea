package subscriptions

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice"
)

const (
	resolveTimeout = 10 * time.Second
	resolveAtOnce  = 8
)

// resolve turns start_from into one offset per partition. Start offsets that do not fit the topic are an *Invalid.
func (r *Registry) resolve(ctx context.Context, s *Subscription) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var f faults
	s.Source.Resolved = map[string]Resolved{}
	for _, name := range s.Source.Topics {
		topic, err := r.Topics.Topic(ctx, name)
		if err != nil {
			return err // UnknownTopic and all else carry their own words
		}
		offsets, err := r.resolveTopic(ctx, s.Source, topic, &f)
		if err != nil {
			return err
		}
		s.Source.Resolved[name] = Resolved{ID: topic.ID, Offsets: offsets}
	}
	return f.err(false)
}

func (r *Registry) resolveTopic(ctx context.Context, src Source, topic sluice.Topic, f *faults) (map[int32]int64, error) {
	path := "source.start_offsets." + topic.Name
	for number := range src.StartOffsets[topic.Name] {
		if int(number) >= len(topic.Partitions) {
			f.add(fmt.Sprintf("%s.%d", path, number), "is no partition of the topic, which has %d", len(topic.Partitions))
		}
	}
	found := make([]int64, len(topic.Partitions))
	wrong := make([]string, len(topic.Partitions))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(resolveAtOnce)
	for i := range topic.Partitions {
		p := sluice.Partition{Topic: topic.Name, Number: int32(i)}
		group.Go(func() (err error) {
			found[i], wrong[i], err = r.resolvePartition(ctx, src, p)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	offsets := make(map[int32]int64, len(found))
	for i, offset := range found {
		if wrong[i] != "" {
			f.add(fmt.Sprintf("%s.%d", path, i), "%s", wrong[i])
		}
		offsets[int32(i)] = offset
	}
	return offsets, nil
}

func (r *Registry) resolvePartition(ctx context.Context, src Source, p sluice.Partition) (offset int64, wrong string, err error) {
	span, err := r.Offsets.Range(ctx, p)
	if err != nil {
		return 0, "", err
	}
	switch src.StartFrom {
	case FromEarliest:
		return span.Start, "", nil
	case FromTimestamp:
		offset, err := r.Offsets.OffsetAt(ctx, p, src.StartTimestamp.Time)
		if err == nil && (offset < 0 || offset > span.End) {
			offset = span.End // Kafka answers a time in the future with -1 and no error
		}
		return offset, "", err
	case FromOffsets:
		offset, given := src.StartOffsets[p.Topic][p.Number]
		switch {
		case !given:
			return 0, "is required: the topic has this partition", nil
		case offset < span.Start || offset > span.End:
			return 0, fmt.Sprintf("lies outside the log, which reaches from %d to %d", span.Start, span.End), nil
		}
		return offset, "", nil
	}
	return span.End, "", nil
}

// pin commits the resolved offsets, so that the position exists before the subscription does.
func (r *Registry) pin(ctx context.Context, s *Subscription) error {
	c := sluice.GroupCommit{Group: s.ProgressGroup(), Generation: -1}
	for _, topic := range s.Source.Topics {
		for number, offset := range s.Source.Resolved[topic].Offsets {
			c.Commits = append(c.Commits, sluice.Commit{Topic: topic, Partition: number, Offset: offset})
		}
	}
	for _, err := range r.Commits.Commit(ctx, c) {
		if err != nil {
			return fmt.Errorf("commit the start of %s: %w", s.ID, err)
		}
	}
	return nil
}
