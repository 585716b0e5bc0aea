// Package webhook is one delivery on the wire: it builds the request in the format of the subscription, signs it,
// sends it to an address that the guard allows, and says what came of it. It waits for nothing but that exchange and
// decides nothing: an Outcome is data, whether and when to try again is the dispatcher's affair.
//
// # What leaves the house
//
// Every request carries webhook-id, webhook-timestamp and webhook-signature (Standard Webhooks), the coordinates of
// the record in kafka-*, and the subscription and attempt in sluice-*. The id names the event: it is the same for
// every attempt, replica and subscription. The signature covers id, timestamp and body, not the headers.
//
// # The guard
//
// Whoever may register a URL would otherwise have a scanner of our network. So every dial resolves the name itself,
// drops what is denied, and checks the concrete address once more when the socket is made; what a name meant when the
// subscription was created counts for nothing. Redirects are not followed and no proxy of the environment is used.
//
// # Retries
//
// There is exactly one: go-retryablehttp sends again when a kept-alive connection turns out to have been closed while
// we wrote (the request cannot have been read). All other trying again is scheduled by the lane, because a wait in
// here would hold a slot and die with the process.
package webhook
