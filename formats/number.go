package formats

import (
	"bytes"
	"math"
)

// Integer takes an integer, or a string of decimal digits, which other servers accept and clients send. What does not
// fit becomes the nearest that does. ok is false, and nothing is taken, if something else is next.
func (s *Scanner) Integer() (n int64, ok bool, err error) {
	k, err := s.Kind()
	if err != nil {
		return 0, false, err
	}
	var text []byte
	start := s.pos
	switch k {
	case '0':
		if err := s.number(); err != nil {
			return 0, false, err
		}
		text = s.data[start:s.pos]
	case '"':
		at, escaped, err := s.quoted()
		if err != nil {
			return 0, false, err
		}
		if !escaped {
			text = s.data[at : s.pos-1]
		}
	}
	n, ok = integer(text)
	if !ok {
		s.pos = start
	}
	return n, ok, nil
}

func integer(text []byte) (n int64, ok bool) {
	digits := bytes.TrimPrefix(text, []byte("-"))
	if len(digits) == 0 {
		return 0, false
	}
	negative := len(digits) < len(text)
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		switch v := int64(d - '0'); {
		case n > (math.MaxInt64-v)/10:
			n = math.MaxInt64
		case n < math.MaxInt64:
			n = n*10 + v
		}
	}
	if negative {
		n = -n
	}
	return n, true
}

// number steps over a number (RFC 8259, 6).
func (s *Scanner) number() error {
	s.next('-')
	switch {
	case s.next('0'):
	case s.digits():
	default:
		return s.malformed("invalid number")
	}
	if s.next('.') && !s.digits() {
		return s.malformed("invalid number")
	}
	if s.next('e') || s.next('E') {
		if !s.next('+') {
			s.next('-')
		}
		if !s.digits() {
			return s.malformed("invalid number")
		}
	}
	return nil
}

func (s *Scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}
