package migrations

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sluicegate/sluice"
)

// DeadLetters is the topic of records that were given up.
const DeadLetters = "sluice.dlq"

// createDeadLetterTopic keeps letters for thirty days. A letter is the whole record and its own headers, so the topic
// takes more than the largest record.
func createDeadLetterTopic(ctx context.Context, t Target) error {
	replication, err := replicas(ctx, t.Topics)
	if err != nil {
		return err
	}
	return t.Topics.CreateTopic(ctx, sluice.TopicSpec{
		Name:        DeadLetters,
		Partitions:  12,
		Replication: replication,
		Configs: map[string]string{
			"cleanup.policy":    "delete",
			"retention.ms":      strconv.FormatInt((30 * 24 * time.Hour).Milliseconds(), 10),
			"max.message.bytes": strconv.Itoa(t.MaxRecordBytes + 1<<20 + 64<<10),
		},
	})
}

// replicas is three, or as many brokers as there are.
func replicas(ctx context.Context, k topics) (int16, error) {
	brokers, err := k.Brokers(ctx)
	if err != nil {
		return 0, fmt.Errorf("count the brokers: %w", err)
	}
	return int16(min(3, len(brokers))), nil
}
