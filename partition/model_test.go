package partition_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/partition/partitiontest"
)

// naive is a partition as a slice: what a Log may answer follows from it by looking.
type naive struct {
	start, end int64
	recs       []naiveRecord
}

type naiveRecord struct {
	offset int64
	value  string
	hidden bool // from ReadCommitted
}

// check holds one answer of Read against the model. Below the start anything that once was there may still come out of
// memory.
func (n *naive) check(p sluice.Partition, from int64, recs []*sluice.Record, next int64, err error) error {
	switch {
	case from < n.start && sluice.KindOf(err) == sluice.OutOfRange, from > n.end && sluice.KindOf(err) == sluice.OutOfRange:
		return nil
	case err != nil:
		return err
	case from > n.end:
		return fmt.Errorf("no error")
	case next < from || next > n.end || (next == from && from < n.end):
		return fmt.Errorf("goes on at %d", next)
	}
	i := 0
	for _, want := range n.recs {
		if want.offset < from || want.offset >= next || (want.hidden && p.Isolation == sluice.ReadCommitted) {
			continue
		}
		if i == len(recs) {
			return fmt.Errorf("offset %d is left out, next is %d", want.offset, next)
		}
		if got := recs[i]; got.Offset != want.offset || string(got.Value[:10]) != want.value {
			return fmt.Errorf("offset %d has %q, want %d with %q", got.Offset, got.Value[:10], want.offset, want.value)
		}
		i++
	}
	if i < len(recs) {
		return fmt.Errorf("offset %d should not be seen", recs[i].Offset)
	}
	return nil
}

// Whatever is appended, evicted, compacted, aborted, deleted or made anew, a Log says what the partition holds.
func TestLogAgreesWithANaiveModel(t *testing.T) {
	for range 15 { // rapid stops after a day, of the bubble's time
		synctest.Test(t, func(t *testing.T) {
			rapid.Check(struct{ rapid.TB }{t}, runModel) // wrapped: a bubble has no Deadline
		})
	}
}

func runModel(t *rapid.T) {
	source := partitiontest.NewMemory()
	source.Create(orders)
	l, err := partition.New(partition.Config{RingBytes: 64 << 10, RingRecords: 64, CacheBytes: 1 << 20}, source, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}()
	model, made := &naive{}, 0
	var cursors [4]int64
	value := func(size int) (sluice.NewRecord, string) {
		made++
		name := fmt.Sprintf("%010d", made)
		return sluice.NewRecord{Value: append([]byte(name), make([]byte, size)...)}, name
	}
	batch := func(hidden bool) (recs []sluice.NewRecord) {
		size := rapid.SampledFrom([]int{0, 100, 5_000, 60_000}).Draw(t, "size")
		for range rapid.IntRange(1, 8).Draw(t, "n") {
			r, name := value(size)
			recs = append(recs, r)
			model.recs = append(model.recs, naiveRecord{model.end, name, hidden})
			model.end++
		}
		return recs
	}
	of := func() sluice.Partition {
		p := orders
		p.Isolation = sluice.Isolation(rapid.IntRange(0, 1).Draw(t, "isolation"))
		return p
	}
	read := func(t *rapid.T, p sluice.Partition, from int64) int64 {
		recs, next, err := l.Read(context.Background(), p, from, rapid.SampledFrom([]int{1, 1_000, 100_000, 1 << 20}).Draw(t, "maxBytes"))
		if err := model.check(p, from, recs, next, err); err != nil {
			t.Fatalf("%v read at %d of [%d, %d): %v", p.Isolation, from, model.start, model.end, err)
		}
		return next
	}
	t.Repeat(map[string]func(*rapid.T){
		"produce": func(*rapid.T) { source.Produce(orders, batch(false)...) },
		"transact": func(t *rapid.T) {
			commit := rapid.Bool().Draw(t, "commit")
			source.Transact(orders, commit, batch(!commit)...)
			model.end++
		},
		"compact": func(t *rapid.T) {
			n := int64(rapid.IntRange(1, 30).Draw(t, "gap"))
			source.Gap(orders, n)
			model.end += n
		},
		"retention": func(t *rapid.T) {
			model.start = rapid.Int64Range(model.start, model.end).Draw(t, "start")
			source.DeleteBefore(orders, model.start)
		},
		"again": func(*rapid.T) { // deleted and made anew
			source.Delete(orders)
			synctest.Wait()
			_, _, _ = l.Read(context.Background(), orders, model.end, 1)
			source.Create(orders)
			model = &naive{}
			time.Sleep(10 * time.Second)
		},
		"again at once": func(t *rapid.T) { // nobody saw it gone; it may be as long as the old one, or longer
			source.Create(orders)
			model = &naive{}
			for range rapid.IntRange(0, 3).Draw(t, "batches") {
				source.Produce(orders, batch(false)...)
			}
			time.Sleep(time.Minute)
		},
		"trouble": func(*rapid.T) {
			source.SetFail(&sluice.Error{Kind: sluice.Unavailable, Msg: "Gone for a while."})
			synctest.Wait()
			if _, _, err := l.Read(context.Background(), orders, model.end+1, 1); err == nil {
				t.Fatal("an offset above the end, and no error")
			}
			source.SetFail(nil)
			time.Sleep(10 * time.Second)
		},
		"follow":   func(t *rapid.T) { l.Changed(of()) },
		"let pass": func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second) },
		"read on": func(t *rapid.T) {
			i := rapid.IntRange(0, len(cursors)-1).Draw(t, "cursor")
			if cursors[i] < model.start || cursors[i] > model.end {
				cursors[i] = model.start
			}
			cursors[i] = read(t, orders, cursors[i])
		},
		"read anywhere": func(t *rapid.T) { read(t, of(), rapid.Int64Range(0, model.end+3).Draw(t, "from")) },
		"": func(t *rapid.T) {
			synctest.Wait()
			if err := l.Check(); err != nil {
				t.Fatal(err)
			}
		},
	})
}
