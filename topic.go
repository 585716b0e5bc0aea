package sluice

import (
	"encoding/hex"
	"slices"
)

// TopicID is the UUID Kafka gives a topic at its creation (KIP-516). It tells a topic from a later one of the same
// name. Brokers before 2.8 have none: then it is zero.
type TopicID [16]byte

// String is the id in the 8-4-4-4-12 form.
func (id TopicID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Topic is what Kafka says about a topic. Partitions are in the order of their numbers, from 0 without a hole.
type Topic struct {
	Name       string
	ID         TopicID
	Internal   bool
	Partitions []PartitionState
}

// PartitionState is one partition of a Topic. Leader is -1 when there is none.
type PartitionState struct {
	Number   int32
	Leader   int32
	Replicas []int32
	InSync   []int32
}

// InSyncReplica reports whether broker is among the in-sync replicas.
func (p PartitionState) InSyncReplica(broker int32) bool { return slices.Contains(p.InSync, broker) }

// TopicSpec describes a topic to be created. Replication 0 means the broker's default.
type TopicSpec struct {
	Name        string
	Partitions  int32
	Replication int16
	Configs     map[string]string
}
