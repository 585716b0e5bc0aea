package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ask sends one request over a connection of its own and reads its answer as it stands: nothing is inflated.
func (w *world) ask(method, path, rest string) *http.Response {
	w.t.Helper()
	got := w.raw(method + " " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + rest)
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s %s: %v: %q", method, path, err, got)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v: %q", method, path, err, got)
	}
	_ = res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res
}

func bodyOfAnswer(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// HEAD is GET without a body, and everything of an answer's head is what GET's is (rest-api.md 1.1).
func TestHeadIsGetWithoutABody(t *testing.T) {
	large := start(t) // its list of topics is ours alone
	for i := range 60 {
		large.kafka.topics[fmt.Sprintf("a-topic-with-a-name-long-enough-%d", i)] = 1
	}
	headIsGet(large, "/topics", "/topics/orders")
	w := everything(t)
	paths := []string{"/", "/brokers", "/topics/nope", "/nope", "/consumers/g/instances/nope/assignments", "/topics/nope/partitions/x", "/__gtg"}
	for _, f := range w.families {
		if f.method == "GET" && f.name != "stream" {
			paths = append(paths, f.path)
		}
	}
	headIsGet(w.world, paths...)
}

func headIsGet(w *world, paths ...string) {
	t := w.t
	t.Helper()
	for _, path := range paths {
		for _, encoding := range []string{"", "Accept-Encoding: gzip\r\n"} {
			get, head := w.ask("GET", path, encoding+"\r\n"), w.ask("HEAD", path, encoding+"\r\n")
			body := bodyOfAnswer(t, get)
			if b := bodyOfAnswer(t, head); b != "" || head.StatusCode != get.StatusCode || head.Header.Get("Content-Length") != fmt.Sprint(len(body)) {
				t.Errorf("HEAD %s: %d %v %q, GET: %d, %d bytes", path, head.StatusCode, head.Header, b, get.StatusCode, len(body))
			}
			for _, name := range []string{"Content-Type", "Cache-Control", "Content-Encoding", "Vary", "Allow"} {
				if head.Header.Get(name) != get.Header.Get(name) {
					t.Errorf("HEAD %s: %s is %q, GET's %q", path, name, head.Header.Get(name), get.Header.Get(name))
				}
			}
		}
	}
}

// Whatever is answered below /consumers is for no cache, has no charset and no CORS (rest-api.md 1.1, 2.3).
func TestNothingBelowConsumersIsForCaches(t *testing.T) {
	w := everything(t)
	one := strings.TrimSuffix(w.papers()[3].path, "/assignments")
	seen := map[int]bool{}
	for _, c := range []struct{ method, path, rest string }{
		{"POST", "/consumers/other", "Content-Length: 0\r\n\r\n"}, {"POST", "/consumers/other", "Content-Length: 1\r\n\r\n{"}, {"POST", "/consumers/other", "Content-Length: 16\r\n\r\n{\"format\":\"xml\"}"},
		{"GET", "/consumers", "\r\n"}, {"GET", "/consumers/other", "\r\n"}, {"OPTIONS", "/consumers/other", "\r\n"}, {"OPTIONS", one + "/records", "\r\n"}, {"PUT", one + "/records", "\r\n"},
		{"GET", one + "/assignments", "\r\n"}, {"HEAD", one + "/assignments", "\r\n"}, {"GET", one + "/assignments", "Accept: text/plain\r\n\r\n"}, {"GET", one + "/unknown", "\r\n"},
		{"GET", one + "/records", "\r\n"}, {"GET", one + "/records?timeout=x", "\r\n"}, {"POST", one + "/assignments", "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"}, {"POST", one + "/assignments", "Content-Length: 99999999\r\n\r\n" + strings.Repeat(" ", 8<<10)},
		{"DELETE", one + "/subscription", "\r\n"}, {"POST", one + "/offsets", "Content-Length: 0\r\n\r\n"}, {"DELETE", one, "\r\n"}, {"DELETE", one, "\r\n"},
	} {
		res := w.ask(c.method, c.path, c.rest)
		seen[res.StatusCode] = true
		if got := res.Header["Cache-Control"]; len(got) != 1 || got[0] != "no-store" {
			t.Errorf("%s %s: %d, Cache-Control %q", c.method, c.path, res.StatusCode, got)
		}
		if strings.Contains(res.Header.Get("Content-Type"), "charset") || (res.StatusCode != 204) == (res.Header.Get("Content-Type") == "") {
			t.Errorf("%s %s: %d, Content-Type %q", c.method, c.path, res.StatusCode, res.Header.Get("Content-Type"))
		}
		for name := range res.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s %s: %s", c.method, c.path, name)
			}
		}
	}
	for _, status := range []int{200, 204, 400, 404, 405, 406, 409, 413, 415, 422} {
		if !seen[status] {
			t.Errorf("no answer was a %d", status)
		}
	}
}

