package sandbox_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/sluicegate/sluice/sandbox"
)

var topics = map[string]int32{"orders": 3, "other": 1}

func kafka(t *testing.T, dir string) (*sandbox.Kafka, *kgo.Client) {
	t.Helper()
	k, err := sandbox.StartKafka(sandbox.KafkaConfig{Dir: dir, Topics: topics})
	if err != nil {
		t.Fatal(err)
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxVersions(kversion.V3_0_0())) // commits by topic name, not id
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		k.Close()
	})
	return k, c
}

func call[R kmsg.Response](t *testing.T, c *kgo.Client, ask kmsg.Request) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := c.Request(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	return answer.(R)
}

func produce(t *testing.T, c *kgo.Client, topic string, values ...string) []int64 {
	t.Helper()
	var at []int64
	for _, v := range values {
		r, err := c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(v)}).First()
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, r.Offset)
	}
	return at
}

func commit(t *testing.T, c *kgo.Client, group string, offset int64, metadata string) {
	t.Helper()
	ask := kmsg.NewPtrOffsetCommitRequest()
	ask.Group, ask.Generation = group, -1
	part := kmsg.NewOffsetCommitRequestTopicPartition()
	part.Offset, part.Metadata = offset, &metadata
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = "orders", append(topic.Partitions, part)
	ask.Topics = append(ask.Topics, topic)
	if code := call[*kmsg.OffsetCommitResponse](t, c, ask).Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("commit: error %d", code)
	}
}

func committed(t *testing.T, c *kgo.Client, group string) (int64, string) {
	t.Helper()
	ask := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	topic := kmsg.NewOffsetFetchRequestGroupTopic()
	topic.Topic, topic.Partitions = "orders", []int32{0}
	g.Topics = append(g.Topics, topic)
	ask.Groups = append(ask.Groups, g)
	p := call[*kmsg.OffsetFetchResponse](t, c, ask).Groups[0].Topics[0].Partitions[0]
	if p.Metadata == nil {
		return p.Offset, ""
	}
	return p.Offset, *p.Metadata
}

func values(t *testing.T, k *sandbox.Kafka, topic string, n int) []string {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var all []string
	for len(all) < n {
		f := c.PollFetches(ctx)
		if err := f.Err(); err != nil {
			t.Fatalf("%d of %d values of %s: %v", len(all), n, topic, err)
		}
		f.EachRecord(func(r *kgo.Record) { all = append(all, string(r.Value)) })
	}
	return all
}

// Records, topics with their ids, and committed offsets with their metadata are there after a kill -9 and after a stop
// in order, and again after both.
func TestWhatKafkaAcknowledgedIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kafka")
	first, c := kafka(t, dir)
	if at := produce(t, c, "orders", "a", "b"); at[1] != 1 {
		t.Fatalf("offsets %v", at)
	}
	commit(t, c, "sluice.sub.x", 1, "v1;holes")
	made := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "made", 4, 1
	made.Topics = append(made.Topics, topic)
	call[*kmsg.CreateTopicsResponse](t, c, made)
	ids := map[string]string{}
	for name := range maps.Keys(topics) {
		ids[name] = fmt.Sprintf("%x", first.Fake.TopicInfo(name).TopicID)
	}

	check := func(t *testing.T, dir string, want []string) string {
		k, c := kafka(t, dir)
		if got := values(t, k, "orders", len(want)); strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("records %v, want %v", got, want)
		}
		if at, meta := committed(t, c, "sluice.sub.x"); at != int64(len(want))-1 || meta != "v1;holes" {
			t.Errorf("committed %d %q", at, meta)
		}
		for name, id := range ids {
			if got := fmt.Sprintf("%x", k.Fake.TopicInfo(name).TopicID); got != id {
				t.Errorf("topic %s has id %s, was %s", name, got, id)
			}
		}
		if n := k.Partitions("made"); n != 4 {
			t.Errorf("the topic made by a client has %d partitions", n)
		}
		if n := k.Partitions("orders"); n != 3 {
			t.Errorf("orders has %d partitions", n)
		}
		next := int64(len(want))
		if at := produce(t, c, "orders", "z"); at[0] != next {
			t.Errorf("the next record went to %d, want %d", at[0], next)
		}
		commit(t, c, "sluice.sub.x", next, "v1;holes")
		left := killed(t, dir)
		c.Close()
		k.Close()
		return left
	}
	left := killed(t, dir)
	c.Close()
	first.Close()
	t.Run("stopped", func(t *testing.T) {
		after := check(t, dir, []string{"a", "b"})
		t.Run("then killed", func(t *testing.T) { check(t, after, []string{"a", "b", "z"}) })
	})
	t.Run("killed", func(t *testing.T) {
		again := check(t, left, []string{"a", "b"})
		t.Run("and killed again", func(t *testing.T) { check(t, again, []string{"a", "b", "z"}) })
		t.Run("and stopped", func(t *testing.T) { check(t, left, []string{"a", "b", "z"}) })
	})
}

// A write that the kill cut in the middle was never acknowledged: its bytes go, everything before them stays.
func TestAHalfWrittenRecordIsCutOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kafka")
	k, c := kafka(t, dir)
	produce(t, c, "orders", "a", "b")
	left := killed(t, dir)
	c.Close()
	k.Close()
	segment := filepath.Join(left, "partitions", "orders-0", "0.dat")
	raw, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segment, append(raw, raw[:len(raw)/3]...), 0o600); err != nil {
		t.Fatal(err)
	}
	k, c = kafka(t, left)
	if at := produce(t, c, "orders", "c"); at[0] != 2 {
		t.Errorf("the next record went to %d", at[0])
	}
	if got := strings.Join(values(t, k, "orders", 3), ""); got != "abc" {
		t.Errorf("records %q", got)
	}
}

// kfake would take such folders for new ones, and write over them.
func TestADamagedLogIsRefused(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"meta.json": func(dir string) error { return os.Remove(filepath.Join(dir, "meta.json")) },
		"newer": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "meta.json"), []byte(`{"version":99}`), 0o600)
		},
		"topics.json": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "topics.json"), []byte(`{"versi`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "kafka")
			k, c := kafka(t, dir)
			c.Close()
			k.Close()
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			if k, err := sandbox.StartKafka(sandbox.KafkaConfig{Dir: dir}); err == nil {
				k.Close()
				t.Error("it started")
			} else if !strings.Contains(err.Error(), name) {
				t.Errorf("the reason does not name %s: %v", name, err)
			}
		})
	}
}
