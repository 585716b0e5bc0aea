package dispatcher

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/deadletters"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "seed of the simulated fleet; 0 takes the clock")
	simRounds = flag.Int("sim.rounds", 6, "simulated fleets")
)

// sim is a fleet in synthetic time: replicas that come, go and crash, a coordinator that shares the partitions out
// behind a barrier as Kafka's eager protocol does, and endpoints with moods.
type sim struct {
	t     *testing.T
	rnd   *rand.Rand
	house *house
	gen   int32
	alive []*replica

	mu        sync.Mutex
	mood      *rand.Rand
	down      bool
	kind      bool // no more moods
	delivered map[deliveryKey]int
	attempts  map[deliveryKey]int
	firsts    map[string]int64
	flying    map[string]string // key -> who sends it
	again     int
	wrongs    []string
}

const simParts = 4

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), mood: rand.New(rand.NewPCG(seed, 2)), house: newHouse(t),
		delivered: map[deliveryKey]int{}, attempts: map[deliveryKey]int{}, firsts: map[string]int64{}, flying: map[string]string{}}
	s.house.topic("t", simParts)
	for _, ordering := range []string{subscriptions.OrderKey, subscriptions.OrderNone, subscriptions.OrderPartition} {
		s.house.subscribe(ordering, func(d *subscriptions.Subscription) {
			d.Delivery.Ordering, d.Delivery.MaxInFlight = ordering, 16
			d.Retry.Schedule = []subscriptions.Duration{0, subscriptions.Duration(time.Second), subscriptions.Duration(3 * time.Second)}
		}, "t")
	}
	return s
}

// simHook is the endpoint as one replica reaches it.
type simHook struct {
	*sim
	who string
}

func (h simHook) Send(ctx context.Context, d webhook.Delivery) webhook.Outcome {
	k := deliveryKey{d.Subscription.ID, d.Record.Partition, d.Record.Offset}
	line := ""
	switch d.Subscription.Delivery.Ordering {
	case subscriptions.OrderKey:
		line = fmt.Sprint(k.sub, k.partition, string(d.Record.Key))
	case subscriptions.OrderPartition:
		line = fmt.Sprint(k.sub, k.partition)
	}
	h.mu.Lock()
	if other := h.flying[line]; line != "" && other != "" {
		h.wrongs = append(h.wrongs, fmt.Sprintf("%s sends %v while %s sends another of %s", h.who, k, other, line))
	}
	if line != "" {
		h.flying[line] = h.who
	}
	h.attempts[k] = max(h.attempts[k], d.Attempt)
	wait := time.Duration(h.mood.IntN(50)) * time.Millisecond
	code := 200
	switch m := h.mood.IntN(1000); {
	case h.kind:
	case h.down, m < 3:
		code = 503
	case m < 30:
		code = 500
	case m < 40:
		code = 422
	case m < 50:
		wait = 4 * time.Second
	}
	h.mu.Unlock()
	cut := false
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		cut = true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.flying, line)
	if cut {
		return ours(webhook.Shutdown)
	}
	if code == 200 {
		if h.delivered[k]++; h.delivered[k] > 1 {
			h.again++
		} else if line != "" && !h.buried(k) { // a crash between a letter and its commit sends the record again
			if last, ok := h.firsts[line]; ok && last > k.offset {
				h.wrongs = append(h.wrongs, fmt.Sprintf("%s: %d succeeded first after %d", line, k.offset, last))
			}
			h.firsts[line] = k.offset
		}
	}
	return status(code)
}

func (s *sim) buried(k deliveryKey) bool {
	s.house.mu.Lock()
	defer s.house.mu.Unlock()
	return slices.ContainsFunc(s.house.letters, func(l deadletters.Letter) bool {
		return k == deliveryKey{l.Subscription, l.Record.Partition, l.Record.Offset}
	})
}

func (s *sim) launch(name string) {
	s.house.metadataBytes = []int{0, 0, 300}[s.rnd.IntN(3)] // a third of the brokers' operators are stingy
	s.alive = append(s.alive, s.house.replica(simHook{s, name}))
}

// rebalance ends all sessions, waits for the slowest release, and begins the next generation. Some members now and then
// miss one.
func (s *sim) rebalance() {
	var release sync.WaitGroup
	for _, r := range s.alive {
		seat := r.seats.seat("t")
		release.Go(seat.finish)
	}
	release.Wait()
	s.gen++
	if s.rnd.IntN(6) == 0 {
		s.gen++ // a generation was refused: nobody may keep anything
	}
	shares := make([][]int32, len(s.alive))
	for n := range int32(simParts) {
		i := s.rnd.IntN(len(s.alive))
		shares[i] = append(shares[i], n)
	}
	for i, r := range s.alive {
		seat := r.seats.seat("t")
		seat.member = fmt.Sprintf("m-%p", r)
		seat.begin(s.gen, shares[i]...)
	}
}

