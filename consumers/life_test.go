package consumers

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
)

func (r *room) wantGone(i *Instance, why string) {
	r.t.Helper()
	_, err := r.Instance(i.Group(), i.ID())
	e, ok := errors.AsType[*sluice.Error](err)
	if !ok || e.Kind != sluice.NotFound || e.Detail != why {
		r.t.Fatalf("%v (%q), want it gone: %q", err, e.Detail, why)
	}
}

func TestIdsAreUniqueInTheirGroup(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		made := r.create("g", nil)
		if !regexp.MustCompile(`^rest-consumer-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(made.ID()) {
			t.Errorf("id %q", made.ID())
		}
		r.create("g", map[string]any{"name": "mine"})
		r.create("h", map[string]any{"id": "mine", "name": "other"})
		if _, err := r.Instance("h", "mine"); err != nil {
			t.Error(err)
		}
		_, err := r.Create(t.Context(), "g", Settings{ID: "mine"}, V2)
		r.wantKind(err, sluice.Conflict)
		if err := r.Delete(t.Context(), "g", "mine"); err != nil {
			t.Error(err)
		}
		r.create("g", map[string]any{"name": "mine"})
		for _, bad := range []string{"", "sluice.topic.x", "a/b", "a\x01", strings.Repeat("g", 256)} {
			_, err := r.Create(t.Context(), bad, Settings{}, V2)
			r.wantKind(err, sluice.BadSetting)
		}
	})
}

func TestAnIdleInstanceExpires(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "consumer.request.timeout.ms": "55000"}, "orders")
		r.want(r.read(i, Want{}), "a")
		time.Sleep(299 * time.Second)
		r.want(r.read(i, Want{})) // holds the clock for 55 s, and starts it anew
		time.Sleep(299 * time.Second)
		if _, err := r.Instance("g", i.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		r.wantGone(i, "expired after 300 s without a request")
		_, err := i.Read(t.Context(), Want{}) // by a caller who found it a moment ago
		r.wantKind(err, sluice.NotFound)
		if n := len(r.k.groups["g"].members); n != 0 {
			t.Fatalf("the group has %d members", n)
		}
	})
}

// Whatever a client asks of an instance keeps it: some only look at the assignment while there is nothing to read.
func TestEveryCallKeepsAnInstance(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		i := r.subscribed("g", earliest, "orders")
		for name, call := range map[string]func() error{
			"assignment":   func() error { _, err := i.Assignment(); return err },
			"subscription": func() error { _, err := i.Subscription(t.Context()); return err },
			"committed":    func() error { _, err := i.Committed(t.Context(), nil); return err },
			"commit":       func() error { _, err := i.Commit(t.Context()); return err },
		} {
			for range 2 {
				time.Sleep(200 * time.Second)
				if err := call(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		time.Sleep(301 * time.Second)
		r.wantGone(i, "expired after 300 s without a request")
		_, err := i.Assignment()
		r.wantKind(err, sluice.NotFound)
	})
}

func TestAnAnswerOnItsWayHoldsTheClock(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		a, err := i.Read(t.Context(), Want{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := r.Instance("g", i.ID()); err != nil {
			t.Fatal(err)
		}
		a.Settled()
		a.Lost() // once is once
		time.Sleep(301 * time.Second)
		r.wantGone(i, "expired after 300 s without a request")
	})
}

func TestDeletingMakesAHeldReadReturn(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "fetch.min.bytes": "100", "consumer.request.timeout.ms": "50000"}, "orders")
		var wg sync.WaitGroup
		for n := range 2 { // the second waits for its turn
			wg.Go(func() {
				a, err := i.Read(t.Context(), Want{})
				if err != nil {
					t.Error(n, err)
					return
				}
				a.Settled()
			})
		}
		synctest.Wait()
		if d := took(func() {
			if err := r.Delete(t.Context(), "g", i.ID()); err != nil {
				t.Error(err)
			}
			wg.Wait()
		}); d > time.Second {
			t.Errorf("it took %v", d)
		}
		r.wantGone(i, "deleted by the client")
		r.wantKind(r.Delete(t.Context(), "g", i.ID()), sluice.NotFound)
		time.Sleep(time.Hour + time.Second)
		r.wantGone(i, "never existed")
	})
}

func TestTheReasonsOfTheDeadAreBounded(t *testing.T) {
	var g graveyard
	now := time.Unix(0, 0)
	for n := range 3 * mournMost {
		g.add(name{"g", fmt.Sprint(n)}, "deleted", now)
		g.add(name{"g", "again"}, fmt.Sprint(n), now)
	}
	if len(g.latest) > mournMost || len(g.graves) > mournMost {
		t.Fatalf("%d and %d are kept", len(g.latest), len(g.graves))
	}
	if why := g.why(name{"g", "again"}, now); why != fmt.Sprint(3*mournMost-1) {
		t.Fatal(why)
	}
}

func TestStoppingEndsAllAndTakesNoNew(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b")
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest"}, "orders")
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		if err := r.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 1)
		_, err := r.Create(t.Context(), "g", Settings{}, V2)
		r.wantKind(err, sluice.Overloaded)
	})
}

// Only a race detector sees what this is for.
func TestEverythingAtOnce(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 3)
		r.k.topic("returns", 2)
		var wg sync.WaitGroup
		for n := range 4 {
			i := r.create("g", map[string]any{"id": fmt.Sprint(n), "auto.offset.reset": "earliest"})
			for m := range 3 {
				wg.Go(func() {
					for k := range 20 {
						switch (k + m) % 7 {
						case 0:
							_ = i.Subscribe(t.Context(), Wish{Topics: []string{[]string{"orders", "returns"}[k%2]}})
						case 1:
							_, _ = i.Commit(t.Context())
						case 2:
							_, _ = i.Subscription(t.Context())
							_, _ = i.Committed(t.Context(), nil)
						case 3:
							if k > 15 && m == 2 {
								_ = r.Delete(t.Context(), "g", i.ID())
							}
						default:
							if a, err := i.Read(t.Context(), Want{Timeout: 50 * time.Millisecond, MaxBytes: 10}); err == nil {
								if k%3 == 0 {
									a.Lost()
								} else {
									a.Settled()
								}
							}
						}
					}
				})
			}
			wg.Go(func() {
				for k := range 50 {
					r.k.produce("orders", int32(k%3), "o")
					r.k.produce("returns", int32(k%2), "r")
					time.Sleep(7 * time.Millisecond)
				}
			})
		}
		wg.Wait()
	})
}
