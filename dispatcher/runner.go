package dispatcher

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

const (
	readTimeout = 15 * time.Second
	firstPause  = 250 * time.Millisecond // after a read that failed, doubling
	lastPause   = 5 * time.Second
	beyondLimit = 12 // reads above the end of the log in a row, about half a minute, before that is believed
)

// runner carries out what a lane commands. It has a goroutine only while there is something to do: whoever has news
// (a result, the bell, a timer) posts it and starts one if there is none. That goroutine alone steps the lane.
type runner struct {
	d     *Dispatcher
	claim *claim
	share *share
	line  *progress.Line

	revision int64 // of the plan; belongs to the claim's reconciling

	// Of the goroutine that runs.
	handed   *slot   // granted at once, and not yet told to the lane
	wants    [2]want // the load and the read to make when nothing else is left
	wanted   [2]bool
	slot     *slot // the wish that was not granted yet
	granted  *slot // the one just granted
	troubles int   // reads that failed in a row
	above    int   // of them, above the end of the log
	trouble  string

	mu      sync.Mutex
	lane    *lane
	mark    progress.Mark
	low     int64    // where the mark's count of unclean takeovers holds
	said    []saying // what Kafka acknowledged last, and what was said since
	bare    bool     // the brokers take no metadata of this length: the offset alone
	hearing bool     // a read-back is under way, and all that is said meanwhile may be what it finds
	pinned  bool     // Kafka has a commit of the lane
	silent  bool     // a predecessor is waited for, and its word stands
	heir    progress.Mark
	inbox   []event
	head    int // inbox[head:] is what was posted
	running bool
	active  bool // since the last sweep
	dropped bool
	timer   *time.Timer
	version uint64 // of the ledger when the committer was told last
}

// want is a read: from an offset, about so many bytes.
type want struct {
	kind  commandKind
	from  int64
	bytes int
}

// newRunner makes a lane that nobody has set going yet, in the place of old if there is one: that lets go before the new
// one can speak, and after it is counted in, so that the subscription's share lives on.
func newRunner(c *claim, def *subscriptions.Subscription, in inheritance, old *runner) *runner {
	r := &runner{d: c.d, claim: c, mark: in.Mark, low: in.Ledger.Low(), revision: def.Revision, said: []saying{sayingOf(0, in.Found)}}
	r.mu.Lock() // the gauges may look, and others post, as soon as the share knows it
	defer r.mu.Unlock()
	r.share = c.d.enter(r, def)
	r.lane = newLane(r.share.plan.Load(), in.Ledger, time.Now(), rand.Float64)
	if old != nil {
		old.drop()
	}
	r.line = c.d.committer.Open(def.ProgressGroup(), r)
	return r
}

// post gives the lane an event. False: it is gone, and the event with it.
func (r *runner) post(e event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return false
	}
	r.inbox = append(r.inbox, e)
	r.active = true
	if !r.running {
		r.running = true
		r.d.work.Go(r.run)
	}
	return true
}

// run steps the lane until nothing is left to do.
func (r *runner) run() {
	defer func() {
		if p := recover(); p != nil { // a fault of ours: the lane begins again from what is committed
			r.d.panicked("lane", p)
			r.claim.restart(r)
			r.settle()
		}
	}()
	for {
		e, ok := r.next()
		if !ok {
			return
		}
		if e.kind == evGranted {
			r.granted = e.slot
		}
		if e.kind == evGroup {
			e.failed = r.share.shut() // the latest of several words counts
		}
		commands := r.step(e)
		for i := range commands {
			r.do(&commands[i])
		}
		if e.kind == evResult || e.kind == evLettered {
			r.claim.flights.land()
		}
	}
}

func (r *runner) step(e event) []command {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lane.step(time.Now(), e)
}

// next is the next event: what a command led to first, then what was posted, then a read. When there is nothing it
// tells the committer what changed and sets the timer, and the goroutine ends.
func (r *runner) next() (event, bool) {
	if w := r.handed; w != nil {
		r.handed = nil
		return event{kind: evGranted, slot: w}, true
	}
	for {
		e, turn := r.take()
		switch turn {
		case posted:
			return e, true
		case over:
			r.settle()
			return event{}, false
		case idle:
			return event{}, false
		}
		which := 0 // a record that is to be sent comes before new ones
		if !r.wanted[0] {
			which = 1
		}
		r.wanted[which] = false
		if e, ok := r.read(r.wants[which]); ok {
			return e, true
		}
	}
}

// turn is what the goroutine of a lane does next.
type turn byte

const (
	posted turn = iota // an event
	toRead
	idle // nothing: it ends
	over // it ends, and the lane with it
)

func (r *runner) take() (e event, what turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped {
		return e, over
	}
	if r.head < len(r.inbox) {
		e, r.inbox[r.head] = r.inbox[r.head], event{}
		if r.head++; r.head == len(r.inbox) {
			r.inbox, r.head = r.inbox[:0], 0
		}
		return e, posted
	}
	r.tell()
	if r.wanted[0] || r.wanted[1] {
		return e, toRead
	}
	r.arm()
	r.running = false
	return e, idle
}

// settle ends the goroutine of a lane that was dropped: what was posted to it is given back, and so is its wish for a
// slot. Only that goroutine may call it, and never under the lock: slots wake other lanes.
func (r *runner) settle() {
	r.mu.Lock()
	left := r.inbox[r.head:]
	r.inbox, r.head, r.running = nil, 0, false
	r.mu.Unlock()
	if r.handed != nil {
		r.d.slots.release(r.handed)
		r.handed = nil
	}
	for _, e := range left {
		switch e.kind {
		case evGranted:
			r.d.slots.release(e.slot)
		case evResult, evLettered:
			r.claim.flights.land()
		}
	}
	if r.slot != nil {
		r.d.slots.cancel(r.slot)
		r.slot = nil
	}
}