// Empty segments do not count anywhere in a path, and what is encoded is decoded once (rest-api.md 1.1).
func TestPathsOfInstancesAreWhatTheyLookLike(t *testing.T) {
	w := everything(t)
	papers := w.papers()
	one := strings.TrimSuffix(papers[3].path, "/assignments")
	part := papers[3].sound
	headers := []string{"Content-Type", typeV2Name}
	for _, path := range []string{one + "/positions//beginning", "/" + one + "//positions/beginning/", one + "/positions/%62eginning", one + "/positions/end//"} {
		w.call("POST", one+"/assignments", part, headers...).want(t, 204, "")
		w.call("POST", path, part, headers...).want(t, 204, "")
	}
	for _, path := range []string{one + "/positions/Beginning", one + "/positions%2Fbeginning", one + "/positions/%2562eginning", strings.ToUpper(one) + "/positions/beginning"} {
		if a := w.call("POST", path, part, headers...); a.status != 404 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	// A plus is a plus; it and what else needs encoding come back so that a client finds its instance again.
	for sent, base := range map[string]string{"a+b": "a%2Bb", "a%2Bb2": "a%2Bb2", "a%20b": "a%20b", "%C3%A4": "%C3%A4", "a:b": "a:b", "%61b": "ab", "a%2541": "a%2541"} {
		a := w.call("POST", "/consumers/"+sent, `{"id":"x"}`, headers...)
		if want := `/consumers/` + base + `/instances/x"`; a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s, want %s", sent, a.status, a.body, want)
		}
		w.call("DELETE", "/consumers/"+base+"/instances/x", "").want(t, 204, "")
	}
	for _, group := range []string{"a%2Fb", "a%00b", "a%0Ab", strings.Repeat("g", 256)} {
		if a := w.call("POST", "/consumers/"+group, ``, headers...); a.status != 422 {
			t.Errorf("%.20s: %d %s", group, a.status, a.body)
		}
	}
}

