package partition_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/partition/partitiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryKeepsTheContractOfASource(t *testing.T) {
	partitiontest.Contract(t, partitiontest.NewMemory().Bench())
}

var orders = sluice.Partition{Topic: "orders"}

// bench is a log over a Source in memory with one empty partition.
func bench(t *testing.T, c partition.Config) (*partition.Log, *partitiontest.Memory) {
	t.Helper()
	m := partitiontest.NewMemory()
	m.Create(orders)
	l, err := partition.New(c, m, nil, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, l) })
	return l, m
}

func stop(t testing.TB, l *partition.Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func values(from, to int) (recs []sluice.NewRecord) {
	for i := from; i < to; i++ {
		recs = append(recs, sluice.NewRecord{Value: fmt.Append(nil, i)})
	}
	return recs
}

// readTo reads as every reader does: take the bell, look, wait. It checks that offsets rise and that values are theirs.
func readTo(ctx context.Context, l *partition.Log, p sluice.Partition, from, to int64, maxBytes int) (recs []*sluice.Record, err error) {
	for from < to {
		bell := l.Changed(p)
		got, next, err := l.Read(ctx, p, from, maxBytes)
		if err != nil {
			return recs, fmt.Errorf("read at %d: %w", from, err)
		}
		at := from
		for _, r := range got {
			if r.Offset < at || r.Offset >= next {
				return recs, fmt.Errorf("offset %d in an answer from %d to %d", r.Offset, from, next)
			}
			at = r.Offset + 1
		}
		recs = append(recs, got...)
		if next > from {
			from = next
			continue
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return recs, fmt.Errorf("waits at %d: %w", from, ctx.Err())
		}
	}
	return recs, nil
}

func TestAReaderAtTheEndSeesWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		var readers sync.WaitGroup
		for range 20 {
			readers.Go(func() {
				recs, err := readTo(t.Context(), l, orders, 0, 300, 1<<20)
				if err != nil || len(recs) != 300 {
					t.Errorf("%d records, %v", len(recs), err)
				}
			})
		}
		for i := 0; i < 300; i += 10 {
			time.Sleep(100 * time.Millisecond)
			m.Produce(orders, values(i, i+10)...)
		}
		readers.Wait()
		if _, follows, _ := m.Counts(); follows != 1 {
			t.Errorf("followed %d times", follows)
		}
	})
}

func TestAPartitionIsFollowedAMinuteLongerThanAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		bell := l.Changed(orders)
		synctest.Wait()
		<-bell // following has begun
		bell = l.Changed(orders)

		time.Sleep(29 * time.Second)
		rung(t, bell, false)
		time.Sleep(2 * time.Second)
		rung(t, bell, true) // those who wait must ask again
		bell = l.Changed(orders)
		for range 10 {
			time.Sleep(31 * time.Second)
			rung(t, bell, true)
			bell = l.Changed(orders)
		}
		if _, follows, _ := m.Counts(); follows != 1 {
			t.Errorf("asked for again and again, it was followed %d times", follows)
		}

		time.Sleep(61 * time.Second) // nobody asks
		m.Produce(orders, values(0, 5)...)
		_, _, bytes := m.Counts()
		if bytes != 0 {
			t.Errorf("%d B were read that nobody asked for", bytes)
		}
		<-l.Changed(orders)
		if _, follows, _ := m.Counts(); follows != 2 {
			t.Errorf("after a minute without a reader it was followed %d times, want 2", follows)
		}
	})
}

func TestReadingNearTheEndKeepsAPartitionFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		l.Changed(orders)
		synctest.Wait()
		for range 10 {
			time.Sleep(50 * time.Second)
			if recs, next, err := l.Read(t.Context(), orders, 0, 100); len(recs) != 0 || next != 0 || err != nil {
				t.Fatal(recs, next, err)
			}
		}
		if fetches, follows, _ := m.Counts(); follows != 1 || fetches != 0 {
			t.Errorf("%d follows, %d fetches", follows, fetches)
		}
	})
}

