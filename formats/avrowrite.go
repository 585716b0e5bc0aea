package formats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// avroCodec is Avro's binary encoding and its JSON encoding (Avro 1.12, "JSON Encoding"): a value of a union is null or
// an object with the type as its only name; bytes and fixed are strings of the code points 0 to 255.
type avroCodec struct{ root *avroType }

func compileAvro(text string, refs []reference) (codec, error) {
	t, err := parseAvro(text, refs)
	if err != nil {
		return nil, err
	}
	return &avroCodec{t}, nil
}

func (c *avroCodec) encode(dst, value []byte) ([]byte, error) {
	w := avroWriter{Scanner: NewScanner(value), out: dst}
	if err := w.write(c.root); err != nil {
		return nil, errors.New(words(err))
	}
	return w.out, w.End()
}

// words are what may be shown of an error.
func words(err error) string {
	if e, ok := errors.AsType[*sluice.Error](err); ok {
		return e.Msg
	}
	return err.Error()
}

// avroWriter writes the bytes of a JSON value as it reads it.
type avroWriter struct {
	*Scanner
	out []byte
}

func (w *avroWriter) write(t *avroType) error {
	kind, err := w.Kind()
	if err != nil {
		return err
	}
	switch t.kind {
	case avroNull:
		if kind != 'n' {
			return w.expected(t)
		}
		return w.literal("null")
	case avroBoolean:
		switch kind {
		case 't':
			w.out = append(w.out, 1)
			return w.literal("true")
		case 'f':
			w.out = append(w.out, 0)
			return w.literal("false")
		}
		return w.expected(t)
	case avroInt, avroLong:
		return w.integer(t, kind)
	case avroFloat, avroDouble:
		return w.float(t, kind)
	case avroUnion:
		return w.union(t, kind)
	case avroRecord:
		if kind != '{' {
			return w.expected(t)
		}
		return w.record(t)
	case avroArray, avroMap:
		if (t.kind == avroArray) != (kind == '[') || (t.kind == avroMap) != (kind == '{') {
			return w.expected(t)
		}
		return w.block(t)
	}
	if kind != '"' {
		return w.expected(t)
	}
	text, err := w.Text()
	if err != nil {
		return err
	}
	return w.text(t, text)
}

func (w *avroWriter) expected(t *avroType) error {
	what := map[avroKind]string{avroRecord: "record " + t.name, avroEnum: "enum " + t.name, avroFixed: "fixed " + t.name}[t.kind]
	if what == "" {
		what = avroKinds[t.kind]
	}
	return fmt.Errorf("expected %s at byte %d", what, w.Offset())
}

func (w *avroWriter) integer(t *avroType, kind byte) error {
	if kind != '0' {
		return w.expected(t)
	}
	start := w.Offset()
	if err := w.number(); err != nil {
		return err
	}
	bits := 64
	if t.kind == avroInt {
		bits = 32
	}
	n, err := strconv.ParseInt(string(w.data[start:w.pos]), 10, bits)
	if err != nil {
		return fmt.Errorf("expected %s at byte %d: an integer of %d bits", t.name, start, bits)
	}
	w.out = binary.AppendVarint(w.out, n)
	return nil
}

// float also takes the three values that JSON has no number for, as the strings that Avro for Java writes.
func (w *avroWriter) float(t *avroType, kind byte) error {
	var text string
	start := w.Offset()
	switch kind {
	case '0':
		if err := w.number(); err != nil {
			return err
		}
		text = string(w.data[start:w.pos])
	case '"':
		b, err := w.Text()
		if err != nil {
			return err
		}
		if text = string(b); text != "NaN" && text != "Infinity" && text != "-Infinity" {
			return w.expected(t)
		}
	default:
		return w.expected(t)
	}
	bits := 64
	if t.kind == avroFloat {
		bits = 32
	}
	f, err := strconv.ParseFloat(text, bits)
	if err != nil {
		return fmt.Errorf("expected %s at byte %d: the number is too large", t.name, start)
	}
	if t.kind == avroFloat {
		w.out = binary.LittleEndian.AppendUint32(w.out, math.Float32bits(float32(f)))
	} else {
		w.out = binary.LittleEndian.AppendUint64(w.out, math.Float64bits(f))
	}
	return nil
}

