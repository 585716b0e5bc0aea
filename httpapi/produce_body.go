package httpapi

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/formats"
)

// batch is a produce request as parsed: the records that can be written, and the faults of the others. A record's slot
// is its place in the request. Keys, values and header values lie in the body they came from.
type batch struct {
	records []sluice.NewRecord
	faults  []recordFault // by slot, ascending
	size    int           // of the request: records and faults together
	scanner *formats.Scanner

	format formats.Format
	// For a format with schemas; keys and values are JSON until encodeBatch.
	keyName, valueName     formats.Named
	keySchema, valueSchema *formats.Schema // nil: none was named
	hasKeys, hasValues     bool            // some are not null
	path                   int32           // partition of the path, or AnyPartition
	later                  bool            // the client does not wait
	lease                  *lease
	held                   int64 // of the lease, before the records
	cost                   int64 // of the records beside the body
}

// recordFault is a content fault (rest-api.md 4.4): it costs its record and no other.
type recordFault struct {
	slot  int
	code  int
	text  string
	field string // for the detail, where the whole request is refused
}

// What a record and a header cost beside the body, in bytes: themselves, the receipt, the slot of the answer. Without
// this a body of eight million empty records would cost a gigabyte that nobody counted.
const (
	recordCost = 256
	headerCost = 64
)

