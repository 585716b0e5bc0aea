package progress

import (
	"iter"
	"time"
)

// MaxHoles is how many offsets a lane may hold undone at a time: with the span below MaxSpan their runs, attempts and
// minutes always fit the commit metadata (see Mark.Encode for the sum).
const (
	MaxHoles       = 240
	MaxSpan  int64 = 10_000_000
)

// Hole is an offset at or above the low watermark that is not done: in flight, parked or queued behind its key.
type Hole struct {
	Offset   int64
	Attempts int       // charged so far
	First    time.Time // when the first charged attempt began; zero while Attempts is 0
}

// Ledger is a lane's account of what was offered and what is done. Everything below Low is done; from Low to Next
// everything is done that is not a hole; from Next on nothing was offered yet. It knows no clock and no network, and
// is not safe for concurrent use: the lane owns it.
//
// Holes lie in offset order in one slice. One that is done stays there as a dead entry until the low watermark passes
// it or dead entries outweigh the living, so that Offer and Done cost a binary search and no garbage.
type Ledger struct {
	next    int64
	buf     []entry
	head    int // buf[head:] are the entries; the first of them, if there is one, is alive
	alive   int
	version uint64
}

type entry struct {
	offset   int64
	first    int64 // unix milliseconds
	attempts int32
	dead     bool
}

// NewLedger begins at an offset: everything below it counts as done.
func NewLedger(low int64) *Ledger { return &Ledger{next: low, version: 1} }

// Low is the offset to commit: everything below it is done.
func (l *Ledger) Low() int64 {
	if l.alive == 0 {
		return l.next
	}
	return l.buf[l.head].offset
}

// Next is the offset to read next.
func (l *Ledger) Next() int64 { return l.next }

// Len is the number of holes.
func (l *Ledger) Len() int { return l.alive }

// Version grows whenever the low watermark or what Encode writes may have changed. An answered commit counts only for
// the version it carried.
func (l *Ledger) Version() uint64 { return l.version }

// Touch makes the state count as changed, so that it is committed again.
func (l *Ledger) Touch() { l.version++ }

// Offer takes a record into the account: it becomes a hole, and what lies between Next and it counts as done, since it
// was not in the log (compacted away, transaction markers, aborted). An offset below Next was offered before: false.
func (l *Ledger) Offer(offset int64) bool {
	if offset < l.next {
		return false
	}
	if offset > l.next {
		l.version++
	}
	if len(l.buf) == cap(l.buf) && l.head > len(l.buf)/2 {
		l.buf = l.buf[:copy(l.buf, l.buf[l.head:])]
		l.head = 0
	}
	l.buf = append(l.buf, entry{offset: offset})
	l.alive++
	l.next = offset + 1
	return true
}

// Pass counts everything from Next up to an offset as done without offering it.
func (l *Ledger) Pass(to int64) {
	if to > l.next {
		l.next = to
		l.version++
	}
}

// Done settles a hole. An offset that is no hole is none of ours any more (a late result): false.
func (l *Ledger) Done(offset int64) bool {
	i, ok := l.find(offset)
	if !ok {
		return false
	}
	l.buf[i].dead = true
	l.alive--
	l.version++
	l.trim()
	return true
}

// Charge notes the attempts of a hole and when the first of them began.
func (l *Ledger) Charge(offset int64, attempts int, first time.Time) bool {
	i, ok := l.find(offset)
	if !ok {
		return false
	}
	l.buf[i].attempts, l.buf[i].first = int32(attempts), first.UnixMilli()
	l.version++
	return true
}

// Hole finds one hole.
func (l *Ledger) Hole(offset int64) (Hole, bool) {
	i, ok := l.find(offset)
	if !ok {
		return Hole{}, false
	}
	return l.buf[i].hole(), true
}

