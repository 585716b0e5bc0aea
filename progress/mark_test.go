package progress

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicegate/sluice"
)

// minute is unix minute 29,923,487: late in November 2026.
var minute = time.Unix(29_923_487*60, 0).UTC()

func tag() uint32 {
	var id sluice.TopicID
	for i := range id {
		id[i] = byte(i)
	}
	return TopicTag(id)
}

// The vectors were made by an encoder of another language from the layout alone.
func TestMetadataHoldsToTheVectors(t *testing.T) {
	const low = 1000
	ago := func(minutes int) time.Time { return minute.Add(-time.Duration(minutes) * time.Minute) }
	tests := []struct {
		name  string
		mark  Mark
		build func(l *Ledger)
		want  string
	}{
		{"fresh", Mark{Tag: tag(), Term: 1, Writer: 0xdeadbeef, Suspect: sluice.NoOffset, At: minute},
			func(l *Ledger) {},
			"1:AQDZyQjrAd6tvu8AAJ-xog4AAELEOeY"},
		{"clean, one parked record", Mark{Clean: true, Tag: tag(), Term: 300, Writer: 1, SeekEpoch: 2, Suspect: sluice.NoOffset, At: minute},
			func(l *Ledger) {
				l.Offer(1000)
				l.Charge(1000, 2, ago(7))
				l.Pass(1004)
			},
			"1:AQHZyQjrrAIAAAABAgCfsaIOAgEDAgcAG5BKcQ"},
		{"suspect, runs and clamped minutes", Mark{Tag: tag(), Term: 7, Writer: 0x01020304, SeekEpoch: 5, Unclean: 3, Suspect: 1004, At: minute},
			func(l *Ledger) {
				l.Offer(1000)
				l.Offer(1001)
				l.Charge(1001, 1, ago(0))
				l.Offer(1003)
				l.Charge(1003, 130, ago(20_000))
				l.Offer(1204)
				l.Charge(1204, 3, ago(90))
				l.Offer(1205) // in flight for the first time, nothing done above it: not told
			},
			"1:AQLZyQjrBwECAwQFAwSfsaIOBQIBAcgBAQABAIIB_38DWgBuIZcF"},
		{"pages", Mark{Tag: tag(), Term: 7, Writer: 0x01020304, Suspect: sluice.NoOffset, At: minute, Pages: []Page{
			{Number: 9, Partition: 3, Offset: 123_456, Lowest: low - 77, Earliest: ago(-12)},
			{Number: 10, Partition: 11, Offset: 123_499, Lowest: low, Earliest: minute}}},
			func(l *Ledger) {
				l.Offer(1000)
				l.Offer(1001)
				l.Done(1001)
			},
			"1:AQDZyQjrBwECAwQAAJ-xog4CAQEAAgkDwMQHTQwKC-vEBwAAWJ0Hpw"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := NewLedger(low)
			tt.build(l)
			got := tt.mark.Encode(l, MaxMetadata)
			if got != tt.want {
				t.Fatalf("Encode = %s, want %s", got, tt.want)
			}
			mark, again, err := Decode(low, got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.mark, mark); diff != "" {
				t.Errorf("mark (-want +got):\n%s", diff)
			}
			if re := mark.Encode(again, MaxMetadata); re != tt.want {
				t.Errorf("encoded again = %s, want %s", re, tt.want)
			}
		})
	}
}

func TestMetadataThatIsNotOursMeansNoHoles(t *testing.T) {
	good := Mark{Suspect: sluice.NoOffset, At: minute}.Encode(NewLedger(5), MaxMetadata)
	for name, metadata := range map[string]string{
		"empty": "", "foreign": "consumer-3", "other version": "2:" + good[2:], "no base64": "1:%%%", "short": "1:AQ",
		"cut": good[:len(good)-3], "a character changed": good[:3] + "R" + good[4:],
	} {
		_, l, err := Decode(5, metadata)
		if err == nil || l.Low() != 5 || l.Next() != 5 || l.Len() != 0 {
			t.Errorf("%s: err %v, low %d, next %d, holes %d", name, err, l.Low(), l.Next(), l.Len())
		}
	}
	if _, _, err := Decode(5, ""); !errors.Is(err, ErrForeign) {
		t.Errorf("a reset by other tools is not told from damage: %v", err)
	}
}

