package stream

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
)

// blocks keeps encoded pieces of history, so that clients that resume near each other share the frames as well as the
// records. A block is a segment that is complete; the least recently used go first.
type blocks struct {
	limit int64

	mu    sync.Mutex
	bytes int64
	byKey map[blockKey]*list.Element
	used  *list.List // of *block, the most recently used first
}

const blockBytes = 32 << 20 // of the cache; each catching-up stream also holds the block it is sending

type blockKey struct {
	p       sluice.Partition
	variant variant
	from    int64
}

type block struct {
	key   blockKey
	ready chan struct{} // closed once it is encoded, or never will be: then seg is nil
	seg   *segment
	next  int64
	bytes int64
}

func newBlocks(limit int64) *blocks {
	return &blocks{limit: limit, byKey: map[blockKey]*list.Element{}, used: list.New()}
}

func (c *blocks) find(k blockKey) *block {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[k]
	if e == nil {
		return nil
	}
	c.used.MoveToFront(e)
	return e.Value.(*block)
}

// enter gives the block of a key. mine says that it is new, and the caller's to encode and settle.
func (c *blocks) enter(k blockKey) (b *block, mine bool) {
	if b := c.find(k); b != nil {
		return b, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[k]; e != nil {
		return e.Value.(*block), false
	}
	b = &block{key: k, ready: make(chan struct{})}
	c.byKey[k] = c.used.PushFront(b)
	return b, true
}

// settle counts a block that was encoded, or forgets one that could not be.
func (c *blocks) settle(b *block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(b.ready)
	e := c.byKey[b.key]
	if e == nil || e.Value.(*block) != b {
		return // evicted meanwhile
	}
	if b.seg == nil {
		c.drop(e)
		return
	}
	b.bytes = int64(len(b.seg.buf))
	for c.bytes += b.bytes; c.bytes > c.limit && c.used.Len() > 1; {
		c.drop(c.used.Back())
	}
}

func (c *blocks) drop(e *list.Element) {
	b := c.used.Remove(e).(*block)
	delete(c.byKey, b.key)
	c.bytes -= b.bytes
}

var errBlockLost = errors.New("a block of frames could not be encoded")

// history reads and encodes records from an offset on. No segment with next == from means the end of the log.
func (s *Streams) history(ctx context.Context, p sluice.Partition, v variant, from int64) (*segment, int64, error) {
	key := blockKey{p, v, from}
	b := s.blocks.find(key)
	if b == nil {
		recs, next, err := s.source.Read(ctx, p, from, readBytes)
		if err != nil || len(recs) == 0 {
			return nil, next, err
		}
		var mine bool
		if b, mine = s.blocks.enter(key); mine {
			func() {
				defer s.blocks.settle(b) // also in a panic, or the next reader would wait for ever
				b.seg, b.next = s.encodeBlock(p, v, recs, from), next
			}()
		}
	}
	<-b.ready
	if b.seg == nil {
		return nil, from, errBlockLost
	}
	return b.seg, b.next, nil
}

func (s *Streams) encodeBlock(p sluice.Partition, v variant, recs []*sluice.Record, from int64) *segment {
	e := s.encoder(p, v)
	seg := &segment{first: from, frames: make([]frame, len(recs))}
	for i, r := range recs {
		seg.buf = e.append(seg.buf, r)
		seg.frames[i] = frame{next: r.Offset + 1, end: uint32(len(seg.buf))}
	}
	s.metrics.encoded.Add(float64(len(recs)))
	seg.at.Store(time.Now().UnixNano())
	seg.n.Store(int32(len(recs)))
	return seg
}
