package httpapi

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
)

const sound = "GET /topics HTTP/1.1\r\nHost: a\r\n\r\n" +
	"\r\nPOST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\nX: \t y \r\n\r\nGET / HTTP/9\n" +
	"POST /topics/orders HTTP/1.1\r\ntransfer-encoding:\tChunked\r\n\r\n5;x=\"y\tz\"\r\n\n\n\n\n\n\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n" +
	"PUT http://b/ HTTP/1.0\r\nContent-Length: 0\r\n\r\nHEAD / HTTP/1.1\r\nHost: b\r\n\r\n"

// However the bytes come in, a sound stream passes whole and the framing ends where a request begins.
func TestSoundFramingPasses(t *testing.T) {
	for size := 1; size <= len(sound); size++ {
		var f framing
		for rest := []byte(sound); len(rest) > 0; {
			n := min(size, len(rest))
			if got := f.see(rest[:n]); got != n {
				t.Fatalf("in pieces of %d: stopped at %q", size, rest[got:])
			}
			rest = rest[n:]
		}
		if f.part != requestLine || f.broken || f.line != nil {
			t.Fatalf("in pieces of %d: %+v", size, f)
		}
	}
}

// A stream that is not framed soundly never reaches fasthttp beyond the line that is at fault.
func TestUnsoundFramingStops(t *testing.T) {
	get, post := "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, c := range []struct{ passes, stops string }{
		{"", "\n"}, {"\r\n", "\n"}, {"\r\n ", "\n"}, {"GET / HTTP/1.1", "\n"}, {"GET /\r HTTP/1.1\r", "\n"}, {"GET / HTTP/1.2\r", "\n"}, {"GET /\r", "\n"},
		{"GET / HTTP/2.0\r", "\n"}, {"GET / HTTP/1.1 \r", "\n"}, {"GET /#a HTTP/1.1\r", "\n"},
		{get + "Host: a", "\n"}, {get, "\n"}, {get + " X: y\r", "\n"}, {get + "X: y\r\n\tz\r", "\n"}, {get + "X y: z\r", "\n"}, {get + "X : y\r", "\n"}, {get + ": y\r", "\n"},
		{get + "nothing\r", "\n"}, {get + "X: a\rb\r", "\n"}, {get + "X: y\r\r", "\n"}, {get + "\x80: y\r", "\n"},
		{get + "Content-Length: \r", "\n"}, {get + "Content-Length: +3\r", "\n"}, {get + "Content-Length: -1\r", "\n"}, {get + "Content-Length: 0x3\r", "\n"},
		{get + "Content-Length: 3,3\r", "\n"}, {get + "Content-Length: 3 3\r", "\n"}, {get + "Content-Length: \v3\r", "\n"}, {get + "Content-Length: 18446744073709551617\r", "\n"},
		{get + "Content-Length: 3\r\nContent-Length: 3\r", "\n"}, {get + "Content-Length: 0\r\nTransfer-Encoding: chunked\r", "\n"},
		{get + "Transfer-Encoding: chunked\r\nContent-Length: 0\r", "\n"}, {get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r", "\n"},
		{get + "Transfer-Encoding: xchunked\r", "\n"}, {get + "Transfer-Encoding: chunked, identity\r", "\n"}, {get + "Transfer-Encoding: identity\r", "\n"}, {get + "Transfer-Encoding: \vchunked\r", "\n"},
		{"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r", "\n"},
		{post, "\n"}, {post + "\r", "\n"}, {post + "3", "\n"}, {post + "0x3\r", "\n"}, {post + "+3\r", "\n"}, {post + "3 \r", "\n"}, {post + " 3\r", "\n"}, {post + "3;a\x00\r", "\n"}, {post + "3;a\rb\r", "\n"},
		{post + "1000000000000000\r", "\n"}, {post + "3\r\nabcX\r", "\n"}, {post + "3\r\nabc", "\n"},
		{post + "0\r\nX: y", "\n"}, {post + "0\r\n X: y\r", "\n"}, {post + "0\r\nX : y\r", "\n"}, {post + "0\r\n", "\n"},
	} {
		all := []byte(c.passes + c.stops + "GET / HTTP/1.1\r\n\r\n")
		var f framing
		if got := f.see(all); got != len(c.passes) {
			t.Errorf("%q: %q passed", all, all[:got])
		}
		f = framing{}
		for i := range len(all) { // byte by byte
			if f.see(all[i:i+1]) == 0 {
				if i != len(c.passes) {
					t.Errorf("%q in pieces: %q passed", all, all[:i])
				}
				break
			}
		}
		if !f.broken {
			t.Errorf("%q in pieces: nothing stopped it", all)
		}
	}
}

// What no limit of the body counts is bounded here: extensions of chunks and trailers.
func TestLinesBetweenChunksAreBounded(t *testing.T) {
	for name, head := range map[string]string{"extension": "3;", "trailer": "0\r\nX: "} {
		f := framing{}
		all := "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + head + strings.Repeat("x", 4<<10)
		r := iotest.OneByteReader(strings.NewReader(all))
		passed := 0
		for b := make([]byte, 1); !f.broken; passed++ {
			if n, _ := r.Read(b); n == 0 {
				t.Fatalf("%s: all of it passed", name)
			}
			f.see(b)
		}
		if passed > 2<<10 || cap(f.line) > 4<<10 {
			t.Errorf("%s: %d bytes passed, %d are kept", name, passed, cap(f.line))
		}
	}
}

func BenchmarkFraming(b *testing.B) {
	one := []byte(fmt.Sprintf("POST /topics/orders HTTP/1.1\r\nHost: localhost:8082\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 1400\r\nContent-Type: application/vnd.kafka.binary.v2+json\r\nAccept-Encoding: gzip\r\n\r\n%s", bytes.Repeat([]byte("x"), 1400)))
	b.ReportAllocs()
	var f framing
	for b.Loop() {
		f.see(one)
	}
}