func (s *sim) remove(i int, crash bool) {
	r := s.alive[i]
	s.alive = slices.Delete(s.alive, i, i+1)
	if crash {
		r.crash()
		time.Sleep(10 * time.Second) // the session time
	} else {
		r.close()
	}
	s.rebalance()
}

// freeze is a process that is stopped and goes on after its partitions went to others.
func (s *sim) freeze(i int) {
	r := s.alive[i]
	seat := r.seats.seat("t")
	seat.mu.Lock()
	seat.valid = false
	seat.mu.Unlock()
	s.alive = slices.Delete(s.alive, i, i+1)
	time.Sleep(10 * time.Second)
	s.rebalance()
	time.Sleep(time.Duration(s.rnd.IntN(5000)) * time.Millisecond)
	seat.finish()
	s.alive = append(s.alive, r)
	s.rebalance()
}

func (s *sim) produce(n int) {
	for range n {
		key := byte('a' + s.rnd.IntN(6))
		s.house.source.Produce(part("t", s.rnd.Int32N(simParts)), sluice.NewRecord{Key: []byte{key}, Value: []byte{key}})
	}
}

func (s *sim) run(turns int) {
	s.launch("r0")
	s.rebalance()
	crashes := 0
	for turn := range turns {
		s.produce(s.rnd.IntN(30))
		time.Sleep(time.Duration(s.rnd.IntN(1500)) * time.Millisecond)
		switch k := s.rnd.IntN(30); {
		case k < 3:
			s.rebalance()
		case k == 3 && len(s.alive) < 3:
			s.launch(fmt.Sprint("r", turn))
			s.rebalance()
		case k == 4 && len(s.alive) > 1:
			s.remove(s.rnd.IntN(len(s.alive)), false)
		case k == 5 && len(s.alive) > 1:
			crashes++
			s.remove(s.rnd.IntN(len(s.alive)), true)
		case k == 19 && len(s.alive) > 1:
			s.freeze(s.rnd.IntN(len(s.alive)))
		case k == 6:
			s.set(func() { s.down = !s.down })
		case k == 7:
			s.house.mu.Lock()
			s.house.refuse = &sluice.Error{Kind: sluice.Retriable}
			s.house.mu.Unlock()
		case k < 10:
			s.house.mu.Lock()
			s.house.refuse = nil
			s.house.mu.Unlock()
		case k == 10:
			s.house.mu.Lock()
			s.house.deaf = &sluice.Error{Kind: sluice.Unavailable}
			s.house.mu.Unlock()
		case k < 13:
			s.house.mu.Lock()
			s.house.deaf = nil
			s.house.mu.Unlock()
		case k == 13:
			s.house.source.SetFail(&sluice.Error{Kind: sluice.Unavailable})
		case k < 16:
			s.house.source.SetFail(nil)
		case k == 16:
			s.house.mu.Lock()
			s.house.mute = &sluice.Error{Kind: sluice.Unavailable}
			s.house.mu.Unlock()
		case k < 19:
			s.house.mu.Lock()
			s.house.mute = nil
			s.house.mu.Unlock()
		}
	}
	s.set(func() { s.kind, s.down = true, false })
	s.house.mu.Lock()
	s.house.refuse, s.house.deaf, s.house.mute = nil, nil, nil
	s.house.mu.Unlock()
	s.house.source.SetFail(nil)
	time.Sleep(8 * time.Hour)
	synctest.Wait()
	s.check(crashes)
	for _, r := range s.alive {
		r.close()
	}
}

func (s *sim) set(how func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how()
}

func (s *sim) check(crashes int) {
	buried := map[deliveryKey]bool{}
	s.house.mu.Lock()
	for _, l := range s.house.letters {
		buried[deliveryKey{l.Subscription, l.Record.Partition, l.Record.Offset}] = true
	}
	s.house.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	records := int64(0)
	for n := range int32(simParts) {
		r, _ := s.house.source.Range(context.Background(), part("t", n))
		records += r.End
		for _, sub := range []string{"key", "none", "partition"} {
			for o := range r.End {
				if k := (deliveryKey{sub, n, o}); s.delivered[k] == 0 && !buried[k] {
					s.t.Errorf("%v is lost", k)
				}
			}
			if c := s.house.committed(sub, part("t", n)); c.Offset != r.End {
				s.t.Errorf("%s/%d is committed at %d of %d", sub, n, c.Offset, r.End)
			}
		}
	}
	for _, w := range s.wrongs {
		s.t.Error(w)
	}
	s.t.Logf("%d records, 3 subscriptions, %d generations, %d crashes, %d letters; sent again %d", records, s.gen, crashes, len(buried), s.again)
}

func TestASimulatedFleetLosesNothingAndKeepsTheOrder(t *testing.T) {
	seed := *simSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for i := range *simRounds {
		seed := seed + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newSim(t, seed).run(150) })
		})
	}
}
