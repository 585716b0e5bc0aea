package dispatcher

import (
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/webhook"
)

const (
	leastRead    = 4 << 10
	mostRead     = 256 << 10
	loadBytes    = 64 << 10 // one parked record, and what the log reads with it anyway
	rebuildBytes = 256 << 10

	probeChoice    = 8
	letterPatience = time.Minute // longer than the producer takes to fail
)

type eventKind byte

const (
	evTimer      eventKind = iota
	evRecords              // from, next, records: what cmdRead asked for
	evReadFailed           // the runner asks again later, by evTimer
	evLoaded               // next, records: what cmdLoad asked for
	evLoadFailed
	evBell     // the end of the partition moved
	evGranted  // the sender slot of cmdAsk
	evResult   // from, outcome, othersPass
	evLettered // from, failed
	evHold     // until: another lane of the subscription was told to wait
	evWait     // until: a predecessor may still have something in flight; and nothing is sent before the first commit
	evPinned   // Kafka has a commit of the lane
	evGroup    // failed: the progress group takes no commits, or does again
	evSuspend  // the session is over
	evWake     // the partition came back as if nothing had happened
	evPlan     // plan
	evLost     // from: everything below it is gone
)

// event is what happens to a lane. from is the offset it is about.
type event struct {
	kind       eventKind
	failed     bool
	othersPass bool
	from, next int64
	until      time.Time
	records    []*sluice.Record
	outcome    *webhook.Outcome
	plan       *plan
	slot       *slot // evGranted: for the runner, the lane does not look at it
}

type commandKind byte

const (
	cmdRead    commandKind = iota // about bytes from an offset on; answer with evRecords or evReadFailed
	cmdLoad                       // the record at an offset; answer with evLoaded or evLoadFailed
	cmdAsk                        // for a sender slot; answer with evGranted, at once or later
	cmdUnask                      // the slot is not wanted any more
	cmdReturn                     // the granted slot is not needed
	cmdSend                       // with the granted slot; answer with evResult
	cmdLetter                     // write the dead letter; answer with evLettered
	cmdHoldAll                    // tell the subscription's other lanes on this replica to wait
	cmdReport                     // an attempt: where it becomes visible
	cmdGone                       // a hole's record was compacted away
	cmdLost                       // count offsets were lost
)

// command is what a lane wants done. job must not be kept beyond the carrying out, unless it is flying or buried.
type command struct {
	kind     commandKind
	job      *job
	from     int64
	count    int64
	was      int64 // cmdLost: the low watermark before
	bytes    int
	until    time.Time
	outcome  *webhook.Outcome
	decision decision
}
