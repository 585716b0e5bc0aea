package partition_test

import (
	"context"
	"errors"
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
			if _, _, err := l.Read(ctx, orders, 0, 100); !errors.Is(err, context.Canceled) {
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
	follow(t.Context(), t, l, orders)
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
		l.Changed(orders)
		synctest.Wait()
		m.Produce(orders, values(100, 110)...)
		synctest.Wait()
		if recs, _, err := l.Read(t.Context(), orders, 50, 1000); err != nil || len(recs) == 0 {
			t.Fatal(recs, err)
		}
		bell := l.Changed(orders)
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

// An unclean election, or a topic made anew so fast that nobody saw it gone: the end lies below what was read.
func TestALogThatWasCutIsReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 50)...)
		l.Changed(orders)
		synctest.Wait()
		m.Produce(orders, values(50, 100)...)
		synctest.Wait()
		for _, from := range []int64{0, 50} {
			if recs, _, err := l.Read(t.Context(), orders, from, 1000); err != nil || len(recs) == 0 {
				t.Fatal(recs, err)
			}
		}
		m.Create(orders)
		m.Produce(orders, sluice.NewRecord{Value: []byte("new")})
		time.Sleep(10 * time.Second)
		if _, _, err := l.Read(t.Context(), orders, 100, 1000); sluice.KindOf(err) != sluice.OutOfRange {
			t.Errorf("the old end: %v", err)
		}
		if recs, next, err := l.Read(t.Context(), orders, 0, 1000); err != nil || len(recs) != 1 || string(recs[0].Value) != "new" || next != 1 {
			t.Error(recs, next, err)
		}
		if r, err := l.Range(t.Context(), orders); r != (sluice.Range{End: 1}) || err != nil {
			t.Error(r, err)
		}
		m.Produce(orders, values(1, 200)...)
		if recs, err := readTo(t.Context(), l, orders, 0, 200, 1000); err != nil || len(recs) != 200 || string(recs[60].Value) != "60" {
			t.Error(len(recs), err)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	})
}

// While Kafka is away readers fail soon and are not woken again and again; afterwards all goes on by itself.
func TestReadersGoOnAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 10)...)
		<-l.Changed(orders)
		synctest.Wait()
		bell := l.Changed(orders)
		m.SetFail(&sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached."})
		rung(t, bell, true)
		if _, _, err := l.Read(t.Context(), orders, 10, 100); sluice.KindOf(err) != sluice.Unavailable {
			t.Fatalf("during the outage: %v", err)
		}
		bell = l.Changed(orders)
		time.Sleep(20 * time.Second)
		rung(t, bell, false)
		m.SetFail(nil)
		m.Produce(orders, values(10, 20)...)
		begin := time.Now()
		recs, err := readTo(t.Context(), l, orders, 10, 20, 100)
		if err != nil || len(recs) != 10 || time.Since(begin) > 10*time.Second {
			t.Errorf("%d records, %v, after %v", len(recs), err, time.Since(begin))
		}
	})
}

// A log that is stopped answers at once, and its bells are rung.
func TestStopEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		m.Produce(orders, values(0, 10)...)
		l.Changed(orders)
		synctest.Wait()
		bell := l.Changed(orders)
		release := m.Hold()
		defer release()
		var readers sync.WaitGroup
		readers.Go(func() {
			if _, _, err := l.Read(t.Context(), orders, 0, 100); sluice.KindOf(err) != sluice.Unavailable {
				t.Errorf("a reader that waited: %v", err)
			}
		})
		synctest.Wait()
		stop(t, l)
		readers.Wait()
		rung(t, bell, true)
		rung(t, l.Changed(orders), true)
		if _, _, err := l.Read(t.Context(), orders, 0, 100); sluice.KindOf(err) != sluice.Unavailable {
			t.Errorf("read: %v", err)
		}
		if _, err := l.Range(t.Context(), orders); sluice.KindOf(err) != sluice.Unavailable {
			t.Errorf("range: %v", err)
		}
	})
}

