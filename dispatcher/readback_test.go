package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

// commitOf is a commit as a lane writes it, at an offset without holes.
func commitOf(offset int64, m progress.Mark) sluice.Commit {
	return sluice.Commit{Topic: "t", Offset: offset, Metadata: m.Encode(progress.NewLedger(offset), progress.MaxMetadata)}
}

func TestTheReadBackTakesTheFirstRowThatFits(t *testing.T) {
	topic, other := sluice.TopicID{1}, sluice.TopicID{2}
	mark := progress.Mark{Tag: progress.TopicTag(topic), Term: 7, Writer: 9, SeekEpoch: 3, Suspect: sluice.NoOffset, At: noon}
	with := func(change func(m *progress.Mark)) sluice.Commit {
		m := mark
		change(&m)
		return commitOf(100, m)
	}
	acked, since := commitOf(100, mark), commitOf(120, mark)
	ours := claimed{Mark: mark, Said: []saying{sayingOf(1, acked), sayingOf(2, since)}}
	tests := []struct {
		name  string
		found sluice.Commit
		topic sluice.TopicID
		want  finding
		do    remedy
	}{
		{"what was acknowledged", acked, topic, equal, leave},
		{"what was said since, its answer still under way", since, topic, equal, leave},
		{"brokers without topic ids", acked, sluice.TopicID{}, equal, leave},
		{"the same words on another topic", acked, other, recreated, renew},
		{"nothing, the topic another", sluice.Commit{Offset: sluice.NoOffset}, other, recreated, renew},
		{"nothing", sluice.Commit{Offset: sluice.NoOffset}, topic, vanished, repeat},
		{"no metadata", sluice.Commit{Offset: 100}, topic, external, adopt},
		{"somebody's metadata", sluice.Commit{Offset: 100, Metadata: "consumer-1"}, topic, external, adopt},
		{"damaged metadata", sluice.Commit{Offset: 100, Metadata: acked.Metadata[:20]}, topic, external, adopt},
		{"a seek", with(func(m *progress.Mark) { m.SeekEpoch = 4 }), topic, sought, adopt},
		{"a seek, and an owner that is older or newer too", with(func(m *progress.Mark) { m.SeekEpoch, m.Term = 4, 9 }), topic, sought, adopt},
		{"an owner that had not heard of a seek", with(func(m *progress.Mark) { m.SeekEpoch, m.Term = 2, 9 }), topic, stale, repeat},
		{"a zombie", with(func(m *progress.Mark) { m.Term = 6 }), topic, stale, repeat},
		{"a successor", with(func(m *progress.Mark) { m.Term = 8 }), topic, superseded, standBy},
		{"another owner of the term", with(func(m *progress.Mark) { m.Writer = 10 }), topic, rival, outbid},
		{"ours of long ago", commitOf(90, mark), topic, late, repeat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, do := judge(tt.found, tt.topic, ours); got != tt.want || do != tt.do {
				t.Errorf("%s, remedy %d; want %s, %d", got, do, tt.want, tt.do)
			}
		})
	}
	nameless := ours
	nameless.Mark.Tag = progress.TopicTag(sluice.TopicID{})
	if got, _ := judge(acked, topic, nameless); got != equal {
		t.Errorf("brokers that learned to name their topics: %s", got)
	}
}

// withHole is one lane that delivered a1 to a4 and has b1 parked at offset 4.
func withHole(t *testing.T) (*endpoint, *house, *replica) {
	hook := &endpoint{answer: refuse(500, 1, "b1")}
	h, r := one(t, hook, func(s *subscriptions.Subscription) {
		s.Retry.Schedule = []subscriptions.Duration{0, subscriptions.Duration(2 * time.Hour), subscriptions.Duration(2 * time.Hour)}
	})
	h.produce("t", "a1", "a2", "a3", "a4", "b1", "c1")
	time.Sleep(40 * time.Second) // of the bubble's time
	hook.wantAll(t, "a1", "a2", "a3", "a4", "c1")
	if m := h.mark(t); m.Term != 1 || h.committed("s", part("t", 0)).Offset != 4 {
		t.Errorf("committed %+v, %+v", h.committed("s", part("t", 0)), m)
	}
	return hook, h, r
}

