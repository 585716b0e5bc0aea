package formats

import (
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/sluicegate/sluice"
)

// Reader shows keys and values that a format with schemas wrote. Each value names its schema.
type Reader struct {
	ctx      context.Context
	format   Format
	registry *Registry
}

// Reader shows until ctx ends.
func (r *Registry) Reader(ctx context.Context, f Format) *Reader { return &Reader{ctx, f, r} }

// Append writes the JSON of b behind dst, null for nil. Kinds: Invalid or BadSchema, if b is not of the format and
// never will be; SchemaLookup, if the registry did not help; Overloaded, if ctx ended first.
func (r *Reader) Append(dst, b []byte) ([]byte, error) {
	if b == nil {
		return append(dst, "null"...), nil
	}
	id, payload, err := unframe(b)
	if err != nil {
		return dst, err
	}
	k, err := r.registry.known(r.ctx, id)
	switch {
	case err != nil:
		return dst, err
	case k.format != r.format:
		return dst, misfit("schema %d is of type %s", id, k.format.registryType())
	}
	done, err := r.registry.heavy.enter(r.ctx, len(payload))
	if err != nil {
		return dst, err
	}
	defer done()
	out, err := k.codec.show(dst, payload)
	if err != nil {
		return dst, misfit("%s", bounded(err.Error()))
	}
	return out, nil
}

// heavy bounds the memory of conversions under way: what a library builds of a payload takes many times its size.
type heavy struct{ room *semaphore.Weighted }

const (
	heavyFrom = 256 << 10
	heavyRoom = 24 << 20 // one of the largest records at a time
)

func newHeavy() *heavy { return &heavy{semaphore.NewWeighted(heavyRoom)} }

func (h *heavy) enter(ctx context.Context, n int) (done func(), err error) {
	if n < heavyFrom {
		return func() {}, nil
	}
	weight := int64(min(n, heavyRoom))
	if err := h.room.Acquire(ctx, weight); err != nil {
		return nil, &sluice.Error{Kind: sluice.Overloaded, Msg: "There was no memory to convert a large record in time.", Err: err}
	}
	return func() { h.room.Release(weight) }, nil
}