// A body may come in each of HTTP's ways, and no body in each of its; the connection goes on behind it.
func TestBodiesComeInEveryWay(t *testing.T) {
	w := everything(t)
	for _, p := range w.papers() {
		hex := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(p.sound), p.sound)
		split := fmt.Sprintf("%X;a=\"b\"\r\n%s\r\n%x\r\n%s\r\n000\r\nX: y\r\n\r\n", 3, p.sound[:3], len(p.sound)-3, p.sound[3:])
		for name, rest := range map[string]string{
			"Content-Length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(p.sound), p.sound), "chunked": "Transfer-Encoding: chunked\r\n\r\n" + hex, "chunks, an extension, a trailer": "Transfer-Encoding: Chunked\r\n\r\n" + split,
			"Expect": fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", len(p.sound), p.sound), "Expect and chunked": "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n" + hex,
			"after an empty line": fmt.Sprintf("Content-Length: %d\r\n\r\n%s\r\n", len(p.sound), p.sound),
		} {
			got := w.raw(p.method + " " + p.path + " HTTP/1.1\r\nHost: a\r\nContent-Type: " + typeV2Name + "\r\n" + rest + "GET /__ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			got, told := strings.CutPrefix(got, "HTTP/1.1 100 Continue\r\n\r\n")
			if !strings.HasPrefix(got, "HTTP/1.1 20") || strings.Count(got, "HTTP/1.1 20") != 2 || strings.Count(got, "HTTP/1.1 ") != 2 || told != strings.HasPrefix(name, "Expect") {
				t.Errorf("%s, %s: %q", p.name, name, got)
			}
		}
		for _, rest := range []string{"\r\n", "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n"} {
			res := w.ask(p.method, p.path, rest)
			empty := map[string]int{"create": 200, "commit": 200, "committed": 200}
			want := 422 // a document that must be there
			if s, ok := empty[p.name]; ok {
				want = s
			}
			if strings.Contains(rest, "text/plain") && strings.HasPrefix(p.name, "produce") {
				want = 415 // its type says the format
			}
			if res.StatusCode != want {
				t.Errorf("%s, %q: %d, want %d", p.name, rest, res.StatusCode, want)
			}
		}
		for _, ct := range []string{"text/plain", "application/json; charset=utf-16", "application/json; charset=latin1", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/vnd.kafka.v3+json", "nonsense", "application/"} {
			a := w.call(p.method, p.path, p.sound, "Content-Type", ct)
			if refused := a.status == 415; refused != (p.method == "POST") {
				t.Errorf("%s, %s: %d %s", p.name, ct, a.status, a.body)
			}
		}
	}
}

// Answers are packed from 1 KiB on, for those who ask (rest-api.md 1.2); a 204 never says that it is.
func TestAnswersArePackedFromOneKiBOn(t *testing.T) {
	w := start(t)
	w.kafka.topics = map[string]int{}
	answerOf := func(size int) string { return `["` + strings.Repeat("x", size-4) + `"]` }
	for _, size := range []int{1023, 1024, 100_000} {
		w.kafka.mu.Lock()
		w.kafka.topics = map[string]int{strings.Repeat("x", size-4): 1}
		w.kafka.mu.Unlock()
		for accept, packed := range map[string]bool{"": false, "Accept-Encoding: gzip\r\n": true, "Accept-Encoding: deflate, gzip;q=0.1\r\n": true, "Accept-Encoding: gzip;q=0\r\n": false, "Accept-Encoding: br\r\n": false, "Accept-Encoding: identity, *;q=0\r\n": false} {
			res := w.ask("GET", "/topics", accept+"\r\n")
			body := bodyOfAnswer(t, res)
			packed = packed && size >= 1024
			if got := res.Header.Get("Content-Encoding") == "gzip"; got != packed || (size >= 1024) != (res.Header.Get("Vary") == "Accept-Encoding") || len(body) != int(res.ContentLength) {
				t.Errorf("%d bytes, %q: packed %v, Vary %q, %d bytes of %d", size, accept, got, res.Header.Get("Vary"), len(body), res.ContentLength)
			}
			if packed {
				z, err := gzip.NewReader(strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				whole, err := io.ReadAll(z)
				if err != nil {
					t.Fatal(err)
				}
				body = string(whole)
			}
			if body != answerOf(size) {
				t.Errorf("%d bytes, %q: %.50q", size, accept, body)
			}
		}
	}
	res := w.ask("OPTIONS", "/topics", "Accept-Encoding: gzip\r\n\r\n")
	if res.StatusCode != 204 || res.Header.Get("Content-Encoding") != "" || res.Header.Get("Vary") != "" || bodyOfAnswer(t, res) != "" {
		t.Errorf("204: %v", res.Header)
	}
}

// Who is refused while it still sends reads the answer first. What it sends on is thrown away, but not for ever.
func TestWhoSendsOnIsListenedToForAWhile(t *testing.T) {
	w := start(t)
	send := func(most int, pause time.Duration) (answer string, sent int, took time.Duration) {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		began := time.Now()
		_ = conn.SetDeadline(began.Add(30 * time.Second))
		_, _ = io.WriteString(conn, "POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000000\r\n\r\n")
		read := make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(conn) // the reset at the end is the end
			read <- string(b)
		}()
		piece := make([]byte, 64<<10)
		for wait := time.NewTimer(0); sent < most; sent += len(piece) {
			<-wait.C
			if _, err := conn.Write(piece); err != nil {
				break
			}
			wait.Reset(pause)
		}
		took = time.Since(began)
		return <-read, sent, took
	}
	check := func(name string, answer string) {
		if !strings.HasPrefix(answer, "HTTP/1.1 413 ") || !strings.Contains(answer, "Connection: close\r\n") || !strings.Contains(answer, "25165824 bytes") || strings.Count(answer, "HTTP/1.") != 1 {
			t.Errorf("%s: %.300q", name, answer)
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		answer, sent, took := send(1<<30, 0)
		check("fast", answer)
		if sent > 128<<20 || took > lingerPatience+3*time.Second { // 64 MiB, and what the sockets hold
			t.Errorf("%d MiB were taken in %s", sent>>20, took)
		}
	})
	if os.Getenv("TEST_LONG") != "" {
		all.Go(func() {
			answer, sent, took := send(1<<30, 50*time.Millisecond)
			check("slow", answer)
			if took < lingerPatience-time.Second || took > lingerPatience+3*time.Second {
				t.Errorf("%d KiB were taken in %s", sent>>10, took)
			}
		})
	}
	all.Wait()
	answer, sent, _ := send(32<<20, 0) // one that ends by itself is not reset at all
	if check("finite", answer); sent != 32<<20 {
		t.Errorf("%d bytes were taken", sent)
	}
}

