// Package partitiontest holds what the tests of the partition log share: the contract of a Source as a test, and a
// Source in memory that passes it. Whoever feeds the log runs Contract over its own; a fake counts only once it has.
package partitiontest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

// Source is partition.Source.
type Source interface {
	TopicID(ctx context.Context, topic string) (sluice.TopicID, error)
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
	Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error)
	Follow(ctx context.Context, p sluice.Partition, from int64, add func(sluice.Chunk)) error
}

// Bench is a Source and the means to write what it reads.
type Bench struct {
	Source Source
	// Partition makes an empty partition of a topic of its own.
	Partition func(t testing.TB) sluice.Partition
	// Produce appends records in one batch; headers, key and value as given.
	Produce func(t testing.TB, p sluice.Partition, recs ...sluice.NewRecord)
	// Transact appends one transaction and ends it.
	Transact func(t testing.TB, p sluice.Partition, commit bool, recs ...sluice.NewRecord)
	// DeleteBefore moves the start of the partition up.
	DeleteBefore func(t testing.TB, p sluice.Partition, offset int64)
}

const patience = 20 * time.Second

// Contract holds a Source to what the partition log expects of one.
func Contract(t *testing.T, b Bench) {
	t.Run("an empty partition has no records and an end", func(t *testing.T) {
		p := b.Partition(t)
		wantRange(t, b, p, 0, 0)
		c := fetch(t, b, p, 0, 1<<20)
		if c.From != 0 || c.Next != 0 || c.End != 0 || len(c.Records) != 0 {
			t.Fatalf("fetched %+v of an empty partition", c)
		}
	})
	t.Run("records come back as they were written", func(t *testing.T) { roundTrip(t, b) })
	t.Run("a fetch begins at its offset, inside a batch too", func(t *testing.T) {
		p := b.Partition(t)
		b.Produce(t, p, numbered(0, 10)...)
		for from := range int64(10) {
			c := fetch(t, b, p, from, 1<<20)
			if c.From != from || c.Next != 10 || c.End != 10 || len(c.Records) != int(10-from) || c.Records[0].Offset != from {
				t.Fatalf("from %d: got [%d, %d) of %d with %d records", from, c.From, c.Next, c.End, len(c.Records))
			}
		}
		if c := fetch(t, b, p, 10, 1<<20); c.Next != 10 || len(c.Records) != 0 {
			t.Fatalf("at the end: got %+v", c)
		}
	})
	t.Run("a fetch is bounded, and gives at least one batch", func(t *testing.T) {
		p := b.Partition(t)
		for range 10 {
			b.Produce(t, p, sluice.NewRecord{Value: make([]byte, 10_000)})
		}
		c := fetch(t, b, p, 2, 25_000)
		if len(c.Records) == 0 || len(c.Records) > 3 || c.Next != 2+int64(len(c.Records)) || c.End != 10 {
			t.Fatalf("25,000 B of records of 10,000 B: got %d records, next %d, end %d", len(c.Records), c.Next, c.End)
		}
		if c := fetch(t, b, p, 2, 1); len(c.Records) != 1 || c.Next != 3 {
			t.Fatalf("1 B: got %d records, next %d", len(c.Records), c.Next)
		}
		if c.Bytes < 10_000*len(c.Records) {
			t.Fatalf("%d records of 10,000 B are said to hold %d B", len(c.Records), c.Bytes)
		}
	})
	t.Run("offsets outside are OutOfRange", func(t *testing.T) {
		p := b.Partition(t)
		b.Produce(t, p, numbered(0, 10)...)
		b.DeleteBefore(t, p, 4)
		wantRange(t, b, p, 4, 10)
		for _, from := range []int64{0, 3, 11, 1_000} {
			if _, err := b.Source.Fetch(t.Context(), p, from, 1<<20); sluice.KindOf(err) != sluice.OutOfRange {
				t.Errorf("fetch at %d of [4, 10): %v", from, err)
			}
		}
	})
	t.Run("what does not exist has a Kind", func(t *testing.T) {
		p := b.Partition(t)
		none, part := p, p
		none.Topic, part.Number = p.Topic+"-none", 999
		for kind, p := range map[sluice.Kind]sluice.Partition{sluice.UnknownTopic: none, sluice.UnknownPart: part} {
			begin := time.Now()
			if _, err := b.Source.Fetch(t.Context(), p, 0, 1<<20); sluice.KindOf(err) != kind {
				t.Errorf("fetch of %v: %v, want %s", p, err, kind)
			}
			if _, err := b.Source.Range(t.Context(), p); sluice.KindOf(err) != kind {
				t.Errorf("range of %v: %v, want %s", p, err, kind)
			}
			if err := b.Source.Follow(t.Context(), p, 0, func(sluice.Chunk) {}); sluice.KindOf(err) != kind {
				t.Errorf("follow of %v: %v, want %s", p, err, kind)
			}
			if took := time.Since(begin); took > 6*time.Second {
				t.Errorf("three errors took %v", took)
			}
		}
	})
	t.Run("aborted records are hidden from readers of committed ones", func(t *testing.T) { transactions(t, b) })
	t.Run("following brings every record once and in order", func(t *testing.T) { follow(t, b) })
	t.Run("a partition can be followed again at once", func(t *testing.T) {
		p := b.Partition(t)
		for i := range 3 {
			f := startFollow(t, b, p, int64(i))
			b.Produce(t, p, numbered(i, i+1)...)
			f.await(t, int64(i+1))
			f.stop(t)
		}
	})
	t.Run("following passes what nobody may see at the end", func(t *testing.T) {
		p := b.Partition(t)
		f := startFollow(t, b, p, 0)
		b.Transact(t, p, false, numbered(0, 5)...)
		f.await(t, 6) // five records and a marker
		if len(f.records()) != 0 {
			t.Fatalf("%d aborted records were brought", len(f.records()))
		}
		b.Produce(t, p, numbered(6, 7)...)
		f.await(t, 7)
		f.stop(t)
	})
}