// wantAll compares what was delivered so far, in any order.
func (e *endpoint) wantAll(t *testing.T, values ...string) {
	t.Helper()
	synctest.Wait()
	if got := e.delivered(); !slices.Equal(sortedStrings(got), sortedStrings(values)) {
		t.Errorf("delivered %v, want %v", got, values)
	}
}

// mark is what the commit of s says.
func (h *house) mark(t *testing.T) progress.Mark {
	t.Helper()
	c := h.committed("s", part("t", 0))
	m, _, err := progress.Decode(c.Offset, c.Metadata)
	if err != nil {
		t.Errorf("metadata %q: %v", c.Metadata, err)
	}
	return m
}

// write is a commit by somebody else.
func (h *house) write(c sluice.Commit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.Topic = "t"
	h.group("sluice.sub.s")[part("t", 0)] = c
}

func outcomes(t *testing.T, r *replica, f finding) float64 {
	t.Helper()
	return counter(t, r.metrics.readBacks.WithLabelValues(string(f)))
}

func TestAResetFromOutsideIsAdoptedAsASeek(t *testing.T) {
	for name, to := range map[string]int64{"back": 2, "ahead": 5, "to where it stands": 4} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook, h, r := withHole(t)
				defer r.close()
				h.write(sluice.Commit{Offset: to})
				time.Sleep(40 * time.Second)
				want := append([]string{"a1", "a2", "a3", "a4", "c1"}, []string{"a1", "a2", "a3", "a4", "b1", "c1"}[to:]...)
				hook.wantAll(t, want...)
				if m := h.mark(t); m.SeekEpoch != 1 || m.Term != 2 || h.committed("s", part("t", 0)).Offset != 6 {
					t.Errorf("committed %+v, %+v", h.committed("s", part("t", 0)), m)
				}
				if outcomes(t, r, external) != 1 {
					t.Error("not counted")
				}
				time.Sleep(5 * time.Hour)
				hook.wantAll(t, want...) // the parked record was forgotten with the holes
			})
		})
	}
}

func TestASeekElsewhereIsAdoptedAndALateCommitOfBeforeIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		before := h.committed("s", part("t", 0))
		m := h.mark(t)
		m.SeekEpoch, m.Writer = 5, 77
		h.write(commitOf(3, m))
		time.Sleep(40 * time.Second)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1", "a4", "b1", "c1")
		if m := h.mark(t); m.SeekEpoch != 5 || m.Term != 2 {
			t.Errorf("the lane goes on with %+v", m)
		}
		ours := h.committed("s", part("t", 0))
		h.write(before)
		time.Sleep(40 * time.Second)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1", "a4", "b1", "c1")
		if c := h.committed("s", part("t", 0)); c.Offset != ours.Offset || h.mark(t).SeekEpoch != 5 {
			t.Errorf("committed %+v", c)
		}
		if outcomes(t, r, sought) != 1 || outcomes(t, r, stale) != 1 {
			t.Errorf("counted %v seeks and %v stale commits", outcomes(t, r, sought), outcomes(t, r, stale))
		}
	})
}

func TestALateCommitOfAZombieIsWrittenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		m := h.mark(t)
		m.Term, m.Writer = 0, 77
		h.write(commitOf(1, m))
		time.Sleep(40 * time.Second)
		if c := h.committed("s", part("t", 0)); c.Offset != 4 || outcomes(t, r, stale) != 1 {
			t.Errorf("committed %d; counted %v", c.Offset, outcomes(t, r, stale))
		}
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1")
	})
}