// text writes what is a string in JSON.
func (w *avroWriter) text(t *avroType, text []byte) error {
	switch t.kind {
	case avroEnum:
		n, ok := t.byName[string(text)]
		if !ok {
			return fmt.Errorf("enum %s has no symbol %s", t.name, shown(text))
		}
		w.out = binary.AppendVarint(w.out, int64(n))
		return nil
	case avroString:
		w.out = binary.AppendVarint(w.out, int64(len(text)))
		w.out = append(w.out, text...)
		return nil
	}
	n := utf8.RuneCount(text)
	if t.kind == avroBytes {
		w.out = binary.AppendVarint(w.out, int64(n))
	} else if n != t.size {
		return fmt.Errorf("fixed %s has %d bytes, not %d", t.name, t.size, n)
	}
	w.out = slices.Grow(w.out, n)
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r > 0xFF {
			return fmt.Errorf("%s are written as code points from 0 to 255 (was %d)", t.name, r)
		}
		w.out, text = append(w.out, byte(r)), text[size:]
	}
	return nil
}

func (w *avroWriter) union(t *avroType, kind byte) error {
	if kind == 'n' {
		n, ok := t.byName["null"]
		if !ok {
			return errors.New("null is not one of the types of the union")
		}
		w.out = binary.AppendVarint(w.out, int64(n))
		return w.literal("null")
	}
	if kind != '{' {
		return fmt.Errorf(`expected a value of a union at byte %d: null, or {"type": value}`, w.Offset())
	}
	branches := 0
	err := w.Object(func(tag []byte) error {
		n, ok := t.byName[string(tag)]
		if branches++; branches > 1 || !ok || t.branches[n].kind == avroNull {
			return fmt.Errorf("%s is not the one type of the union that is wanted here", shown(tag))
		}
		w.out = binary.AppendVarint(w.out, int64(n))
		return w.write(t.branches[n])
	})
	if err == nil && branches == 0 {
		err = errors.New("a value of a union must name its type")
	}
	return err
}

// record takes the fields in any order and writes them in that of the schema.
func (w *avroWriter) record(t *avroType) error {
	type part struct{ start, end int }
	parts := make([]part, len(t.fields))
	base, last, count, inOrder := len(w.out), -1, 0, true
	err := w.Object(func(name []byte) error {
		n, ok := t.byName[string(name)]
		if !ok {
			return fmt.Errorf("record %s has no field %s", t.name, shown(name))
		}
		if parts[n].start > 0 { // behind the frame nothing starts at 0
			return fmt.Errorf("record %s has its field %s twice", t.name, t.fields[n].name)
		}
		start := len(w.out)
		if err := w.write(t.fields[n].typ); err != nil {
			return fmt.Errorf("field %s: %s", t.fields[n].name, words(err))
		}
		parts[n] = part{start, len(w.out)}
		inOrder, last, count = inOrder && n > last, n, count+1
		return nil
	})
	if err != nil {
		return err
	}
	if count < len(t.fields) {
		for n, p := range parts {
			if p.start == 0 {
				return fmt.Errorf("record %s lacks its field %s", t.name, t.fields[n].name)
			}
		}
	}
	if !inOrder {
		was := slices.Clone(w.out[base:])
		w.out = w.out[:base]
		for _, p := range parts {
			w.out = append(w.out, was[p.start-base:p.end-base]...)
		}
	}
	return nil
}

// block writes an array or a map as one block: the count, the items, and 0 for the end.
func (w *avroWriter) block(t *avroType) error {
	base, count := len(w.out), int64(0)
	var err error
	if t.kind == avroArray {
		err = w.Array(func(int) error {
			count++
			return w.write(t.items)
		})
	} else {
		err = w.Object(func(name []byte) error {
			count++
			w.out = binary.AppendVarint(w.out, int64(len(name)))
			w.out = append(w.out, name...)
			return w.write(t.items)
		})
	}
	if err != nil {
		return err
	}
	if count > 0 {
		w.out = slices.Insert(w.out, base, binary.AppendVarint(nil, count)...)
	}
	w.out = append(w.out, 0)
	return nil
}