// webhooks.md 7.2 counts 4,009 characters for 240 holes, done runs over a span below 2^28 and 48 pages.
func TestWorstLaneFitsTheMetadata(t *testing.T) {
	l := NewLedger(1 << 40)
	at := l.Low()
	for i := range MaxHoles {
		l.Offer(at)
		l.Charge(at, maxMinutes, minute.Add(-30*24*time.Hour))
		at++
		if i < 127 {
			at += 1<<21 + 1 // a done run of four bytes
		} else {
			at += 200 // of two
		}
	}
	l.Pass(at)
	m := Mark{Clean: true, Tag: 1 << 31, Term: 1 << 40, Writer: 1 << 31, SeekEpoch: 1 << 30, Unclean: 1 << 14, Suspect: at - 1, At: minute}
	for i := range 48 {
		m.Pages = append(m.Pages, Page{Number: 1 << 27, Partition: 11, Offset: 1 << 41, Lowest: l.Low() - 1<<27, Earliest: minute.Add(time.Duration(100+i) * time.Minute)})
	}
	metadata := m.Encode(l, MaxMetadata)
	if len(metadata) == 0 || len(metadata) > MaxMetadata {
		t.Fatalf("%d characters", len(metadata))
	}
	_, again, err := Decode(l.Low(), metadata)
	if err != nil || again.Len() != MaxHoles || again.Next() != l.Next() {
		t.Fatalf("%v: %d holes to %d, want %d to %d", err, again.Len(), again.Next(), MaxHoles, l.Next())
	}
	h, _ := again.Hole(l.Low())
	if h.Attempts != maxMinutes || minute.Sub(h.First) != maxMinutes*time.Minute {
		t.Errorf("clamped to %d attempts, %v", h.Attempts, minute.Sub(h.First))
	}
}

func TestClampingGivesUpMinutesThenAttemptsThenTheHighestRuns(t *testing.T) {
	l := NewLedger(0)
	for o := int64(0); o < 400; o += 2 {
		l.Offer(o)
		l.Charge(o, 1000, minute.Add(-5000*time.Minute))
	}
	l.Pass(400)
	m := Mark{Suspect: sluice.NoOffset, At: minute}
	sizes := []struct {
		limit             int
		minutes, attempts int
		next              int64
	}{
		{1700, 5000, 1000, 400},
		{1480, oneByte, 1000, 400},
		{1200, oneByte, oneByte, 400},
		{400, oneByte, oneByte, 0},
	}
	for _, s := range sizes {
		metadata := m.Encode(l, s.limit)
		if metadata == "" || len(metadata) > s.limit {
			t.Fatalf("limit %d: %d characters", s.limit, len(metadata))
		}
		_, again, err := Decode(0, metadata)
		if err != nil {
			t.Fatal(err)
		}
		h, _ := again.Hole(0)
		if h.Attempts != s.attempts || int(minute.Sub(h.First).Minutes()) != s.minutes {
			t.Errorf("limit %d: %d attempts, %v", s.limit, h.Attempts, minute.Sub(h.First))
		}
		if s.next != 0 && again.Next() != s.next {
			t.Errorf("limit %d: told up to %d, want %d", s.limit, again.Next(), s.next)
		}
		if s.next == 0 && (again.Next() <= 100 || again.Next() >= 200) {
			t.Errorf("limit %d: told up to %d", s.limit, again.Next())
		}
	}
	if got := m.Encode(l, 20); got != "" {
		t.Errorf("a limit below everything still wrote %q", got)
	}
}

func FuzzDecodeNeverPanics(f *testing.F) {
	for _, seed := range []string{"1:AQDZyQjrAd6tvu8AAJ-xog4AAELEOeY", "1:AQLZyQjrBwECAwQFAwSfsaIOBQIBAcgBAQABAIIB_38DWgBuIZcF", "", "1:", "x"} {
		f.Add(int64(1000), seed)
	}
	f.Fuzz(func(t *testing.T, low int64, metadata string) {
		m, l, err := Decode(low, metadata)
		if l == nil || l.Low() != low {
			t.Fatalf("low %d became %v", low, l)
		}
		if err != nil {
			return
		}
		again := m.Encode(l, MaxMetadata)
		if _, _, err := Decode(low, again); err != nil && again != "" {
			t.Fatalf("%q encoded again as %q: %v", metadata, again, err)
		}
	})
}

// Damage that keeps the CRC right reaches the parser: flip bytes of the body and seal it anew.
func TestSealedDamageNeverPanics(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	l := NewLedger(1000)
	for range 60 {
		l.Offer(l.Next() + rnd.Int64N(3))
	}
	m := Mark{Suspect: 1002, At: minute, Pages: []Page{{Number: 1, Offset: 5, Lowest: 3, Earliest: minute}}}
	runs, holes := l.runs()
	body := m.append(nil, 1000, runs, holes, maxMinutes, maxMinutes)
	for range 200_000 {
		damaged := append([]byte(nil), body[:4+rnd.IntN(len(body)-7)]...)
		for range 1 + rnd.IntN(4) {
			damaged[rnd.IntN(len(damaged))] = byte(rnd.Uint32())
		}
		if _, l, _ := Decode(1000, seal(damaged)); l.Low() != 1000 {
			t.Fatalf("low became %d from %x", l.Low(), damaged)
		}
	}
}

func TestSmallerBrokerLimitMeansFewerHoles(t *testing.T) {
	for limit, want := range map[int]int{4096: 240, 10_000: 240, 2048: 120, 100: 5, 0: 1} {
		if got := HolesWithin(limit); got != want {
			t.Errorf("HolesWithin(%d) = %d, want %d", limit, got, want)
		}
	}
	if strings.Contains(Mark{}.Encode(NewLedger(0), 10), "1:") {
		t.Error("ten characters cannot hold a mark")
	}
}
