// Package progress keeps where each lane stands: what of a partition a subscription has been given and what is done.
//
// The Ledger is the account of one lane. Its low watermark is committed to Kafka as a plain offset of the member-less
// group sluice.sub.<id>, so that every tool shows position and lag; the bounded rest (what above it is done, the
// attempts of what is not) rides in the commit metadata, whose layout stands at Mark.Encode. A commit is always a true
// statement: all below it is done. A stale one can therefore cause duplicates, never loss, and metadata that cannot be
// read means "nothing above is done", never a refusal to start.
//
// The Committer collects the lanes that changed and writes one request per group and interval. It asks a lane for its
// state when it writes and tells it what became of it; the lane decides whether it may still speak for its partition.
package progress
