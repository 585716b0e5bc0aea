package httpapi

import (
	"context"

	"github.com/sluicegate/sluice"
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
	switch {
	case !f.NeedsSchema():
		return f
	case s.needs.Schemas == nil: // the instance was made by a replica that has one
		return noRegistry{}
	}
	return s.needs.Schemas.Reader(ctx, f)
}

type noRegistry struct{}

func (noRegistry) Append(dst, b []byte) ([]byte, error) {
	if b == nil {
		return append(dst, "null"...), nil
	}
	return dst, &sluice.Error{Kind: sluice.SchemaLookup, Msg: "no schema registry", Detail: "This replica has no schema registry."}
}