func roundTrip(t *testing.T, b Bench) {
	p := b.Partition(t)
	at := time.UnixMilli(1_700_000_000_123)
	in := []sluice.NewRecord{
		{Key: []byte("k"), Value: []byte("v"), Timestamp: at},
		{Key: nil, Value: nil, Timestamp: at.Add(time.Millisecond)},
		{Key: []byte{}, Value: []byte{}, Timestamp: at},
		{Key: []byte{0, 0xff}, Value: make([]byte, 100_000), Timestamp: at},
		{Value: []byte("h"), Timestamp: at, Headers: []sluice.Header{
			{Name: "a", Value: []byte("1")}, {Name: "a", Value: nil}, {Name: "", Value: []byte{}}, {Name: "ü", Value: []byte{0x80}},
		}},
	}
	b.Produce(t, p, in...)
	f := startFollow(t, b, p, 0)
	f.await(t, int64(len(in)))
	f.stop(t)
	for name, got := range map[string][]*sluice.Record{"fetch": fetch(t, b, p, 0, 1<<20).Records, "follow": f.records()} {
		if len(got) != len(in) {
			t.Fatalf("%s: %d records of %d", name, len(got), len(in))
		}
		for i, r := range got {
			want := sluice.Record{Topic: p.Topic, Partition: p.Number, Offset: int64(i), Timestamp: in[i].Timestamp, Key: in[i].Key, Value: in[i].Value, Headers: in[i].Headers}
			if text(*r) != text(want) {
				t.Errorf("%s: record %d is %s, want %s", name, i, text(*r), text(want))
			}
		}
	}
}

// text shows a record so that null and empty differ.
func text(r sluice.Record) string {
	s := fmt.Sprintf("%s/%d@%d %d %v %#v len %d %#v", r.Topic, r.Partition, r.Offset, r.Timestamp.UnixMilli(), r.Appended, r.Key, len(r.Value), r.Value == nil)
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %q=%#v", h.Name, h.Value)
	}
	return s
}

func transactions(t *testing.T, b Bench) {
	p := b.Partition(t)
	all := p
	all.Isolation = sluice.ReadUncommitted
	b.Produce(t, p, numbered(0, 2)...)          // 0 1
	b.Transact(t, p, false, numbered(2, 4)...)  // 2 3, marker 4
	b.Transact(t, p, true, numbered(5, 7)...)   // 5 6, marker 7
	b.Transact(t, p, false, numbered(8, 10)...) // 8 9, marker 10
	b.Transact(t, p, false, numbered(11, 12)...)
	wantRange(t, b, p, 0, 13)
	t.Run("each isolation sees its own", func(t *testing.T) {
		for p, want := range map[sluice.Partition]string{p: "[0 1 5 6]", all: "[0 1 2 3 5 6 8 9 11]"} {
			t.Run(p.Isolation.String(), func(t *testing.T) {
				t.Parallel()
				if got := offsets(fetchAll(t, b, p, 13)); got != want {
					t.Errorf("fetched %v, want %v", got, want)
				}
				f := startFollow(t, b, p, 0)
				f.await(t, 13)
				f.stop(t)
				if got := offsets(f.records()); got != want {
					t.Errorf("followed %v, want %v", got, want)
				}
			})
		}
	})
	// In the middle of an aborted transaction it is known all the same.
	if c := fetch(t, b, p, 3, 1<<20); len(c.Records) != 2 || c.Records[0].Offset != 5 {
		t.Errorf("from 3: got %d records", len(c.Records))
	}
}

