package formats

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// MaxDepth is how many arrays and objects may stand inside each other.
const MaxDepth = 500

// Scanner reads one JSON document front to back (RFC 8259, nothing beyond it). The caller asks for what it expects
// next; after an error the scanner must not be used again.
type Scanner struct {
	// Charge, if set, is asked before the scanner takes memory beside the document, in bytes: names of an object are
	// remembered to find one that stands twice, and a hostile object has millions. Its error ends the scan.
	Charge func(bytes int) error

	data  []byte
	pos   int
	depth int
	names names // of the objects that are open inside a Value
}

// NewScanner owns data from now on and changes it.
func NewScanner(data []byte) *Scanner { return &Scanner{data: data} }

// Offset is the position of the next byte to be read.
func (s *Scanner) Offset() int { return s.pos }

// malformed is a syntax error. It tells the offset and repeats nothing of the document.
func (s *Scanner) malformed(what string) error {
	return &sluice.Error{Kind: sluice.Malformed, Msg: fmt.Sprintf("Invalid JSON: %s at byte %d", what, s.pos)}
}

// WrongType says that a field has a JSON value of another type than it wants.
func (s *Scanner) WrongType(path, want string) error {
	return &sluice.Error{Kind: sluice.Malformed, Msg: fmt.Sprintf("Invalid JSON: %s must be %s, at byte %d", path, want, s.pos)}
}

// DuplicateField is the fault of an object that has a field twice.
func DuplicateField(name []byte) error {
	return &sluice.Error{Kind: sluice.Invalid, Msg: "Duplicate field: " + shown(name)}
}

// UnknownField is the fault of an object with a field that it should not have.
func UnknownField(name []byte) error {
	return &sluice.Error{Kind: sluice.Invalid, Msg: "Unrecognized field: " + shown(name)}
}

// shown bounds what is repeated of a document.
func shown(name []byte) string {
	const most = 100
	if len(name) <= most {
		return string(name)
	}
	cut := most
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return string(name[:cut]) + "…"
}

func (s *Scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// Kind looks at the next value: one of { [ " 0 t f n, where 0 stands for a number.
func (s *Scanner) Kind() (byte, error) {
	s.space()
	if s.pos == len(s.data) {
		return 0, s.malformed("unexpected end")
	}
	switch b := s.data[s.pos]; b {
	case '{', '[', '"', 't', 'f', 'n':
		return b, nil
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0', nil
	}
	return 0, s.malformed("unexpected character")
}

// End says that nothing but white space may follow.
func (s *Scanner) End() error {
	s.space()
	if s.pos < len(s.data) {
		return s.malformed("unexpected data after the document")
	}
	return nil
}

// Null takes a null if one is next.
func (s *Scanner) Null() (bool, error) {
	k, err := s.Kind()
	if err != nil || k != 'n' {
		return false, err
	}
	return true, s.literal("null")
}

// Object takes an object and calls field for each name, which must take the value. Callers watch for duplicates: they
// know the names.
func (s *Scanner) Object(field func(name []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	s.space()
	if s.next('}') {
		s.depth--
		return nil
	}
	for {
		if k, err := s.Kind(); err != nil || k != '"' {
			return s.malformed("expected a field name")
		}
		name, err := s.Text()
		if err != nil {
			return err
		}
		if err := s.colon(); err != nil {
			return err
		}
		if err := field(name); err != nil {
			return err
		}
		if more, err := s.more('}'); !more {
			return err
		}
	}
}

// Array takes an array and calls element for each index, which must take the value.
func (s *Scanner) Array(element func(i int) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	s.space()
	if s.next(']') {
		s.depth--
		return nil
	}
	for i := 0; ; i++ {
		if err := element(i); err != nil {
			return err
		}
		if more, err := s.more(']'); !more {
			return err
		}
	}
}

// enter takes the bracket that Kind has seen.
func (s *Scanner) enter() error {
	if s.depth++; s.depth > MaxDepth {
		return &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("JSON is nested deeper than %d levels", MaxDepth)}
	}
	s.pos++
	return nil
}

func (s *Scanner) next(b byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == b {
		s.pos++
		return true
	}
	return false
}

func (s *Scanner) colon() error {
	s.space()
	if !s.next(':') {
		return s.malformed("expected a colon")
	}
	return nil
}

// more takes the comma before another element, or the closing bracket.
func (s *Scanner) more(closing byte) (bool, error) {
	s.space()
	switch {
	case s.next(','):
		return true, nil
	case s.next(closing):
		s.depth--
		return false, nil
	}
	return false, s.malformed("expected a comma or the end")
}

func (s *Scanner) literal(word string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.malformed("unexpected character")
	}
	s.pos += len(word)
	return nil
}
