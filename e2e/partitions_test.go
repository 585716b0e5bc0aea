package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A topic grows from three partitions to six while it is delivered. What was written to the new ones before anybody knew
// of them arrives all the same, by webhook and by SSE, from offset 0, though both began at the latest record.
func TestNewPartitionsAreReadFromTheirStart(t *testing.T) {
	t.Parallel() // it waits most of the time
	k := backend.Kafka(t)
	topic := k.Topic(t, "growing", 3)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t)
	if _, err := hook.Subscribe(t.Context(), r.URL, topic, map[string]any{"source": map[string]any{"topics": []string{topic}, "start_from": "latest"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tail := peers.Follow(ctx, r.URL, topic, "from=latest")
	var old, all []peers.Record
	var produced time.Time
	eventually(t, 30*time.Second, "the old partitions are delivered", func() bool {
		if time.Since(produced) > time.Second { // what came before the stream had begun it is not sent
			old, produced = produce(t, r.URL, topic, len(all), 30), time.Now()
			all = append(all, old...)
		}
		return hook.Seen.Missing(old) == 0 && tail.Seen.Missing(old) == 0
	})

	client := plainClient(t, k.Brokers)
	grow := kmsg.NewPtrCreatePartitionsRequest()
	part := kmsg.NewCreatePartitionsRequestTopic()
	part.Topic, part.Count = topic, 6
	grow.TimeoutMillis, grow.Topics = 10_000, append(grow.Topics, part)
	answer, err := grow.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
	grown := time.Now()
	var first []peers.Record
	for n := range int32(3) {
		for i := range 10 {
			record := record(1_000 + 10*int(n) + i)
			sent := &kgo.Record{Topic: topic, Partition: 3 + n, Key: record.Key, Value: record.Value}
			if err := client.ProduceSync(ctx, sent).FirstErr(); err != nil {
				t.Fatal(err)
			}
			record.Place = peers.Place{Partition: sent.Partition, Offset: int64(i)}
			if sent.Offset != int64(i) {
				t.Fatalf("offset %d where %d belongs", sent.Offset, i)
			}
			first = append(first, record)
		}
	}
	all = append(all, first...)
	for _, way := range []struct {
		name   string
		seen   *peers.Seen
		within time.Duration // of the contract: a claim within 13 s; a stream looks every 30 s
	}{{"webhook", hook.Seen, 30 * time.Second}, {"SSE", tail.Seen, 75 * time.Second}} {
		eventually(t, way.within, way.name+" has seen the new partitions from their start", func() bool { return way.seen.Missing(first) == 0 })
		t.Logf("%s: %v after the topic had grown", way.name, time.Since(grown).Round(100*time.Millisecond))
		if distinct, sightings := way.seen.Count(); sightings != distinct {
			t.Errorf("%s: %d repeats", way.name, sightings-distinct)
		}
	}
	if err := hook.Seen.Compare(all); err != nil {
		t.Errorf("webhook: %v", err)
	}
	cancel()
	if err := tail.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
}

// Transactions leave markers and aborted records at the end of a partition, which nobody is sent: the subscription's
// progress passes them, so its lag returns to 0, as Sluice and as Kafka's own groups tell it.
func TestLagReturnsToZeroBehindTransactions(t *testing.T) {
	t.Parallel() // it waits most of the time
	k := backend.Kafka(t)
	topic := k.Topic(t, "ledger", 2)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t)
	id, err := hook.Subscribe(t.Context(), r.URL, topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the partitions are owned", func() bool { return owned(t, r.URL) == 2 })
	client := plainClient(t, k.Brokers, kgo.TransactionalID(backend.Unique("ledger")))
	var committed []peers.Record
	for i, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort, kgo.TryAbort} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			record := record(10*i + n)
			sent := &kgo.Record{Topic: topic, Partition: 0, Key: record.Key, Value: record.Value}
			if err := client.ProduceSync(t.Context(), sent).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if commit {
				record.Place = peers.Place{Partition: 0, Offset: sent.Offset}
				committed = append(committed, record)
			}
		}
		if err := client.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 30*time.Second, "what was committed is delivered", func() bool { return hook.Seen.Missing(committed) == 0 })
	written := time.Now()
	eventually(t, 30*time.Second, "the lag is 0", func() bool { return lag(t, r.URL, id) == 0 })
	t.Logf("lag 0 after %v", time.Since(written).Round(100*time.Millisecond))

	cfg := kafka.Default()
	cfg.Brokers = k.Brokers
	clients, err := kafka.Connect(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer clients.Close()
	offsets := kafka.NewOffsets(clients)
	all := sluice.Partition{Topic: topic, Isolation: sluice.ReadUncommitted}
	end, err := kafka.NewAdmin(clients).Range(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	if end.End != 30 {
		t.Errorf("five transactions of five records and a marker end at %d", end.End)
	}
	eventually(t, 30*time.Second, "the group stands at the end of the log", func() bool {
		found, err := offsets.Group(t.Context(), fmt.Sprint("sluice.sub.", id), []sluice.Partition{{Topic: topic}})
		return err == nil && found[0].Offset == end.End
	})
	if distinct, sightings := hook.Seen.Count(); distinct != len(committed) || sightings != distinct {
		t.Errorf("%d records and %d sightings of %d that were committed", distinct, sightings, len(committed))
	}
}

// plainClient writes where it is told, past Sluice.
func plainClient(t *testing.T, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.UnknownTopicRetries(20),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
