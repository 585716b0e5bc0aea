package formats

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// show never believes a count or a length before the bytes are there, and follows a recursive schema only so deep: the
// payload is whatever somebody wrote to the topic.
func (c *avroCodec) show(dst, payload []byte) ([]byte, error) {
	r := avroReader{rest: payload, out: dst, most: len(dst) + mostShown}
	if err := r.read(c.root); err != nil {
		return dst, err
	}
	if len(r.rest) > 0 {
		return dst, fmt.Errorf("%d bytes are left over", len(r.rest))
	}
	return r.out, nil
}

// avroReader writes the JSON of a payload as it reads it.
type avroReader struct {
	rest  []byte
	out   []byte
	depth int
	most  int // that out may hold
	hulls int // items of arrays that took no bytes
}

// mostShown bounds the JSON of one value, bytes: names stand in the schema once and in the JSON again and again. The
// largest record has 16 MiB, and six characters may stand for one byte of it.
const mostShown = 128 << 20

// mostHulls bounds what a count alone can make: an array of nulls has a length and no bytes.
const mostHulls = 1 << 16

var errShort = errors.New("the bytes end early")

func (r *avroReader) read(t *avroType) error {
	if len(r.out) > r.most {
		return fmt.Errorf("its JSON is larger than %d bytes", mostShown)
	}
	switch t.kind {
	case avroNull:
		r.out = append(r.out, "null"...)
		return nil
	case avroBoolean:
		b, err := r.take(1)
		if err != nil {
			return err
		}
		if b[0] > 1 {
			return errors.New("a boolean is neither 0 nor 1")
		}
		r.out = strconv.AppendBool(r.out, b[0] == 1)
		return nil
	case avroInt, avroLong:
		n, err := r.varint()
		if err == nil && t.kind == avroInt && n != int64(int32(n)) {
			err = errors.New("an int has more than 32 bits")
		}
		r.out = strconv.AppendInt(r.out, n, 10)
		return err
	case avroFloat:
		b, err := r.take(4)
		if err != nil {
			return err
		}
		r.float(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
		return nil
	case avroDouble:
		b, err := r.take(8)
		if err != nil {
			return err
		}
		r.float(math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
		return nil
	case avroFixed:
		b, err := r.take(t.size)
		if err == nil {
			r.bytes(b)
		}
		return err
	case avroBytes:
		b, err := r.prefixed()
		if err == nil {
			r.bytes(b)
		}
		return err
	case avroString:
		return r.text()
	case avroEnum:
		n, err := r.index(len(t.symbols))
		if err != nil {
			return err
		}
		r.out = appendText(r.out, []byte(t.symbols[n]))
		return nil
	case avroUnion:
		return r.union(t)
	}
	if r.depth++; r.depth > MaxDepth {
		return fmt.Errorf("it is nested deeper than %d levels", MaxDepth)
	}
	defer func() { r.depth-- }()
	if t.kind == avroRecord {
		return r.record(t)
	}
	return r.blocks(t)
}

func (r *avroReader) take(n int) ([]byte, error) {
	if n > len(r.rest) {
		return nil, errShort
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b, nil
}

func (r *avroReader) varint() (int64, error) {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		return 0, errShort
	}
	r.rest = r.rest[size:]
	return n, nil
}

func (r *avroReader) index(below int) (int, error) {
	n, err := r.varint()
	if err == nil && (n < 0 || n >= int64(below)) {
		err = fmt.Errorf("there is no choice number %d", n)
	}
	return int(n), err
}

func (r *avroReader) prefixed() ([]byte, error) {
	n, err := r.varint()
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(len(r.rest)) {
		return nil, errShort
	}
	return r.take(int(n))
}

func (r *avroReader) text() error {
	b, err := r.prefixed()
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		return errors.New("a string is not valid UTF-8")
	}
	r.out = appendText(r.out, b)
	return nil
}

// bytes writes each byte as the code point of its number.
func (r *avroReader) bytes(b []byte) {
	const hex = "0123456789abcdef"
	r.out = append(r.out, '"')
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			r.out = append(r.out, '\\', c)
		case c < 0x20 || c >= 0x7f:
			r.out = append(r.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			r.out = append(r.out, c)
		}
	}
	r.out = append(r.out, '"')
}

// float writes the shortest number that reads back the same, and the values that JSON lacks as strings.
func (r *avroReader) float(f float64, bits int) {
	switch {
	case math.IsNaN(f):
		r.out = append(r.out, `"NaN"`...)
	case math.IsInf(f, 1):
		r.out = append(r.out, `"Infinity"`...)
	case math.IsInf(f, -1):
		r.out = append(r.out, `"-Infinity"`...)
	default:
		form := byte('f')
		if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
			form = 'e'
		}
		r.out = strconv.AppendFloat(r.out, f, form, -1, bits)
	}
}

func (r *avroReader) union(t *avroType) error {
	n, err := r.index(len(t.branches))
	if err != nil {
		return err
	}
	branch := t.branches[n]
	if branch.kind == avroNull {
		r.out = append(r.out, "null"...)
		return nil
	}
	r.out = append(r.out, '{')
	r.out = appendText(r.out, []byte(branch.name))
	r.out = append(r.out, ':')
	err = r.read(branch)
	r.out = append(r.out, '}')
	return err
}

func (r *avroReader) record(t *avroType) error {
	r.out = append(r.out, '{')
	for n := range t.fields {
		if n > 0 {
			r.out = append(r.out, ',')
		}
		r.out = append(r.out, '"')
		r.out = append(r.out, t.fields[n].name...)
		r.out = append(r.out, '"', ':')
		if err := r.read(t.fields[n].typ); err != nil {
			return fmt.Errorf("field %s: %w", t.fields[n].name, err)
		}
	}
	r.out = append(r.out, '}')
	return nil
}

// blocks reads an array or a map: blocks of a count and so many items, the last of them empty. A negative count stands
// before the size of its block.
func (r *avroReader) blocks(t *avroType) error {
	open, closing := byte('['), byte(']')
	if t.kind == avroMap {
		open, closing = '{', '}'
	}
	r.out = append(r.out, open)
	for first := true; ; {
		count, err := r.varint()
		if err != nil {
			return err
		}
		if count == 0 {
			r.out = append(r.out, closing)
			return nil
		}
		if count < 0 {
			if count = -count; count < 0 {
				return errShort
			}
			if _, err := r.varint(); err != nil {
				return err
			}
		}
		for ; count > 0; count-- {
			if !first {
				r.out = append(r.out, ',')
			}
			first = false
			if err := r.item(t); err != nil {
				return err
			}
		}
	}
}

func (r *avroReader) item(t *avroType) error {
	before := len(r.rest)
	if t.kind == avroMap {
		if err := r.text(); err != nil {
			return err
		}
		r.out = append(r.out, ':')
	}
	if err := r.read(t.items); err != nil {
		return err
	}
	if len(r.rest) == before {
		if r.hulls++; r.hulls > mostHulls {
			return fmt.Errorf("more than %d items have no bytes", mostHulls)
		}
	}
	return nil
}
