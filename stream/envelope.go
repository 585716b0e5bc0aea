package stream

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

// Format says how a key or a value stands in the envelope. No format refuses a record: each falls back, as its comment
// says, to what can hold the bytes, and the envelope tells what was used.
type Format byte

const (
	Auto   Format = iota // a value that is one JSON object or array: json; UTF-8: text; else base64. A key: text or base64
	JSON                 // any JSON document; else text, else base64
	Text                 // else base64
	Base64               // standard alphabet, padded
)

// variant is everything that makes the frames of one partition differ between streams: all streams of a variant share
// their bytes.
type variant struct {
	key, value Format
	ids        bool          // an id on every frame: for streams of exactly one partition
	log        sluice.LogTag // the life of the topic that the ids name
	count      int32         // the topic's partitions, for the ids
}

// encoder appends the frames of one partition in one variant.
type encoder struct {
	variant  variant
	maxBytes int // a larger record becomes a gap frame
	gaps     prometheus.Counter
	cursor   sluice.Cursor // of one topic and partition, for ids in frames
	prefix   []byte        // what all frames begin with
}

func newEncoder(p sluice.Partition, v variant, maxBytes int, gaps prometheus.Counter) *encoder {
	e := &encoder{variant: v, maxBytes: maxBytes, gaps: gaps}
	e.prefix = appendString([]byte(`data: {"topic":`), p.Topic)
	e.prefix = append(e.prefix, `,"partition":`...)
	e.prefix = strconv.AppendInt(e.prefix, int64(p.Number), 10)
	e.prefix = append(e.prefix, `,"offset":`...)
	if v.ids {
		e.cursor.Topics = []sluice.TopicCursor{{
			Name: sluice.NameTagOf(p.Topic), Log: v.log, Count: v.count,
			Partitions: []sluice.PartitionCursor{{Number: p.Number}},
		}}
	}
	return e
}

// append appends the frame of a record: its event, in one data line, and the id where frames have one.
func (e *encoder) append(dst []byte, r *sluice.Record) []byte {
	if e.tooLarge(r) {
		g := gap{p: sluice.Partition{Topic: r.Topic, Number: r.Partition}, from: r.Offset, to: r.Offset + 1, lost: 1, reason: tooLarge}
		dst = g.append(dst)
		e.gaps.Inc()
	} else {
		dst = e.envelope(dst, r)
		dst = append(dst, '\n')
	}
	if e.variant.ids {
		e.cursor.Topics[0].Partitions[0].Next = r.Offset + 1
		dst = appendID(dst, &e.cursor)
	}
	return append(dst, '\n')
}

func (e *encoder) tooLarge(r *sluice.Record) bool {
	return len(r.Value) > e.maxBytes || len(r.Key) > e.maxBytes || r.Size()-len(r.Value)-len(r.Key) > e.maxBytes
}

func (e *encoder) envelope(dst []byte, r *sluice.Record) []byte {
	dst = append(dst, e.prefix...)
	dst = strconv.AppendInt(dst, r.Offset, 10)
	dst = append(dst, `,"timestamp":`...)
	if r.Timestamp.IsZero() {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, r.Timestamp.UnixMilli(), 10)
	}
	if r.Appended {
		dst = append(dst, `,"timestamp_type":"append"`...)
	}
	dst = append(dst, `,"key":`...)
	dst, format := e.variant.key.append(dst, r.Key, false)
	dst = append(dst, `,"key_format":`...)
	dst = append(dst, format...)
	dst = append(dst, `,"value":`...)
	dst, format = e.variant.value.append(dst, r.Value, true)
	dst = append(dst, `,"value_format":`...)
	dst = append(dst, format...)
	if len(r.Headers) > 0 {
		dst = appendHeaders(dst, r.Headers)
	}
	return append(dst, '}')
}

// append appends bytes in the format, or in the first that it falls back to, and names that as JSON. In Auto only a
// value may be JSON: a key "{}" is more likely text.
func (f Format) append(dst, b []byte, isValue bool) (_ []byte, used string) {
	if b == nil {
		return append(dst, "null"...), "null"
	}
	if f == JSON || f == Auto && isValue && maybeContainer(b) {
		if out, ok := appendCompact(dst, b); ok {
			return out, `"json"`
		}
	}
	if f != Base64 && utf8.Valid(b) {
		return appendString(dst, b), `"text"`
	}
	return appendBase64(dst, b), `"base64"`
}

// maybeContainer reports whether the first byte that is not whitespace opens an object or array.
func maybeContainer(b []byte) bool {
	for _, c := range b {
		switch c {
		case ' ', '\t', '\n', '\r':
		default:
			return c == '{' || c == '['
		}
	}
	return false
}

func appendHeaders(dst []byte, headers []sluice.Header) []byte {
	dst = append(dst, `,"headers":[`...)
	for i, h := range headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"name":`...)
		dst = appendString(dst, strings.ToValidUTF8(h.Name, "\uFFFD")) // Kafka promises UTF-8, producers need not keep it
		switch {
		case h.Value == nil:
			dst = append(dst, `,"value":null}`...)
		case utf8.Valid(h.Value):
			dst = append(dst, `,"value":`...)
			dst = append(appendString(dst, h.Value), '}')
		default:
			dst = append(dst, `,"value_base64":`...)
			dst = append(appendBase64(dst, h.Value), '}')
		}
	}
	return append(dst, ']')
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}
