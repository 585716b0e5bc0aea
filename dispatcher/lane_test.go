package dispatcher

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

var (
	laneSteps = flag.Int("lane.steps", 1_000_000, "random steps of the lane's simulation")
	laneSeed  = flag.Uint64("lane.seed", 0, "seed of the lane's simulation; 0 takes the clock")
)

// world is everything around one lane, with time and chance in the hands of the test.
type world struct {
	t    *testing.T
	rnd  *rand.Rand
	now  time.Time
	lane *lane
	plan *plan
	step int

	log       []*sluice.Record // ascending, with gaps
	end       int64            // of the log
	start     int64            // of the log: retention took what is below
	written   int              // how many of log are there yet
	nature    map[int64]nature
	pending   []pendingOp
	downUntil time.Time
	lettersUp bool
	suspended bool
	shut      bool

	delivered map[int64]int
	letters   map[int64]int
	lastFirst map[string]int64 // the newest first success of each key
	attempts  map[int64]int    // highest attempt number seen per offset
}

// nature is how the endpoint takes a record.
type nature struct {
	class webhook.Class
	times int // so often; then S
}

type pendingOp struct {
	kind  commandKind
	from  int64
	bytes int
	rec   *sluice.Record
}

func newWorld(t *testing.T, rnd *rand.Rand, ordering string) *world {
	w := &world{
		t: t, rnd: rnd, now: noon, nature: map[int64]nature{}, lettersUp: true,
		delivered: map[int64]int{}, letters: map[int64]int{}, lastFirst: map[string]int64{}, attempts: map[int64]int{},
		plan: &plan{
			retries:  retries{Schedule: []time.Duration{0, time.Second, 10 * time.Second}, ClientAttempts: 2, MaxAge: time.Hour, RetryAfterCap: time.Hour},
			Ordering: ordering, Window: 1 + rnd.IntN(8), MaxHoles: 1 + rnd.IntN(40), MaxSpan: 1 + rnd.Int64N(500),
		},
	}
	if ordering == subscriptions.OrderPartition {
		w.plan.Window = 1
	}
	if rnd.IntN(4) == 0 {
		w.plan.Schedule[0] = 100 * time.Millisecond
	}
	offset := rnd.Int64N(50)
	w.start, w.end = offset, offset
	for range 200 + rnd.IntN(400) {
		offset += rnd.Int64N(8) / 6
		var key []byte
		if k := rnd.IntN(8); k > 1 {
			key = []byte{byte('a' + k)}
		} else if k == 1 {
			key = []byte{}
		}
		w.log = append(w.log, &sluice.Record{Topic: "t", Offset: offset, Key: key, Value: make([]byte, rnd.IntN(100))})
		switch n := rnd.IntN(100); {
		case n < 70:
		case n < 80:
			w.nature[offset] = nature{webhook.R, 1 + rnd.IntN(5)}
		case n < 85:
			w.nature[offset] = nature{webhook.C, 1 + rnd.IntN(3)}
		case n < 88:
			w.nature[offset] = nature{webhook.P, 1}
		case n < 93:
			w.nature[offset] = nature{webhook.E, 1 + rnd.IntN(9)}
		case n < 96:
			w.nature[offset] = nature{webhook.G, 1 + rnd.IntN(3)}
		default:
			w.nature[offset] = nature{webhook.T, 1}
		}
		offset++
	}
	w.lane = newLane(w.plan, progress.NewLedger(w.start), w.now, rnd.Float64)
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("step %d: %s", w.step, fmt.Sprintf(format, args...))
}

