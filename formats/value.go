package formats

import (
	"bytes"
	"hash/maphash"
)

// Value takes any value and compacts it where it stands: white space between tokens goes, all else stays to the byte.
// fault is the first field that an object inside it has twice; the value is then no use, the scan is.
func (s *Scanner) Value() (value []byte, fault, err error) {
	if _, err := s.Kind(); err != nil {
		return nil, nil, err
	}
	start := s.pos
	s.names.reset()
	end, err := s.compact(start)
	if err != nil {
		return nil, nil, err
	}
	if s.names.twice != nil {
		return nil, DuplicateField(s.names.twice), nil
	}
	return s.data[start:end:end], nil, nil
}

// compact moves the next value to data[to:] and returns its end there. to never overtakes pos.
func (s *Scanner) compact(to int) (end int, err error) {
	kind, err := s.Kind()
	if err != nil {
		return 0, err
	}
	start := s.pos
	switch kind {
	case '{':
		return s.compactObject(to)
	case '[':
		return s.compactArray(to)
	case '"':
		_, _, err = s.quoted()
	case '0':
		err = s.number()
	case 't':
		err = s.literal("true")
	case 'f':
		err = s.literal("false")
	case 'n':
		err = s.literal("null")
	}
	if err != nil {
		return 0, err
	}
	return s.move(to, start), nil
}

// move brings data[start:pos] to data[to:].
func (s *Scanner) move(to, start int) int {
	if to == start {
		return s.pos
	}
	return to + copy(s.data[to:], s.data[start:s.pos])
}

// put writes one byte of punctuation that was just read.
func (s *Scanner) put(to int, b byte) int {
	s.data[to] = b
	return to + 1
}

func (s *Scanner) compactObject(to int) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	to = s.put(to, '{')
	s.space()
	if s.next('}') {
		s.depth--
		return s.put(to, '}'), nil
	}
	object := s.names.open()
	for {
		if k, err := s.Kind(); err != nil || k != '"' {
			return 0, s.malformed("expected a field name")
		}
		start := s.pos
		_, escaped, err := s.quoted()
		if err != nil {
			return 0, err
		}
		name := to + 1
		to = s.move(to, start)
		if err := s.chargeNames(); err != nil {
			return 0, err
		}
		s.names.add(object, s.data, name, to-1, escaped)
		if err := s.colon(); err != nil {
			return 0, err
		}
		if to, err = s.compact(s.put(to, ':')); err != nil {
			return 0, err
		}
		more, err := s.more('}')
		if err != nil {
			return 0, err
		}
		if !more {
			s.names.close(object)
			return s.put(to, '}'), nil
		}
		to = s.put(to, ',')
	}
}

// chargeNames asks for the memory of the next names, if it is not paid for. What was paid stays paid: the room is used
// again.
func (s *Scanner) chargeNames() error {
	if s.Charge == nil || len(s.names.spans) < s.names.paid {
		return nil
	}
	s.names.paid += namesAtOnce
	return s.Charge(namesAtOnce * nameCost)
}

func (s *Scanner) compactArray(to int) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	to = s.put(to, '[')
	s.space()
	if s.next(']') {
		s.depth--
		return s.put(to, ']'), nil
	}
	for {
		var err error
		if to, err = s.compact(to); err != nil {
			return 0, err
		}
		more, err := s.more(']')
		if err != nil {
			return 0, err
		}
		if !more {
			return s.put(to, ']'), nil
		}
		to = s.put(to, ',')
	}
}

// names finds the first name that stands twice in one object. The objects that are open lie one behind the other.
type names struct {
	spans []span
	paid  int    // how many spans Charge has allowed
	twice []byte // the name, unescaped; nil while there is none
}

const (
	namesAtOnce = 256
	nameCost    = 96 // a span and its entry in an index, with what a growing slice and map leave free
)

// span is a name by its place in the document, where nothing is written any more; or, if it had escapes, unescaped.
type span struct {
	hash  uint64
	start uint32 // bodies are far below 4 GiB
	end   uint32
	text  []byte
}

var nameSeed = maphash.MakeSeed()

func (n *names) reset() { n.spans, n.twice = n.spans[:0], nil }

// open returns what add and close need to know of an object.
func (n *names) open() *object { return &object{first: len(n.spans)} }

type object struct {
	first int
	index map[uint64]int32 // from hash to span; only for objects with many names
}

const manyNames = 32

func (n *names) close(o *object) { n.spans = n.spans[:o.first] }

func (n *names) add(o *object, data []byte, start, end int, escaped bool) {
	if n.twice != nil {
		return
	}
	s := span{start: uint32(start), end: uint32(end)}
	name := data[start:end]
	if escaped {
		s.text = bytes.Clone(name)
		if length, ok := unescape(s.text); ok {
			s.text = s.text[:length]
		} else {
			copy(s.text, name) // a lone surrogate has no other spelling worth comparing
		}
		name = s.text
	}
	s.hash = maphash.Bytes(nameSeed, name)
	mine := n.spans[o.first:]
	if o.index == nil {
		for i := range mine {
			if mine[i].hash == s.hash && bytes.Equal(mine[i].name(data), name) {
				n.twice = bytes.Clone(name)
				return
			}
		}
		if len(mine) == manyNames {
			o.index = make(map[uint64]int32, 4*manyNames)
			for i := range mine {
				o.index[mine[i].hash] = int32(i)
			}
		}
	}
	if o.index != nil {
		if i, taken := o.index[s.hash]; taken {
			if bytes.Equal(mine[i].name(data), name) {
				n.twice = bytes.Clone(name)
			}
			return // else: 64 bits met by chance under a secret seed; one name less to compare with
		}
		o.index[s.hash] = int32(len(mine))
	}
	n.spans = append(n.spans, s)
}

func (s *span) name(data []byte) []byte {
	if s.text != nil {
		return s.text
	}
	return data[s.start:s.end]
}
