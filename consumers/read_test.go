package consumers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicegate/sluice"
)

func TestTheFirstReadAfterSubscribingFindsWhatIsThere(t *testing.T) {
	inRoom(t, func(_ *testing.T, r *room) {
		r.k.topic("orders", 3)
		r.k.produce("orders", 0, "a")
		r.k.produce("orders", 2, "b")
		i := r.subscribed("g", earliest, "orders")
		got := r.read(i, Want{}) // of the first position that is found, or of both
		if len(got) == 1 {
			got = append(got, r.read(i, Want{})...)
		}
		r.wantSorted(got, "a", "b")
	})
}

// latest counts from the assignment, not from the first read.
func TestLatestMissesNothingAfterTheSubscription(t *testing.T) {
	inRoom(t, func(_ *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "before")
		i := r.subscribed("g", nil, "orders")
		synctest.Wait()
		r.k.produce("orders", 0, "after")
		r.want(r.read(i, Want{}), "after")
	})
}

func TestAReadReturnsAtTheFirstRecord(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 4)
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "consumer.request.timeout.ms": "30000"}, "orders")
		time.AfterFunc(5*time.Second, func() { r.k.produce("orders", 3, "late") })
		d := took(func() { r.want(r.read(i, Want{}), "late") })
		if d < 5*time.Second || d > 5*time.Second+2*gatherGrace {
			t.Fatalf("the read took %v", d)
		}
	})
}

func TestAnEmptyReadLastsItsTimeout(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 2)
		i := r.subscribed("g", map[string]any{"consumer.request.timeout.ms": "3600000"}, "orders")
		for _, c := range []struct{ asked, want time.Duration }{{0, maxHold}, {time.Second, time.Second}, {2 * time.Hour, maxHold}} {
			if d := took(func() { r.want(r.read(i, Want{Timeout: c.asked})) }); d != c.want {
				t.Errorf("timeout=%v took %v, want %v", c.asked, d, c.want)
			}
		}
	})
}

func TestMaxBytesGivesOneRecordAReadAndLosesNone(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 3)
		var want []string
		for n := range 30 {
			v := fmt.Sprintf("%04d", n) + strings.Repeat("x", 1020)
			r.k.produce("orders", int32(n%3), v)
			want = append(want, v)
		}
		i := r.subscribed("g", earliest, "orders")
		synctest.Wait() // until all positions are found
		var got []string
		for range 30 {
			one := r.read(i, Want{MaxBytes: 1})
			if len(one) != 1 {
				t.Fatalf("a read gave %d records", len(one))
			}
			got = append(got, one...)
		}
		// No partition waits for another: the three take turns.
		for n := 0; n+3 <= len(got); n += 3 {
			if slices.Equal(slices.Sorted(slices.Values(got[n:n+3])), want[n:n+3]) {
				continue
			}
			t.Fatalf("reads %d to %d did not take turns", n, n+2)
		}
		r.wantSorted(got, want...)
	})
}

func TestTheRecordThatDidNotFitComesFirst(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 2)
		r.k.produce("orders", 0, "aaa", "bbbb", "cc")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{MaxBytes: 5}), "aaa")
		r.k.produce("orders", 1, "other")
		got := r.read(i, Want{MaxBytes: 6})
		if len(got) == 0 || got[0] != "bbbb" {
			t.Fatalf("read %q, want bbbb first", got)
		}
		got = append(got, r.read(i, Want{})...)
		r.wantSorted(got, "bbbb", "cc", "other")
	})
}

func TestARecordLargerThanTheLimitComesAlone(t *testing.T) {
	inRoom(t, func(_ *testing.T, r *room) {
		r.k.topic("orders", 1)
		big := strings.Repeat("b", 16<<20)
		r.k.produce("orders", 0, "a", big, "c")
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{MaxBytes: 1000}), "a")
		r.want(r.read(i, Want{MaxBytes: 1000}), big)
		r.want(r.read(i, Want{MaxBytes: 1000}), "c")
	})
}

