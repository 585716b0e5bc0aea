package formats

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"
)

func TestBase64OfEveryLengthComesBack(t *testing.T) {
	for n := range 200 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		text := appendBase64(nil, b)
		if want := base64.StdEncoding.EncodeToString(b); string(text) != want {
			t.Fatalf("%x is written as %s, want %s", b, text, want)
		}
		for i := range text { // a fault anywhere is found
			bad := bytes.Clone(text)
			bad[i] = '-'
			if got, ok := DecodeBase64(bad); ok {
				t.Fatalf("%s was taken, as %x", bad, got)
			}
		}
		if got, ok := DecodeBase64(text); !ok || !bytes.Equal(got, b) {
			t.Fatalf("%x comes back as %x, %v", b, got, ok)
		}
	}
}

func BenchmarkBase64(b *testing.B) {
	raw := bytes.Repeat([]byte("0123456789"), 100)
	text := base64.StdEncoding.AppendEncode(nil, raw)
	var room []byte
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			room = appendBase64(room[:0], raw)
		}
	})
	b.Run("write, library", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			room = base64.StdEncoding.AppendEncode(room[:0], raw)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			room = append(room[:0], text...)
			DecodeBase64(room)
		}
	})
	b.Run("read, library", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			room = append(room[:0], text...)
			_, _ = strict.Decode(room, room)
		}
	})
}
