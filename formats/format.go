package formats

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// Format is an embedded format: how a key or a value stands in the JSON of a request and an answer.
type Format byte

// The formats that are built in.
const (
	Binary Format = iota // base64, the standard alphabet with padding
	JSON                 // any JSON value
)

// ByName finds a format; letter case does not count.
func ByName(name string) (Format, bool) {
	switch strings.ToLower(name) {
	case "binary":
		return Binary, true
	case "json":
		return JSON, true
	}
	return 0, false
}

func (f Format) String() string {
	if f == JSON {
		return "json"
	}
	return "binary"
}

// Scan takes the next value of s and gives the bytes it stands for: nil for null, and never nil otherwise. fault is a
// content fault: this value is no good, what follows may be.
func (f Format) Scan(s *Scanner) (b []byte, fault, err error) {
	kind, err := s.Kind()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case kind == 'n':
		return nil, nil, s.literal("null")
	case f == JSON:
		return s.Value()
	case kind != '"':
		if _, _, err := s.Value(); err != nil {
			return nil, nil, err
		}
		return nil, ErrBase64, nil
	}
	text, err := s.Text()
	if err != nil {
		return nil, nil, err
	}
	if b, ok := DecodeBase64(text); ok {
		return b, nil, nil
	}
	return nil, ErrBase64, nil
}

// ErrBase64 is the fault of a value that is no base64 string. Its Msg is completed by whoever knows what it was.
var ErrBase64 = &sluice.Error{Kind: sluice.Invalid, Msg: "invalid base64 encoding"}

// Decode turns one JSON value into bytes, in the memory of the value.
func (f Format) Decode(value []byte) ([]byte, error) {
	s := NewScanner(value)
	b, fault, err := f.Scan(s)
	if err == nil {
		err = s.End()
	}
	if err == nil {
		err = fault
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Append writes the JSON of b behind dst. Nil is null; in the json format zero bytes are null too, and bytes that are
// no JSON have Kind Invalid, dst as it was.
func (f Format) Append(dst, b []byte) ([]byte, error) {
	switch {
	case b == nil, f == JSON && len(b) == 0:
		return append(dst, "null"...), nil
	case f == Binary:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"'), nil
	case !utf8.Valid(b) || !json.Valid(b):
		return dst, &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("%d bytes are not valid JSON", len(b))}
	}
	return append(dst, b...), nil
}