func TestOnlyAskingForMoreBytesMakesAReadWait(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "1234")
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "fetch.min.bytes": "8", "consumer.request.timeout.ms": "10000"}, "orders")
		time.AfterFunc(3*time.Second, func() { r.k.produce("orders", 0, "5678") })
		if d := took(func() { r.want(r.read(i, Want{}), "1234", "5678") }); d < 3*time.Second || d > 3*time.Second+2*gatherGrace {
			t.Fatalf("the read took %v", d)
		}
		time.AfterFunc(time.Second, func() { r.k.produce("orders", 0, "9") })
		if d := took(func() { r.want(r.read(i, Want{}), "9") }); d != 10*time.Second {
			t.Fatalf("the read took %v, want its timeout", d)
		}
	})
}

func TestAnAnswerThatWasLostIsGivenAgain(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b")
		i := r.subscribed("g", earliest, "orders")
		a, err := i.Read(t.Context(), Want{})
		if err != nil || len(a.Records) != 2 {
			t.Fatalf("%v, %v", a, err)
		}
		a.Lost()
		if ds, err := i.Commit(t.Context()); err != nil || len(ds) != 0 {
			t.Fatalf("committed %v, %v", ds, err)
		}
		r.want(r.read(i, Want{}), "a", "b")
	})
}

func TestAReadWaitsForTheAnswerBeforeAndForItsTurn(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b")
		i := r.subscribed("g", earliest, "orders")
		first, err := i.Read(t.Context(), Want{MaxBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		if d := took(func() { r.want(r.read(i, Want{})) }); d != time.Second {
			t.Fatalf("the second read took %v", d)
		}
		time.AfterFunc(time.Second/2, first.Settled)
		r.want(r.read(i, Want{}), "b")
	})
}

func TestARecordThatCannotBeDecodedFailsOneRead(t *testing.T) {
	inRoom(t, func(_ *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "BAD", "c")
		i := r.subscribed("g", earliest, "orders")
		w := Want{Decodes: func(rec *sluice.Record) error {
			if string(rec.Value) == "BAD" {
				return errors.New("not JSON")
			}
			return nil
		}}
		r.want(r.read(i, w), "a")
		a, err := i.Read(r.t.Context(), w)
		if err != nil || a.Err == nil {
			r.t.Fatalf("%v, %v", a, err)
		}
		a.Lost() // the client never saw the error
		r.want(r.read(i, w), "undecodable")
		r.want(r.read(i, w), "c")
	})
}

func TestAClientThatLeavesTakesNothing(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		i := r.subscribed("g", earliest, "orders")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := i.Read(ctx, Want{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		r.k.produce("orders", 0, "a")
		r.want(r.read(i, Want{}), "a")
	})
}

func TestOffsetsOutsideTheLogFollowThePolicy(t *testing.T) {
	for policy, want := range map[string][]string{"earliest": {"c"}, "latest": {"d"}} {
		t.Run(policy, func(t *testing.T) {
			inRoom(t, func(t *testing.T, r *room) {
				r.k.topic("orders", 1)
				r.k.produce("orders", 0, "a", "b", "c")
				p := sluice.Partition{Topic: "orders"}
				i := r.create("g", map[string]any{"auto.offset.reset": policy})
				if err := i.CommitOffsets(t.Context(), []sluice.Commit{{Topic: "orders", Offset: 1}}); err != nil {
					t.Fatal(err)
				}
				r.k.DeleteBefore(p, 2)
				if err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Second/2, func() { r.k.produce("orders", 0, "d") })
				r.want(r.read(i, Want{}), want...)
			})
		})
	}
	t.Run("none", func(t *testing.T) {
		inRoom(t, func(t *testing.T, r *room) {
			r.k.topic("orders", 1)
			r.k.produce("orders", 0, "a")
			i := r.subscribed("g", map[string]any{"auto.offset.reset": "none"}, "orders")
			for range 2 {
				_, err := i.Read(t.Context(), Want{})
				r.wantKind(err, sluice.Rejected)
			}
			if err := i.CommitOffsets(t.Context(), []sluice.Commit{{Topic: "orders", Offset: 0}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(locateMost)
			r.want(r.read(i, Want{}), "a")
		})
	})
}

func TestKafkaGoneIsNotAnEmptyRead(t *testing.T) {
	gone := &sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached."}
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}))
		r.k.setDown(gone)
		_, err := i.Read(t.Context(), Want{})
		r.wantKind(err, sluice.Unavailable)
		r.k.setDown(nil)
		r.k.produce("orders", 0, "a")
		r.want(r.read(i, Want{Timeout: 0}), "a")

		r.k.setDown(gone)
		j := r.subscribed("h", earliest, "orders")
		_, err = j.Read(t.Context(), Want{})
		r.wantKind(err, sluice.Unavailable)
	})
}

