package consumers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
)

func (r *room) wantCommitted(group, topic string, n int32, want int64) {
	r.t.Helper()
	if got := r.k.committed(group, topic, n); got != want {
		r.t.Fatalf("committed %d in %s/%d, want %d", got, topic, n, want)
	}
}

func TestACommitStoresTheNextOffsetOfWhatWasDelivered(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b", "c")
		i := r.subscribed("g", earliest, "orders")
		if ds, err := i.Commit(t.Context()); err != nil || len(ds) != 0 {
			t.Fatalf("before any read: %v, %v", ds, err)
		}
		r.want(r.read(i, Want{MaxBytes: 2}), "a", "b")
		ds, err := i.Commit(t.Context())
		if err != nil || len(ds) != 1 || ds[0] != (Delivered{"orders", 0, 1}) {
			t.Fatalf("%v, %v", ds, err)
		}
		r.wantCommitted("g", "orders", 0, 2)

		r.want(r.read(i, Want{}), "c") // a commit does not move the position
		if err := r.Delete(t.Context(), "g", i.ID()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 2) // nothing without auto-commit
		r.want(r.read(r.subscribed("g", earliest, "orders"), Want{}), "c")
	})
}

func TestACommitWaitsForTheAnswerThatIsBeingWritten(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		a, err := i.Read(t.Context(), Want{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, a.Settled)
		if _, err := i.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 1)
	})
}

func TestACommitDoesNotWaitForAHeldRead(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "consumer.request.timeout.ms": "30000", "auto.commit.enable": "false"}, "orders")
		r.want(r.read(i, Want{}), "a")
		done := make(chan struct{})
		go func() { defer close(done); r.want(r.read(i, Want{})) }()
		synctest.Wait()
		if d := took(func() {
			if _, err := i.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		}); d != 0 {
			t.Errorf("the commit took %v", d)
		}
		r.wantCommitted("g", "orders", 0, 1)
		<-done
	})
}

func TestAutoCommitStoresWhatWasDeliveredEveryFiveSecondsAndAtTheEnd(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b", "c", "d")
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest"}, "orders") // v2: on
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		r.wantCommitted("g", "orders", 0, sluice.NoOffset)
		time.Sleep(autoCommitEvery + time.Millisecond)
		r.wantCommitted("g", "orders", 0, 1)

		r.want(r.read(i, Want{MaxBytes: 1}), "b")
		if err := i.Unsubscribe(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 2)

		if err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
			t.Fatal(err)
		}
		r.want(r.read(i, Want{MaxBytes: 1}), "c")
		stop := r.k.foreign(t, "g", "orders") // a partition is committed before it is given up
		r.wantCommitted("g", "orders", 0, 3)
		stop()

		r.want(r.read(i, Want{MaxBytes: 1}), "d")
		if err := r.Delete(t.Context(), "g", i.ID()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 4)
	})
}

func TestACommitGoesThroughARebalance(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 2)
		r.k.produce("orders", 0, "a")
		r.k.produce("orders", 1, "b")
		i := r.subscribed("g", earliest, "orders")
		synctest.Wait()
		r.wantSorted(r.read(i, Want{}), "a", "b")
		// A member whose session does not end holds the rebalance up.
		end := r.rebalanceForEver("g", "orders")
		var err error
		if d := took(func() { _, err = i.Commit(t.Context()) }); d != commitPatience {
			t.Errorf("the commit took %v", d)
		}
		r.wantKind(err, sluice.Retriable)
		end()
	})
}

// A session ends before anybody says why. That nothing is assigned then is no answer of Kafka's.
func TestWithoutKafkaNobodySpeaksOfARebalance(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}), "a")
		end := r.rebalanceForEver("g", "orders")
		r.k.setDown(&sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached."})
		_, err := i.Commit(t.Context())
		r.wantKind(err, sluice.Unavailable)
		_, err = i.Committed(t.Context(), nil)
		r.wantKind(err, sluice.Unavailable)
		r.k.setDown(nil)
		end()
	})
}

// rebalanceForEver takes the sessions of a group: one member never lets go of its partitions.
func (r *room) rebalanceForEver(group, topic string) (end func()) {
	stuck, unstick := context.WithCancel(r.t.Context())
	gone, leave := context.WithCancel(r.t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = r.k.Member(gone, sluice.Membership{Group: group, Topics: []string{topic}}, func(ctx context.Context, _ sluice.Session) {
			<-ctx.Done()
			<-stuck.Done()
		})
	}()
	synctest.Wait()
	other := r.k.foreign(r.t, group, topic)
	return func() {
		unstick()
		other()
		leave()
		<-left
	}
}

func TestAFailedCommitIsAnError(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}), "a")
		r.k.setDown(&sluice.Error{Kind: sluice.Forbidden, Msg: "denied"})
		_, err := i.Commit(t.Context())
		r.wantKind(err, sluice.Forbidden)
		r.k.setDown(errors.New("gone"))
		_, err = i.Commit(t.Context())
		r.wantKind(err, sluice.Internal)
		r.k.setDown(nil)
		if _, err := i.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 1)
	})
}

func TestACommitWithoutMembershipNeedsAnEmptyGroup(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		i := r.create("g", nil)
		one := []sluice.Commit{{Topic: "orders", Offset: 7, Metadata: "m"}}
		if err := i.CommitOffsets(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		got, err := i.Committed(t.Context(), []sluice.Partition{{Topic: "orders"}, {Topic: "orders", Number: 5}})
		if err != nil || len(got) != 1 || got[0] != one[0] {
			t.Fatalf("%v, %v", got, err)
		}
		stop := r.k.foreign(t, "g", "orders")
		r.wantKind(i.CommitOffsets(t.Context(), one), sluice.IllegalState)
		stop()
	})
}

func TestAnAsynchronousCommitFollows(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}), "a")
		if err := i.CommitLater(); err != nil {
			t.Fatal(err)
		}
		if err := i.CommitOffsetsLater([]sluice.Commit{{Topic: "returns", Offset: 3}}); err != nil {
			t.Fatal(err)
		}
		if err := r.Delete(t.Context(), "g", i.ID()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 1)
		r.wantCommitted("g", "returns", 0, 3)
	})
}
