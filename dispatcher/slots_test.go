package dispatcher

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// asker is a subscription that wants many slots and notes which it got.
func asker(s *slots, limit, wishes int, got func()) *account {
	a := &account{limit: limit}
	for range wishes {
		w := &slot{account: a, bytes: 1, granted: got}
		if s.ask(w) {
			got()
		}
	}
	return a
}

func TestOneSubscriptionGetsAQuarterOfTheSlots(t *testing.T) {
	s := newSlots(100, 1<<30)
	got := 0
	asker(s, 1000, 500, func() { got++ })
	if used, _ := s.inUse(); got != 25 || used != 25 {
		t.Errorf("%d of 100 slots went to one subscription, %d in use", got, used)
	}
}

func TestSlotsGoRoundInTurnsWhenTheyAreShort(t *testing.T) {
	s := newSlots(8, 1<<30)
	var order []int
	accounts := make([]*account, 6)
	for i := range accounts {
		accounts[i] = asker(s, 10, 10, func() { order = append(order, i) })
	}
	if len(order) != 8 { // two each for the first four
		t.Fatalf("%d granted of 8: %v", len(order), order)
	}
	for range 6 {
		s.release(&slot{account: accounts[order[0]], bytes: 1})
		order = order[1:]
	}
	counts := map[int]int{}
	for _, i := range order[2:] {
		counts[i]++
	}
	if counts[4] == 0 || counts[5] == 0 {
		t.Errorf("who came last got nothing: %v", order)
	}
	for i, n := range counts {
		if n > 2 {
			t.Errorf("subscription %d got %d of 6 turns: %v", i, n, order)
		}
	}
}

func TestEveryLaneMayHaveOneInFlight(t *testing.T) {
	s := newSlots(100, 1<<30)
	a := &account{limit: 1}
	if !s.ask(&slot{account: a, granted: func() {}}) {
		t.Fatal("the first was refused")
	}
	if s.ask(&slot{account: a, granted: func() {}}) {
		t.Error("a lane got a second slot above the limit")
	}
	if !s.ask(&slot{account: a, alone: true, granted: func() {}}) {
		t.Error("a lane without any was refused")
	}
}

// Subscriptions that share a host share what one host gets; others do not wait behind them.
func TestSubscriptionsOfOneHostShareItsPlaces(t *testing.T) {
	s := newSlots(2048, 1<<30)
	got := map[int]int{}
	accounts := make([]*account, 4)
	for i := range accounts {
		a := &account{limit: 1000, host: "busy:443"}
		accounts[i] = a
		for range 200 {
			if s.ask(&slot{account: a, granted: func() { got[i]++ }}) {
				got[i]++
			}
		}
	}
	if used, _ := s.inUse(); used != 256 || got[0] != 200 || got[1] != 56 {
		t.Fatalf("%d in flight to one host: %v", used, got)
	}
	other := &account{limit: 10, host: "idle:443"}
	if !s.ask(&slot{account: other, granted: func() {}}) {
		t.Error("another host waits behind the full one")
	}
	for range 90 { // the first gives its places back
		s.release(&slot{account: accounts[0], host: "busy:443"})
	}
	if used, _ := s.inUse(); used != 257 || got[1] < 56+25 || got[2] < 25 || got[3] < 25 {
		t.Errorf("%d in use; the places went to %v", used, got)
	}
	accounts[3].waiting = nil // its wishes were withdrawn while it was in line
	s.limit(accounts[2], 1000, "moved:443")
	if got[2] != 200 {
		t.Errorf("%d granted at a host that has room", got[2])
	}
	for range 200 - 90 {
		s.release(&slot{account: accounts[0], host: "busy:443"})
	}
	if s.hosts["busy:443"].used != 256 {
		t.Errorf("places are free and somebody waits: %v", got)
	}
	for range got[3] {
		s.release(&slot{account: accounts[3], host: "busy:443"})
	}
	if got[1] != 200 {
		t.Errorf("a place was forgotten: %v", got)
	}
}

func TestARecordLargerThanTheBudgetPassesAlone(t *testing.T) {
	s := newSlots(100, 1000)
	big := &account{limit: 10}
	w := &slot{account: big, bytes: 5000, granted: func() {}}
	if !s.ask(w) {
		t.Fatal("refused on an idle replica: it would wait for ever")
	}
	other := &account{limit: 10}
	granted := false
	if s.ask(&slot{account: other, bytes: 10, granted: func() { granted = true }}) {
		t.Error("another fitted beside it")
	}
	s.release(w)
	if !granted {
		t.Error("the other was not served afterwards")
	}
}

func TestSlotsAreNeverOverdrawnAndNobodyIsForgotten(t *testing.T) {
	const most, bytes, perHost = 16, 10_000, 5
	s := newSlots(most, bytes)
	s.perHost = perHost
	var atHost [4]atomic.Int64
	var flying, done, cancelled atomic.Int64
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			here := i % 4
			a := &account{limit: 1 + rnd.IntN(6), host: string(rune('a' + here))}
			for range 400 {
				turn := make(chan struct{})
				w := &slot{account: a, bytes: rnd.Int64N(3000), alone: rnd.IntN(5) == 0, granted: func() { close(turn) }}
				if !s.ask(w) {
					if rnd.IntN(10) == 0 && s.cancel(w) {
						cancelled.Add(1)
						continue
					}
					<-turn
				}
				if n := flying.Add(1); n > most {
					t.Errorf("%d in flight of %d", n, most)
				}
				if n := atHost[here].Add(1); n > perHost {
					t.Errorf("%d in flight to one host of %d", n, perHost)
				}
				done.Add(1)
				atHost[here].Add(-1)
				flying.Add(-1)
				s.release(w)
			}
		})
	}
	all.Wait()
	if used, held := s.inUse(); used != 0 || held != 0 || len(s.turns) != 0 || len(s.hosts) != 0 || done.Load()+cancelled.Load() != 12*400 {
		t.Errorf("left: %d slots, %d bytes, %d in line; %d done", used, held, len(s.turns), done.Load())
	}
}
