package progress

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
)

// lane is an account whose state a test sets.
type lane struct {
	topic string

	mu      sync.Mutex
	low     int64
	version uint64
	mute    bool
	acks    []uint64
	errs    []error
	finals  int
}

func (l *lane) Statement(_ time.Time, final bool) (sluice.Commit, uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if final {
		l.finals++
	}
	return sluice.Commit{Topic: l.topic, Offset: l.low, Metadata: "m"}, l.version, !l.mute
}

func (l *lane) Committed(version uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acks = append(l.acks, version)
	}
	l.errs = append(l.errs, err)
}

func (l *lane) move(low int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.low, l.version = low, l.version+1
}

// heard is the versions that were stored, and how many answers came in all.
func (l *lane) heard() ([]uint64, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acks), len(l.errs)
}

// broker notes what it was asked and answers as it is told.
type broker struct {
	mu       sync.Mutex
	requests []sluice.GroupCommit
	at       []time.Time
	delay    time.Duration
	fail     func(sluice.GroupCommit) error
	flying   map[string]int
	overlap  bool
}

func (b *broker) Commit(_ context.Context, c sluice.GroupCommit) []error {
	b.mu.Lock()
	b.requests, b.at = append(b.requests, c), append(b.at, time.Now())
	if b.flying == nil {
		b.flying = map[string]int{}
	}
	b.flying[c.Group]++
	b.overlap = b.overlap || b.flying[c.Group] > 1
	delay, fail := b.delay, b.fail
	b.mu.Unlock()
	time.Sleep(delay) // of the bubble's time
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying[c.Group]--
	errs := make([]error, len(c.Commits))
	if fail != nil {
		for i := range errs {
			errs[i] = fail(c)
		}
	}
	return errs
}

func (b *broker) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.requests)
}

func run(t *testing.T, b *broker, test func(t *testing.T, c *Committer)) {
	t.Helper()
	runWith(t, Default(), b, test)
}

func runWith(t *testing.T, cfg Config, b *broker, test func(t *testing.T, c *Committer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, err := NewCommitter(cfg, b, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		test(t, c)
		cancel()
		<-done
		if b.overlap {
			t.Error("two requests of one group were in flight together")
		}
	})
}

func TestOnlyLanesThatChangedAreCommittedAndOneRequestCarriesAGroup(t *testing.T) {
	b := &broker{}
	run(t, b, func(t *testing.T, c *Committer) {
		a1, a2, other := &lane{topic: "a"}, &lane{topic: "b"}, &lane{topic: "c"}
		l1, l2, _ := c.Open("g", a1), c.Open("g", a2), c.Open("h", other)
		a1.move(10)
		l1.Changed(10)
		a2.move(20)
		l2.Changed(20)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if b.count() != 1 || len(b.requests[0].Commits) != 2 {
			t.Fatalf("requests %+v, want one with two partitions", b.requests)
		}
		r := b.requests[0]
		if r.Group != "g" || r.Generation != -1 || r.Member != "" {
			t.Errorf("not a standalone commit of the group: %+v", r)
		}
		l1.Changed(0) // a bell without a change
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if b.count() != 1 {
			t.Errorf("committed again without a change: %+v", b.requests)
		}
	})
}