func (b *batch) charge(n int64) error {
	b.cost += n
	if b.held+b.cost <= b.lease.held {
		return nil
	}
	return b.lease.grow(b.held + b.cost + 16<<10)
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// release gives the batch back once nobody looks at its records.
func (b *batch) release() {
	if cap(b.records) > 1<<10 {
		return
	}
	clear(b.records)
	clear(b.faults)
	*b = batch{records: b.records[:0], faults: b.faults[:0]}
	batches.Put(b)
}

// parse reads the document of rest-api.md 4.1. Its error is a document fault: it refuses the whole request.
func (b *batch) parse(body []byte) error {
	if len(body) == 0 { // no document is no records
		return noRecords("null")
	}
	b.scanner = formats.NewScanner(body)
	b.scanner.Charge = func(bytes int) error { return b.charge(int64(bytes)) }
	s := b.scanner
	kind, err := s.Kind()
	switch {
	case err != nil:
		return err
	case kind == 'n':
		if _, err = s.Null(); err == nil {
			err = s.End()
		}
		if err == nil {
			err = noRecords("null")
		}
		return err
	case kind != '{':
		return s.WrongType("the document", "an object")
	}
	var seen [5]bool
	was := "null"
	err = s.Object(func(name []byte) error {
		var field int
		switch string(name) {
		case "records":
			field = 0
		case "key_schema":
			field = 1
		case "value_schema":
			field = 2
		case "key_schema_id":
			field = 3
		case "value_schema_id":
			field = 4
		default:
			return formats.UnknownField(name)
		}
		if seen[field] {
			return formats.DuplicateField(name)
		}
		seen[field] = true
		if null, err := s.Null(); null || err != nil {
			return err
		}
		if field == 0 {
			was = "[]"
			return b.parseRecords()
		}
		named := &b.keyName // formats without schemas leave both alone
		if field == 2 || field == 4 {
			named = &b.valueName
		}
		return b.parseName(named, string(name), field >= 3)
	})
	if err == nil {
		err = s.End()
	}
	if err == nil && b.size == 0 {
		err = noRecords(was)
	}
	return err
}

func noRecords(was string) error {
	return errInvalid.saying("records may not be empty (was %s)", was)
}

// parseName reads how a request names a schema: by an id or by a text.
func (b *batch) parseName(n *formats.Named, path string, byID bool) error {
	s := b.scanner
	if byID {
		id, ok, err := s.Integer()
		if err != nil || !ok {
			return orWrongType(err, s, path, "an integer")
		}
		n.ID = &id
		return nil
	}
	if kind, err := s.Kind(); err != nil || kind != '"' {
		return orWrongType(err, s, path, "a string")
	}
	t, err := s.Text()
	if err != nil || !b.format.NeedsSchema() {
		return err
	}
	if err := b.charge(int64(len(t))); err != nil {
		return err
	}
	text := string(t) // it outlives the body in the registry's memory
	n.Text = &text
	return nil
}

func orWrongType(err error, s *formats.Scanner, path, want string) error {
	if err != nil {
		return err
	}
	return s.WrongType(path, want)
}

func (b *batch) parseRecords() error {
	s := b.scanner
	if kind, err := s.Kind(); err != nil || kind != '[' {
		return orWrongType(err, s, "records", "an array")
	}
	return s.Array(func(i int) error {
		if err := b.charge(recordCost); err != nil {
			return err
		}
		if kind, err := s.Kind(); err != nil || kind != '{' {
			return orWrongType(err, s, fmt.Sprintf("records[%d]", i), "an object")
		}
		return b.parseRecord(i)
	})
}

// The fields of a record, as bits.
const (
	hasKey = 1 << iota
	hasValue
	hasPartition
	hasTimestamp
	hasHeaders
)

func (b *batch) parseRecord(slot int) error {
	s := b.scanner
	r := sluice.NewRecord{Partition: b.path}
	var first recordFault // of this record
	var seen int
	err := s.Object(func(name []byte) error {
		var field int
		switch string(name) {
		case "key":
			field = hasKey
		case "value":
			field = hasValue
		case "partition":
			field = hasPartition
		case "timestamp":
			field = hasTimestamp
		case "headers":
			field = hasHeaders
		default:
			return formats.UnknownField(name)
		}
		if seen&field != 0 {
			return formats.DuplicateField(name)
		}
		seen |= field
		var text string
		var err error
		switch field {
		case hasKey:
			r.Key, text, err = b.content("key")
			b.hasKeys = b.hasKeys || r.Key != nil || text != ""
		case hasValue:
			r.Value, text, err = b.content("value")
			b.hasValues = b.hasValues || r.Value != nil || text != ""
		case hasPartition:
			text, err = b.partition(&r, slot)
		case hasTimestamp:
			text, err = b.timestamp(&r, slot)
		case hasHeaders:
			text, err = b.headers(&r, slot)
		}
		if text != "" && first.text == "" {
			first = recordFault{slot: slot, code: errInvalid.code, text: text, field: fieldNames[field]}
		}
		return err
	})
	if err != nil {
		return err
	}
	b.size++
	if first.text != "" {
		b.faults = append(b.faults, first)
		return nil
	}
	b.records = append(b.records, r)
	return nil
}

var fieldNames = map[int]string{hasKey: "key", hasValue: "value", hasPartition: "partition", hasTimestamp: "timestamp", hasHeaders: "headers"}

// content is a key or a value in the format of the request. text is a content fault.
func (b *batch) content(field string) (bytes []byte, text string, err error) {
	bytes, fault, err := b.format.Scan(b.scanner)
	if err != nil || fault == nil {
		return bytes, "", err
	}
	e, _ := errors.AsType[*sluice.Error](fault)
	if e == formats.ErrBase64 || e == formats.ErrText {
		return nil, "Record " + field + " " + e.Msg, nil
	}
	return nil, e.Msg, nil
}

func (b *batch) partition(r *sluice.NewRecord, slot int) (text string, err error) {
	s := b.scanner
	if null, err := s.Null(); null || err != nil {
		return "", err // as if it were not there
	}
	n, ok, err := s.Integer()
	if err != nil || !ok {
		return "", orWrongType(err, s, fmt.Sprintf("records[%d].partition", slot), "an integer")
	}
	if n < 0 {
		return fmt.Sprintf("partition must be greater than or equal to 0 (was %d)", n), nil
	}
	r.Partition = int32(min(n, 1<<31-1)) // no topic has that one: its slot will say so
	return "", nil
}

// lastTimestamp is the end of the year 2261 in milliseconds: what a time in nanoseconds can hold.
const lastTimestamp = 9214646399999

// timestamp takes milliseconds since 1970, or RFC 3339.
func (b *batch) timestamp(r *sluice.NewRecord, slot int) (text string, err error) {
	const fault = "timestamp must be milliseconds since 1970 or an RFC 3339 time"
	s := b.scanner
	if null, err := s.Null(); null || err != nil {
		return "", err
	}
	n, ok, err := s.Integer()
	if err != nil {
		return "", err
	}
	if !ok {
		kind, _ := s.Kind()
		switch kind {
		case '"':
			t, err := s.Text()
			if err != nil {
				return "", err
			}
			at, err := time.Parse(time.RFC3339Nano, string(t))
			if err != nil {
				return fault, nil
			}
			n = at.UnixMilli()
		case '0':
			_, _, err := s.Value()
			return fault, err
		default:
			return "", s.WrongType(fmt.Sprintf("records[%d].timestamp", slot), "an integer or a string")
		}
	}
	if n < 0 || n > lastTimestamp {
		return fault, nil
	}
	r.Timestamp = time.UnixMilli(n)
	return "", nil
}

// headers takes the list of Sluice's addition: names may repeat, a value is base64 or null.
func (b *batch) headers(r *sluice.NewRecord, slot int) (text string, err error) {
	s := b.scanner
	if null, err := s.Null(); null || err != nil {
		return "", err
	}
	if kind, err := s.Kind(); err != nil || kind != '[' {
		return "", orWrongType(err, s, fmt.Sprintf("records[%d].headers", slot), "an array")
	}
	err = s.Array(func(i int) error {
		if kind, err := s.Kind(); err != nil || kind != '{' {
			return orWrongType(err, s, fmt.Sprintf("records[%d].headers[%d]", slot, i), "an object")
		}
		if err := b.charge(headerCost); err != nil {
			return err
		}
		h, fault, err := b.header(slot, i)
		if fault != "" && text == "" {
			text = fault
		}
		r.Headers = append(r.Headers, h)
		return err
	})
	return text, err
}

func (b *batch) header(slot, i int) (h sluice.Header, text string, err error) {
	s := b.scanner
	var hasName, hasContent bool
	err = s.Object(func(name []byte) error {
		switch string(name) {
		case "key":
			if hasName {
				return formats.DuplicateField(name)
			}
			hasName = true
			if kind, err := s.Kind(); err != nil || kind != '"' {
				return orWrongType(err, s, fmt.Sprintf("records[%d].headers[%d].key", slot, i), "a string")
			}
			t, err := s.Text()
			h.Name = string(t)
			return err
		case "value":
			if hasContent {
				return formats.DuplicateField(name)
			}
			hasContent = true
			value, fault, err := formats.Binary.Scan(s)
			if fault != nil {
				text = "Record header value contains invalid base64 encoding"
			}
			h.Value = value
			return err
		}
		return formats.UnknownField(name)
	})
	if err == nil && !hasName {
		err = errInvalid.saying("records[%d].headers[%d].key may not be null (was null)", slot, i)
	}
	return h, text, err
}
