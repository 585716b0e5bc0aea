package consumers

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
)

func TestTwoInstancesShareThePartitions(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 3)
		a, b := r.subscribed("g", earliest, "orders"), r.subscribed("g", earliest, "orders")
		synctest.Wait()
		var want []string
		for n := range 60 {
			v := fmt.Sprintf("%02d", n)
			r.k.produce("orders", int32(n%3), v)
			want = append(want, v)
		}
		var mu sync.Mutex
		var all []string
		counts := map[*Instance]int{}
		var wg sync.WaitGroup
		for _, i := range []*Instance{a, b} {
			wg.Go(func() {
				for {
					got := r.read(i, Want{MaxBytes: 6})
					if len(got) == 0 {
						return
					}
					mu.Lock()
					all, counts[i] = append(all, got...), counts[i]+len(got)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		r.wantSorted(all, want...)
		if counts[a] == 0 || counts[b] == 0 {
			t.Fatalf("shares %v", counts)
		}
	})
}

// Nobody else can have had a partition that stays through a rebalance: it goes on where it was, without a commit.
func TestAPartitionThatStaysIsNotReadAgain(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 2)
		r.k.produce("orders", 0, "a", "b")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		stop := r.k.foreign(t, "g", "orders")
		r.want(r.read(i, Want{}), "b")
		stop()
	})
}

// One that was another's meanwhile goes on where the group committed, else where the instance stood: with latest, the
// end as it is now would skip what came in between.
func TestAPartitionThatComesBackGoesOnWithoutAGap(t *testing.T) {
	for name, c := range map[string]struct {
		committed int64
		want      []string
	}{
		"nothing committed": {sluice.NoOffset, []string{"b", "c"}},
		"committed":         {2, []string{"c"}},
	} {
		t.Run(name, func(t *testing.T) {
			inRoom(t, func(t *testing.T, r *room) {
				r.k.topic("orders", 1)
				r.k.foreign(t, "g", "orders")() // so that the next one sorts behind member-1
				i := r.subscribed("g", map[string]any{"auto.commit.enable": "false"}, "orders")
				synctest.Wait()
				r.k.produce("orders", 0, "a", "b")
				r.want(r.read(i, Want{MaxBytes: 1}), "a")
				r.k.mu.Lock()
				r.k.groups["g"].serial = -9 // the next member sorts in front, and takes the one partition
				r.k.mu.Unlock()
				stop := r.k.foreign(t, "g", "orders")
				r.want(r.read(i, Want{}))
				if c.committed != sluice.NoOffset {
					r.k.mu.Lock()
					r.k.groups["g"].stored[sluice.Partition{Topic: "orders"}] = sluice.Commit{Topic: "orders", Offset: c.committed}
					r.k.mu.Unlock()
				}
				r.k.produce("orders", 0, "c")
				stop()
				r.want(r.read(i, Want{}), c.want...)
			})
		})
	}
}

func TestDeletingHandsThePartitionsOverAtOnce(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		a := r.subscribed("g", earliest, "orders")
		synctest.Wait()
		b := r.subscribed("g", earliest, "orders")
		synctest.Wait()
		r.k.produce("orders", 0, "x")
		r.want(r.read(a, Want{}), "x")
		if _, err := a.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.k.produce("orders", 0, "y")
		if d := took(func() {
			if err := r.Delete(t.Context(), "g", a.ID()); err != nil {
				t.Error(err)
			}
			r.want(r.read(b, Want{}), "y")
		}); d > 2*gatherGrace {
			t.Fatalf("it took %v", d)
		}
	})
}

func TestChangingTheTopicsKeepsTheGroup(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.topic("returns", 1)
		r.k.produce("orders", 0, "a", "b")
		r.k.produce("returns", 0, "c")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		if err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
			t.Fatal(err)
		}
		if n := r.k.groups["g"].generation; n != 1 {
			t.Fatalf("the same wish again made generation %d", n)
		}
		if err := i.Subscribe(t.Context(), Wish{Topics: []string{"returns", "orders", "returns"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // a read would begin with the first position that is found
		r.wantSorted(r.read(i, Want{}), "b", "c")
		if topics, err := i.Subscription(t.Context()); err != nil || !slices.Equal(topics, []string{"returns", "orders"}) {
			t.Fatalf("%v, %v", topics, err)
		}
		if err := i.Subscribe(t.Context(), Wish{}); err != nil { // nothing: the same as unsubscribing
			t.Fatal(err)
		}
		if _, err := i.Read(t.Context(), Want{}); sluice.KindOf(err) != sluice.IllegalState {
			t.Fatal(err)
		}
		if n := len(r.k.groups["g"].members); n != 0 {
			t.Fatalf("the group still has %d members", n)
		}
	})
}

func TestSubscribingDoesNotWait(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		i := r.create("g", earliest)
		if d := took(func() {
			if err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
				t.Error(err)
			}
		}); d != 0 {
			t.Errorf("it took %v", d)
		}
		for _, bad := range []Wish{{Topics: []string{""}}, {Topics: []string{"a b"}}, {Pattern: "("}} {
			r.wantKind(i.Subscribe(t.Context(), bad), sluice.Invalid)
		}
		time.Sleep(time.Second)
	})
}
