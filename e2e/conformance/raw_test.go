package conformance

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// wire is one connection on which requests are sent byte for byte.
type wire struct {
	s      *server
	conn   net.Conn
	in     *bufio.Reader
	prefix string // path of the base URL
	host   string
}

// dial opens a connection until the end of the test.
func (s *server) dial(t *testing.T) *wire {
	t.Helper()
	base, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	if base.Scheme != "http" || base.User != nil {
		s.notRun(t, "speaks bare HTTP on a socket")
	}
	host := base.Host
	if base.Port() == "" {
		host += ":80"
	}
	conn, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &wire{s, conn, bufio.NewReader(conn), base.Path, base.Host}
	w.patience(t, 20*time.Second)
	return w
}

// patience is how long the next steps may take.
func (w *wire) patience(t *testing.T, d time.Duration) {
	t.Helper()
	if err := w.conn.SetDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
}

// send writes the head of a request, with a Host, and what follows it as it is.
func (w *wire) send(t *testing.T, method, path string, headers []string, body string) {
	t.Helper()
	lines := append([]string{method + " " + w.prefix + path + " HTTP/1.1", "Host: " + w.host}, headers...)
	if _, err := io.WriteString(w.conn, strings.Join(lines, "\r\n")+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
}

// answer reads one answer; 100 Continue counts as one.
func (w *wire) answer(t *testing.T, asked request) answer {
	t.Helper()
	resp, err := http.ReadResponse(w.in, &http.Request{Method: asked.method})
	if err != nil {
		w.s.report.note(t, differs, "no answer: "+err.Error())
		t.Fatalf("%v: no answer: %v", asked, err)
	}
	if resp.StatusCode == http.StatusContinue {
		return answer{status: resp.StatusCode, header: resp.Header, asked: asked}
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%v: %v", asked, err)
	}
	if resp.Close { // ReadResponse keeps the header for itself
		resp.Header.Set("Connection", "close")
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: raw, asked: asked}
}