// feed steps the lane, notes its commands and checks what must always hold.
func (w *world) feed(e event) {
	low := w.lane.ledger.Low()
	for _, c := range w.lane.step(w.now, e) {
		op := pendingOp{kind: c.kind, from: c.from, bytes: c.bytes}
		switch c.kind {
		case cmdAsk:
			op.from = c.job.offset
		case cmdUnask:
			for i, p := range w.pending {
				if p.kind == cmdAsk {
					w.pending = append(w.pending[:i], w.pending[i+1:]...)
					break
				}
			}
			continue
		case cmdSend:
			op.from, op.rec = c.job.offset, c.job.record
			w.checkSend(c.job)
		case cmdLetter:
			op.from = c.job.offset
			if c.job.record == nil {
				w.fatalf("a letter without its record %d", c.job.offset)
			}
		case cmdReturn, cmdHoldAll, cmdReport, cmdGone, cmdLost:
			continue
		}
		w.pending = append(w.pending, op)
	}
	w.check(low)
}

func (w *world) checkSend(j *job) {
	switch {
	case j.record == nil || j.record.Offset != j.offset:
		w.fatalf("offset %d is sent without its record", j.offset)
	case w.suspended:
		w.fatalf("sent while suspended")
	case w.shut:
		w.fatalf("sent while the group takes no commits")
	case w.lane.held(w.now):
		w.fatalf("sent while held")
	case w.lane.barred:
		w.fatalf("sent while a letter cannot be written")
	case w.lane.flying > w.plan.Window:
		w.fatalf("%d in flight with a window of %d", w.lane.flying, w.plan.Window)
	case w.lane.probing && w.lane.flying != 1:
		w.fatalf("%d in flight while probing", w.lane.flying)
	case j.due.After(w.now):
		w.fatalf("offset %d is sent %v early", j.offset, j.due.Sub(w.now))
	}
	for _, p := range w.pending {
		if p.kind == cmdSend && w.sameLine(p.rec, j.record) {
			w.fatalf("two of one key in flight: %d and %d", p.from, j.offset)
		}
	}
	if n := j.attempts + 1; n < w.attempts[j.offset] {
		w.fatalf("the attempt number of %d went back to %d", j.offset, n)
	} else {
		w.attempts[j.offset] = n
	}
}

func (w *world) sameLine(a, b *sluice.Record) bool {
	return w.lineOf(a) != "" && w.lineOf(a) == w.lineOf(b)
}

func (w *world) lineOf(r *sluice.Record) string {
	switch {
	case w.plan.Ordering == subscriptions.OrderPartition:
		return "all"
	case w.plan.Ordering == subscriptions.OrderKey:
		return string(r.Key)
	}
	return ""
}

func (w *world) check(low int64) {
	n := w.lane
	open, aloft, graves := 0, 0, 0
	for offset, j := range n.jobs {
		if j.offset != offset {
			w.fatalf("job %d stands at %d", j.offset, offset)
		}
		if _, hole := n.ledger.Hole(offset); !hole {
			w.fatalf("job %d is no hole", offset)
		}
		switch j.stage {
		case ready:
			open++
		case flying:
			open++
			aloft++
		case buried:
			graves++
		case settled:
			w.fatalf("job %d is settled and still there", offset)
		}
		if j.record != nil && (j.stage == queued || j.stage == parked) {
			w.fatalf("job %d waits and holds its record", offset)
		}
	}
	switch {
	case open != n.open || aloft != n.flying || graves != n.graves:
		w.fatalf("counts %d %d %d, want %d %d %d", n.open, n.flying, n.graves, open, aloft, graves)
	case n.ledger.Len() != len(n.jobs):
		w.fatalf("%d holes, %d jobs", n.ledger.Len(), len(n.jobs))
	case n.ledger.Len() > w.plan.MaxHoles:
		w.fatalf("%d holes, at most %d", n.ledger.Len(), w.plan.MaxHoles)
	case n.ledger.Low() < low:
		w.fatalf("low went back from %d to %d", low, n.ledger.Low())
	}
	for o := low; o < n.ledger.Low() && w.step%16 == 0; o++ { // what the watermark passed is done
		w.settledOrMissing(o)
	}
}