// A higher term says that this replica is the zombie. If its session lives on all the same, the lane is taken over again.
func TestALaneThatWasSupersededStopsAndSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		m := h.mark(t)
		m.Term, m.Writer = 8, 77
		theirs := commitOf(6, m)
		h.write(theirs)
		stopped := func() bool { synctest.Wait(); return outcomes(t, r, superseded) == 1 }
		for range 60 {
			if stopped() {
				break
			}
			time.Sleep(time.Second)
		}
		h.produce("t", "d1")
		time.Sleep(20 * time.Second)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1")
		if c := h.committed("s", part("t", 0)); !stopped() || c.Metadata != theirs.Metadata || c.Offset != 6 {
			t.Errorf("committed %+v; superseded %v times", c, outcomes(t, r, superseded))
		}
		time.Sleep(time.Minute)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1", "d1")
		if m := h.mark(t); m.Term != 9 {
			t.Errorf("taken over with %+v", m)
		}
	})
}

func TestOfTwoOwnersOfATermTheOneWithASessionTakesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		m := h.mark(t)
		m.Writer++
		h.write(commitOf(1, m))
		time.Sleep(40 * time.Second)
		if m := h.mark(t); m.Term != 2 || h.committed("s", part("t", 0)).Offset != 4 || outcomes(t, r, rival) != 1 {
			t.Errorf("committed %+v, %+v", h.committed("s", part("t", 0)), m)
		}
		time.Sleep(5 * time.Hour)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1", "b1") // the parked record was kept
	})
}

func TestNothingIsReadBackWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h, r := withHole(t)
		defer r.close()
		seat := r.seats.seat("t")
		seat.mu.Lock()
		seat.valid = false // the lease is over, and nobody has said so yet
		seat.mu.Unlock()
		h.write(sluice.Commit{Offset: 1})
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if c := h.committed("s", part("t", 0)); c.Offset != 1 || c.Metadata != "" {
			t.Errorf("committed %+v: a replica without a session answered", c)
		}
		seat.finish()
	})
}

func TestOffsetsThatVanishUnderALiveOwnerAreWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		before := h.committed("s", part("t", 0))
		h.mu.Lock()
		delete(h.commits, "sluice.sub.s")
		h.mu.Unlock()
		time.Sleep(40 * time.Second)
		_, l, err := progress.Decode(h.committed("s", part("t", 0)).Offset, h.committed("s", part("t", 0)).Metadata)
		if c := h.committed("s", part("t", 0)); c.Offset != before.Offset || err != nil || l.Len() != 1 {
			t.Errorf("committed %+v, want %+v again", c, before)
		}
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1")
	})
}

func TestATopicMadeAgainUnderALiveOwnerBeginsAtItsStart(t *testing.T) {
	for _, name := range []string{"offsets went with it", "the old position was written again"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook, h, r := withHole(t)
				defer r.close()
				h.source.Create(part("t", 0)) // empty, another topic of the same name
				h.mu.Lock()
				h.ids["t"], _ = h.source.TopicID(t.Context(), "t")
				if name == "offsets went with it" {
					delete(h.commits, "sluice.sub.s")
				}
				h.mu.Unlock()
				for i := range 9 { // more than the old position
					h.produce("t", fmt.Sprint("z", i))
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				var got []string
				for _, v := range hook.delivered() {
					if strings.HasPrefix(v, "z") && !slices.Contains(got, v) {
						got = append(got, v)
					}
				}
				if len(got) != 9 {
					t.Errorf("delivered of the new topic: %v", got)
				}
				if m := h.mark(t); m.Tag != progress.TopicTag(h.ids["t"]) || h.committed("s", part("t", 0)).Offset != 9 {
					t.Errorf("committed %+v, %+v", h.committed("s", part("t", 0)), m)
				}
			})
		})
	}
}

