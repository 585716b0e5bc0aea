package httpapi

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	runtimemetrics "runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzHTTPRaw puts bytes on a connection. Whatever they are, the server answers with whole responses and closes; and
// where it answers other than by a refusal, net/http finds a request at the same place: two servers in a row would agree
// on where each begins.
func FuzzHTTPRaw(f *testing.F) {
	const post = "POST /topics/orders HTTP/1.1\r\nHost: a\r\n"
	for name, attack := range attacks {
		f.Add([]byte("GET /topics HTTP/1.1\r\nX-Request-Id: " + requestID([]byte(strings.ReplaceAll(name, " ", "-"))) + "\r\n" + attack + "GET /__live HTTP/1.1\r\nHost: a\r\n\r\n"))
	}
	for _, seed := range []string{
		sound, post + "Content-Length: 16\r\n\r\n{\"records\":[{}]}" + post + "Transfer-Encoding: chunked\r\n\r\n10\r\n{\"records\":[{}]}\r\n0\r\n\r\n", post + "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
		post + "Expect: 100-continue\r\nContent-Length: 16\r\n\r\n{\"records\":[{}]}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /topics HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nTRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /topics/%2e%2e/x?timeout=%zz&a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://a/topics HTTP/1.1\r\nHost: b\r\nAccept: */*;q=0.1, application/json\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	w := start(f, func(c *Config, _ *Needs) { c.MaxBodyBytes = 64 << 10 })
	f.Fuzz(func(t *testing.T, in []byte) {
		w.logs.reset()
		before := allocated()
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = conn.Write(in) // the server may have closed
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		out, err := io.ReadAll(conn)
		if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
			t.Fatalf("%q: the connection was not closed after %q", in, out)
		}
		if grown := allocated() - before; grown > 8<<20+uint64(1000*len(in)) {
			t.Fatalf("%q: %d bytes were allocated", in, grown)
		}
		if strings.Contains(w.logs.String(), "panic") {
			t.Fatalf("%q: %s", in, w.logs.String())
		}
		judgeAnswers(t, in, out)
	})
}

// judgeAnswers walks over answers and requests in step.
func judgeAnswers(t *testing.T, in, out []byte) {
	requests, answers := bufio.NewReader(bytes.NewReader(in)), bufio.NewReader(bytes.NewReader(out))
	for at := 0; ; at++ {
		if _, err := answers.Peek(1); err != nil {
			return
		}
		for { // an empty line before a request is allowed, and net/http does not take it
			if two, _ := requests.Peek(2); string(two) != "\r\n" {
				break
			}
			_, _ = requests.Discard(2)
		}
		req, reqErr := http.ReadRequest(requests)
		if reqErr != nil {
			req = nil
		}
		res, err := http.ReadResponse(answers, req)
		for err == nil && res.StatusCode == http.StatusContinue {
			res, err = http.ReadResponse(answers, req)
		}
		if err != nil {
			t.Fatalf("%q: answer %d of %q: %v", in, at, out, err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || len(res.Header["X-Request-Id"]) != 1 || (res.StatusCode >= 400 && len(body) > 0 && !bytes.HasPrefix(body, []byte(`{"`))) || res.StatusCode == 500 {
			t.Fatalf("%q: answer %d of %q: %v", in, at, out, err)
		}
		switch res.StatusCode {
		case 400, 408, 413, 431, 503:
			if res.Close {
				return
			}
		}
		if reqErr != nil {
			if _, ok := errors.AsType[*url.Error](reqErr); ok || strings.Contains(reqErr.Error(), "invalid URL") {
				return // net/http wants sound percent-encoding; where the request ends does not depend on it
			}
			t.Fatalf("%q: %d where net/http finds no request: %v", in, res.StatusCode, reqErr)
		}
		if id := req.Header.Get("X-Request-Id"); len(req.Header["X-Request-Id"]) == 1 && validRequestID([]byte(id)) && res.Header.Get("X-Request-Id") != id {
			t.Fatalf("%q: answer %d is to %q, not to %q", in, at, res.Header.Get("X-Request-Id"), id)
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil && !res.Close {
			t.Fatalf("%q: answer %d, %d, left the connection open behind a body that ends in %v", in, at, res.StatusCode, err)
		}
		if res.Close {
			if _, err := answers.Peek(1); err == nil {
				t.Fatalf("%q: %q goes on behind Connection: close", in, out)
			}
			return
		}
	}
}

func (l *lockedBuffer) reset() {
	l.mu.Lock()
	l.b.Reset()
	l.mu.Unlock()
}

// allocated is what the process has allocated since its start, in bytes.
func allocated() uint64 {
	sample := []runtimemetrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	runtimemetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// FuzzTopicPath holds the path that the router sees to net/url: the same segments, empty ones left out, each decoded
// once; and a topic's name to the rule of Kafka.
func FuzzTopicPath(f *testing.F) {
	for _, seed := range []string{"/topics/orders", "//topics//orders/", "/topics/..%2f", "/topics/%2e%2e", "/topics/%252e", "/%74opics/%6Frders", "/topics/%zz", "/topics/%", "/topics/%4", "/topics/a+b", "/topics/%00", "/topics/%E2%82%AC", "/", "", "topics", "/topics/%2F%2f/x", "/%%34%31"} {
		f.Add(seed)
	}
	legal := regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
	f.Fuzz(func(t *testing.T, path string) {
		before := allocated()
		clean := string(canonicalPath([]byte(path)))
		if total := allocated() - before; total > 4*uint64(len(path))+64<<10 {
			t.Fatalf("a path of %d bytes took %d", len(path), total)
		}
		if again := string(canonicalPath([]byte(clean))); again != clean {
			t.Fatalf("%q became %q, and then %q", path, clean, again)
		}
		if !strings.HasPrefix(path, "/") {
			if clean != path {
				t.Fatalf("%q became %q", path, clean)
			}
			return
		}
		if strings.Contains(clean, "//") || (len(clean) > 1 && strings.HasSuffix(clean, "/")) {
			t.Fatalf("%q became %q", path, clean)
		}
		want := slices.DeleteFunc(strings.Split(path, "/"), func(s string) bool { return s == "" })
		got := slices.DeleteFunc(strings.Split(clean, "/"), func(s string) bool { return s == "" })
		if len(got) != len(want) {
			t.Fatalf("%q became %q", path, clean)
		}
		for i := range want {
			once, err := url.PathUnescape(want[i])
			if seen, seenErr := url.PathUnescape(got[i]); (err == nil) != (seenErr == nil) || seen != once {
				t.Fatalf("%q: segment %d is %q (%v), want %q (%v)", path, i, seen, seenErr, once, err)
			}
			if legalTopic(once) != (legal.MatchString(once) && once != "." && once != "..") {
				t.Fatalf("%q: %v", once, legalTopic(once))
			}
		}
	})
}
