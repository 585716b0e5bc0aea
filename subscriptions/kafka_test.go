package subscriptions

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Over a Kafka: what start_from means is committed when Create returns, so whoever takes the lanes over begins there.
func TestPositionsStandInKafkaWhenCreateReturns(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 3)
	cfg := kafka.Default()
	cfg.Brokers = k.Brokers
	clients, err := kafka.Connect(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clients.Close() })
	produce(t, clients, topic, 5)
	admin, offsets := kafka.NewAdmin(clients), kafka.NewOffsets(clients)
	registry, err := NewRegistry(Needs{Store: storeAt(t, backend.Redis(t)), Topics: admin, Offsets: admin, Commits: offsets, Guard: gate("")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	parts := []sluice.Partition{{Topic: topic, Number: 0}, {Topic: topic, Number: 1}, {Topic: topic, Number: 2}}
	for source, want := range map[string][3]int64{
		`"start_from":"latest"`:   {5, 0, 0},
		`"start_from":"earliest"`: {0, 0, 0},
		`"start_from":"timestamp","start_timestamp":"2020-01-01T00:00:00Z"`:            {0, 0, 0},
		`"start_from":"timestamp","start_timestamp":"2099-01-01T00:00:00Z"`:            {5, 0, 0},
		`"start_from":"offsets","start_offsets":{"` + topic + `":{"0":3,"1":0,"2":0}}`: {3, 0, 0},
	} {
		s, err := registry.Create(t.Context(), "", []byte(`{"source":{"topics":["`+topic+`"],`+source+`},"endpoint":{"url":"https://example.com"}}`))
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		committed, err := offsets.Group(t.Context(), s.ProgressGroup(), parts)
		if err != nil {
			t.Fatal(err)
		}
		got := map[int32]int64{}
		for _, c := range committed {
			got[c.Partition] = c.Offset
		}
		if got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("%s: Kafka has %v, want %v", source, got, want)
		}
		if err := offsets.DeleteGroup(t.Context(), s.ProgressGroup()); err != nil {
			t.Errorf("delete %s: %v", s.ProgressGroup(), err)
		}
	}
	if _, err := registry.Create(t.Context(), "", []byte(`{"source":{"topics":["`+topic+`-nope"]},"endpoint":{"url":"https://example.com"}}`)); sluice.KindOf(err) != sluice.UnknownTopic {
		t.Errorf("%v", err)
	}
}

func produce(t *testing.T, clients *kafka.Clients, topic string, n int) {
	t.Helper()
	p, err := kafka.NewProducer(clients, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	receipts, err := p.Produce(ctx, topic, make([]sluice.NewRecord, n)) // to partition 0
	if err == nil {
		for _, r := range receipts {
			if r.Err != nil {
				err = r.Err
			}
		}
	}
	if err != nil {
		t.Error(err)
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}
