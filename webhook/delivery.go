package webhook

import (
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// Delivery is one attempt to be made.
type Delivery struct {
	Subscription *subscriptions.Subscription
	Record       *sluice.Record
	TopicID      sluice.TopicID // zero where brokers give none; EventID then falls back to ClusterID and the name
	ClusterID    string         // {cluster} of ce-source
	Attempt      int            // from 1: charged attempts before this one, + 1
	FirstAttempt time.Time      // of this record; zero on the first
	Now          time.Time      // webhook-timestamp; also what a Retry-After date is compared with
}

// ID is the webhook-id of the delivery.
func (d Delivery) ID() string {
	return EventID(TopicKey(d.TopicID, d.ClusterID, d.Record.Topic), d.Record.Partition, d.Record.Offset)
}

// Outcome is what came of an attempt.
type Outcome struct {
	Class      Class  // Classify(Facts), for a caller that knows no more than the exchange
	Reason     string // code from a closed set; fit for a metric label
	Facts      Facts  // what was seen: whoever knows the breaker's window adds to it and classifies again
	Status     int    // of the final response; 0 if there was none
	RetryAfter RetryAfter
	Latency    time.Duration // the whole exchange
	Response   []byte        // first 1 KiB of the response body
	Error      string        // ≤512 B, without secrets, userinfo and query; "" for class S
	Resends    int           // by the transport, uncharged: 0 or 1
}

// RetryAfter is the endpoint's own wish. Present is false when the header was absent, negative or not to be parsed.
// The wait is not below 0 and not above RetryAfterMax; the lane clamps it to its own cap.
type RetryAfter struct {
	Present bool
	Wait    time.Duration
}