// Holes goes through the holes in offset order. The ledger must not change meanwhile.
func (l *Ledger) Holes() iter.Seq[Hole] {
	return func(yield func(Hole) bool) {
		for _, e := range l.buf[l.head:] {
			if !e.dead && !yield(e.hole()) {
				return
			}
		}
	}
}

// Skip gives up everything below an offset: retention took it, or an operator let it go. It returns how many offsets
// below it were not done.
func (l *Ledger) Skip(to int64) (lost int64) {
	if to <= l.Low() {
		return 0
	}
	for i := l.head; i < len(l.buf); i++ {
		if e := &l.buf[i]; !e.dead && e.offset < to {
			e.dead = true
			l.alive--
			lost++
		}
	}
	if to > l.next {
		lost += to - l.next
		l.next = to
	}
	l.version++
	l.trim()
	return lost
}

// Trim gives the memory of a ledger without holes back.
func (l *Ledger) Trim() {
	if l.alive == 0 {
		l.buf, l.head = nil, 0
	}
}

// Fits says whether offset may be offered: below maxHoles and no farther than maxSpan from the low watermark.
func (l *Ledger) Fits(offset int64, maxHoles int, maxSpan int64) bool {
	return l.alive < maxHoles && (l.alive == 0 || offset-l.Low() <= maxSpan)
}

func (l *Ledger) find(offset int64) (int, bool) {
	lo, hi := l.head, len(l.buf)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if l.buf[mid].offset < offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(l.buf) && l.buf[lo].offset == offset && !l.buf[lo].dead
}

// trim drops the dead entries at the head, and all the others once they are more than the living by a margin: each
// entry is moved a constant number of times at most.
func (l *Ledger) trim() {
	for l.head < len(l.buf) && l.buf[l.head].dead {
		l.head++
	}
	if l.alive == 0 {
		l.buf, l.head = l.buf[:0], 0
		return
	}
	if len(l.buf)-l.head <= 2*l.alive+64 {
		return
	}
	kept := l.buf[:0]
	for _, e := range l.buf[l.head:] {
		if !e.dead {
			kept = append(kept, e)
		}
	}
	l.buf, l.head = kept, 0
}

// runs are the lengths of hole, done, hole, … runs from Low up to the last offset that is done or has attempts, and
// the holes in them. What lies above needs no words: it will be read again.
func (l *Ledger) runs() (runs []uint64, holes []Hole) {
	end := l.next // one past the last offset that must be told
	entries := l.buf[l.head:]
	n := len(entries)
	for n > 0 {
		e := entries[n-1]
		if !e.dead {
			if e.offset != end-1 || e.attempts > 0 {
				break
			}
			end--
		}
		n--
	}
	at := l.Low()
	for _, e := range entries[:n] {
		if e.dead {
			continue
		}
		switch {
		case len(runs) == 0:
			runs = append(runs, 1)
		case e.offset == at:
			runs[len(runs)-1]++
		default:
			runs = append(runs, uint64(e.offset-at), 1)
		}
		at = e.offset + 1
		holes = append(holes, e.hole())
	}
	if len(runs) > 0 && end > at {
		runs = append(runs, uint64(end-at))
	}
	return runs, holes
}

// restore rebuilds a ledger from what runs said.
func restore(low int64, runs []uint64, attempts []int, first []time.Time) *Ledger {
	l := NewLedger(low)
	at, n := low, 0
	for i, length := range runs {
		if i%2 == 1 {
			at += int64(length)
			continue
		}
		for range length {
			e := entry{offset: at, attempts: int32(attempts[n])}
			if e.attempts > 0 {
				e.first = first[n].UnixMilli()
			}
			l.buf = append(l.buf, e)
			l.alive++
			at++
			n++
		}
	}
	l.next = at
	return l
}

func (e entry) hole() Hole {
	h := Hole{Offset: e.offset, Attempts: int(e.attempts)}
	if e.attempts > 0 {
		h.First = time.UnixMilli(e.first).UTC()
	}
	return h
}