func fetchAll(t testing.TB, b Bench, p sluice.Partition, end int64) (recs []*sluice.Record) {
	t.Helper()
	for from := int64(0); from < end; {
		c := fetch(t, b, p, from, 1<<20)
		if c.Next <= from {
			t.Fatalf("stands still at %d of %d", from, c.End)
		}
		recs, from = append(recs, c.Records...), c.Next
	}
	return recs
}

func offsets(recs []*sluice.Record) string {
	list := []int64{}
	for _, r := range recs {
		list = append(list, r.Offset)
	}
	return fmt.Sprint(list)
}

func follow(t *testing.T, b Bench) {
	p := b.Partition(t)
	b.Produce(t, p, numbered(0, 50)...)
	f := startFollow(t, b, p, 20)
	for i := 50; i < 500; i += 50 {
		b.Produce(t, p, numbered(i, i+50)...)
	}
	f.await(t, 500)
	f.stop(t)
	for i, r := range f.records() {
		if r.Offset != int64(20+i) || string(r.Value) != fmt.Sprint(20+i) {
			t.Fatalf("record %d is %d %q", i, r.Offset, r.Value)
		}
	}
	if n := len(f.records()); n != 480 {
		t.Fatalf("%d records of 480", n)
	}
}

func numbered(from, to int) (recs []sluice.NewRecord) {
	for i := from; i < to; i++ {
		recs = append(recs, sluice.NewRecord{Value: fmt.Append(nil, i)})
	}
	return recs
}

func fetch(t testing.TB, b Bench, p sluice.Partition, from int64, maxBytes int) sluice.Chunk {
	t.Helper()
	c, err := b.Source.Fetch(t.Context(), p, from, maxBytes)
	if err != nil {
		t.Fatalf("fetch %v at %d: %v", p, from, err)
	}
	return c
}

func wantRange(t testing.TB, b Bench, p sluice.Partition, start, end int64) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		r, err := b.Source.Range(t.Context(), p)
		if err != nil {
			t.Fatalf("range of %v: %v", p, err)
		}
		if r.Start == start && r.End == end {
			return
		}
		if time.Now().After(deadline) { // the last stable offset follows a marker by a moment
			t.Fatalf("range of %v is [%d, %d), want [%d, %d)", p, r.Start, r.End, start, end)
		}
	}
}

// following is one Follow under way, which checks each chunk.
type following struct {
	cancel context.CancelFunc
	ended  chan error
	moved  chan struct{}

	mu    sync.Mutex
	next  int64
	recs  []*sluice.Record
	fault string
}

func startFollow(t testing.TB, b Bench, p sluice.Partition, from int64) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &following{cancel: cancel, ended: make(chan error, 1), moved: make(chan struct{}, 1), next: from}
	t.Cleanup(cancel)
	first := true
	go func() {
		f.ended <- b.Source.Follow(ctx, p, from, func(c sluice.Chunk) {
			f.mu.Lock()
			defer f.mu.Unlock()
			switch {
			case first && (c.From != from || c.Next != from || len(c.Records) > 0):
				f.fault = fmt.Sprintf("the first chunk is [%d, %d) with %d records", c.From, c.Next, len(c.Records))
			case c.From != f.next || c.Next < c.From || c.End < c.Next && p.Isolation == sluice.ReadUncommitted:
				f.fault = fmt.Sprintf("chunk [%d, %d) of %d follows %d", c.From, c.Next, c.End, f.next)
			}
			first = false
			at := c.From
			for _, r := range c.Records {
				if r.Offset < at || r.Offset >= c.Next {
					f.fault = fmt.Sprintf("offset %d in [%d, %d)", r.Offset, c.From, c.Next)
				}
				at = r.Offset + 1
			}
			f.next, f.recs = c.Next, append(f.recs, c.Records...)
			select {
			case f.moved <- struct{}{}:
			default:
			}
		})
	}()
	return f
}

func (f *following) records() []*sluice.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.recs
}

// await returns when all below next has been brought.
func (f *following) await(t testing.TB, next int64) {
	t.Helper()
	timeout := time.After(patience)
	for {
		f.mu.Lock()
		at, fault := f.next, f.fault
		f.mu.Unlock()
		if fault != "" {
			t.Fatal(fault)
		}
		if at >= next {
			return
		}
		select {
		case <-f.moved:
		case err := <-f.ended:
			t.Fatalf("following ended at %d: %v", at, err)
		case <-timeout:
			t.Fatalf("following stands at %d, wants %d", at, next)
		}
	}
}

func (f *following) stop(t testing.TB) {
	t.Helper()
	f.cancel()
	select {
	case err := <-f.ended:
		if err != nil {
			t.Fatalf("following ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("following does not end")
	}
}
