package kafka_test

import (
	"testing"

	"github.com/sluicegate/sluice/partition/partitiontest"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func TestFetcherKeepsTheContractOfASource(t *testing.T) {
	partitiontest.Contract(t, fetcherBench(t, backend.Kafka(t)))
}
