package formats

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/sluicegate/sluice"
)

// Schema is one schema as the registry knows it, ready for use. It never changes and is shared by all.
type Schema struct {
	id     int
	format Format
	codec  codec
	heavy  *heavy
}

// codec turns JSON into the bytes behind the frame and back.
type codec interface {
	// encode appends the bytes of one JSON value, which it may overwrite. Its error says in words for the caller why the
	// value does not fit.
	encode(dst, value []byte) ([]byte, error)
	// show appends the JSON of payload. On an error dst may have grown.
	show(dst, payload []byte) ([]byte, error)
}

// ID is what the registry calls the schema.
func (s *Schema) ID() int { return s.id }

const (
	magic       = 0 // Confluent's wire format: this byte, the id as four bytes, big-endian, then the payload
	frameBytes  = 5
	schemaCost  = 20 // what a schema ready for use takes, as a multiple of its text
	schemaFloor = 4 << 10
)

// Encode turns one JSON value into the bytes of a key or a value; nil, Kafka's null, stays nil. It may overwrite value.
// Its error is of Kind Invalid and says why the value does not fit; or Overloaded, when ctx ended first.
func (s *Schema) Encode(ctx context.Context, value []byte) ([]byte, error) {
	if value == nil {
		return nil, nil
	}
	done, err := s.heavy.enter(ctx, len(value))
	if err != nil {
		return nil, err
	}
	defer done()
	out := make([]byte, frameBytes, frameBytes+len(value))
	out[0] = magic
	binary.BigEndian.PutUint32(out[1:], uint32(s.id))
	if out, err = s.codec.encode(out, value); err != nil {
		return nil, misfit("%s", bounded(err.Error()))
	}
	return out, nil
}

// unframe gives the schema id and the payload of a key or a value.
func unframe(b []byte) (id int, payload []byte, err error) {
	if len(b) < frameBytes || b[0] != magic {
		return 0, nil, misfit("the bytes do not begin with a schema id")
	}
	return int(int32(binary.BigEndian.Uint32(b[1:]))), b[frameBytes:], nil
}

// compile makes a schema of the registry's text and of the texts it refers to, by the names it uses for them. cost is
// about what it takes in memory. Kind BadSchema.
func compile(f Format, text string, refs []reference) (c codec, cost int, err error) {
	w := &weights{}
	err = w.take(text)
	for _, ref := range refs {
		if err == nil {
			err = w.take(ref.text)
		}
	}
	if err == nil {
		switch f {
		case Avro:
			c, err = compileAvro(text, refs)
		case JSONSchema:
			c, err = compileJSONSchema(text, refs, w)
		default:
			c, err = compileProtobuf(text, refs, w)
		}
	}
	if err != nil {
		return nil, 0, badSchema("%s", bounded(err.Error()))
	}
	return c, w.cost(), nil
}

// reference is another schema that a schema uses, under a name of its own choice.
type reference struct{ name, text string }

func badSchema(format string, args ...any) error {
	return &sluice.Error{Kind: sluice.BadSchema, Msg: fmt.Sprintf(format, args...)}
}

func misfit(format string, args ...any) error {
	return &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf(format, args...)}
}

// bounded keeps the words of a library, which may quote the whole document, to one line that can be shown.
func bounded(text string) string {
	const most = 400
	line := make([]byte, 0, min(len(text), most+4))
	for _, r := range text {
		if r < ' ' || r == 0xA0 { // protobuf-go puts such a space into its errors
			r = ' '
		}
		if line = append(line, string(r)...); len(line) > most {
			return string(line) + "…"
		}
	}
	return string(line)
}
