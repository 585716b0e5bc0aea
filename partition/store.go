package partition

import (
	"cmp"
	"container/list"
	"slices"
	"sync"

	"github.com/sluicegate/sluice"
)

// store is the chunk cache: what was fetched, and what left the rings. One LRU by bytes over all partitions. It also
// knows the fetches under way, so that a look for a chunk and the decision to fetch it are one step.
type store struct {
	max     int
	metrics *metrics

	mu        sync.Mutex // after a tail's
	chunks    map[sluice.Partition][]*chunk
	recent    *list.List // of *chunk, the least recently used at the back
	bytes     int
	ids       map[string]sluice.TopicID // of the topics that chunks may be of
	flights   map[sluice.Partition][]*flight
	questions map[sluice.Partition]*question
}

func newStore(max int, m *metrics) *store {
	return &store{
		max: max, metrics: m, recent: list.New(),
		chunks: map[sluice.Partition][]*chunk{}, flights: map[sluice.Partition][]*flight{},
		questions: map[sluice.Partition]*question{}, ids: map[string]sluice.TopicID{},
	}
}

// get is the chunk that holds an offset, which thereby becomes the most recently used.
func (s *store) get(p sluice.Partition, offset int64) *chunk {
	c := find(s.chunks[p], offset)
	if c != nil {
		s.recent.MoveToFront(c.used)
	}
	return c
}

// put adds chunks that nobody changes any more, if the topic is still the one they are of. What the store holds already
// is not held twice.
func (s *store) put(p sluice.Partition, id sluice.TopicID, chunks ...*chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, known := s.ids[p.Topic]; !known || now != id {
		return
	}
	for _, c := range chunks {
		s.insert(p, c)
	}
}

// id is that of the topic that chunks may be of, zero where none is known.
func (s *store) id(topic string) sluice.TopicID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[topic]
}

// insert puts c between its neighbours: it replaces those that it covers and is cut back where another begins or ends.
// A chunk that was cut keeps its price, for it keeps its memory.
func (s *store) insert(p sluice.Partition, c *chunk) {
	if c.from >= c.next {
		return
	}
	c = &chunk{from: c.from, next: c.next, recs: c.recs, bytes: c.bytes, p: p}
	for _, old := range slices.Clone(s.overlapping(p, c)) {
		switch {
		case c.from <= old.from && old.next <= c.next:
			s.remove(old)
		case old.from <= c.from:
			c.recs, c.from = c.after(old.next), old.next
		default:
			c.recs, c.next = c.before(old.from), old.from
		}
	}
	if c.from >= c.next {
		return
	}
	list := s.chunks[p]
	i, _ := slices.BinarySearchFunc(list, c.from, func(c *chunk, offset int64) int { return cmp.Compare(c.from, offset) })
	s.chunks[p] = slices.Insert(list, i, c)
	c.used = s.recent.PushFront(c)
	s.count(c.bytes)
	for s.bytes > s.max {
		s.remove(s.recent.Back().Value.(*chunk))
	}
}

func (s *store) overlapping(p sluice.Partition, c *chunk) []*chunk {
	list := s.chunks[p]
	i, _ := slices.BinarySearchFunc(list, c.from, func(c *chunk, offset int64) int { return cmp.Compare(c.next, offset+1) })
	j := i
	for j < len(list) && list[j].from < c.next {
		j++
	}
	return list[i:j]
}

func (s *store) remove(c *chunk) {
	list := s.chunks[c.p]
	i := slices.Index(list, c)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(s.chunks, c.p)
	} else {
		s.chunks[c.p] = list
	}
	s.recent.Remove(c.used)
	s.count(-c.bytes)
}

func (s *store) count(bytes int) {
	s.bytes += bytes
	s.metrics.cacheBytes.Store(int64(s.bytes))
}

// forget drops what lies outside [r.Start, r.End), which Kafka has no more: retention passed it, or the log was cut.
func (s *store) forget(p sluice.Partition, r sluice.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range slices.Clone(s.chunks[p]) {
		if c.from < r.Start || c.next > r.End {
			s.remove(c)
		}
	}
}

// forgetTopic drops all of a topic that does not exist, has lost a partition, or is another one now.
func (s *store) forgetTopic(topic string, id *sluice.TopicID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, topic)
	if id != nil {
		s.ids[topic] = *id
	}
	for p, list := range s.chunks {
		if p.Topic == topic {
			for _, c := range slices.Clone(list) {
				s.remove(c)
			}
		}
	}
}

// budget is how much to fetch from an offset. A reader that reads on, from where a chunk ends, gets the most: answers
// are cut inside a batch, and what is cut off is wasted, once per answer. But it gets not much more than is missing up
// to the next offset in memory (the nearest chunk, or the ring's base), by the size of the records before it.
func (s *store) budget(p sluice.Partition, from int64, want int, base int64) int {
	list := s.chunks[p]
	i, _ := slices.BinarySearchFunc(list, from, func(c *chunk, offset int64) int { return cmp.Compare(c.from, offset) })
	if want <= minFetchBytes || i == 0 || list[i-1].next != from {
		return min(max(want, minFetchBytes), maxFetchBytes)
	}
	until := base
	if i < len(list) && (until < 0 || list[i].from < until) {
		until = list[i].from
	}
	if until <= from {
		return maxFetchBytes
	}
	before := list[i-1]
	missing := (until - from) * int64(before.bytes) / max(before.next-before.from, 1)
	return int(min(maxFetchBytes, max(missing, minFetchBytes)))
}

// after and before are the records of a part of the chunk.
func (c *chunk) after(offset int64) []*sluice.Record {
	i, _ := slices.BinarySearchFunc(c.recs, offset, byOffset)
	return c.recs[i:]
}

func (c *chunk) before(offset int64) []*sluice.Record {
	i, _ := slices.BinarySearchFunc(c.recs, offset, byOffset)
	return c.recs[:i]
}

func byOffset(r *sluice.Record, offset int64) int { return cmp.Compare(r.Offset, offset) }
