package deadletters

import (
	"time"

	"github.com/sluicegate/sluice"
)

// Letter is one delivery that was given up.
type Letter struct {
	Record  *sluice.Record // the original; in a parsed letter without the headers that the letter added
	TopicID sluice.TopicID // of the original topic; zero if unknown

	Subscription string // id
	Owner        string
	Endpoint     string // URL; userinfo, query and fragment are left out when it is written
	Replay       string // id of the replay that failed; "" for live delivery
	WebhookID    string // evt_…

	Reason   string // attempts_exhausted, max_age, client_error, too_large, oversize, encode, decode, transform, expired, evicted, retention, crash_suspect, manual
	Class    string // the letter of the class: "C"
	Status   int    // of the last response; 0 if there was none
	Error    string // at most 512 B are written; without secrets
	Response []byte // at most 1,024 B are written

	Attempts     int // charged
	FirstAttempt time.Time
	LastAttempt  time.Time
	Redrives     int
	Instance     string    // replica and version that gave up; filled in by Parse only, the Writer knows its own
	At           time.Time // when it was given up: the letter's own timestamp; filled in by Parse only
}

// ID is the deduplication key: <webhook-id>/<subscription>[/<replay>].
func (l Letter) ID() string {
	id := l.WebhookID + "/" + l.Subscription
	if l.Replay != "" {
		id += "/" + l.Replay
	}
	return id
}
