package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestUnparsableRequestsAreNotRepeated(t *testing.T) {
	w := start(t)
	secret := "Authorization: Basic canary\r\n"
	for name, c := range map[string]struct{ request, status string }{
		"headers above 16 KiB": {"GET /topics HTTP/1.1\r\nHost: a\r\n" + secret + "X: " + strings.Repeat("x", 17<<10) + "\r\n\r\n", "431"},
		"101 headers":          {"GET /topics HTTP/1.1\r\nHost: a\r\n" + secret + strings.Repeat("X: y\r\n", 99) + "\r\n", "431"},
		"no HTTP":              {"canary\r\n\r\n", "400"},
		"broken header":        {"GET /topics HTTP/1.1\r\nHost: a\r\n" + secret + "canary\r\n\r\n", "400"},
		"broken target":        {"GET http://%zz/canary HTTP/1.1\r\nHost: a\r\n" + secret + "\r\n", "400"},
	} {
		got := w.raw(c.request)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") || !strings.Contains(got, "Connection: close\r\n") || !strings.Contains(got, "X-Request-Id: tid_") || !strings.Contains(got, `{"error_code":`+c.status) {
			t.Errorf("%s: %q", name, got)
		}
		if strings.Contains(got, "canary") || strings.Contains(w.logs.String(), "canary") {
			t.Errorf("%s: the request came back: %q\n%s", name, got, w.logs.String())
		}
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	w := start(t)
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		for i := range 1000 {
			fmt.Fprintf(conn, "GET /topics/orders/partitions/%d HTTP/1.1\r\nHost: a\r\nX-Request-Id: id%d\r\n\r\n", i%3, i)
		}
	}()
	in := bufio.NewReader(conn)
	for i := range 1000 {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || res.Header.Get("X-Request-Id") != fmt.Sprintf("id%d", i) || !strings.HasPrefix(string(b), fmt.Sprintf(`{"partition":%d,`, i%3)) {
			t.Fatalf("answer %d: %s %s %v", i, res.Header.Get("X-Request-Id"), b, err)
		}
	}
}

// A body that a handler does not want must never be taken for the next request.
func TestAnUnreadBodyIsNotTheNextRequest(t *testing.T) {
	w := start(t)
	inner := "GET /brokers HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, head := range map[string]string{
		"unknown path":  "POST /nope HTTP/1.1\r\nHost: a\r\n",
		"wrong method":  "PUT /topics HTTP/1.1\r\nHost: a\r\n",
		"unknown type":  "POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n",
		"unknown topic": "POST /topics/a+b HTTP/1.1\r\nHost: a\r\n",
		"get with body": "GET /topics HTTP/1.1\r\nHost: a\r\n",
	} {
		got := w.raw(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(inner), inner) + "GET /__live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if strings.Count(got, "HTTP/1.1 ") != 2 || strings.Contains(got, `"brokers"`) || !strings.HasSuffix(got, "OK") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Where a body is too large to be read for nothing, or its chunks are not judged yet, the answer ends the connection.
func TestAnAnswerBesideAnUnreadBodyEndsTheConnection(t *testing.T) {
	w := start(t)
	next := "GET /brokers HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, request := range map[string]string{
		"a large one":       "GET /topics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat(" ", 100_000),
		"chunks of a POST":  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"unsound chunks":    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
		"a refused produce": "POST /topics/a+b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		got := w.raw(request + next + next)
		if strings.Count(got, "HTTP/1.1 ") != 1 || !strings.Contains(got, "Connection: close\r\n") || strings.Contains(got, "brokers") {
			t.Errorf("%s: %q", name, got)
		}
	}
	got := w.raw("GET /topics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + next + "GET /__live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if strings.Count(got, "HTTP/1.1 200 ") != 3 {
		t.Errorf("a GET with sound chunks: %q", got)
	}
}

func TestDrainingAsksForANewConnection(t *testing.T) {
	w := start(t)
	w.call("GET", "/__gtg", "").want(t, 200, "OK")
	w.srv.Drain()
	w.call("GET", "/__gtg", "").want(t, 503, "draining")
	if got := w.raw("GET /topics HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("%q", got)
	}
	w.call("GET", "/__live", "").want(t, 200, "OK")
}

func TestAnotherSitesPagesCannotWrite(t *testing.T) {
	w := start(t)
	forbidden := `{"error_code":403,"message":"HTTP 403 Forbidden"}`
	w.call("POST", "/topics/orders", `{"records":[{}]}`, "Sec-Fetch-Site", "cross-site").want(t, 403, forbidden)
	w.call("DELETE", "/topics/orders", "", "Sec-Fetch-Site", "cross-site").want(t, 403, forbidden)
	if a := w.call("POST", "/topics/orders", `{"records":[{}]}`, "Sec-Fetch-Site", "same-origin"); a.status != 200 {
		t.Errorf("same-origin: %d", a.status)
	}
	if a := w.call("GET", "/topics", "", "Sec-Fetch-Site", "cross-site"); a.status != 200 {
		t.Errorf("reading: %d", a.status)
	}
	got := w.raw("GET /topics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + strings.Repeat("X: y\r\n", 98) + "\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("100 headers: %q", got)
	}
}

// Faults F15 and F16: who does not send what was announced loses the connection at the deadline.
func TestSlowRequestsEndAtTheDeadline(t *testing.T) {
	w := startTuned(t, func(s *Server) { s.app.Server().ReadTimeout = 300 * time.Millisecond })
	for name, c := range map[string]struct{ request, first string }{
		"slow headers":            {"POST /topics/orders HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 408 "},
		"slow body":               {"POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat(" ", 9000), "HTTP/1.1 408 "},
		"slow start of a body":    {"POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n", "HTTP/1.1 408 "},
		"Expect and then nothing": {"POST /topics/orders HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n", "HTTP/1.1 100 "},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			got := w.raw(c.request)
			if !strings.HasPrefix(got, c.first) || !strings.Contains(got, "HTTP/1.1 408 ") || !strings.Contains(got, `{"error_code":408,"message":"HTTP 408 Request Timeout"}`) {
				t.Errorf("%q", got)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("after %s", took)
			}
		})
	}
	eventually(t, "the budget is given back", func() bool {
		w.srv.budget.mu.Lock()
		defer w.srv.budget.mu.Unlock()
		return w.srv.budget.used == 0
	})
}