func rung(t *testing.T, bell <-chan struct{}, want bool) {
	t.Helper()
	synctest.Wait()
	select {
	case <-bell:
		if !want {
			t.Fatal("woken for nothing")
		}
	default:
		if want {
			t.Fatal("not woken")
		}
	}
}

func TestReadersOfNearbyOffsetsShareAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 5_000)...)
		release := m.Hold()
		var readers sync.WaitGroup
		for i := range 50 {
			readers.Go(func() {
				recs, _, err := l.Read(t.Context(), orders, int64(i*20), 1<<20)
				if err != nil || recs[0].Offset != int64(i*20) {
					t.Errorf("reader %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		release()
		readers.Wait()
		if fetches, _, _ := m.Counts(); fetches != 1 {
			t.Errorf("%d fetches", fetches)
		}
		if _, _, err := l.Read(t.Context(), orders, 4_000, 1<<20); err != nil {
			t.Error(err)
		}
		if fetches, _, _ := m.Counts(); fetches != 1 {
			t.Errorf("%d fetches; the chunk was not kept", fetches)
		}
	})
}

func TestAReaderThatLeavesDoesNotTakeTheFetchWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 10)...)
		release := m.Hold()
		ctx, cancel := context.WithCancel(t.Context())
		var readers sync.WaitGroup
		readers.Go(func() {
			if _, _, err := l.Read(ctx, orders, 0, 100); err != context.Canceled {
				t.Errorf("the reader that left got %v", err)
			}
		})
		synctest.Wait()
		readers.Go(func() {
			if recs, _, err := l.Read(t.Context(), orders, 0, 100); err != nil || len(recs) != 10 {
				t.Errorf("the reader that stayed got %d records, %v", len(recs), err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		release()
		readers.Wait()
	})
}

func TestOutsideIsOutOfRangeAndAheadIsTheEnd(t *testing.T) {
	l, m := bench(t, partition.Default())
	m.Produce(orders, values(0, 10)...)
	m.DeleteBefore(orders, 4)
	<-l.Changed(orders)
	for _, from := range []int64{-1, 0, 3, 11} {
		if recs, _, err := l.Read(t.Context(), orders, from, 100); sluice.KindOf(err) != sluice.OutOfRange {
			t.Errorf("read at %d of [4, 10): %v %v", from, recs, err)
		}
	}
	for _, from := range []int64{10} {
		if recs, next, err := l.Read(t.Context(), orders, from, 100); len(recs) != 0 || next != from || err != nil {
			t.Errorf("read at the end: %v %v %v", recs, next, err)
		}
	}
	if r, err := l.Range(t.Context(), orders); r != (sluice.Range{Start: 4, End: 10}) || err != nil {
		t.Errorf("range %v, %v", r, err)
	}
}

func TestATopicThatIsDeletedAndMadeAgainIsReadFromItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 100)...)
		bell := l.Changed(orders)
		synctest.Wait()
		m.Produce(orders, values(100, 110)...)
		synctest.Wait()
		if recs, _, err := l.Read(t.Context(), orders, 50, 1000); err != nil || len(recs) == 0 {
			t.Fatal(recs, err)
		}
		bell = l.Changed(orders)
		m.Delete(orders)
		rung(t, bell, true) // a waiter must hear of it
		if _, _, err := l.Read(t.Context(), orders, 110, 1000); sluice.KindOf(err) != sluice.UnknownTopic {
			t.Fatalf("read of a deleted topic: %v", err)
		}
		time.Sleep(time.Minute)
		m.Create(orders)
		m.Produce(orders, sluice.NewRecord{Value: []byte("new")})
		time.Sleep(10 * time.Second)
		recs, next, err := l.Read(t.Context(), orders, 0, 1000)
		if err != nil || len(recs) != 1 || string(recs[0].Value) != "new" || next != 1 {
			t.Fatal(recs, next, err)
		}
		if _, _, err := l.Read(t.Context(), orders, 50, 1000); sluice.KindOf(err) != sluice.OutOfRange {
			t.Fatalf("an offset of the old topic: %v", err)
		}
	})
}
