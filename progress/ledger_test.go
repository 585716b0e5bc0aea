package progress

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

func seal(body []byte) string {
	b := binary.BigEndian.AppendUint32(body[:len(body):len(body)], crc32.Checksum(body, castagnoli))
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// model is the ledger without a thought for speed: what is undone, and how far was offered.
type model struct {
	next   int64
	undone map[int64]Hole
}

func (m *model) low() int64 {
	low := m.next
	for o := range m.undone {
		low = min(low, o)
	}
	return low
}

func TestLedgerAgreesWithANaiveModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		start := rnd.Int64N(1000)
		l, m := NewLedger(start), &model{next: start, undone: map[int64]Hole{}}
		last := int64(0)
		for step := range 3000 {
			var o int64
			for o = range m.undone { // any one
				break
			}
			before, version := l.Low(), l.Version()
			switch k := rnd.IntN(100); {
			case k < 40 && len(m.undone) < MaxHoles:
				o := m.next + max(0, rnd.Int64N(5)-3)
				if !l.Offer(o) {
					t.Fatalf("step %d: Offer(%d) refused at next %d", step, o, l.Next())
				}
				m.undone[o], m.next = Hole{Offset: o}, o+1
			case k < 45:
				m.next += rnd.Int64N(3)
				l.Pass(m.next)
			case k < 85:
				_, known := m.undone[o]
				if rnd.IntN(20) == 0 {
					o = rnd.Int64N(m.next + 5)
					_, known = m.undone[o]
				}
				delete(m.undone, o)
				if l.Done(o) != known {
					t.Fatalf("step %d: Done(%d), a hole: %v", step, o, known)
				}
			case k < 98 && len(m.undone) > 0:
				h := m.undone[o]
				h.Attempts, h.First = h.Attempts+1, minute.Add(-time.Duration(rnd.IntN(100))*time.Minute)
				m.undone[o] = h
				l.Charge(o, h.Attempts, h.First)
			case k == 99:
				to := m.low() + rnd.Int64N(30)
				lost := int64(0)
				for o := range m.undone {
					if o < to {
						delete(m.undone, o)
						lost++
					}
				}
				lost += max(0, to-m.next)
				m.next = max(m.next, to)
				if got := l.Skip(to); got != lost {
					t.Fatalf("step %d: Skip(%d) = %d, want %d", step, to, got, lost)
				}
			}
			if l.Low() != m.low() || l.Next() != m.next || l.Len() != len(m.undone) {
				t.Fatalf("step %d: low %d next %d holes %d, want %d %d %d", step, l.Low(), l.Next(), l.Len(), m.low(), m.next, len(m.undone))
			}
			if l.Low() < last {
				t.Fatalf("step %d: low went back from %d to %d", step, last, l.Low())
			}
			if last = l.Low(); last != before && l.Version() == version && l.Len() > 0 {
				t.Fatalf("step %d: low moved from %d to %d and the version did not", step, before, last)
			}
			if step%10 == 0 {
				m.check(t, l)
			}
		}
	}
}

// check compares hole by hole, then what a successor would read: the same holes with attempts and nothing done that
// is not.
func (m *model) check(t *testing.T, l *Ledger) {
	t.Helper()
	seen := 0
	for h := range l.Holes() {
		if want := m.undone[h.Offset]; want != h {
			t.Fatalf("hole %+v, want %+v", h, want)
		}
		seen++
	}
	if seen != len(m.undone) {
		t.Fatalf("%d holes, want %d", seen, len(m.undone))
	}
	_, again, err := Decode(l.Low(), Mark{Suspect: sluice.NoOffset, At: minute}.Encode(l, MaxMetadata))
	if err != nil || again.Low() != l.Low() || again.Next() > l.Next() {
		t.Fatalf("read back: %v, low %d of %d, next %d of %d", err, again.Low(), l.Low(), again.Next(), l.Next())
	}
	for o := l.Low(); o < again.Next(); o++ {
		want, undone := m.undone[o]
		got, hole := again.Hole(o)
		if undone != hole || want != got {
			t.Fatalf("read back offset %d: %+v, want %+v", o, got, want)
		}
	}
	for o, h := range m.undone {
		if o >= again.Next() && h.Attempts > 0 {
			t.Fatalf("the attempts of %d were not told", o)
		}
	}
	for o := again.Next(); o < l.Next(); o++ {
		if _, undone := m.undone[o]; !undone {
			t.Fatalf("offset %d is done and would be sent again", o)
		}
	}
}

func TestOneParkedRecordDoesNotHoldTheOthersBack(t *testing.T) {
	l := NewLedger(10)
	l.Offer(10)
	l.Charge(10, 1, minute)
	for o := int64(11); o < 211; o++ {
		l.Offer(o)
		l.Done(o)
	}
	_, again, err := Decode(l.Low(), Mark{Suspect: sluice.NoOffset, At: minute}.Encode(l, MaxMetadata))
	if err != nil || again.Low() != 10 || again.Next() != 211 || again.Len() != 1 {
		t.Fatalf("%v: low %d, next %d, %d holes", err, again.Low(), again.Next(), again.Len())
	}
	if h, _ := again.Hole(10); h.Attempts != 1 || !h.First.Equal(minute) {
		t.Errorf("the parked record came back as %+v", h)
	}
}

func TestDoneTakesNoMemoryPerRecord(t *testing.T) {
	l := NewLedger(0)
	l.Offer(0) // parked for ever
	next := int64(1)
	round := func() {
		for range 32 {
			l.Offer(next)
			next++
		}
		for o := next - 32; o < next; o++ {
			l.Done(o)
		}
	}
	for range 100 {
		round()
	}
	if n := testing.AllocsPerRun(1000, round); n > 0 {
		t.Errorf("%.2f allocations for 32 records", n)
	}
}

func BenchmarkOfferDone(b *testing.B) {
	l := NewLedger(0)
	for o := range int64(200) {
		l.Offer(o)
	}
	o := int64(200)
	for b.Loop() {
		l.Offer(o)
		l.Done(o)
		o++
	}
}