// A Kafka that answers slowly answers. An error would cost old clients their instance, and the group a rebalance.
func TestASlowKafkaIsNotGone(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}))
		r.k.setSlow(2 * time.Second)
		r.want(r.read(i, Want{Timeout: 100 * time.Millisecond}))
		r.k.setSlow(time.Minute)
		_, err := i.Read(t.Context(), Want{})
		r.wantKind(err, sluice.Unavailable)
	})
}

// B28: a partition without a leader, or on a broker that hangs, disturbs no other.
func TestAPartitionThatFailsDisturbsNoOther(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 3)
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}))
		r.k.Delete(sluice.Partition{Topic: "orders", Number: 1})
		for n := range 3 {
			v := fmt.Sprint("v", n)
			r.k.produce("orders", 0, v)
			if d := took(func() { r.want(r.read(i, Want{}), v) }); d > 2*gatherGrace {
				t.Fatalf("the read took %v", d)
			}
		}
		r.k.Create(sluice.Partition{Topic: "orders", Number: 1})
	})
}

func TestAPartitionThatHangsDisturbsNoOther(t *testing.T) {
	for _, when := range []string{"from the start", "when it is read", "later"} {
		t.Run(when, func(t *testing.T) {
			inRoom(t, func(t *testing.T, r *room) {
				r.k.topic("orders", 3)
				release := func() {}
				if when == "from the start" {
					release = r.k.hang("orders", 1)
				}
				i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "consumer.request.timeout.ms": "20000"}, "orders")
				synctest.Wait()
				if when == "when it is read" {
					release = r.k.hang("orders", 1)
				}
				r.k.produce("orders", 0, "there")
				r.want(r.read(i, Want{}), "there")
				if when == "later" {
					release = r.k.hang("orders", 1)
				}
				for n := range 3 {
					v := fmt.Sprint("v", n)
					time.AfterFunc(3*time.Second, func() { r.k.produce("orders", int32(n%2*2), v) })
					if d := took(func() { r.want(r.read(i, Want{}), v) }); d > 3*time.Second+2*gatherGrace {
						t.Fatalf("the read took %v", d)
					}
				}
				r.want(r.read(i, Want{Timeout: time.Second}))
				release()
				r.k.produce("orders", 1, "released")
				r.want(r.read(i, Want{}), "released")
			})
		})
	}
}

func TestReadingWithoutASubscriptionIsIllegal(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		_, err := r.create("g", nil).Read(t.Context(), Want{})
		r.wantKind(err, sluice.IllegalState)
	})
}

func TestATopicThatComesLaterIsRead(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders-1", 1)
		r.k.produce("orders-1", 0, "a")
		i := r.create("g", earliest)
		if err := i.Subscribe(t.Context(), Wish{Pattern: "orders-.*"}); err != nil {
			t.Fatal(err)
		}
		r.want(r.read(i, Want{}), "a")
		r.k.topic("orders-2", 1)
		r.k.topic("__orders-3", 1)
		r.k.produce("orders-2", 0, "b")
		time.Sleep(10 * time.Second)
		if topics, err := i.Subscription(t.Context()); err != nil || !slices.Equal(topics, []string{"orders-1", "orders-2"}) {
			t.Fatalf("subscription %v, %v", topics, err)
		}
		r.want(r.read(i, Want{}), "b")
		err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders-1"}})
		r.wantKind(err, sluice.IllegalState)
	})
}