// deadlines is a listener whose connections tell how long they may be read for.
type deadlines struct {
	net.Listener
	last *atomic.Int64 // from now, in nanoseconds
}

type timedConn struct {
	net.Conn
	last *atomic.Int64
}

func (d *deadlines) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &timedConn{conn, d.last}, nil
}

func (c *timedConn) SetReadDeadline(t time.Time) error {
	c.last.Store(int64(time.Until(t)))
	return c.Conn.SetReadDeadline(t)
}

// Fault F15: a large body has a minute, a small one and the head ten seconds.
func TestLargeBodiesHaveADeadlineOfTheirOwn(t *testing.T) {
	for head, want := range map[string]time.Duration{
		"": headerPatience, "POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n{": headerPatience,
		"POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 25165824\r\n\r\n{": bodyPatience, "POST /topics/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n": bodyPatience,
	} {
		w, last := startTimed(t)
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, head)
		eventually(t, fmt.Sprintf("%.60q may take %s", head, want), func() bool {
			got := time.Duration(last.Load())
			return got > want-2*time.Second && got <= want
		})
		_ = conn.Close()
	}
}

// startTimed is a server that tells the last deadline of a read, as time from when it was set.
func startTimed(t *testing.T) (*world, *atomic.Int64) {
	t.Helper()
	last := new(atomic.Int64)
	return startTuned(t, func(s *Server) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s.Take(&deadlines{ln, last})
	}), last
}

// An idle connection stays for 180 s: clients give theirs up at 120, and the server must not win that race.
func TestIdleConnectionsOutliveTheirClients(t *testing.T) {
	w, last := startTimed(t)
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, request := range []string{"GET /topics HTTP/1.1\r\nHost: a\r\n\r\n", "POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n{\"records\":[{}]}", "GET /topics HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "POST /topics/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"records\":[{}]}\r\n0\r\n\r\n"} {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.Close || res.StatusCode != 200 {
			t.Fatalf("%q: %v %v", request, res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		eventually(t, "the connection waits 180 s for the next request", func() bool { return time.Duration(last.Load()) > 179*time.Second })
	}
}
