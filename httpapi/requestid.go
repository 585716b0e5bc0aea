package httpapi

import (
	"crypto/rand"
	"strings"
)

const idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// requestID is the caller's X-Request-Id if it is fit to be repeated, else a new tid_ and ten characters
// (operations-and-security.md 2.4). The result never shares memory with the request.
func requestID(sent []byte) string {
	if validRequestID(sent) {
		return string(sent)
	}
	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	for i, b := range random {
		random[i] = idAlphabet[int(b)%len(idAlphabet)]
	}
	return "tid_" + string(random[:])
}

func validRequestID(id []byte) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for _, b := range id {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', strings.IndexByte("._~:/+=-", b) >= 0:
		default:
			return false
		}
	}
	return true
}