// Where the brokers take less metadata than anybody said the offset goes alone. It is still ours, and a reset is still one.
func TestCommitsWithoutMetadataAreKnownAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		h.mu.Lock()
		h.tooLong = 10
		h.mu.Unlock()
		for i := range 100 {
			h.produce("t", fmt.Sprint("d", i))
			time.Sleep(3100 * time.Millisecond)
		}
		synctest.Wait()
		if c := h.committed("s", part("t", 0)); c.Offset != 4 || c.Metadata != "" || outcomes(t, r, external) != 0 || len(hook.attempts()) != 106 {
			t.Errorf("committed %+v; %v resets, %d attempts", c, outcomes(t, r, external), len(hook.attempts()))
		}
		h.write(sluice.Commit{Offset: 105})
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if outcomes(t, r, external) != 1 || h.committed("s", part("t", 0)).Offset != 106 {
			t.Errorf("committed %+v; %v resets", h.committed("s", part("t", 0)), outcomes(t, r, external))
		}
	})
}

// A consumer that joined a progress group is seen although nothing is committed meanwhile, and what it commits is no
// operator's wish. When it has left the group is made anew, because Kafka counts its offsets' age from then.
func TestAConsumerInAProgressGroupIsNoOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		foreign := func(state sluice.GroupState, refuse error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.states["sluice.sub.s"], h.refuse = state, refuse
		}
		foreign(sluice.GroupState{State: "Stable", Protocol: "consumer", Members: 1}, &sluice.Error{Kind: sluice.StaleSession})
		h.write(sluice.Commit{Offset: 6}) // it skipped the parked record
		time.Sleep(40 * time.Second)
		h.produce("t", "d1")
		time.Sleep(10 * time.Minute)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1")
		if last := h.reports[len(h.reports)-1]; last.Reason != subscriptions.GroupHijacked || time.Since(last.At.Time) > time.Minute {
			t.Errorf("reported %+v", last)
		}
		foreign(sluice.GroupState{State: "Empty", Protocol: "consumer"}, nil)
		time.Sleep(time.Minute)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1", "d1")
		if c := h.committed("s", part("t", 0)); c.Offset != 4 || !slices.Equal(h.deleted, []string{"sluice.sub.s"}) {
			t.Errorf("committed %+v; groups made anew: %v", c, h.deleted)
		}
		if last := h.reports[len(h.reports)-1]; last.Reason != "" {
			t.Errorf("reported %+v", last)
		}
		time.Sleep(5 * time.Hour)
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1", "d1", "b1")
		if outcomes(t, r, external) != 0 {
			t.Error("it was taken for an operator")
		}
	})
}

// A consumer that came and went between two commits leaves nothing but the kind of the group.
func TestAConsumerThatCameAndWentIsSeenByTheGroupItLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook, h, r := withHole(t)
		defer r.close()
		h.mu.Lock()
		h.states["sluice.sub.s"] = sluice.GroupState{State: "Dead"} // what a KIP-848 member leaves
		h.mu.Unlock()
		h.write(sluice.Commit{Offset: 6, Metadata: "its own"})
		time.Sleep(70 * time.Second)
		synctest.Wait()
		if c := h.committed("s", part("t", 0)); c.Offset != 4 || h.mark(t).SeekEpoch != 0 || len(h.deleted) != 1 {
			t.Errorf("committed %+v; groups made anew: %v", c, h.deleted)
		}
		hook.wantAll(t, "a1", "a2", "a3", "a4", "c1")
	})
}

// Nor does a new owner follow a consumer that is in the group: whatever that consumed was sent to nobody.
func TestANewOwnerFollowsAnOperatorAndNoConsumer(t *testing.T) {
	for name, state := range map[string]sluice.GroupState{
		"operator": {State: "Empty"}, "member": {State: "Stable", Protocol: "consumer", Members: 1}, "it left": {State: "Empty", Protocol: "consumer"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.topic("t", 1)
				h.subscribe("s", nil, "t")
				h.produce("t", "a1", "b1", "c1", "d1")
				h.write(sluice.Commit{Offset: 3})
				h.states["sluice.sub.s"] = state
				hook := &endpoint{}
				r := h.replica(hook)
				defer r.close()
				r.seats.seat("t").begin(1, 0)
				time.Sleep(time.Minute)
				synctest.Wait()
				switch {
				case name == "operator":
					hook.wantAll(t, "d1")
				default:
					if got := counter(t, r.metrics.lost.WithLabelValues("s", lostHijacked)); got != 0 || !r.metrics.lost.DeleteLabelValues("s", lostHijacked) {
						t.Errorf("counted %v", got)
					}
					if name == "it left" {
						hook.wantAll(t, "a1", "b1", "c1", "d1")
					}
				}
			})
		})
	}
}

