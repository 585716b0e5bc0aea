package consumers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
)

func assign(t *testing.T, i *Instance, numbers ...int32) {
	t.Helper()
	var parts []sluice.Partition
	for _, n := range numbers {
		parts = append(parts, sluice.Partition{Topic: "orders", Number: n})
	}
	if err := i.Assign(t.Context(), parts); err != nil {
		t.Fatal(err)
	}
}

// An assignment reads without the group's leave, shares its commits, and a partition that stays goes on where it was.
func TestAnAssignmentReadsAndCommitsWithoutMembers(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 2)
		r.k.produce("orders", 0, "a", "b")
		r.k.produce("orders", 1, "c")
		i := r.create("g", earliest)
		assign(t, i, 0)
		if got := i.assignment(); len(got) != 1 || got[0].Number != 0 {
			t.Fatal(got)
		}
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		assign(t, i, 1, 0, 1)
		var all []string
		for len(all) < 2 {
			all = append(all, r.read(i, Want{})...)
		}
		r.wantSorted(all, "b", "c")
		if _, err := i.Commit(t.Context()); err != nil || r.k.committed("g", "orders", 0) != 2 || r.k.committed("g", "orders", 1) != 1 {
			t.Fatal(err, r.k.committed("g", "orders", 0), r.k.committed("g", "orders", 1))
		}
		r.wantKind(i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}), sluice.IllegalState)
		if err := i.Unsubscribe(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
			t.Fatal(err)
		}
		r.wantKind(i.Assign(t.Context(), []sluice.Partition{{Topic: "orders"}}), sluice.IllegalState)
	})
}

// While a group has members nobody else may commit for it; that is told at once, not after ten seconds of trying.
func TestAnAssignmentCannotCommitPastMembers(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		stop := r.k.foreign(t, "g", "orders")
		defer stop()
		i := r.create("g", earliest)
		assign(t, i, 0)
		r.want(r.read(i, Want{}), "a")
		if d := took(func() {
			_, err := i.Commit(t.Context())
			r.wantKind(err, sluice.IllegalState)
		}); d > time.Second {
			t.Fatal(d)
		}
	})
}

// A seek waits for the join, moves all positions or none, and is what a commit without offsets stores.
func TestSeekMovesAllPositionsOrNone(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 2)
		r.k.produce("orders", 0, "a", "b", "c")
		i := r.subscribed("g", earliest, "orders")
		at := func(n int32, to Place, offset int64) Target {
			return Target{Topic: "orders", Partition: n, To: to, Offset: offset}
		}
		if err := i.Seek(t.Context(), []Target{at(0, ToOffset, 2)}); err != nil { // while the join is under way
			t.Fatal(err)
		}
		r.want(r.read(i, Want{}), "c")
		r.wantKind(i.Seek(t.Context(), []Target{at(0, ToBeginning, 0), at(7, ToEnd, 0)}), sluice.IllegalState)
		if err := i.Seek(t.Context(), []Target{at(0, ToOffset, 1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Commit(t.Context()); err != nil || r.k.committed("g", "orders", 0) != 1 {
			t.Fatal(err, r.k.committed("g", "orders", 0))
		}
		r.want(r.read(i, Want{}), "b", "c")
		if err := i.Seek(t.Context(), []Target{at(0, ToBeginning, 0), at(1, ToEnd, 0)}); err != nil {
			t.Fatal(err)
		}
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		if err := i.Seek(t.Context(), []Target{at(0, ToEnd, 0)}); err != nil {
			t.Fatal(err)
		}
		r.want(r.read(i, Want{}))
	})
}

// Where a partition begins and ends is Kafka's to say, now: the log remembers what was so a moment ago.
func TestSeekToAnEdgeAsksKafka(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}), "a")
		r.k.setDown(&sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached."})
		for _, to := range []Place{ToBeginning, ToEnd} {
			r.wantKind(i.Seek(t.Context(), []Target{{Topic: "orders", To: to}}), sluice.Unavailable)
		}
	})
}

func TestSeekNeedsAnAssignmentInTime(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		i := r.create("g", earliest)
		r.wantKind(i.Seek(t.Context(), []Target{{Topic: "orders"}}), sluice.IllegalState)
		r.k.topic("orders", 1)
		stop := r.k.foreign(t, "g", "orders")
		defer stop()
		if err := i.Subscribe(t.Context(), Wish{Topics: []string{"later"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.wantKind(i.Seek(t.Context(), []Target{{Topic: "orders"}}), sluice.IllegalState)
	})
}

// A read that is held has its turn first, so that its answer cannot undo the seek.
func TestASeekWaitsForTheReadBeforeIt(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b")
		i := r.subscribed("g", earliest, "orders")
		a, err := i.Read(t.Context(), Want{})
		if err != nil || len(a.Records) != 2 {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- i.Seek(t.Context(), []Target{{Topic: "orders", To: ToOffset, Offset: 1}}) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatal("the seek overtook an answer that is being written: ", err)
		default:
		}
		a.Settled()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		r.want(r.read(i, Want{}), "b")
	})
}
