// Package migrations brings what Sluice keeps outside itself up to this version: its own topics in Kafka and its keys in
// Redis. The steps are numbered and never change once released; each may run again, on a half-finished state too, and by
// several replicas at once. `sluice migrate` runs them, and so does `sluice serve` unless told not to.
//
// Redis hash sluice:migrations: number of the step -> when it was done (RFC 3339). It saves time, not correctness: after
// a flush the steps run again and find their work done.
package migrations

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice"
)

// topics is the part of Kafka's administration that the steps need.
type topics interface {
	Brokers(ctx context.Context) ([]int32, error)
	CreateTopic(ctx context.Context, spec sluice.TopicSpec) error // nil if it exists
}

// Target is what the steps work on. MaxRecordBytes is the largest record that is produced through this gateway.
type Target struct {
	Topics         topics
	Redis          redis.UniversalClient
	MaxRecordBytes int
}

// Step is one migration.
type Step struct {
	Number int
	Name   string
	Do     func(ctx context.Context, t Target) error
}

// Steps are all of them, in order.
func Steps() []Step {
	return []Step{
		{1, "topic sluice.dlq", createDeadLetterTopic},
	}
}

const doneKey = "sluice:migrations"

// Run does what has not been done yet and stops at the first failure: later steps may build on earlier ones.
func Run(ctx context.Context, t Target, log *slog.Logger) error {
	done, err := t.Redis.HKeys(ctx, doneKey).Result()
	if err != nil {
		return &sluice.Error{Kind: sluice.StoreDown, Msg: "Redis did not say which migrations are done.", Err: err}
	}
	was := map[string]bool{}
	for _, number := range done {
		was[number] = true
	}
	for _, step := range Steps() {
		number := strconv.Itoa(step.Number)
		if was[number] {
			continue
		}
		if err := step.Do(ctx, t); err != nil {
			return fmt.Errorf("migration %d (%s): %w", step.Number, step.Name, err)
		}
		if err := t.Redis.HSet(ctx, doneKey, number, time.Now().UTC().Format(time.RFC3339)).Err(); err != nil {
			return &sluice.Error{Kind: sluice.StoreDown, Msg: "Redis did not record migration " + number + ".", Err: err}
		}
		log.LogAttrs(ctx, slog.LevelInfo, "migrated", slog.Int("number", step.Number), slog.String("name", step.Name))
	}
	return nil
}
