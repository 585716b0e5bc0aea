package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluicegate/sluice"
)

func TestGoneNoticesWhoLeft(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(ln)
	defer l.Close()
	accept := func() (*clientConn, net.Conn) {
		t.Helper()
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); conn.Close() })
		return conn.(*clientConn), client
	}
	server, client := accept()
	if server.Gone() {
		t.Error("a quiet client counts as gone")
	}
	_ = server.SetReadDeadline(time.Now().Add(-time.Second))
	if server.Gone() {
		t.Error("an expired deadline counts as gone")
	}
	_ = server.SetReadDeadline(time.Time{})
	fmt.Fprint(client, "x")
	if server.Gone() {
		t.Error("a client that sends counts as gone")
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = client.(*net.TCPConn).CloseWrite()
	eventually(t, "a half-closed client is gone", server.Gone)

	server, client = accept()
	_ = client.(*net.TCPConn).SetLinger(0)
	client.Close()
	eventually(t, "a reset client is gone", server.Gone)
}

// settling serves answers of 4 MiB on /big and of a few bytes elsewhere, and tells how each settled.
func settling(t *testing.T) (addr string, settled chan bool, l *listener) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settled = make(chan bool, 100)
	big := bytes.Repeat([]byte("x"), 16<<20) // more than the buffers of both sockets
	server := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/big" {
			ctx.Response.SetBodyRaw(big)
		} else {
			ctx.SetBodyString("ok")
		}
		_ = ctx.SetWriteDeadline(time.Now().Add(time.Minute)) // fasthttp flushes at once
		ctx.Conn().(*clientConn).whenSettled(func(ok bool) { settled <- ok })
	}}
	l = newListener(ln)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return ln.Addr().String(), settled, l
}

func wantSettled(t *testing.T, settled chan bool, want bool) {
	t.Helper()
	select {
	case got := <-settled:
		if got != want {
			t.Errorf("settled %v, want %v", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the answer never settled")
	}
}

// An answer is settled once its last byte was written without an error, and lost otherwise.
func TestAnswersSettle(t *testing.T) {
	addr, settled, l := settling(t)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // kept alive
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		wantSettled(t, settled, true)
	}
	fmt.Fprint(conn, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 5)) // pipelined
	for range 5 {
		wantSettled(t, settled, true)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	wantSettled(t, settled, true)
	conn.Close()

	conn, err = net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10) // else the kernel lets it grow, to 32 MiB on some machines
	fmt.Fprint(conn, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	select {
	case ok := <-settled:
		t.Fatalf("settled %v while most of the answer is unread", ok)
	case <-time.After(50 * time.Millisecond):
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	wantSettled(t, settled, false)
	eventually(t, "no connection is left", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.open) == 0
	})
}

type exhausted struct {
	net.Listener
	times int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.times > 0 {
		e.times--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return e.Listener.Accept()
}

// Fault A6: without descriptors the server waits for some; it neither ends nor spins.
func TestALackOfDescriptorsIsWaitedOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(&exhausted{ln, 4})
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	began := time.Now()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if took := time.Since(began); took < 4*acceptPause {
		t.Errorf("accepted after %s: that was no pause", took)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// A stop lets requests under way end, within its bound, and cuts what outstays it.
func TestStopWaitsAndThenCuts(t *testing.T) {
	for name, patient := range map[string]bool{"in time": true, "too late": false} {
		entered, goOn := make(chan struct{}), make(chan struct{})
		w := start(t)
		w.kafka.produce = func(_ string, recs []sluice.NewRecord) ([]sluice.Receipt, error) {
			close(entered)
			<-goOn
			return make([]sluice.Receipt, len(recs)), nil
		}
		answered := make(chan string, 1)
		go func() {
			answered <- w.raw("POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n{\"records\":[{}]}")
		}()
		<-entered
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if patient {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- w.srv.Stop(ctx) }()
		eventually(t, "no new connections", func() bool {
			conn, err := net.Dial("tcp", w.addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		if patient {
			close(goOn)
			if err := <-stopped; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := <-answered; !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("%s: %q", name, got)
			}
		} else {
			if err := <-stopped; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			close(goOn)
			if got := <-answered; strings.Contains(got, "200") {
				t.Errorf("%s: %q", name, got)
			}
		}
		cancel()
	}
}
