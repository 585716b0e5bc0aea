package formats

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
)

// The standard alphabet with padding (RFC 4648, 4). Base64 is the largest single cost of the binary format, a quarter of
// a pull's CPU time with the library's own: it looks up each character. These look up two at a time to write, and all
// four of a group in tables of their own to read; ends and faults are left to the library.

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// pairs holds the two characters of each twelve bits, the first in the low byte.
var pairs = func() (t [1 << 12]uint16) {
	for i := range t {
		t[i] = uint16(alphabet[i>>6]) | uint16(alphabet[i&63])<<8
	}
	return t
}()

// sextets holds, for each character in each place of a group of four, its bits where they belong, or invalid.
var sextets = func() (t [4][256]uint32) {
	for place := range t {
		for i := range t[place] {
			t[place][i] = invalid
		}
		for i, c := range []byte(alphabet) {
			t[place][c] = uint32(i) << (18 - 6*place)
		}
	}
	return t
}()

const invalid = 1 << 31

// appendBase64 writes src behind dst.
func appendBase64(dst, src []byte) []byte {
	n := base64.StdEncoding.EncodedLen(len(src))
	dst = slices.Grow(dst, n)
	out := dst[len(dst) : len(dst)+n]
	dst = dst[:len(dst)+n]
	for len(src) >= 8 { // six of them count
		v := binary.BigEndian.Uint64(src)
		binary.LittleEndian.PutUint64(out, uint64(pairs[v>>52])|uint64(pairs[v>>40&0xfff])<<16|
			uint64(pairs[v>>28&0xfff])<<32|uint64(pairs[v>>16&0xfff])<<48)
		src, out = src[6:], out[8:]
	}
	base64.StdEncoding.Encode(out, src)
	return dst
}

var strict = base64.StdEncoding.Strict() // trailing bits must be zero

// DecodeBase64 decodes text where it stands. What the library lets through beyond the alphabet is no base64 here: CR and
// LF (RFC 4648, 3.1).
func DecodeBase64(text []byte) ([]byte, bool) {
	if len(text)%4 != 0 {
		return nil, false
	}
	// What is written never overtakes what is still to be read: four characters become three bytes.
	from, to := 0, 0
	for ; len(text)-from > 8; from, to = from+8, to+6 {
		in := text[from : from+8 : from+8]
		v := sextets[0][in[0]] | sextets[1][in[1]] | sextets[2][in[2]] | sextets[3][in[3]]
		w := sextets[0][in[4]] | sextets[1][in[5]] | sextets[2][in[6]] | sextets[3][in[7]]
		if v|w >= invalid {
			return nil, false
		}
		binary.BigEndian.PutUint64(text[to:to+8], uint64(v)<<40|uint64(w)<<16) // two bytes more than count
	}
	for ; len(text)-from > 4; from, to = from+4, to+3 { // the last group may be padded
		in := text[from : from+4 : from+4]
		v := sextets[0][in[0]] | sextets[1][in[1]] | sextets[2][in[2]] | sextets[3][in[3]]
		if v >= invalid {
			return nil, false
		}
		out := text[to : to+3 : to+3]
		out[0], out[1], out[2] = byte(v>>16), byte(v>>8), byte(v)
	}
	last := text[from:]
	for _, c := range last {
		if c == '\n' || c == '\r' {
			return nil, false
		}
	}
	var group [3]byte
	n, err := strict.Decode(group[:], last)
	if err != nil {
		return nil, false
	}
	to += copy(text[to:], group[:n])
	return text[:to:to], true
}
