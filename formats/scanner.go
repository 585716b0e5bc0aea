package formats

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
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
