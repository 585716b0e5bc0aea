// Package backend gives a test the Kafka and the Redis it runs against. A suite is written once and run over all of
// them; the environment chooses, `make test` sets it:
//
//	TEST_KAFKA          kfake (the default: a fresh embedded cluster for each test), kafka41 or kafka28
//	TEST_KAFKA_BROKERS  the real one's brokers; it is shared, so every test makes topics and groups of its own
//	TEST_REDIS          mini (the default) or real: a redis-server process of the test's own
//
// What a back end cannot do, a test says by NotRun, which prints the reason; the summary of `make test` counts those.
package backend

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/sandbox"
)

// The back ends by name.
const (
	KFake   = "kfake"
	Kafka41 = "kafka41"
	Kafka28 = "kafka28"
)

// NotRun skips the test and says why, in the words that `make test` counts.
func NotRun(t testing.TB, reason string) {
	t.Helper()
	t.Skip("NOT RUN on " + Name() + ": " + reason)
}

// Name is the Kafka back end that the environment chose.
func Name() string { return cmp.Or(os.Getenv("TEST_KAFKA"), KFake) }

// Broker is the Kafka of one test.
type Broker struct {
	Name    string
	Brokers []string
	fake    *kfake.Cluster
}

// Kafka is the back end that the environment chose, with one broker.
func Kafka(t testing.TB) *Broker { t.Helper(); return KafkaOf(t, 1) }

// KafkaOf is a back end with so many brokers where it is embedded. The real, shared one has as many as it has.
func KafkaOf(t testing.TB, brokers int) *Broker {
	t.Helper()
	if Name() != KFake {
		list := os.Getenv("TEST_KAFKA_BROKERS")
		if list == "" {
			t.Fatalf("TEST_KAFKA=%s needs TEST_KAFKA_BROKERS", Name())
		}
		return &Broker{Name: Name(), Brokers: strings.Split(list, ",")}
	}
	k, err := sandbox.StartKafka(sandbox.KafkaConfig{Ports: make([]int, brokers)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return &Broker{Name: KFake, Brokers: k.Brokers, fake: k.Fake}
}

// Real reports whether this is an Apache Kafka.
func (b *Broker) Real() bool { return b.fake == nil }

// Fake is the embedded cluster, or nil on a real one.
func (b *Broker) Fake() *kfake.Cluster { return b.fake }

var serial atomic.Int64

// Unique is a name that no other test and no other run uses.
func Unique(prefix string) string {
	return fmt.Sprintf("%s-%x-%d", prefix, time.Now().UnixNano()/1000, serial.Add(1))
}

// Topic makes a topic under a name of its own that begins with prefix, waits until every broker knows its leaders, and
// removes it at the end of the test. Configs are "name=value".
func (b *Broker) Topic(t testing.TB, prefix string, partitions int32, configs ...string) string {
	t.Helper()
	return b.TopicOf(t, prefix, partitions, 1, configs...)
}

// TopicOf is Topic with a replication factor.
func (b *Broker) TopicOf(t testing.TB, prefix string, partitions int32, replication int16, configs ...string) string {
	t.Helper()
	name := Unique(prefix)
	b.Create(t, name, partitions, replication, configs...)
	return name
}

// Create makes a topic of exactly that name.
func (b *Broker) Create(t testing.TB, name string, partitions int32, replication int16, configs ...string) {
	t.Helper()
	client := b.client(t)
	defer client.Close()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, replication
	for _, c := range configs {
		k, v, _ := strings.Cut(c, "=")
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = k, &v
		topic.Configs = append(topic.Configs, config)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis, create.Topics = 15_000, append(create.Topics, topic)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer, err := create.RequestWith(ctx, client)
	if err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	t.Cleanup(func() { b.Delete(t, name) })
	b.awaitLeaders(ctx, t, client, name, partitions)
}

// Delete removes a topic; one that is gone already is fine, and so is a broker that is gone.
func (b *Broker) Delete(t testing.TB, name string) {
	t.Helper()
	client := b.client(t)
	defer client.Close()
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &name
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.TimeoutMillis, remove.TopicNames, remove.Topics = 5_000, []string{name}, append(remove.Topics, topic)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := remove.RequestWith(ctx, client); err != nil {
		t.Logf("delete topic %s: %v", name, err)
	}
}

// awaitLeaders asks each broker until it names a leader for every partition: metadata spreads after the answer.
func (b *Broker) awaitLeaders(ctx context.Context, t testing.TB, client *kgo.Client, name string, partitions int32) {
	t.Helper()
	for {
		ready := true
		for _, seed := range client.SeedBrokers() {
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = kmsg.StringPtr(name)
			ask := kmsg.NewPtrMetadataRequest()
			ask.Topics = append(ask.Topics, topic)
			answer, err := seed.Request(ctx, ask)
			if err != nil {
				t.Fatalf("metadata of %s: %v", name, err)
			}
			led := int32(0)
			for _, p := range answer.(*kmsg.MetadataResponse).Topics[0].Partitions {
				if p.ErrorCode == 0 && p.Leader >= 0 {
					led++
				}
			}
			ready = ready && led == partitions
		}
		if ready {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("topic %s has no leaders: %v", name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (b *Broker) client(t testing.TB) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Brokers...), kgo.RequestRetries(3), kgo.RetryTimeout(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return client
}
