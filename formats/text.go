package formats

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// Text takes a string and unescapes it where it stands. A lone surrogate is refused: it has no UTF-8.
func (s *Scanner) Text() ([]byte, error) {
	start, escaped, err := s.quoted()
	if err != nil {
		return nil, err
	}
	raw := s.data[start : s.pos-1 : s.pos-1]
	if !escaped {
		return raw, nil
	}
	n, ok := unescape(raw)
	if !ok {
		return nil, &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("Invalid UTF-8: a surrogate stands alone in the string at byte %d", start-1)}
	}
	return raw[:n:n], nil
}

// quoted checks the string that Kind has seen and steps over it.
func (s *Scanner) quoted() (start int, escaped bool, err error) {
	s.pos++
	start = s.pos
	ascii := true
	for {
		s.pos += plainPrefix(s.data[s.pos:])
		if s.pos == len(s.data) {
			return 0, false, s.malformed("unexpected end")
		}
		switch b := s.data[s.pos]; {
		case b == '"':
			if !ascii && !utf8.Valid(s.data[start:s.pos]) {
				return 0, false, s.badUTF8(start)
			}
			s.pos++
			return start, escaped, nil
		case b == '\\':
			escaped = true
			if err := s.escape(); err != nil {
				return 0, false, err
			}
		case b < 0x20:
			return 0, false, s.malformed("control character in a string")
		default: // not ASCII
			ascii = false
			for s.pos < len(s.data) && s.data[s.pos] >= 0x80 {
				s.pos++
			}
		}
	}
}

func (s *Scanner) badUTF8(start int) error {
	at := start
	for rest := s.data[start:s.pos]; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			break
		}
		rest, at = rest[n:], at+n
	}
	return &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("Invalid UTF-8 at byte %d", at)}
}

func (s *Scanner) escape() error {
	if s.pos++; s.pos == len(s.data) {
		return s.malformed("unexpected end")
	}
	switch s.data[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		if _, ok := hex4(s.data[s.pos+1:]); ok {
			s.pos += 5
			return nil
		}
	}
	return s.malformed("invalid escape")
}

// plainPrefix is how many bytes of b need no look: printable ASCII without quote and backslash. Eight at a time, for
// base64 of megabytes.
func plainPrefix(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		stop := (w | (w - ones*0x20) | (quote - ones) | (slash - ones)) & highs // may be wrong behind the first hit only
		if stop != 0 {
			return i + bits.TrailingZeros64(stop)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape rewrites a checked string in place and returns its new length; false for a surrogate without its other half.
func unescape(b []byte) (n int, ok bool) {
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			run := bytes.IndexByte(b[i:], '\\')
			if run < 0 {
				run = len(b) - i
			}
			n += copy(b[n:], b[i:i+run])
			i += run
			continue
		}
		i += 2
		switch c := b[i-1]; c {
		case 'b':
			b[n] = '\b'
		case 'f':
			b[n] = '\f'
		case 'n':
			b[n] = '\n'
		case 'r':
			b[n] = '\r'
		case 't':
			b[n] = '\t'
		case 'u':
			r, _ := hex4(b[i:])
			i += 4
			if r >= 0xD800 && r < 0xE000 {
				low, _ := lowSurrogate(b[i:])
				if r >= 0xDC00 || low == 0 {
					return 0, false
				}
				r = (r-0xD800)<<10 + (low - 0xDC00) + 0x10000
				i += 6
			}
			n += utf8.EncodeRune(b[n:n+4], r) - 1
		default:
			b[n] = c
		}
		n++
	}
	return n, true
}

func lowSurrogate(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	r, ok := hex4(b[2:])
	if !ok || r < 0xDC00 || r >= 0xE000 {
		return 0, false
	}
	return r, true
}
