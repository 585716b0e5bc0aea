package partitiontest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/sluicegate/sluice"
)

// Memory is a Source whose partitions are slices. It counts what is fetched, and fails or waits when it is told to.
type Memory struct {
	mu    sync.Mutex
	parts map[key]*part
	ids   map[string]sluice.TopicID
	made  int // topics so far
	bell  chan struct{}

	fetches int   // one-shot fetches
	bytes   int   // of records that were fetched or followed
	follows int   // calls of Follow
	fail    error // of every call while it is set; a Follow under way ends with it
	hold    chan struct{}
}

type key struct {
	topic  string
	number int32
}

type part struct {
	start   int64
	batches []batch
}

// batch is one run of offsets [from, next). Hidden ones belong to an aborted transaction, control ones hold none.
type batch struct {
	from, next      int64
	recs            []*sluice.Record
	hidden, control bool
}

// NewMemory is a Source without topics.
func NewMemory() *Memory {
	return &Memory{parts: map[key]*part{}, ids: map[string]sluice.TopicID{}, bell: make(chan struct{})}
}

// Bench is what Contract needs.
func (m *Memory) Bench() Bench {
	made := 0
	return Bench{
		Source: m,
		Partition: func(testing.TB) sluice.Partition {
			made++
			p := sluice.Partition{Topic: fmt.Sprint("topic-", made)}
			m.Create(p)
			return p
		},
		Produce: func(_ testing.TB, p sluice.Partition, recs ...sluice.NewRecord) { m.Produce(p, recs...) },
		Transact: func(_ testing.TB, p sluice.Partition, commit bool, recs ...sluice.NewRecord) {
			m.Transact(p, commit, recs...)
		},
		DeleteBefore: func(_ testing.TB, p sluice.Partition, offset int64) {
			m.DeleteBefore(p, offset)
		},
	}
}

// Create makes a partition. If it exists already it is an empty one, of another topic of the same name.
func (m *Memory) Create(p sluice.Partition) {
	m.change(func() {
		if _, known := m.ids[p.Topic]; !known || m.parts[key{p.Topic, p.Number}] != nil {
			m.made++
			m.ids[p.Topic] = sluice.TopicID{byte(m.made >> 8), byte(m.made)}
		}
		m.parts[key{p.Topic, p.Number}] = &part{}
	})
}

// Delete removes a partition, and the topic with its last one.
func (m *Memory) Delete(p sluice.Partition) {
	m.change(func() {
		delete(m.parts, key{p.Topic, p.Number})
		for k := range m.parts {
			if k.topic == p.Topic {
				return
			}
		}
		delete(m.ids, p.Topic)
	})
}

// Cut takes the records from an offset on away, as an unclean election does. Whole batches only.
func (m *Memory) Cut(p sluice.Partition, end int64) {
	m.change(func() {
		at := m.parts[key{p.Topic, p.Number}]
		at.batches = slices.DeleteFunc(at.batches, func(b batch) bool { return b.next > end })
	})
}

// Produce appends one batch.
func (m *Memory) Produce(p sluice.Partition, recs ...sluice.NewRecord) { m.append(p, false, recs...) }

// Transact appends a batch and its marker.
func (m *Memory) Transact(p sluice.Partition, commit bool, recs ...sluice.NewRecord) {
	m.append(p, !commit, recs...)
	m.change(func() {
		at := m.parts[key{p.Topic, p.Number}]
		at.batches = append(at.batches, batch{from: at.end(), next: at.end() + 1, control: true})
	})
}

// Gap appends offsets that compaction has emptied.
func (m *Memory) Gap(p sluice.Partition, n int64) {
	m.change(func() {
		at := m.parts[key{p.Topic, p.Number}]
		at.batches = append(at.batches, batch{from: at.end(), next: at.end() + n})
	})
}

// DeleteBefore moves the start up.
func (m *Memory) DeleteBefore(p sluice.Partition, offset int64) {
	m.change(func() { m.parts[key{p.Topic, p.Number}].start = offset })
}

