package stream

import "unicode/utf8"

// maxNesting is how deep JSON may nest to be embedded. Deeper documents are text: readers' parsers have limits too.
const maxNesting = 64

// appendCompact appends the JSON document src without the whitespace outside strings and otherwise unchanged: digits,
// member order, duplicates and escapes stay, for nothing is parsed into a value. It is strict (RFC 8259, valid UTF-8,
// nesting up to 64) and says whether src passed; if not, dst is as it was. What it appends has no line end.
func appendCompact(dst, src []byte) ([]byte, bool) {
	c := compactor{src: src, dst: dst}
	c.space()
	if !c.value(0) {
		return dst, false
	}
	c.space()
	if c.i != len(src) {
		return dst, false
	}
	return append(c.dst, src[c.from:]...), true
}

// compactor walks over src at i; what lies before from is appended already.
type compactor struct {
	src, dst []byte
	i, from  int
}

func (c *compactor) peek() byte {
	if c.i < len(c.src) {
		return c.src[c.i]
	}
	return 0 // never valid outside a string
}

func (c *compactor) space() {
	start := c.i
	for c.i < len(c.src) {
		switch c.src[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
			continue
		}
		break
	}
	if c.i > start {
		c.dst = append(c.dst, c.src[c.from:start]...)
		c.from = c.i
	}
}

func (c *compactor) value(depth int) bool {
	switch b := c.peek(); b {
	case '{':
		return depth < maxNesting && c.list('}', func() bool { return c.member(depth + 1) })
	case '[':
		return depth < maxNesting && c.list(']', func() bool { return c.value(depth + 1) })
	case '"':
		return c.text()
	case 't':
		return c.literal("true")
	case 'f':
		return c.literal("false")
	case 'n':
		return c.literal("null")
	}
	return c.number()
}

// list is the inside of an object or array, from its opening bracket to the closing one.
func (c *compactor) list(end byte, item func() bool) bool {
	c.i++
	c.space()
	if c.peek() == end {
		c.i++
		return true
	}
	for {
		if !item() {
			return false
		}
		c.space()
		switch c.peek() {
		case ',':
			c.i++
			c.space()
		case end:
			c.i++
			return true
		default:
			return false
		}
	}
}

func (c *compactor) member(depth int) bool {
	if c.peek() != '"' || !c.text() {
		return false
	}
	c.space()
	if c.peek() != ':' {
		return false
	}
	c.i++
	c.space()
	return c.value(depth)
}

func (c *compactor) text() bool {
	c.i++
	for c.i < len(c.src) {
		switch b := c.src[c.i]; {
		case b == '"':
			c.i++
			return true
		case b == '\\':
			if !c.escape() {
				return false
			}
		case b < 0x20:
			return false
		case b < utf8.RuneSelf:
			c.i++
		default:
			r, n := utf8.DecodeRune(c.src[c.i:])
			if r == utf8.RuneError && n == 1 {
				return false
			}
			c.i += n
		}
	}
	return false
}

func (c *compactor) escape() bool {
	c.i++
	switch c.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		c.i++
		return true
	case 'u':
		if len(c.src)-c.i < 5 {
			return false
		}
		for _, h := range c.src[c.i+1 : c.i+5] {
			if !('0' <= h && h <= '9' || 'a' <= h|0x20 && h|0x20 <= 'f') {
				return false
			}
		}
		c.i += 5
		return true
	}
	return false
}

func (c *compactor) literal(word string) bool {
	if len(c.src)-c.i < len(word) || string(c.src[c.i:c.i+len(word)]) != word {
		return false
	}
	c.i += len(word)
	return true
}

func (c *compactor) number() bool {
	if c.peek() == '-' {
		c.i++
	}
	if c.peek() == '0' {
		c.i++
	} else if !c.digits() {
		return false
	}
	if c.peek() == '.' {
		c.i++
		if !c.digits() {
			return false
		}
	}
	if c.peek()|0x20 == 'e' {
		c.i++
		if s := c.peek(); s == '+' || s == '-' {
			c.i++
		}
		return c.digits()
	}
	return true
}

func (c *compactor) digits() bool {
	start := c.i
	for b := c.peek(); '0' <= b && b <= '9'; b = c.peek() {
		c.i++
	}
	return c.i > start
}

// appendString appends text, which is valid UTF-8, as a JSON string.
func appendString[T string | []byte](dst []byte, text T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(text); i++ {
		b := text[i]
		if b >= 0x20 && b != '"' && b != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
	}
	dst = append(dst, text[from:]...)
	return append(dst, '"')
}
