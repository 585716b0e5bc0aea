package httpapi

import (
	"context"

	"github.com/sluicegate/sluice/formats"
)

// format finds an embedded format that this server has: those with schemas need a registry (rest-api.md 2.2).
func (s *Server) format(name string) (formats.Format, bool) {
	f, ok := formats.ByName(name)
	return f, ok && (s.needs.Schemas != nil || !f.NeedsSchema())
}

// shower writes the JSON of a key or a value behind dst; null for nil. Bytes that are not of its format have Kind
// Invalid or BadSchema: the record cannot be shown, ever. SchemaLookup says nothing about the record.
type shower interface {
	Append(dst, b []byte) ([]byte, error)
}

func (s *Server) shower(ctx context.Context, f formats.Format) shower {
	if f.NeedsSchema() {
		return s.needs.Schemas.Reader(ctx, f)
	}
	return f
}
