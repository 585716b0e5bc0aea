package stream

import "sync/atomic"

const (
	smallSegment = 16 << 10
	largeSegment = 256 << 10
	perFrame     = 160 // bytes of buffer for each slot of a frame; smaller frames end a segment early
)

// frame is where one frame ends in its segment, and the offset a reader goes on from after it.
type frame struct {
	next int64
	end  uint32
}

// segment is a run of encoded frames, shared by all streams of its partition and variant. It is written once, by one
// writer, behind n: readers look at frames[:n] and the bytes they end at, and never at more. Segments form a chain;
// a reader that has read all of one, sees next and finds n unchanged, goes on there. The slowest reader keeps its
// segment and the later ones alive, and nothing else does.
type segment struct {
	first  int64  // every record of the partition from this offset on is in the chain, here or later
	base   int64  // bytes of the chain before this segment
	buf    []byte // its length never changes: readers look at it while the writer fills it
	used   int    // the writer's
	frames []frame
	n      atomic.Int32
	at     atomic.Int64 // unix ns of the last append
	next   atomic.Pointer[segment]
}

// broken ends a chain that does not go on: the log was cut below it, or its writer failed. Readers ask Kafka again.
var broken = new(segment)

func newSegment(first, base int64, size int) *segment {
	return &segment{first: first, base: base, buf: make([]byte, size), frames: make([]frame, size/perFrame+1)}
}

// room reports whether a frame of so many bytes still fits.
func (s *segment) room(bytes int) bool {
	return s.used+bytes <= len(s.buf) && int(s.n.Load()) < len(s.frames)
}

// add publishes a frame. Only the writer calls it.
func (s *segment) add(b []byte, next, now int64) {
	s.used += copy(s.buf[s.used:], b)
	n := s.n.Load()
	s.frames[n] = frame{next: next, end: uint32(s.used)}
	s.at.Store(now)
	s.n.Store(n + 1)
}

// bytes is a run of published frames.
func (s *segment) bytes(from, to uint32) []byte { return s.buf[from:to:to] }

// start is where frame i begins.
func (s *segment) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return s.frames[i-1].end
}
