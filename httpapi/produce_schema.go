package httpapi

import (
	"errors"
	"slices"
	"strconv"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/formats"
)

// encodeBatch turns the JSON of a batch into bytes with schemas (rest-api.md 4.2). What is wrong with a schema refuses
// the request whole and nothing is written; a value that does not fit costs its record. It comes after the parser, since
// a request may name its schemas behind its records.
func (s *Server) encodeBatch(topic string, b *batch, v version) (err error) {
	switch {
	case b.hasKeys && !b.keyName.Given():
		return errNoKeySchema
	case b.hasValues && !b.valueName.Given():
		return errNoValueSchema
	}
	ctx, cancel := s.within(formats.Patience) // for both
	defer cancel()
	if b.keyName.Given() {
		if b.keySchema, err = s.needs.Schemas.ForWriting(ctx, b.format, topic+"-key", b.keyName); err != nil {
			return err
		}
	}
	if b.valueName.Given() {
		if b.valueSchema, err = s.needs.Schemas.ForWriting(ctx, b.format, topic+"-value", b.valueName); err != nil {
			return err
		}
	}
	parsed, old := b.records, b.faults
	b.records, b.faults = b.records[:0], slices.Grow([]recordFault(nil), len(old))
	for slot := range b.size {
		if len(old) > 0 && old[0].slot == slot {
			b.faults, old = append(b.faults, old[0]), old[1:]
			continue
		}
		r := parsed[0]
		parsed = parsed[1:]
		fault, err := s.encodeRecord(&r, b, v)
		switch {
		case err != nil:
			return err
		case fault.text != "":
			fault.slot = slot
			b.faults = append(b.faults, fault)
		default:
			b.records = append(b.records, r) // never ahead of parsed
		}
	}
	return nil
}

func (s *Server) encodeRecord(r *sluice.NewRecord, b *batch, v version) (fault recordFault, err error) {
	for _, part := range []struct {
		field  string
		bytes  *[]byte
		schema *formats.Schema
	}{{"key", &r.Key, b.keySchema}, {"value", &r.Value, b.valueSchema}} {
		if *part.bytes == nil {
			continue
		}
		encoded, err := part.schema.Encode(s.requests, *part.bytes)
		if sluice.KindOf(err) == sluice.Invalid {
			e, _ := errors.AsType[*sluice.Error](err)
			f := misfit(v, e.Msg)
			return recordFault{code: f.code, text: f.message, field: part.field}, nil
		}
		if err == nil {
			err = b.charge(int64(len(encoded)))
		}
		if err != nil {
			return fault, err
		}
		*part.bytes = encoded
	}
	return recordFault{}, nil
}

func appendSchemaID(out []byte, s *formats.Schema) []byte {
	if s == nil {
		return append(out, "null"...)
	}
	return strconv.AppendInt(out, int64(s.ID()), 10)
}