// Aborted records and markers are passed over, and what is committed lies behind them.
func TestReadCommittedPassesWhatWasAborted(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		p := sluice.Partition{Topic: "orders"}
		r.k.produce("orders", 0, "a")
		r.k.Transact(p, false, sluice.NewRecord{Value: []byte("aborted")})
		r.k.Transact(p, true, sluice.NewRecord{Value: []byte("b")})
		i := r.subscribed("g", map[string]any{"auto.offset.reset": "earliest", "isolation.level": "read_committed"}, "orders")
		synctest.Wait()
		r.want(r.read(i, Want{MaxBytes: 1}), "a")
		r.want(r.read(i, Want{}), "b")
		r.want(r.read(i, Want{}))
		if _, err := i.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", 0, 5) // a, aborted, marker, b, marker
		r.want(r.read(r.subscribed("h", map[string]any{"auto.offset.reset": "earliest"}, "orders"), Want{}), "a", "aborted", "b")
	})
}

func TestNoneFailsEveryReadOutsideTheLog(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a", "b", "c")
		r.k.DeleteBefore(sluice.Partition{Topic: "orders"}, 2)
		i := r.create("g", map[string]any{"auto.offset.reset": "none"})
		if err := i.CommitOffsets(t.Context(), []sluice.Commit{{Topic: "orders", Offset: 1}}); err != nil {
			t.Fatal(err)
		}
		if err := i.Subscribe(t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			_, err := i.Read(t.Context(), Want{})
			r.wantKind(err, sluice.Rejected)
		}
	})
}

func TestATopicOfManyPartitions(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		const many = 1000
		r.k.topic("orders", many)
		i := r.subscribed("g", earliest, "orders")
		r.want(r.read(i, Want{}))
		for n := range many {
			r.k.produce("orders", int32(n), "x")
		}
		var got []string
		for len(got) < many {
			some := r.read(i, Want{})
			if len(some) == 0 {
				t.Fatalf("%d of %d came", len(got), many)
			}
			got = append(got, some...)
		}
		r.want(r.read(i, Want{}))
		if _, err := i.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantCommitted("g", "orders", many-1, 1)
	})
}

// A backlog comes in answers of a megabyte or so of each partition, and what comes next is fetched while
// the client has the answer before: that read finds it in memory.
func TestABacklogComesInAnswersWithoutAWait(t *testing.T) {
	for _, partitions := range []int{1, 4, 12} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			inRoom(t, func(t *testing.T, r *room) {
				r.k.topic("orders", int32(partitions))
				var all []int32
				big := strings.Repeat("x", 10_000)
				perPartition := 3 << 20 / 10_000
				for p := range partitions {
					all = append(all, int32(p))
					for range perPartition {
						r.k.produce("orders", int32(p), big)
					}
				}
				i := r.subscribed("g", earliest, "orders")
				synctest.Wait() // until all positions are found
				next := make([]int64, partitions)
				answers := 0
				for got := 0; got < perPartition*partitions; answers++ {
					if answers == 1 { // no broker answers any more
						defer r.k.hang("orders", all...)()
					} else if answers == 2 {
						break
					}
					var a *Answer
					d := took(func() {
						var err error
						if a, err = i.Read(t.Context(), Want{}); err != nil {
							t.Fatal(err)
						}
					})
					if d != 0 {
						t.Errorf("answer %d took %v", answers, d)
					}
					bytes := 0
					for _, one := range a.Records {
						if one.Offset != next[one.Partition] {
							t.Fatalf("offset %d of partition %d, want %d", one.Offset, one.Partition, next[one.Partition])
						}
						next[one.Partition]++
						bytes += len(one.Value)
					}
					if most := partitions * readAhead; bytes > most {
						t.Errorf("answer %d holds %d bytes, more than %d", answers, bytes, most)
					}
					if bytes == 0 || answers == 0 && slices.Contains(next, 0) {
						t.Errorf("answer %d holds %d bytes and leaves partitions out: %v", answers, bytes, next)
					}
					synctest.Wait()
					a.Settled()
					got += len(a.Records)
				}
			})
		})
	}
}
