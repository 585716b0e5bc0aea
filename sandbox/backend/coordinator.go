package backend

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const offsetsTopic = "__consumer_offsets"

// AwaitCoordinator waits until Kafka names another coordinator of a group than node but, and then until that one serves:
// since 4.0 a coordinator answers not even a heartbeat before its log is replicated, which may take seconds more (an
// in-sync replica too few, for example). It asks with clients of its own, which remember nothing, and never node but,
// which may hang. topic is any that exists.
func (b *Broker) AwaitCoordinator(t testing.TB, group, topic string, but int) (named, serving time.Time) {
	t.Helper()
	var node int
	await(t, time.Minute, "Kafka names another coordinator", func() bool {
		node = b.coordinator(t, group, but)
		return node != 0 && node != but
	})
	named = time.Now()
	partitions := 0
	await(t, time.Minute, "Kafka describes its offsets topic", func() bool {
		partitions = len(b.describe(t, offsetsTopic, but))
		return partitions > 0
	})
	neighbour := group + ".0"
	for i := 1; offsetsPartition(neighbour, partitions) != offsetsPartition(group, partitions); i++ {
		neighbour = fmt.Sprint(group, ".", i)
	}
	for {
		if now := b.coordinator(t, group, but); now != 0 && now != but {
			node = now
		}
		err := b.store(t, node, neighbour, topic)
		if err == nil {
			break
		}
		if time.Since(named) > time.Minute {
			t.Fatalf("node %d coordinates %s and stores no commit: %v; %s", node, group, err, b.inSync(t, but))
		}
		time.Sleep(20 * time.Millisecond)
	}
	serving = time.Now()
	t.Logf("node %d coordinates %s; it served %v after it was named", node, group, serving.Sub(named).Round(time.Millisecond))
	return named, serving
}

// AwaitInSync waits until every partition of the topics, and of the one that Kafka keeps offsets in, has all its replicas
// in sync: the next fault shall be the only one.
func (b *Broker) AwaitInSync(t testing.TB, topics ...string) {
	t.Helper()
	await(t, 90*time.Second, "all replicas are in sync", func() bool {
		for _, name := range append(topics, offsetsTopic) {
			partitions := b.describe(t, name, 0)
			for _, p := range partitions {
				if len(p.ISR) < len(p.Replicas) || p.Leader < 0 {
					return false
				}
			}
			if len(partitions) == 0 {
				return false
			}
		}
		return true
	})
}

func await(t testing.TB, within time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// coordinator is the node that is named, 0 for none.
func (b *Broker) coordinator(t testing.TB, group string, but int) int {
	t.Helper()
	ask := kmsg.NewPtrFindCoordinatorRequest()
	ask.CoordinatorKey, ask.CoordinatorKeys = group, []string{group}
	answer, err := b.ask(t, ask, b.except(but))
	if err != nil {
		return 0
	}
	found := answer.(*kmsg.FindCoordinatorResponse)
	switch {
	case found.Version < 4 && found.ErrorCode == 0: // before KIP-699 there is one answer
		return int(found.NodeID)
	case len(found.Coordinators) == 1 && found.Coordinators[0].ErrorCode == 0:
		return int(found.Coordinators[0].NodeID)
	}
	return 0
}

// inSync is how the partitions that Kafka keeps offsets in stand, for a message.
func (b *Broker) inSync(t testing.TB, but int) (all string) {
	t.Helper()
	for _, p := range b.describe(t, offsetsTopic, but) {
		all += fmt.Sprintf(" %d: leader %d, in sync %v;", p.Partition, p.Leader, p.ISR)
	}
	return all
}

func (b *Broker) store(t testing.TB, node int, group, topic string) error {
	t.Helper()
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = group, -1
	one, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	one.Topic, one.Partitions = topic, append(one.Partitions, p)
	commit.Topics = append(commit.Topics, one)
	answer, err := b.ask(t, commit, b.Brokers[node-1:node])
	if err != nil {
		return err
	}
	stored := answer.(*kmsg.OffsetCommitResponse)
	if len(stored.Topics) != 1 || len(stored.Topics[0].Partitions) != 1 {
		return fmt.Errorf("an answer for no partition: %v", stored)
	}
	return kerr.ErrorForCode(stored.Topics[0].Partitions[0].ErrorCode)
}

// offsetsPartition is where Kafka keeps a group: Java's hash of its name, modulo.
func offsetsPartition(group string, partitions int) int32 {
	var hash int32
	for _, c := range []byte(group) {
		hash = 31*hash + int32(c)
	}
	return int32(max(int64(hash), -int64(hash)) % (1 << 31) % int64(partitions)) // of the least number the absolute value is 0
}

func (b *Broker) describe(t testing.TB, topic string, but int) []kmsg.MetadataResponseTopicPartition {
	t.Helper()
	about := kmsg.NewMetadataRequestTopic()
	about.Topic = &topic
	ask := kmsg.NewPtrMetadataRequest()
	ask.Topics = append(ask.Topics, about)
	answer, err := b.ask(t, ask, b.except(but))
	if err != nil || len(answer.(*kmsg.MetadataResponse).Topics) != 1 {
		return nil
	}
	return answer.(*kmsg.MetadataResponse).Topics[0].Partitions
}

func (b *Broker) except(node int) (addrs []string) {
	for i, addr := range b.Brokers {
		if i+1 != node {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// ask puts one request to the first of some brokers that takes connections.
func (b *Broker) ask(t testing.TB, request kmsg.Request, addrs []string) (kmsg.Response, error) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.RequestRetries(1), kgo.MaxVersions(kversion.V3_9_0())) // of 4.0 on commits name topics by UUID
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, seed := range client.SeedBrokers() {
		var answer kmsg.Response
		if answer, err = seed.Request(ctx, request); err == nil {
			return answer, nil
		}
	}
	return nil, err
}