// SetFail lets every call fail, or none with nil.
func (m *Memory) SetFail(err error) { m.change(func() { m.fail = err }) }

// Hold lets fetches wait until the function it returns is called.
func (m *Memory) Hold() (release func()) {
	hold := make(chan struct{})
	m.change(func() { m.hold = hold })
	return func() {
		m.change(func() { m.hold = nil })
		close(hold)
	}
}

// Counts are the fetches and the follows so far, and the bytes that they read.
func (m *Memory) Counts() (fetches, follows, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches, m.follows, m.bytes
}

func (m *Memory) append(p sluice.Partition, hidden bool, recs ...sluice.NewRecord) {
	m.change(func() {
		at := m.parts[key{p.Topic, p.Number}]
		b := batch{from: at.end(), next: at.end() + int64(len(recs)), hidden: hidden}
		for i, r := range recs {
			b.recs = append(b.recs, &sluice.Record{
				Topic: p.Topic, Partition: p.Number, Offset: b.from + int64(i), Timestamp: r.Timestamp,
				Key: r.Key, Value: r.Value, Headers: r.Headers,
			})
		}
		at.batches = append(at.batches, b)
	})
}

func (m *Memory) change(how func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	how()
	close(m.bell)
	m.bell = make(chan struct{})
}

func (p *part) end() int64 {
	if len(p.batches) == 0 {
		return 0
	}
	return p.batches[len(p.batches)-1].next
}

// TopicID is the contract's.
func (m *Memory) TopicID(_ context.Context, topic string) (sluice.TopicID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return sluice.TopicID{}, m.fail
	}
	id, known := m.ids[topic]
	if !known {
		return sluice.TopicID{}, &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}
	}
	return id, nil
}

// Range is the contract's.
func (m *Memory) Range(_ context.Context, p sluice.Partition) (sluice.Range, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, err := m.find(p)
	if err != nil {
		return sluice.Range{}, err
	}
	return sluice.Range{Start: at.start, End: at.end()}, nil
}

func (m *Memory) find(p sluice.Partition) (*part, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	if at := m.parts[key{p.Topic, p.Number}]; at != nil {
		return at, nil
	}
	for k := range m.parts {
		if k.topic == p.Topic {
			return nil, &sluice.Error{Kind: sluice.UnknownPart, Msg: "Partition not found."}
		}
	}
	return nil, &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}
}

// Fetch is the contract's.
func (m *Memory) Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error) {
	m.mu.Lock()
	m.fetches++
	hold := m.hold
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return sluice.Chunk{}, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read(p, from, maxBytes)
}

func (m *Memory) read(p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error) {
	at, err := m.find(p)
	if err != nil {
		return sluice.Chunk{}, err
	}
	if from < at.start || from > at.end() {
		return sluice.Chunk{}, &sluice.Error{Kind: sluice.OutOfRange, Msg: "Out of range."}
	}
	c := sluice.Chunk{From: from, Next: from, End: at.end()}
	read := 0
	for _, b := range at.batches {
		if b.next <= from {
			continue
		}
		size := 0
		for _, r := range b.recs {
			size += r.Size()
		}
		if read > 0 && read+size > maxBytes {
			break
		}
		read += size
		c.Next = b.next
		if b.hidden && p.Isolation == sluice.ReadCommitted {
			continue
		}
		for _, r := range b.recs {
			if r.Offset >= from {
				c.Records = append(c.Records, r)
				c.Bytes += r.Size() + 100
			}
		}
	}
	m.bytes += read
	return c, nil
}

// Follow is the contract's.
func (m *Memory) Follow(ctx context.Context, p sluice.Partition, from int64, add func(sluice.Chunk)) error {
	m.mu.Lock()
	m.follows++
	m.mu.Unlock()
	for first := true; ; first = false {
		m.mu.Lock()
		c, err := m.read(p, from, 1<<20)
		bell := m.bell
		m.mu.Unlock()
		if err != nil {
			return err
		}
		if first {
			add(sluice.Chunk{From: from, Next: from, End: from})
		}
		if c.Next > from {
			add(c)
			from = c.Next
			continue
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return nil
		}
	}
}