// tell lets the committer know what changed since it was told last. The caller has mu.
func (r *runner) tell() {
	if v := r.lane.ledger.Version(); v != r.version {
		r.version = v
		r.line.Changed(r.lane.takeCompletions())
	}
}

// arm sets the timer for what the lane waits for. The caller has mu.
func (r *runner) arm() {
	at := r.lane.wakeAt(time.Now())
	switch {
	case at.IsZero():
	case r.timer == nil:
		r.timer = time.AfterFunc(time.Until(at), func() { r.post(event{kind: evTimer}) })
	default:
		r.timer.Reset(time.Until(at))
	}
}

// trim gives memory back where nothing happened since the last call.
func (r *runner) trim() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active && !r.running && !r.dropped && r.inbox != nil {
		r.inbox = nil
		r.lane.trim()
	}
	r.active = false
}

// drop ends the lane: flights go on until the claim cancels them, their results count for nothing.
func (r *runner) drop() {
	r.mu.Lock()
	if r.dropped {
		r.mu.Unlock()
		return
	}
	r.dropped = true
	if r.timer != nil {
		r.timer.Stop()
	}
	if !r.running {
		r.running = true
		r.d.work.Go(r.run) // to settle
	}
	r.mu.Unlock()
	r.line.Close()
	r.d.leave(r)
}

// Statement is what may be committed now: nothing without a session, and of a suspended lane only the last word.
func (r *runner) Statement(now time.Time, final bool) (sluice.Commit, uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped || r.silent || r.claim.released() != final || !r.claim.leased() {
		return sluice.Commit{}, 0, false
	}
	l := r.lane.ledger
	if l.Low() != r.low {
		r.low, r.mark.Unclean = l.Low(), 0
	}
	r.mark.At = now
	r.mark.Clean = final && r.lane.flying == 0 && r.lane.graves == 0 && !now.Before(r.lane.waitUntil)
	p := r.claim.p
	c := sluice.Commit{Topic: p.Topic, Partition: p.Number, Offset: l.Low()}
	if !r.bare {
		c.Metadata = r.mark.Encode(l, r.d.metadataBytes)
	}
	r.said = append(r.said, sayingOf(l.Version(), c))
	if len(r.said) > maxSaid {
		r.said = append(r.said[:1], r.said[2:]...)
	}
	return c, l.Version(), true
}

// maxSaid is how many commits without an answer a lane remembers.
const maxSaid = 16

// Committed hears what became of a statement. A group that a foreign member joined takes no commits: nothing more is
// sent then, or it would be sent again and again after every restart.
func (r *runner) Committed(version uint64, err error) {
	switch sluice.KindOf(err) {
	case "":
		if r.stored(version) {
			r.post(event{kind: evPinned})
		}
		r.d.open(r.share)
	case sluice.TooLarge:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.bare = true
	case sluice.StaleSession:
		r.d.shut(r.share, hijacked)
	case sluice.Forbidden:
		r.d.shut(r.share, forbidden)
	}
}

// wait keeps an ordered lane from sending until its predecessor has nothing in flight, and until Kafka has its own word:
// whoever takes over next must know whom to wait for.
func (r *runner) wait(until time.Time, in inheritance) {
	r.mu.Lock()
	r.silent, r.heir = in.Silent, in.Heir
	r.mu.Unlock()
	r.post(event{kind: evWait, until: until})
	if in.Silent {
		time.AfterFunc(time.Until(until), r.speak)
	}
}

// speak ends the silence.
func (r *runner) speak() {
	r.mu.Lock()
	was := r.silent
	r.silent = false
	r.mu.Unlock()
	if was {
		r.line.Changed(0)
		r.d.committer.Now()
	}
}

// reassure ends the wait when the predecessor is back among the owners, with nothing in flight.
func (r *runner) reassure(with company) {
	r.mu.Lock()
	landed := r.silent && with.landed(r.claim.p.Number, r.heir.Writer, r.heir.Term)
	if landed {
		r.mark.Unclean = r.heir.Unclean
	}
	r.mu.Unlock()
	if landed {
		r.post(event{kind: evWait, until: time.Now()})
		r.speak()
	}
}

// stored notes what Kafka has, and reports whether that is the first.
func (r *runner) stored(version uint64) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first = !r.pinned
	r.pinned = true
	for i := len(r.said) - 1; i > 0 && !r.hearing; i-- {
		if r.said[i].version == version {
			r.said = append(r.said[:0], r.said[i:]...)
			break
		}
	}
	return first
}

// listen begins or ends a read-back.
func (r *runner) listen(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hearing = on
}

// claimed is what the lane said of itself.
func (r *runner) claimed() claimed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return claimed{Said: slices.Clone(r.said), Mark: r.mark}
}

// abroad is whether something is in flight that the lane has not heard of.
func (r *runner) abroad() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lane.flying > 0 || r.lane.graves > 0
}

// stands is the lane's low watermark.
func (r *runner) stands() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lane.ledger.Low()
}

// outbid takes the next term, so that the other owner sees it is not alone.
func (r *runner) outbid() {
	r.mu.Lock()
	r.mark.Term++
	r.mu.Unlock()
	r.line.Again()
}

// fill is for the gauges.
func (r *runner) fill() (holes, keys int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lane.ledger.Len(), len(r.lane.keys)
}

// readContext ends with the session: a release does not wait for Kafka.
func (r *runner) readContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.claim.context(), readTimeout)
}
