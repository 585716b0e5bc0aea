// Package dispatcher delivers: it runs the lanes of every webhook subscription whose partitions this replica owns.
//
// # Who delivers what
//
// For each topic that a subscription uses the replica is a member of the consumer group sluice.topic.<topic>. The group
// lends it partitions and does nothing else: records come from the partition log, progress goes to the member-less
// groups sluice.sub.<id>. A lent partition is a claim; it has one lane per subscription. When a session ends the lanes
// are suspended and commit what is done. If the partition comes back in the next generation they go on as they were,
// flights included; else they are dropped and whoever owns the partition now starts from the commit. Where
// that was no clean hand-over an ordered lane waits for what may be in flight, unless the predecessor, back in the group,
// says that nothing is (company.go).
//
// # A lane
//
// A lane is a pure state machine (lane*.go): events in, commands out. It takes records from the log while its window,
// its number of holes and its span allow, keeps the order that the subscription asks for, and lets the retry policy
// (policy.go), a pure function too, decide about every outcome. A runner carries the commands out: it reads, sends,
// writes dead letters and tells the lane what came of it. A runner has a goroutine only while it has something to do.
//
// # Who else writes
//
// A progress group is Kafka's, so an operator's tool, a frozen replica or a stray consumer can write to it. Every half
// minute each claim reads back what is committed (claim_readback.go); one pure function says what it means and what is
// done about it (readback.go). A group that takes no commits stops its subscription on this replica (group.go).
//
// # What is shared
//
// Sender slots and the bytes in flight are one budget per replica (slots.go), shared out in turns, so that a slow
// subscription costs others nothing. A record is done only when it was delivered or its dead letter is acknowledged.
package dispatcher
