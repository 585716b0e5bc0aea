package sluice

import "context"

// NoOffset says that a group has committed nothing for a partition.
const NoOffset int64 = -1

// Commit is the progress of a consumer group on one partition. Offset is the next to read, or NoOffset.
type Commit struct {
	Topic     string
	Partition int32
	Offset    int64
	Metadata  string // at most 4,096 characters (offset.metadata.max.bytes)
}

// GroupCommit is one OffsetCommit. Member "" and Generation -1 make it a standalone commit, which Kafka takes only
// while the group has no members.
type GroupCommit struct {
	Group      string
	Member     string
	Generation int32
	Commits    []Commit
}

// Assignor names how the leader of a group shares partitions out.
type Assignor string

const (
	// Rendezvous is Sluice's own (protocol sluice-rendezvous), for the ownership groups: one-partition topics spread
	// over the replicas and little moves when a replica comes or goes.
	Rendezvous Assignor = "sluice-rendezvous"
	// RangeAssignor is Kafka's range, so that instances of the classic API share a group with foreign members.
	RangeAssignor Assignor = "range"
)

// Membership is the wish to be a member of a consumer group.
type Membership struct {
	Group    string
	Topics   []string
	Assignor Assignor
	// Note, unless it is nil, is asked whenever this member joins a generation, which is after its session before has
	// ended. What it says, at most MaxNote bytes, is in the session of every member.
	Note func() []byte
}

// MaxNote is how long a member's note may be. A longer one is left out.
const MaxNote = 1024

// Session is one generation of a membership: the partitions that the group has lent to this member. Its context, handed
// over beside it, ends when a rebalance begins or the lease runs out.
type Session struct {
	Member     string
	Generation int32
	Claims     map[string][]int32 // by topic, ascending
	// Notes are what the members of this generation said as they joined it: one for each, this one's own included, and nil
	// for a member that said nothing. There are none at all where the leader is of a release that does not pass them on.
	Notes [][]byte
	// Valid reports whether the lease still holds, by the monotonic and by the wall clock: a process that was frozen
	// fails it at once on waking. Ask before every send and every commit that rests on the session.
	Valid func() bool
}

// SessionFunc does the work of one session and returns soon after ctx ends: the whole group waits for its slowest
// member. After four seconds the member rejoins regardless.
type SessionFunc func(ctx context.Context, s Session)

// GroupState is how a consumer group stands. Our progress groups never have members: they are Empty and have no
// protocol. State is Kafka's word; a group that does not exist, or whose members speak KIP-848, is Dead here.
type GroupState struct {
	State    string
	Protocol string // "consumer" from the first member on, also when the last one has left
	Members  int
}

// Untouched reports whether no member ever joined the group.
func (s GroupState) Untouched() bool { return s.State == "Empty" && s.Protocol == "" && s.Members == 0 }
