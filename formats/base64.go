package formats

import (
	"bytes"
	"encoding/base64"
)

var strict = base64.StdEncoding.Strict() // trailing bits must be zero

// DecodeBase64 decodes the standard alphabet with padding where it stands. Go's decoder skips CR and LF; here they are
// no more base64 than any other character (RFC 4648, 3.1).
func DecodeBase64(text []byte) ([]byte, bool) {
	if len(text)%4 != 0 || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, false
	}
	// In place: each step reads eight characters before it writes at most eight bytes, to a place that is never ahead.
	n, err := strict.Decode(text, text)
	if err != nil {
		return nil, false
	}
	return text[:n:n], true
}
