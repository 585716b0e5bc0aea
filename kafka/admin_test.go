package kafka

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A topic is described with its id, its partitions in order, their leaders and its effective settings.
func TestAdminDescribesTopics(t *testing.T) {
	k := backend.Kafka(t)
	admin := NewAdmin(testClients(t, k))
	ctx := testContext(t)
	name := k.Topic(t, "described", 3, "max.message.bytes=5000")

	topic, err := admin.Topic(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if topic.Name != name || topic.ID == (sluice.TopicID{}) || len(topic.Partitions) != 3 {
		t.Errorf("topic = %+v", topic)
	}
	for i, p := range topic.Partitions {
		if p.Number != int32(i) || p.Leader < 0 || !p.InSyncReplica(p.Leader) || !slices.Contains(p.Replicas, p.Leader) {
			t.Errorf("partition %d = %+v", i, p)
		}
	}
	names, err := admin.Topics(ctx)
	if err != nil || !slices.Contains(names, name) || !slices.IsSorted(names) {
		t.Errorf("topics = %v, %v", names, err)
	}
	brokers, err := admin.Brokers(ctx)
	if err != nil || !slices.Contains(brokers, topic.Partitions[0].Leader) || !slices.IsSorted(brokers) {
		t.Errorf("brokers = %v, %v", brokers, err)
	}
	configs, err := admin.TopicConfigs(ctx, name)
	if err != nil || configs["max.message.bytes"] != "5000" || configs["cleanup.policy"] != "delete" {
		t.Errorf("configs = %v, %v", configs, err)
	}
	if id, err := admin.ClusterID(ctx); err != nil || id == "" {
		t.Errorf("cluster id = %q, %v", id, err)
	}
	if n, err := admin.MetadataMaxBytes(ctx); err != nil || n != 4096 {
		t.Errorf("offset.metadata.max.bytes = %d, %v", n, err)
	}
}

// A topic that does not exist is UnknownTopic in well under a second, for every question, and is not created by asking.
func TestUnknownTopicIsKnownFast(t *testing.T) {
	k := backend.Kafka(t)
	admin := NewAdmin(testClients(t, k))
	ctx := testContext(t)
	for _, name := range []string{backend.Unique("nowhere"), ".", "..", "a/b", "", "ä", string(make([]byte, 250))} {
		part := sluice.Partition{Topic: name}
		for what, ask := range map[string]func() error{
			"Topic":        func() error { _, err := admin.Topic(ctx, name); return err },
			"TopicConfigs": func() error { _, err := admin.TopicConfigs(ctx, name); return err },
			"Range":        func() error { _, err := admin.Range(ctx, part); return err },
			"OffsetAt":     func() error { _, err := admin.OffsetAt(ctx, part, time.Now()); return err },
		} {
			start := time.Now()
			if err := ask(); sluice.KindOf(err) != sluice.UnknownTopic {
				t.Errorf("%s(%q): %v", what, name, err)
			}
			if took := time.Since(start); took > 900*time.Millisecond {
				t.Errorf("%s(%q) took %v", what, name, took)
			}
		}
		if names, err := admin.Topics(ctx); err != nil || slices.Contains(names, name) {
			t.Errorf("%q was created: %v %v", name, names, err)
		}
	}
}

// A topic made elsewhere is listed within three seconds, and found at once.
func TestNewTopicShowsWithinThreeSeconds(t *testing.T) {
	k := backend.Kafka(t)
	admin := NewAdmin(testClients(t, k))
	ctx := testContext(t)
	if _, err := admin.Topics(ctx); err != nil {
		t.Fatal(err)
	}
	name := k.Topic(t, "fresh", 1)
	made := time.Now()
	if _, err := admin.Topic(ctx, name); err != nil {
		t.Errorf("not looked up: %v", err)
	}
	eventually(t, "listed", func() bool {
		names, err := admin.Topics(ctx)
		return err == nil && slices.Contains(names, name)
	})
	if took := time.Since(made); took > 3500*time.Millisecond {
		t.Errorf("listed after %v", took)
	}
}

// CreateTopic takes the broker's defaults for what is left out and does not mind a topic that exists.
func TestCreateTopic(t *testing.T) {
	k := backend.Kafka(t)
	admin := NewAdmin(testClients(t, k))
	ctx := testContext(t)
	name := backend.Unique("made")
	t.Cleanup(func() { k.Delete(t, name) })
	spec := sluice.TopicSpec{Name: name, Partitions: 2, Configs: map[string]string{"cleanup.policy": "compact"}}
	for range 2 {
		if err := admin.CreateTopic(ctx, spec); err != nil {
			t.Fatal(err)
		}
	}
	var topic sluice.Topic
	eventually(t, "found", func() bool { topic, _ = admin.Topic(ctx, name); return len(topic.Partitions) == 2 })
	if configs, err := admin.TopicConfigs(ctx, name); err != nil || configs["cleanup.policy"] != "compact" {
		t.Errorf("configs = %v, %v", configs, err)
	}
	if err := admin.CreateTopic(ctx, sluice.TopicSpec{Name: "no/name"}); sluice.KindOf(err) != sluice.Invalid {
		t.Errorf("illegal name: %v", err)
	}
}

// Offsets are found by time; later than everything is the end. An unknown partition has a kind of its own.
func TestOffsetsByTime(t *testing.T) {
	k := backend.Kafka(t)
	clients := testClients(t, k)
	admin, ctx := NewAdmin(clients), testContext(t)
	p := sluice.Partition{Topic: k.Topic(t, "timed", 1)}
	if r, err := admin.Range(ctx, p); err != nil || r != (sluice.Range{}) {
		t.Errorf("empty: %v %v", r, err)
	}
	base := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	producer := testProducer(t, clients)
	for i := range 3 {
		receipts, err := producer.Produce(ctx, p.Topic, []sluice.NewRecord{{Value: []byte("v"), Timestamp: base.Add(time.Duration(i) * time.Minute)}})
		if err != nil || receipts[0].Err != nil {
			t.Fatal(err, receipts)
		}
	}
	for _, isolation := range []sluice.Isolation{sluice.ReadCommitted, sluice.ReadUncommitted} {
		p.Isolation = isolation
		if r, err := admin.Range(ctx, p); err != nil || r != (sluice.Range{Start: 0, End: 3}) {
			t.Errorf("%v: %v %v", isolation, r, err)
		}
		for _, c := range []struct {
			at   time.Time
			want int64
		}{{base.Add(-time.Minute), 0}, {base, 0}, {base.Add(time.Millisecond), 1}, {base.Add(2 * time.Minute), 2}, {base.Add(time.Hour), 3}, {time.Unix(-5, 0), 0}} {
			if got, err := admin.OffsetAt(ctx, p, c.at); err != nil || got != c.want {
				t.Errorf("OffsetAt(%v) = %d, %v; want %d", c.at.Sub(base), got, err, c.want)
			}
		}
	}
	if _, err := admin.Range(ctx, sluice.Partition{Topic: p.Topic, Number: 1}); sluice.KindOf(err) != sluice.UnknownPart {
		t.Errorf("partition 1: %v", err)
	}
	if _, err := admin.Range(ctx, sluice.Partition{Topic: p.Topic, Number: -1}); sluice.KindOf(err) != sluice.UnknownPart {
		t.Errorf("partition -1: %v", err)
	}
}

// However many ask at once, Kafka is asked once.
func TestLookUpsAreShared(t *testing.T) {
	k := backend.Kafka(t)
	if k.Fake() == nil {
		backend.NotRun(t, "only the embedded Kafka counts requests")
	}
	clients := testClients(t, k)
	admin, ctx := NewAdmin(clients), testContext(t)
	name := k.Topic(t, "shared", 1)
	const metadataKey = 3
	gate := make(chan struct{})
	var asked atomic.Int64
	k.Fake().ControlKey(metadataKey, func(kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		if asked.Add(1) == 1 {
			<-gate
		}
		return nil, nil, false
	})
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if _, err := admin.Topic(ctx, name); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "all wait", func() bool {
		clients.meta.mu.Lock()
		defer clients.meta.mu.Unlock()
		return len(clients.meta.flights) == 1
	})
	close(gate)
	wait.Wait()
	if n := asked.Load(); n > 2 {
		t.Errorf("50 callers caused %d look-ups", n)
	}
}

// When Kafka does not answer, a list is an error, never an old answer, and never late. One broker that hangs does not
// matter while another answers.
func TestSilentKafkaIsAnError(t *testing.T) {
	silent := silentListener(t)
	cfg := Default()
	cfg.Brokers = []string{silent}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	start := time.Now()
	if _, err := Connect(ctx, cfg, nil); sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("Connect: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Connect took %v", took)
	}

	k := backend.Kafka(t)
	clients := testClients(t, k, func(c *Config) { c.Brokers = append([]string{silent}, c.Brokers...) })
	name := k.Topic(t, "beside", 1)
	start = time.Now()
	if _, err := NewAdmin(clients).Topic(testContext(t), name); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("a silent broker cost %v", took)
	}
}

// silentListener takes connections and says nothing, like a broker that is stopped by SIGSTOP.
func silentListener(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}
