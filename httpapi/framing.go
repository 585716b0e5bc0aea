package httpapi

import (
	"bytes"
	"math"
)

// framing follows the bytes that a client sends and finds where each request ends, by the letter of RFC 9112: lines end
// in CR LF, names are tokens, a length is digits, a chunk's size is hexadecimal digits. fasthttp lets more through (a
// request line or a trailer that ends in LF alone, blanks inside a name, control characters behind a chunk's size,
// HTTP/2.0) and keeps the bytes to itself. Where a proxy before us and fasthttp could read two different requests, the
// connection ends with the last byte on which both agree (section 11.2: request smuggling).
type framing struct {
	part part
	line []byte // of a line that came in pieces, what came
	left uint64 // bytes of the body or the chunk

	http11, chunked, sized bool
	broken                 bool
}

// part is what the next byte belongs to.
type part byte

const (
	requestLine part = iota
	headerLine
	fixedBody
	chunkLine
	chunkBody
	chunkEnd
	trailerLine
	unknown // the head is too long
)

// longestChunkLine bounds what no limit of the body counts: extensions and trailers.
const longestChunkLine = 1 << 10

// see returns how many of b may be passed on, which is all of them as long as the framing is sound.
func (f *framing) see(b []byte) int {
	for at := 0; at < len(b) && !f.broken; {
		switch f.part {
		case unknown:
			return len(b)
		case fixedBody, chunkBody:
			n := min(f.left, uint64(len(b)-at))
			f.left -= n
			at += int(n)
			if f.left == 0 && f.part == fixedBody {
				f.next()
			} else if f.left == 0 {
				f.part = chunkEnd
			}
		default:
			end := bytes.IndexByte(b[at:], '\n')
			if end < 0 {
				f.keep(b[at:])
				return len(b)
			}
			line := b[at : at+end]
			if len(f.line) > 0 {
				f.line = append(f.line, line...)
				line = f.line
			}
			if f.broken = !f.whole(line); f.broken {
				return at + end // without its end, fasthttp cannot take the line for one
			}
			f.line = nil
			at += end + 1
		}
	}
	return len(b)
}

// keep remembers the beginning of a line. Heads that are too long for fasthttp are refused by it, so nothing is
// followed any more; lines between chunks have no such bound.
func (f *framing) keep(b []byte) {
	f.line = append(f.line, b...)
	switch {
	case f.part != requestLine && f.part != headerLine:
		f.broken = len(f.line) > longestChunkLine
	case len(f.line) > headerBytes:
		f.part, f.line = unknown, nil
	}
}

// next is behind the end of a request. An idle connection keeps no room.
func (f *framing) next() { *f = framing{} }

// whole takes a line without its LF and reports whether it is sound.
func (f *framing) whole(line []byte) bool {
	line, ended := bytes.CutSuffix(line, []byte("\r"))
	if !ended || bytes.IndexByte(line, '\r') >= 0 {
		return false
	}
	switch f.part {
	case requestLine:
		return f.request(line)
	case headerLine:
		return f.header(line)
	case chunkLine:
		return f.chunk(line)
	case chunkEnd:
		f.part = chunkLine
		return len(line) == 0
	default:
		if len(line) == 0 {
			f.next()
			return true
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		return ok && isToken(name)
	}
}

func (f *framing) request(line []byte) bool {
	if len(line) == 0 { // some clients send a CR LF too many behind a body (section 2.2)
		return true
	}
	f.part = headerLine
	f.http11 = bytes.HasSuffix(line, []byte(" HTTP/1.1"))
	return (f.http11 || bytes.HasSuffix(line, []byte(" HTTP/1.0"))) && bytes.IndexByte(line, '#') < 0
}

func (f *framing) header(line []byte) bool {
	if len(line) == 0 {
		switch {
		case f.chunked:
			f.part = chunkLine
		case f.left > 0:
			f.part = fixedBody
		default:
			f.next()
		}
		return true
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(name) { // a blank before the name is obs-fold
		return false
	}
	value = bytes.Trim(value, " \t")
	switch {
	case bytes.EqualFold(name, []byte("content-length")):
		f.left, ok = decimal(value)
		ok = ok && !f.sized && !f.chunked
		f.sized = true
		return ok
	case bytes.EqualFold(name, []byte("transfer-encoding")):
		ok = f.http11 && !f.sized && !f.chunked && bytes.EqualFold(value, []byte("chunked"))
		f.chunked = true
		return ok
	}
	return true
}

func (f *framing) chunk(line []byte) bool {
	size, extension, has := bytes.Cut(line, []byte(";"))
	if len(size) == 0 || len(size) > 15 || len(line) > longestChunkLine || (has && bytes.ContainsFunc(extension, control)) {
		return false
	}
	f.left = 0
	for _, b := range size {
		var digit byte
		switch {
		case b >= '0' && b <= '9':
			digit = b - '0'
		case b|0x20 >= 'a' && b|0x20 <= 'f':
			digit = (b | 0x20) - 'a' + 10
		default:
			return false
		}
		f.left = f.left<<4 | uint64(digit)
	}
	if f.part = chunkBody; f.left == 0 {
		f.part = trailerLine
	}
	return true
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func decimal(text []byte) (n uint64, ok bool) {
	for _, b := range text {
		if b < '0' || b > '9' || n > math.MaxInt64/10-1 {
			return 0, false
		}
		n = n*10 + uint64(b-'0')
	}
	return n, len(text) > 0
}
