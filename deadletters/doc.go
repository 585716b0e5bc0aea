// Package deadletters keeps the deliveries that were given up. A letter is the original record, key, value and headers
// byte for byte, with the story of its delivery in headers behind the original ones: so any Kafka tool can read it, and
// it can be sent again as it was.
//
// A record counts as done only after its letter was acknowledged by all in-sync replicas. A crash in between writes a
// second letter with the same sluice-dlq-id.
package deadletters