func (w *world) settledOrMissing(o int64) {
	if o < w.start || w.delivered[o]+w.letters[o] > 0 || find(w.log, o) == nil {
		return
	}
	w.fatalf("low passed %d, which is neither delivered nor buried", o)
}

// perform lets one pending thing happen.
func (w *world) perform(i int) {
	op := w.pending[i]
	w.pending = append(w.pending[:i], w.pending[i+1:]...)
	switch op.kind {
	case cmdRead, cmdLoad:
		if op.from < w.start {
			w.lose(w.start)
			return
		}
		recs, next := w.readAt(op.from, op.bytes)
		kind := evRecords
		if op.kind == cmdLoad {
			kind = evLoaded
		}
		switch {
		case w.rnd.IntN(20) == 0 && op.kind == cmdRead:
			w.feed(event{kind: evReadFailed})
		case w.rnd.IntN(20) == 0 && op.kind == cmdLoad:
			w.feed(event{kind: evLoadFailed})
		default:
			w.feed(event{kind: kind, from: op.from, next: next, records: recs})
		}
	case cmdAsk:
		w.feed(event{kind: evGranted})
	case cmdSend:
		w.land(op)
	case cmdLetter:
		if !w.lettersUp {
			w.feed(event{kind: evLettered, from: op.from, failed: true})
			return
		}
		w.letters[op.from]++
		w.feed(event{kind: evLettered, from: op.from})
	}
}

func (w *world) land(op pendingOp) {
	class := webhook.S
	if w.now.Before(w.downUntil) {
		class = webhook.E
	} else if n := w.nature[op.from]; n.times > 0 {
		class = n.class
		w.nature[op.from] = nature{n.class, n.times - 1}
	}
	if class == webhook.S {
		if w.delivered[op.from]++; w.delivered[op.from] == 1 {
			if line := w.lineOf(op.rec); line != "" {
				if last, ok := w.lastFirst[line]; ok && last > op.from {
					w.fatalf("line %q: %d succeeded first after %d", line, op.from, last)
				}
				w.lastFirst[line] = op.from
			}
		}
	}
	o := webhook.Outcome{Class: class}
	if class != webhook.G && class != webhook.E {
		o.Status = 500
	}
	w.feed(event{kind: evResult, from: op.from, outcome: &o, othersPass: class == webhook.E && w.rnd.IntN(2) == 0})
}

func (w *world) readAt(from int64, bytes int) (recs []*sluice.Record, next int64) {
	next = from
	for _, r := range w.log[:w.written] {
		if r.Offset < from {
			continue
		}
		if bytes -= r.Size(); bytes < 0 && len(recs) > 0 {
			return recs, next
		}
		recs = append(recs, r)
		next = r.Offset + 1
	}
	return recs, max(next, w.end)
}

func (w *world) lose(below int64) {
	var kept []pendingOp
	for _, p := range w.pending {
		if (p.kind == cmdSend || p.kind == cmdLetter) && p.from < below || p.kind == cmdRead || p.kind == cmdLoad {
			continue
		}
		kept = append(kept, p)
	}
	w.pending = kept
	w.feed(event{kind: evLost, from: below})
}

// crash starts the lane anew from what a commit said.
func (w *world) crash() {
	w.pending, w.suspended, w.shut = nil, false, false
	metadata := progress.Mark{Suspect: sluice.NoOffset, At: w.now}.Encode(w.lane.ledger, progress.MaxMetadata)
	_, l, err := progress.Decode(w.lane.ledger.Low(), metadata)
	if err != nil {
		w.fatalf("read back: %v", err)
	}
	w.lane = newLane(w.plan, l, w.now, w.rnd.Float64)
	w.feed(event{kind: evTimer})
}

