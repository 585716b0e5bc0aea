package partition

import "github.com/sluicegate/sluice"

// ring is the newest part of a followed partition, [base, next) without a hole, oldest chunk first. It drops whole
// chunks from its old end, even the last one: a single record may be larger than the budget.
type ring struct {
	chunks         []*chunk
	base, next     int64
	bytes, records int
}

// add appends a burst and returns what left the ring. Small bursts gather in one chunk, up to a sixteenth of the budget.
func (r *ring) add(in sluice.Chunk, maxBytes, maxRecords int) (left []*chunk) {
	newest := r.newest()
	if newest == nil || newest.bytes+in.Bytes > maxBytes/16 || len(newest.recs)+len(in.Records) > maxRecords/16 {
		newest = &chunk{from: r.next, next: r.next}
		r.chunks = append(r.chunks, newest)
	}
	newest.recs = append(newest.recs, in.Records...)
	newest.next = in.Next
	newest.bytes += in.Bytes
	r.next = in.Next
	r.bytes += in.Bytes
	r.records += len(in.Records)
	for len(r.chunks) > 0 && (r.bytes > maxBytes || r.records > maxRecords) {
		left = append(left, r.pop())
	}
	return left
}

func (r *ring) newest() *chunk {
	if len(r.chunks) == 0 {
		return nil
	}
	return r.chunks[len(r.chunks)-1]
}

func (r *ring) pop() *chunk {
	oldest := r.chunks[0]
	r.chunks[0] = nil
	r.chunks = r.chunks[1:]
	r.base = oldest.next
	r.bytes -= oldest.bytes
	r.records -= len(oldest.recs)
	return oldest
}

// restart empties the ring, which then begins at an offset, and returns what was in it.
func (r *ring) restart(at int64) (left []*chunk) {
	left = r.chunks
	*r = ring{base: at, next: at}
	return left
}