// The registry is shared: two logs in one are a mistake that shows at once.
func TestMetricsTellWhatAnswered(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := partitiontest.NewMemory()
	m.Create(orders)
	m.Produce(orders, values(0, 10)...)
	l, err := partition.New(partition.Default(), m, nil, reg)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, l)
	if _, err := partition.New(partition.Default(), m, nil, reg); err == nil {
		t.Error("two logs share their metrics")
	}
	for range 2 {
		if _, _, err := l.Read(t.Context(), orders, 0, 100); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			switch {
			case m.Counter != nil:
				got[name] = m.Counter.GetValue()
			case m.Gauge != nil:
				got[name] = m.Gauge.GetValue()
			case m.Histogram != nil:
				got[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	want := map[string]float64{
		"sluice_log_reads_total ring": 0, "sluice_log_reads_total cache": 1, "sluice_log_reads_total fetch": 1,
		"sluice_ring_bytes": 0, "sluice_fetch_seconds": 1, "sluice_fetch_waiting": 0, "sluice_cache_bytes": 1010,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// However many partitions are busy at once, their rings keep to one budget; what leaves them is still read.
func TestAllRingsShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := partition.Config{RingBytes: 1 << 20, RingRecords: 10_000, RingsBytes: 4 << 20, CacheBytes: 1 << 20}
		l, m := bench(t, c)
		const partitions, records, size = 40, 30, 50_000
		for n := range int32(partitions) {
			p := sluice.Partition{Topic: "busy", Number: n}
			m.Create(p)
			l.Changed(p)
		}
		synctest.Wait()
		for range records {
			for n := range int32(partitions) {
				m.Produce(sluice.Partition{Topic: "busy", Number: n}, sluice.NewRecord{Value: make([]byte, size)})
			}
			synctest.Wait()
			if err := l.Check(); err != nil {
				t.Fatal(err)
			}
		}
		fetches, _, _ := m.Counts()
		for n := range int32(partitions) {
			if recs, next, err := l.Read(t.Context(), sluice.Partition{Topic: "busy", Number: n}, records-1, size); err != nil || len(recs) != 1 || next != records {
				t.Fatal(len(recs), next, err)
			}
		}
		if now, _, _ := m.Counts(); now != fetches {
			t.Errorf("%d fetches for the newest records", now-fetches)
		}
		for n := range int32(partitions) {
			p := sluice.Partition{Topic: "busy", Number: n}
			for from := int64(0); from < records; from++ {
				if recs, _, err := l.Read(t.Context(), p, from, 1); err != nil || len(recs) != 1 || recs[0].Offset != from {
					t.Fatal(from, len(recs), err)
				}
			}
		}
	})
}

// A record larger than the ring goes through the cache: nobody fetches it again.
func TestARecordLargerThanTheRingIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := bench(t, partition.Default())
		<-l.Changed(orders)
		m.Produce(orders, sluice.NewRecord{Value: make([]byte, 5<<20)})
		m.Produce(orders, sluice.NewRecord{Value: []byte("after")})
		synctest.Wait()
		for range 10 {
			recs, err := readTo(t.Context(), l, orders, 0, 2, 1000)
			if err != nil || len(recs) != 2 || len(recs[0].Value) != 5<<20 {
				t.Fatal(len(recs), err)
			}
		}
		if fetches, _, _ := m.Counts(); fetches != 0 {
			t.Errorf("%d fetches", fetches)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	})
}

// lagging is a Source whose live feed stands still until it is let go.
type lagging struct {
	*partitiontest.Memory
	gate chan struct{}
}

func (s lagging) Follow(ctx context.Context, p sluice.Partition, from int64, add func(sluice.Chunk)) error {
	return s.Memory.Follow(ctx, p, from, func(c sluice.Chunk) {
		if c.Next > c.From {
			<-s.gate
		}
		add(c)
	})
}

// Replicas differ by milliseconds: an offset that another has seen is no gap and no error here, but the end.
func TestAReaderAheadOfThisReplicaWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := lagging{partitiontest.NewMemory(), make(chan struct{})}
		source.Create(orders)
		l, err := partition.New(partition.Default(), source, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer stop(t, l)
		<-l.Changed(orders)
		source.Produce(orders, values(0, 10)...)
		bell := l.Changed(orders)
		synctest.Wait()
		for range 3 {
			if recs, next, err := l.Read(t.Context(), orders, 10, 100); len(recs) != 0 || next != 10 || err != nil {
				t.Fatal(recs, next, err)
			}
		}
		if fetches, _, _ := source.Counts(); fetches != 1 {
			t.Errorf("%d fetches to learn one end", fetches)
		}
		rung(t, bell, false)
		if _, _, err := l.Read(t.Context(), orders, 11, 100); sluice.KindOf(err) != sluice.OutOfRange {
			t.Errorf("above the broker's end: %v", err)
		}
		close(source.gate)
		rung(t, bell, true)
		source.Produce(orders, values(10, 20)...)
		if recs, err := readTo(t.Context(), l, orders, 10, 20, 100); err != nil || len(recs) != 10 {
			t.Error(len(recs), err)
		}
	})
}
