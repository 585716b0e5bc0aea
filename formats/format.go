package formats

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// Format is an embedded format: how a key or a value stands in the JSON of a request and an answer.
type Format byte

// The formats. The last three mean nothing without a schema, see Registry.
const (
	Binary     Format = iota // base64, the standard alphabet with padding
	JSON                     // any JSON value
	Text                     // a JSON string, kept as UTF-8
	Avro                     // Avro's JSON encoding
	JSONSchema               // JSON that fits a JSON Schema
	Protobuf                 // Protobuf's JSON encoding
)

var formatNames = [...]string{Binary: "binary", JSON: "json", Text: "text", Avro: "avro", JSONSchema: "jsonschema", Protobuf: "protobuf"}

// ByName finds a format; letter case does not count.
func ByName(name string) (Format, bool) {
	for f, known := range formatNames {
		if strings.EqualFold(name, known) {
			return Format(f), true
		}
	}
	return 0, false
}

func (f Format) String() string { return formatNames[f] }

// NeedsSchema says that only a Registry can turn JSON into bytes and back.
func (f Format) NeedsSchema() bool { return f >= Avro }

// Scan takes the next value of s and gives the bytes it stands for: nil for null, and never nil otherwise. fault is a
// content fault: this value is no good, what follows may be. Where a schema is needed the bytes are the JSON itself.
func (f Format) Scan(s *Scanner) (b []byte, fault, err error) {
	kind, err := s.Kind()
	if err != nil {
		return nil, nil, err
	}
	switch {
	case kind == 'n':
		return nil, nil, s.literal("null")
	case f == JSON || f.NeedsSchema():
		return s.Value()
	case kind != '"':
		if _, _, err := s.Value(); err != nil {
			return nil, nil, err
		}
		return nil, f.noString(), nil
	}
	text, err := s.Text()
	if err != nil || f == Text {
		return text, nil, err
	}
	if b, ok := DecodeBase64(text); ok {
		return b, nil, nil
	}
	return nil, ErrBase64, nil
}

func (f Format) noString() error {
	if f == Text {
		return ErrText
	}
	return ErrBase64
}

// The faults of a value that is no string of its format. Their Msg is completed by whoever knows what it was.
var (
	ErrBase64 = &sluice.Error{Kind: sluice.Invalid, Msg: "contains invalid base64 encoding"}
	ErrText   = &sluice.Error{Kind: sluice.Invalid, Msg: "must be a JSON string"}
)

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

// Append writes the JSON of b behind dst. Nil is null; in the json format zero bytes are null too. Bytes that are not
// of the format have Kind Invalid, dst as it was.
func (f Format) Append(dst, b []byte) ([]byte, error) {
	switch {
	case b == nil, f == JSON && len(b) == 0:
		return append(dst, "null"...), nil
	case f == Binary:
		dst = append(dst, '"')
		dst = appendBase64(dst, b)
		return append(dst, '"'), nil
	case f.NeedsSchema():
		return dst, &sluice.Error{Kind: sluice.Internal, Msg: "a format with schemas was read without a registry"}
	case !utf8.Valid(b):
		return dst, &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("%d bytes are not valid UTF-8", len(b))}
	case f == Text:
		return appendText(dst, b), nil
	case !json.Valid(b):
		return dst, &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("%d bytes are not valid JSON", len(b))}
	}
	return append(dst, b...), nil
}

// appendText writes valid UTF-8 as a JSON string, escaping what RFC 8259 wants escaped and nothing else.
func appendText(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for {
		n := plainPrefix(text)
		dst = append(dst, text[:n]...)
		if n == len(text) {
			return append(dst, '"')
		}
		switch c := text[n]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
		text = text[n+1:]
	}
}