func TestAnAnswerCountsOnlyForTheStateItCarried(t *testing.T) {
	b := &broker{delay: 300 * time.Millisecond}
	run(t, b, func(t *testing.T, c *Committer) {
		a := &lane{topic: "a"}
		l := c.Open("g", a)
		a.move(10)
		l.Changed(1)
		time.Sleep(1100 * time.Millisecond) // the request is under way
		synctest.Wait()
		a.move(20)
		l.Changed(1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if b.count() != 2 || b.requests[1].Commits[0].Offset != 20 {
			t.Fatalf("requests %+v, want a second one at 20", b.requests)
		}
		if acks, _ := a.heard(); !slices.Equal(acks, []uint64{1, 2}) {
			t.Errorf("acknowledged versions %v", acks)
		}
	})
}

func TestManyCompletionsAreCommittedAtOnce(t *testing.T) {
	b := &broker{}
	run(t, b, func(t *testing.T, c *Committer) {
		a := &lane{topic: "a"}
		l := c.Open("g", a)
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		began := time.Now()
		for i := range 2000 {
			a.move(int64(i))
			l.Changed(1)
		}
		synctest.Wait()
		if b.count() != 1 || b.at[0] != began {
			t.Errorf("%d requests at %v, want one at once", b.count(), b.at)
		}
	})
}

func TestAFailedCommitIsTriedAgainAndAForeignMemberOnlyOnceAMinute(t *testing.T) {
	b := &broker{}
	b.fail = func(c sluice.GroupCommit) error {
		switch {
		case c.Group == "hijacked":
			return &sluice.Error{Kind: sluice.StaleSession}
		case time.Since(b.at[0]) < 3*time.Second:
			return &sluice.Error{Kind: sluice.Retriable}
		}
		return nil
	}
	run(t, b, func(t *testing.T, c *Committer) {
		a, h := &lane{topic: "a"}, &lane{topic: "h"}
		a.move(1)
		h.move(1)
		c.Open("g", a).Changed(1)
		c.Open("hijacked", h).Changed(1)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if acks, tries := a.heard(); len(acks) != 1 || tries < 3 {
			t.Errorf("acknowledged %v after %d tries", acks, tries)
		}
		if _, tries := h.heard(); tries != 1 {
			t.Errorf("a hijacked group was tried %d times in a minute", tries)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, tries := h.heard(); tries != 2 {
			t.Errorf("a hijacked group was tried %d times after a minute", tries)
		}
	})
}

// Kafka expires the offsets of a group without members a while after its last commit (KIP-211).
func TestIdleLanesAreCommittedAgainBeforeTheirOffsetsExpire(t *testing.T) {
	for retention, keep := range map[time.Duration]time.Duration{168 * time.Hour: 6 * time.Hour, 4 * time.Hour: time.Hour, time.Minute: 15 * time.Second} {
		t.Run(retention.String(), func(t *testing.T) {
			b, cfg := &broker{}, Default()
			cfg.Retention = retention
			runWith(t, cfg, b, func(t *testing.T, c *Committer) {
				began := time.Now()
				for i := range 20 {
					a := &lane{topic: "a"}
					a.move(int64(i))
					c.Open(fmt.Sprint("g", i), a).Changed(1)
				}
				time.Sleep(4*keep + minInterval) // of the bubble's time
				synctest.Wait()
				last, at := map[string]time.Time{}, map[time.Duration]int{}
				for i, r := range b.requests {
					if before, ok := last[r.Group]; ok && b.at[i].Sub(before) > keep {
						t.Errorf("%s was not committed for %v", r.Group, b.at[i].Sub(before))
					}
					last[r.Group] = b.at[i]
					at[b.at[i].Sub(began)*64/keep]++
				}
				for group, when := range last {
					if time.Since(when) > keep {
						t.Errorf("%s was not committed for %v", group, time.Since(when))
					}
				}
				if b.count() > 20*8 {
					t.Errorf("%d commits of 20 groups in four times %v", b.count(), keep)
				}
				if len(last) != 20 || len(at) < 10 {
					t.Errorf("the commits of %d groups fell into %d moments", len(last), len(at))
				}
			})
		})
	}
}

// Again is how a lane answers to an offset that is not there any more: it is written once more, whatever the last
// answer was.
func TestALaneThatIsAskedAgainIsCommittedWithoutAChangeAndWithoutAWait(t *testing.T) {
	b := &broker{}
	run(t, b, func(t *testing.T, c *Committer) {
		a := &lane{topic: "a"}
		l := c.Open("g", a)
		a.move(10)
		l.Changed(10)
		time.Sleep(2 * time.Second)
		l.Again()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if b.count() != 2 {
			t.Fatalf("%d commits, want the first and one again", b.count())
		}
		b.mu.Lock()
		b.fail = func(sluice.GroupCommit) error { return &sluice.Error{Kind: sluice.StaleSession} }
		b.mu.Unlock()
		l.Again()
		time.Sleep(2 * time.Second)
		b.mu.Lock()
		b.fail = nil
		b.mu.Unlock()
		l.Again() // long before the minute is over that a hijacked group is left alone
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if acks, _ := a.heard(); b.count() != 4 || len(acks) != 3 {
			t.Errorf("%d commits, %d stored; want 4 and 3", b.count(), len(acks))
		}
	})
}

func TestTheIntervalGrowsBeforeThePoolIsOverrun(t *testing.T) {
	var p pace
	for range 100 {
		p.took(100 * time.Millisecond)
	}
	for dirty, want := range map[int]time.Duration{1: time.Second, 16 * 50: 5 * time.Second, 100_000: 15 * time.Second} {
		if got := p.interval(dirty, 16); got != want {
			t.Errorf("%d dirty groups at 100 ms each: every %v, want %v", dirty, got, want)
		}
	}
}

func TestFlushInsistsUntilItsDeadlineAndSpeaksTheLastWord(t *testing.T) {
	b := &broker{delay: 10 * time.Millisecond}
	b.fail = func(c sluice.GroupCommit) error {
		if c.Group == "down" || len(b.at) < 4 {
			return &sluice.Error{Kind: sluice.Unavailable}
		}
		return nil
	}
	run(t, b, func(t *testing.T, c *Committer) {
		a, d, m := &lane{topic: "a"}, &lane{topic: "d"}, &lane{topic: "m", mute: true}
		lines := []*Line{c.Open("g", a), c.Open("down", d), c.Open("mute", m)}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if missing := c.Flush(ctx, lines); missing != 1 {
			t.Errorf("%d lanes missing, want the one whose coordinator is down", missing)
		}
		if len(a.acks) != 1 || a.finals == 0 || len(m.errs) != 0 {
			t.Errorf("acks %v, finals %d, a mute lane spoke %d times", a.acks, a.finals, len(m.errs))
		}
	})
}

func TestMetadataTooLargeForTheBrokerCommitsTheOffsetAlone(t *testing.T) {
	b := &broker{}
	b.fail = func(c sluice.GroupCommit) error {
		if c.Commits[0].Metadata != "" {
			return &sluice.Error{Kind: sluice.TooLarge}
		}
		return nil
	}
	run(t, b, func(t *testing.T, c *Committer) {
		a := &lane{topic: "a"}
		a.move(7)
		c.Open("g", a).Changed(1)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(a.acks) != 1 || b.requests[1].Commits[0].Offset != 7 {
			t.Errorf("acks %v, requests %+v", a.acks, b.requests)
		}
	})
}

func TestLanesComeAndGoWhileOthersCommit(t *testing.T) {
	b := &broker{}
	c, err := NewCommitter(Default(), b, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = c.Run(ctx) })
	var lanes sync.WaitGroup
	for i := range 8 {
		lanes.Go(func() {
			for j := range 200 {
				a := &lane{topic: "t"}
				l := c.Open(fmt.Sprint("g", (i+j)%5), a)
				a.move(int64(j))
				l.Changed(3000)
				if j%10 == 0 {
					flush, done := context.WithTimeout(ctx, time.Second)
					c.Flush(flush, []*Line{l})
					done()
				}
				l.Close()
			}
		})
	}
	lanes.Wait()
	cancel()
	all.Wait()
	if len(c.groups) != 0 || len(c.dirty) != 0 {
		t.Errorf("%d groups and %d dirty ones are left", len(c.groups), len(c.dirty))
	}
	if b.overlap {
		t.Error("two requests of one group were in flight together")
	}
}
