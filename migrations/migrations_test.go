package migrations_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/migrations"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// broker counts what it was asked to create.
type broker struct {
	created []sluice.TopicSpec
	fail    error
}

func (b *broker) Brokers(context.Context) ([]int32, error) { return []int32{1, 2, 3, 4}, nil }
func (b *broker) CreateTopic(_ context.Context, s sluice.TopicSpec) error {
	b.created = append(b.created, s)
	return b.fail
}

func client(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestAStepRunsOnce(t *testing.T) {
	b := &broker{}
	target := migrations.Target{Topics: b, Redis: client(t, backend.Redis(t)), MaxRecordBytes: 1 << 20}
	for range 2 {
		if err := migrations.Run(t.Context(), target, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.created) != 1 || b.created[0].Name != migrations.DeadLetters || b.created[0].Replication != 3 {
		t.Fatalf("created %+v, want sluice.dlq once, on three replicas", b.created)
	}
}

func TestAFailedStepRunsAgain(t *testing.T) {
	b := &broker{fail: errors.New("no")}
	target := migrations.Target{Topics: b, Redis: client(t, backend.Redis(t)), MaxRecordBytes: 1 << 20}
	if err := migrations.Run(t.Context(), target, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("a failed step was taken for done")
	}
	b.fail = nil
	if err := migrations.Run(t.Context(), target, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if len(b.created) != 2 {
		t.Fatalf("the step ran %d times, want a second time after its failure", len(b.created))
	}
}

func TestRedisAwayIsSaid(t *testing.T) {
	r := backend.RedisServer(t)
	target := migrations.Target{Topics: &broker{}, Redis: client(t, r.URL)}
	r.Stop(t)
	if err := migrations.Run(t.Context(), target, slog.New(slog.DiscardHandler)); sluice.KindOf(err) != sluice.StoreDown {
		t.Fatalf("got %v, want Kind %s", err, sluice.StoreDown)
	}
}