func (w *world) turn() {
	w.step++
	switch k := w.rnd.IntN(100); {
	case k < 70 && len(w.pending) > 0:
		w.perform(w.rnd.IntN(len(w.pending)))
	case k < 80 && w.written < len(w.log):
		w.written += min(1+w.rnd.IntN(5), len(w.log)-w.written)
		w.end = w.log[w.written-1].Offset + 1 + w.rnd.Int64N(2)
		if w.written < len(w.log) {
			w.end = min(w.end, w.log[w.written].Offset)
		}
		w.feed(event{kind: evBell})
	case k < 95:
		w.tick(w.rnd.IntN(3) == 0)
	case k == 95:
		w.downUntil = w.now.Add(time.Duration(w.rnd.IntN(10)) * time.Second)
	case k == 96 && w.rnd.IntN(3) == 0:
		w.shut = !w.shut
		w.feed(event{kind: evGroup, failed: w.shut})
	case k == 96:
		w.lettersUp = !w.lettersUp
	case k == 97 && !w.suspended:
		w.suspended = true
		w.feed(event{kind: evSuspend})
	case k == 97, k == 98 && w.suspended:
		w.suspended = false
		w.feed(event{kind: evWake})
	case k == 99 && w.rnd.IntN(5) == 0:
		w.crash()
	case k == 99 && w.rnd.IntN(5) == 0 && w.written > 0:
		if to := w.lane.ledger.Low() + w.rnd.Int64N(10); to <= w.end {
			w.start = max(w.start, to)
		}
	case k == 98 && w.rnd.IntN(10) == 0:
		w.feed(event{kind: evHold, until: w.now.Add(time.Duration(w.rnd.IntN(5)) * time.Second)})
	}
}

// tick moves the clock: a little, or to where the lane wants to be woken.
func (w *world) tick(far bool) {
	w.now = w.now.Add(time.Duration(w.rnd.IntN(200)) * time.Millisecond)
	if at := w.lane.wakeAt(w.now); far && !at.IsZero() {
		w.now = at
	}
	w.feed(event{kind: evTimer})
}

// drain mends everything and waits until nothing is left.
func (w *world) drain() {
	w.nature, w.downUntil, w.lettersUp, w.written = map[int64]nature{}, time.Time{}, true, len(w.log)
	w.end = w.log[len(w.log)-1].Offset + 1
	if w.suspended {
		w.suspended = false
		w.feed(event{kind: evWake})
	}
	w.shut = false
	w.feed(event{kind: evGroup})
	w.feed(event{kind: evBell})
	for i := 0; w.lane.ledger.Low() < w.end; i++ {
		w.step++
		if i > 200_000 {
			w.fatalf("stuck at %d of %d: open %d flying %d later %d holes %d, reading %v atEnd %v asked %d loading %d, probing %v, wake %v",
				w.lane.ledger.Low(), w.end, w.lane.open, w.lane.flying, len(w.lane.later), w.lane.ledger.Len(),
				w.lane.reading, w.lane.atEnd, w.lane.asked, w.lane.loading, w.lane.probing, w.lane.wakeAt(w.now).Sub(w.now))
		}
		if len(w.pending) > 0 {
			w.perform(w.rnd.IntN(len(w.pending)))
		} else {
			w.tick(true)
		}
	}
	for _, r := range w.log {
		w.settledOrMissing(r.Offset)
	}
	if len(w.lane.jobs)+len(w.lane.keys)+w.lane.open > 0 {
		w.fatalf("left over: %d jobs, %d keys, %d open", len(w.lane.jobs), len(w.lane.keys), w.lane.open)
	}
}

func TestLaneKeepsItsPromisesOverMillionsOfSteps(t *testing.T) {
	seed := *laneSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (-lane.seed)", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	orderings := []string{subscriptions.OrderNone, subscriptions.OrderKey, subscriptions.OrderPartition}
	total := 0
	for worlds := 0; total < *laneSteps; worlds++ {
		w := newWorld(t, rnd, orderings[worlds%3])
		w.feed(event{kind: evTimer})
		for range 3000 {
			w.turn()
		}
		w.drain()
		total += w.step
	}
	t.Logf("%d steps", total)
}
