package e2e

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// commit is one statement of a lane about its progress, as Kafka got it.
type commit struct {
	At        time.Time
	Partition int32
	Offset    int64
	Mark      progress.Mark
	Ours      bool // the metadata is Sluice's
}

// commits is every commit of one group since watchCommits was called, in Kafka's order.
type commits struct {
	mu  sync.Mutex
	all []commit
}

func (c *commits) add(partition int32, offset int64, metadata string) {
	mark, _, err := progress.Decode(offset, metadata)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, commit{At: time.Now(), Partition: partition, Offset: offset, Mark: mark, Ours: err == nil})
}

func (c *commits) list() []commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// watchCommits listens in: on the embedded Kafka to the requests, on a real one to the topic that they end in.
func watchCommits(t *testing.T, k *backend.Broker, group string) *commits {
	t.Helper()
	c := &commits{}
	if fake := k.Fake(); fake != nil {
		fake.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
			fake.KeepControl()
			if ask, ok := r.(*kmsg.OffsetCommitRequest); ok && ask.Group == group {
				for _, topic := range ask.Topics {
					for _, p := range topic.Partitions {
						metadata := ""
						if p.Metadata != nil {
							metadata = *p.Metadata
						}
						c.add(p.Partition, p.Offset, metadata)
					}
				}
			}
			return nil, nil, false
		})
		return c
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.ConsumeTopics("__consumer_offsets"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadUncommitted()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				var key kmsg.OffsetCommitKey
				var value kmsg.OffsetCommitValue
				if len(r.Value) == 0 || key.ReadFrom(r.Key) != nil || key.Version > 1 || key.Group != group || value.ReadFrom(r.Value) != nil {
					return // a deleted offset, a group's own record, or another group's
				}
				c.add(key.Partition, value.Offset, value.Metadata)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		reading.Wait()
		client.Close()
	})
	return c
}

// noneLate fails the test when somebody committed for a partition after his successor had: terms grow, always.
func (c *commits) noneLate(t *testing.T) {
	t.Helper()
	highest := map[int32]progress.Mark{}
	for _, one := range c.list() {
		high, known := highest[one.Partition]
		switch {
		case !one.Ours:
			t.Errorf("partition %d: a commit of %d with metadata that is not ours", one.Partition, one.Offset)
		case known && one.Mark.Term < high.Term:
			t.Errorf("partition %d: a commit of %d in term %d after one in term %d", one.Partition, one.Offset, one.Mark.Term, high.Term)
		case known && one.Mark.Term == high.Term && one.Mark.Writer != high.Writer:
			t.Errorf("partition %d: two writers in term %d", one.Partition, one.Mark.Term)
		default:
			highest[one.Partition] = one.Mark
		}
	}
}
