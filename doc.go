// Package sluice is the vocabulary of the gateway: the few nouns that every room speaks, over the standard library
// alone. A record is what Kafka holds; a partition names where it lies and how it is read; a cursor says where a
// reader goes on; a commit is progress kept in Kafka; a session is the proof that this replica owns what it was lent.
//
// # A tour
//
// A produced record enters by httpapi (routes, media types, limits), becomes bytes in formats, is batched with the
// records of other requests in kafka.Producer, and leaves as a receipt: partition and offset, or an error of its own.
//
// Everything that reads, reads from partition.Log: one log per process, one live fetch per followed partition, however
// many read it. A reader owns its position and moves it after the work:
//
//   - dispatcher runs the lanes of webhook subscriptions. A lane offers records to its ledger (progress), sends them
//     (webhook), decides by a pure policy, and commits. Records given up go to deadletters first.
//   - stream serves Server-Sent Events on connections taken over from the HTTP server; the client keeps the cursor.
//   - consumers holds the instances of the classic API; their groups lend partitions, the caller commits.
//
// subscriptions keeps the definitions in Redis and tells every replica of a change by a bell. kafka is the only room
// that knows sarama; the others say what they need in one to three methods over the types of this package, and gateway
// puts them together. cmd/sluice has one file per verb of the binary; sandbox is Kafka and Redis in one process, for
// `sluice dev` and the tests.
package sluice
