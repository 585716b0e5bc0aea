package partition

import (
	"cmp"
	"container/list"
	"slices"

	"github.com/sluicegate/sluice"
)

// chunk is one run of a partition in memory. Only the newest chunk of a ring grows, by appending; what a reader was
// given of it never changes.
type chunk struct {
	from, next int64
	recs       []*sluice.Record
	bytes      int

	p    sluice.Partition // of a chunk in the store
	used *list.Element    // its place in the store's LRU
}

// cut is the part of a chunk that begins at from: whole records up to about maxBytes, at least one. It is ok only when
// from lies in the chunk, or where it ends and nothing followed when it was read.
func (c *chunk) cut(from int64, maxBytes int) (recs []*sluice.Record, next int64, ok bool) {
	if from < c.from || from > c.next || (from == c.next && c.from != c.next) {
		return nil, 0, false
	}
	i, _ := slices.BinarySearchFunc(c.recs, from, func(r *sluice.Record, offset int64) int { return cmp.Compare(r.Offset, offset) })
	j, size := i, 0
	for j < len(c.recs) && (j == i || size+c.recs[j].Size() <= maxBytes) {
		size += c.recs[j].Size()
		j++
	}
	if j == len(c.recs) {
		return c.recs[i:j:j], c.next, true
	}
	return c.recs[i:j:j], c.recs[j-1].Offset + 1, true
}

// find is the chunk that holds an offset, of chunks in order and without overlap.
func find(chunks []*chunk, offset int64) *chunk {
	i, found := slices.BinarySearchFunc(chunks, offset, func(c *chunk, offset int64) int { return cmp.Compare(c.from, offset) })
	if !found {
		i--
	}
	if i < 0 || offset >= chunks[i].next {
		return nil
	}
	return chunks[i]
}