// A remade group keeps what other replicas committed, also if they die before they notice.
func TestARemadeGroupKeepsWhatOthersCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.topic("t", 2)
		h.subscribe("s", nil, "t")
		r := h.replica(&endpoint{})
		defer r.close()
		r.seats.seat("t").begin(1, 0) // the other partition is a replica's that is about to die
		other := commitOf(7, progress.Mark{Tag: progress.TopicTag(h.ids["t"]), Term: 3, Suspect: sluice.NoOffset})
		h.mu.Lock()
		other.Partition = 1
		h.group("sluice.sub.s")[part("t", 1)] = other
		h.states["sluice.sub.s"] = sluice.GroupState{State: "Empty", Protocol: "consumer"}
		h.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := h.committed("s", part("t", 1)); c.Offset != 7 || c.Metadata != other.Metadata || len(h.deleted) != 1 {
			t.Errorf("committed %+v; groups made anew: %v", c, h.deleted)
		}
	})
}

// Whatever stands in a commit, a lane begins, inside the log, with no more holes than it can tell of again.
func FuzzEveryCommitIsABeginning(f *testing.F) {
	topic := sluice.TopicID{1}
	m := progress.Mark{Tag: progress.TopicTag(topic), Term: 7, Writer: 1, Suspect: sluice.NoOffset}
	l := progress.NewLedger(100)
	for i := range int64(50) {
		l.Offer(100 + 3*i)
		l.Charge(100+3*i, int(i), noon)
	}
	f.Add(int64(100), m.Encode(l, progress.MaxMetadata), int64(0), int64(1000))
	f.Add(int64(100), m.Encode(l, progress.MaxMetadata), int64(130), int64(160))
	f.Add(int64(-1), "", int64(5), int64(5))
	f.Add(int64(1)<<62, "1:", int64(0), int64(9))
	f.Add(int64(0), "not ours", int64(0), int64(0))
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 { // bytes of the real thing, turned
		b := []byte(m.Encode(l, progress.MaxMetadata))
		b[rnd.IntN(len(b))] ^= byte(1 << rnd.IntN(8))
		f.Add(rnd.Int64N(2000)-1, string(b), rnd.Int64N(50), 50+rnd.Int64N(500))
	}
	f.Fuzz(func(t *testing.T, offset int64, metadata string, start, end int64) {
		if offset < sluice.NoOffset || start < 0 || end < start {
			t.Skip("Kafka has no such offsets")
		}
		in := inherit(found{Commit: sluice.Commit{Offset: offset, Metadata: metadata}, Topic: topic, Range: sluice.Range{Start: start, End: end}})
		if low, next := in.Ledger.Low(), in.Ledger.Next(); low < start || next > end || low > next {
			t.Fatalf("begins at %d to %d of a log from %d to %d", low, next, start, end)
		}
		if text := in.Mark.Encode(in.Ledger, progress.MaxMetadata); len(text) > progress.MaxMetadata {
			t.Fatalf("%d characters to commit", len(text))
		}
		newLane(&plan{Ordering: subscriptions.OrderKey, Window: 4, MaxHoles: progress.MaxHoles, MaxSpan: progress.MaxSpan,
			retries: retries{Schedule: []time.Duration{0}}}, in.Ledger, noon, func() float64 { return 0.5 }).step(noon, event{kind: evTimer})
	})
}
