package formats

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostParts bounds what a library builds of one JSON value: an object costs it some hundred bytes of memory, any other
// value some forty, and neither needs more than two of the document.
const mostParts = 8 << 20

// countParts refuses a value with too many parts before a library sees it. What stands in strings is counted too.
func countParts(value []byte) error {
	if len(value) < heavyFrom {
		return nil
	}
	if bytes.Count(value, []byte(","))+4*bytes.Count(value, []byte("{")) > mostParts {
		return fmt.Errorf("it has more than %d parts", mostParts)
	}
	return nil
}

// scales say, before anything is built, what a message will take: by its bytes and its type alone. Two bytes on the wire
// may stand for a message with a thousand fields, each of which is printed.
type scales struct {
	codec *protobufCodec
	left  int // bytes of JSON, or of memory where that is more
	empty map[protoreflect.FullName]int
}

const leastMessage = 100 // bytes of memory

var errTooHeavy = fmt.Errorf("its JSON is larger than %d bytes", mostShown)

func (c *protobufCodec) weigh(typ protoreflect.MessageDescriptor, payload []byte) error {
	s := scales{codec: c, left: mostShown, empty: map[protoreflect.FullName]int{}}
	return s.message(typ, payload, 0)
}

func (s *scales) add(n int) error {
	if s.left -= n; s.left < 0 {
		return errTooHeavy
	}
	return nil
}

// bare is the JSON of a message without anything in it: fields without presence are printed all the same.
func (s *scales) bare(typ protoreflect.MessageDescriptor) int {
	if n, ok := s.empty[typ.FullName()]; ok {
		return n
	}
	n := 2
	for i := range typ.Fields().Len() {
		if f := typ.Fields().Get(i); !f.HasPresence() {
			n += len(f.Name()) + 8
			if f.Kind() == protoreflect.EnumKind && !f.IsList() {
				n += longestName(f.Enum())
			}
		}
	}
	n = max(n, leastMessage)
	s.empty[typ.FullName()] = n
	return n
}

func longestName(e protoreflect.EnumDescriptor) (n int) {
	for i := range e.Values().Len() {
		n = max(n, len(e.Values().Get(i).Name()))
	}
	return n
}

func (s *scales) message(typ protoreflect.MessageDescriptor, b []byte, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("it is nested deeper than %d levels", MaxDepth)
	}
	if err := s.add(s.bare(typ)); err != nil {
		return err
	}
	var inner protoreflect.MessageDescriptor // of an Any
	var wrapped []byte
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errors.New("the bytes are not a message")
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, wire, b); n < 0 {
			return errors.New("the bytes are not a message")
		}
		value := b[:n]
		b = b[n:]
		f := typ.Fields().ByNumber(number)
		if f == nil {
			continue
		}
		if err := s.field(f, wire, value, depth); err != nil {
			return err
		}
		if typ.FullName() == "google.protobuf.Any" && wire == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(value)
			if number == 2 {
				wrapped = content
			} else if t, err := s.codec.types.FindMessageByURL(string(content)); err == nil {
				inner = t.Descriptor()
			}
		}
	}
	if inner != nil {
		return s.message(inner, wrapped, depth+1)
	}
	return nil
}

func (s *scales) field(f protoreflect.FieldDescriptor, wire protowire.Type, value []byte, depth int) error {
	content := value
	if wire == protowire.BytesType {
		content, _ = protowire.ConsumeBytes(value)
	}
	switch each := len(f.Name()) + 8; {
	case f.Message() != nil && wire == protowire.BytesType:
		if err := s.add(each); err != nil {
			return err
		}
		return s.message(f.Message(), content, depth+1)
	case f.Message() != nil && wire == protowire.StartGroupType:
		content, _ = protowire.ConsumeGroup(f.Number(), value)
		if err := s.add(each); err != nil {
			return err
		}
		return s.message(f.Message(), content, depth+1)
	case f.Kind() == protoreflect.EnumKind && wire == protowire.BytesType: // packed, at least a byte each
		return s.add(each + len(content)*(longestName(f.Enum())+3))
	case f.Kind() == protoreflect.EnumKind:
		return s.add(each + longestName(f.Enum()))
	case f.IsList() && wire == protowire.BytesType && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.BytesKind:
		return s.add(each + 4*len(content)) // packed numbers; the shortest, "1", takes four for its one
	default:
		return s.add(each + len(value)*4/3)
	}
}
