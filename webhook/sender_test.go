package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// rawServer hands each connection to script and counts them.
func rawServer(t *testing.T, script func(n int, c net.Conn, r *bufio.Reader)) (url string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connections = new(atomic.Int32)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(connections.Add(1))
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				script(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + l.Addr().String() + "/hook?token=s3cret", connections
}

// readRequest takes one request off the wire.
func readRequest(r *bufio.Reader) (*http.Request, []byte, error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(req.Body)
	return req, body, err
}

func answerWith(text string) func(int, net.Conn, *bufio.Reader) {
	return func(_ int, c net.Conn, r *bufio.Reader) {
		if _, _, err := readRequest(r); err == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func send(t *testing.T, s *Sender, url string) Outcome {
	t.Helper()
	return s.Send(t.Context(), delivery(t, url, subscriptions.FormatRaw, record(nil, []byte(`{"a":1}`))))
}

// Every status of the table comes back from a real exchange as the table says.
func TestEveryStatusAgainstAnEndpoint(t *testing.T) {
	var status atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "https://elsewhere.example/secret?x=y")
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, "why")
	}))
	defer server.Close()
	s := sender(t, devGuard(t))
	for _, r := range table() {
		if r.facts.Status < 200 || r.facts.Fault != NoFault || r.facts.Only404 || r.facts.RetryGone || r.facts.BodyBytes > 64<<10 {
			continue
		}
		status.Store(int32(r.facts.Status))
		o := send(t, s, server.URL)
		if o.Class != r.class || o.Reason != r.reason || o.Status != r.facts.Status {
			t.Errorf("%d: %+v, want %v %q", r.facts.Status, o, r.class, r.reason)
		}
		if body := string(o.Response); body != "why" && r.facts.Status != 204 && r.facts.Status != 304 {
			t.Errorf("%d: response %q", r.facts.Status, body)
		}
		if want := (RetryAfter{o.Class != S, 7 * time.Second}); o.Class != S && o.RetryAfter != want || o.Class == S && o.Error != "" {
			t.Errorf("%d: %+v", r.facts.Status, o)
		}
		if r.reason == "redirect" && (!strings.Contains(o.Error, "elsewhere.example") || strings.Contains(o.Error, "secret")) {
			t.Errorf("%d: %q names more or less than the host of Location", r.facts.Status, o.Error)
		}
	}
}

func TestTooLargeAboveSixtyFourKiBIsFinal(t *testing.T) {
	url, _ := rawServer(t, answerWith("HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
	s := sender(t, devGuard(t))
	for size, want := range map[int]Class{64 << 10: C, 64<<10 + 1: P} {
		if o := s.Send(t.Context(), delivery(t, url, subscriptions.FormatRaw, record(nil, make([]byte, size)))); o.Class != want {
			t.Errorf("%d bytes: %+v", size, o)
		}
	}
}

func TestFaultsOnTheWire(t *testing.T) {
	head := "HTTP/1.1 "
	for name, c := range map[string]struct {
		script func(int, net.Conn, *bufio.Reader)
		class  Class
		reason string
	}{
		"final 101":              {answerWith(head + "101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), R, "protocol"},
		"garbage":                {answerWith("what do you want?\r\n\r\n"), R, "protocol"},
		"half a header":          {answerWith(head + "200 OK\r\nContent-Le"), R, "protocol"},
		"10 MB of headers":       {answerWith(head + "200 OK\r\nX: " + strings.Repeat("x", 10<<20) + "\r\n\r\n"), R, "protocol"},
		"flood of 1xx":           {answerWith(strings.Repeat(head+"103 Early Hints\r\nX: "+strings.Repeat("x", 1000)+"\r\n\r\n", 200)), R, "protocol"},
		"a 100 and a 103 before": {answerWith(head + "100 Continue\r\n\r\n" + head + "103 Early Hints\r\nLink: x\r\n\r\n" + head + "204 No Content\r\n\r\n"), S, "delivered"},
		"reset after reading":    {func(_ int, c net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r); reset(c) }, E, "conn_reset"},
		"closed after reading":   {func(_ int, _ net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r) }, E, "conn_reset"},
		"closed at once":         {func(int, net.Conn, *bufio.Reader) {}, E, "conn_reset"},
		"never answers":          {func(_ int, _ net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r); _, _ = r.ReadByte() }, R, "timeout_headers"},
		"drips headers": {func(_ int, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			drip(c, r, head+"200 OK\r\nX: "+strings.Repeat("x", 1000))
		}, R, "timeout_headers"},
		"body shorter than promised": {answerWith(head + "200 OK\r\nContent-Length: 100\r\n\r\nshort"), S, "delivered"},
		"reset in the body of a 200": {func(_ int, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, head+"200 OK\r\nContent-Length: 100\r\n\r\nshort")
			reset(c)
		}, S, "delivered"},
		"body of a 200 stalls": {func(_ int, c net.Conn, r *bufio.Reader) {
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, head+"200 OK\r\nContent-Length: 100\r\n\r\n")
			_, _ = r.ReadByte()
		}, S, "delivered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, connections := rawServer(t, c.script)
			d := delivery(t, url, subscriptions.FormatRaw, record(nil, []byte(`{"a":1}`)))
			d.Subscription.Endpoint.Timeout = subscriptions.Duration(time.Second)
			began := time.Now()
			o := sender(t, devGuard(t)).Send(t.Context(), d)
			if o.Class != c.class || o.Reason != c.reason || o.Resends != 0 {
				t.Errorf("%+v, want %v %q", o, c.class, c.reason)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %v with a timeout of 1s", took)
			}
			if n := connections.Load(); n != 1 {
				t.Errorf("%d connections for one attempt", n)
			}
			if strings.Contains(o.Error, "s3cret") || len(o.Error) > 512 || (c.class == S) != (o.Error == "") {
				t.Errorf("error %q", o.Error)
			}
		})
	}
}

// An answer that comes while the body is still being sent counts.
func TestAnEarlyAnswerCounts(t *testing.T) {
	url, _ := rawServer(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for line, err := r.ReadString('\n'); err == nil && line != "\r\n"; line, err = r.ReadString('\n') {
		}
		_, _ = io.WriteString(c, "HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
	})
	if o := sender(t, devGuard(t)).Send(t.Context(), delivery(t, url, subscriptions.FormatRaw, record(nil, make([]byte, 1<<20)))); o.Class != C || o.Status != 422 {
		t.Errorf("%+v", o)
	}
}

// drip sends a byte each 10 ms until the other side has gone.
func drip(c net.Conn, r *bufio.Reader, text string) {
	gone := make(chan struct{})
	go func() { _, _ = r.ReadByte(); close(gone) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := range len(text) {
		select {
		case <-gone:
			return
		case <-tick.C:
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				<-gone
				return
			}
		}
	}
	<-gone
}

func TestNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	if o := send(t, sender(t, devGuard(t)), url); o.Class != E || o.Reason != "conn_refused" {
		t.Errorf("%+v", o)
	}
}

func TestNamesThatDoNotResolve(t *testing.T) {
	stuck := stubborn{err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}
	for name, c := range map[string]struct {
		resolver resolver
		reasons  []string // of endpoints a, b, c, …
	}{
		"nxdomain":      {dns{}, []string{"dns", "dns", "dns", "dns"}},
		"servfail":      {stuck, []string{"dns", "dns", "resolver", "resolver"}}, // three different names: it is not the names
		"not for now":   {stubborn{err: context.DeadlineExceeded}, []string{"dns"}},
		"no such thing": {stubborn{err: errors.New("odd")}, []string{"dns"}},
	} {
		g, err := newGuard(GuardConfig{}, c.resolver, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := sender(t, g)
		for i, reason := range c.reasons {
			if o := send(t, s, fmt.Sprintf("https://%c.example/", 'a'+i)); o.Reason != reason {
				t.Errorf("%s: look-up %d: %+v, want %q", name, i, o, reason)
			}
		}
	}
}

func TestShutdownIsNotTheEndpointsFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url, _ := rawServer(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r); cancel(); _, _ = r.ReadByte() })
	if o := sender(t, devGuard(t)).Send(ctx, delivery(t, url, subscriptions.FormatRaw, record(nil, nil))); o.Class != G || o.Reason != "shutdown" {
		t.Errorf("%+v", o)
	}
}

// A panic in our own code costs the attempt it happened in.
func TestPanicCostsOneAttempt(t *testing.T) {
	s := sender(t, devGuard(t))
	d := delivery(t, "https://a.example", subscriptions.FormatRaw, record(nil, nil))
	d.Record = nil
	if o := s.Send(t.Context(), d); o.Class != G || o.Reason != "panic" || testutil.ToFloat64(s.panics) != 1 {
		t.Errorf("%+v", o)
	}
}

// Only the keep-alive race is sent again: an old connection, closed without a byte, right after the write. The second
// request is signed anew.
func TestKeepAliveRaceIsResentOnce(t *testing.T) {
	// A busy machine may notice the closed connection too late for a race; it must not be too late each time.
	for try := 1; ; try++ {
		o, seen, connections := keepAliveRace(t)
		if o.Class == E && o.Reason == "conn_reset" && o.Resends == 0 && try < 20 {
			continue
		}
		if o.Class != S || o.Resends != 1 || connections != 2 {
			t.Errorf("%+v over %d connections", o, connections)
		}
		if len(seen) != 3 || seen[1].Get("webhook-id") != seen[2].Get("webhook-id") || seen[1].Get("sluice-attempt") != seen[2].Get("sluice-attempt") || seen[1].Get("webhook-timestamp") == seen[2].Get("webhook-timestamp") {
			t.Fatalf("%v", seen)
		}
		verifier, err := standardwebhooks.NewWebhook(secretText)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range seen {
			if err := verifier.VerifyIgnoringTimestamp([]byte(`{"a":1}`), h); err != nil {
				t.Error(err)
			}
		}
		return
	}
}

// keepAliveRace sends twice to a server that closes the connection over the second request.
func keepAliveRace(t *testing.T) (o Outcome, seen []http.Header, connections int32) {
	t.Helper()
	var mu sync.Mutex
	url, count := rawServer(t, func(n int, c net.Conn, r *bufio.Reader) {
		for i := 0; ; i++ {
			req, _, err := readRequest(r)
			if err != nil {
				return
			}
			mu.Lock()
			seen = append(seen, req.Header)
			mu.Unlock()
			if n == 1 && i == 1 {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := sender(t, devGuard(t))
	if o := send(t, s, url); o.Class != S || o.Resends != 0 {
		t.Fatalf("%+v", o)
	}
	d := delivery(t, url, subscriptions.FormatRaw, record(nil, []byte(`{"a":1}`)))
	d.Now = now.Add(time.Second - time.Nanosecond) // any time that passes is the next second
	o = s.Send(t.Context(), d)
	if n := testutil.ToFloat64(s.resends); n != float64(o.Resends) {
		t.Errorf("%v counted, %d resent", n, o.Resends)
	}
	mu.Lock()
	defer mu.Unlock()
	return o, seen, count.Load()
}

// A record that crashes its receiver is not sent twice for one attempt: neither on a new connection, nor on an old one
// when the crash takes longer than a race would.
func TestACrashIsNotARace(t *testing.T) {
	for name, script := range map[string]func(n int, c net.Conn, r *bufio.Reader){
		"new connection": func(_ int, _ net.Conn, r *bufio.Reader) { _, _, _ = readRequest(r) },
		"old connection, later": func(_ int, c net.Conn, r *bufio.Reader) {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _, _ = readRequest(r)
			<-time.After(200 * time.Millisecond)
		},
		"old connection, a byte came": func(_ int, c net.Conn, r *bufio.Reader) {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			_, _, _ = readRequest(r)
			_, _ = io.WriteString(c, "H")
		},
	} {
		url, connections := rawServer(t, script)
		s := sender(t, devGuard(t))
		first := send(t, s, url)
		if strings.HasPrefix(name, "old") && first.Class == S {
			first = send(t, s, url)
		}
		if first.Class == S || first.Resends != 0 || connections.Load() != 1 {
			t.Errorf("%s: %+v over %d connections", name, first, connections.Load())
		}
	}
}

// The library calls CloseIdleConnections after every failed request: one dead endpoint must not cut the others'.
func TestAFailureDoesNotCutOtherConnections(t *testing.T) {
	good, connections := rawServer(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, _, err := readRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	bad, _ := rawServer(t, func(_ int, c net.Conn, _ *bufio.Reader) { reset(c) })
	s := sender(t, devGuard(t))
	for range 3 {
		if o := send(t, s, good); o.Class != S {
			t.Fatalf("%+v", o)
		}
		if o := send(t, s, bad); o.Class != E {
			t.Fatalf("%+v", o)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("the good endpoint saw %d connections", n)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var elsewhere atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer target.Close()
	s := sender(t, devGuard(t))
	for _, status := range []int{301, 302, 303, 307, 308} {
		url, _ := rawServer(t, answerWith(fmt.Sprintf("HTTP/1.1 %d X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", status, target.URL)))
		if o := send(t, s, url); o.Class != C || o.Reason != "redirect" || elsewhere.Load() != 0 {
			t.Errorf("%d: %+v, %d requests elsewhere", status, o, elsewhere.Load())
		}
	}
}

// Compressed and endless answers are neither inflated nor read to their end.
func TestAnswersAreReadToALimit(t *testing.T) {
	var sent atomic.Int64
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("we ask for %q", r.Header.Get("Accept-Encoding"))
		}
		for block := make([]byte, 32<<10); sent.Load() < 1<<30; {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	if o := send(t, sender(t, devGuard(t)), endless.URL); o.Class != S || len(o.Response) != 1024 {
		t.Errorf("%v %d bytes kept", o.Class, len(o.Response))
	}
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("the endpoint could send %d bytes", n)
	}
}

func TestEnvironmentProxyIsNotUsed(t *testing.T) {
	proxy, seen := rawServer(t, answerWith("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("HTTPS_PROXY", proxy)
	s := sender(t, devGuard(t))
	if s.transport.Proxy != nil {
		t.Error("the transport has a proxy function")
	}
	if o := send(t, s, "http://nowhere.invalid/"); o.Class == S || seen.Load() != 0 {
		t.Errorf("%+v, the proxy saw %d connections", o, seen.Load())
	}
}

// trusting makes a sender that accepts the server's certificate.
func trusting(t *testing.T, server *httptest.Server) *Sender {
	t.Helper()
	s := sender(t, devGuard(t))
	s.transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return s
}

func TestHTTP2AndTLS(t *testing.T) {
	var proto atomic.Value
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		if r.URL.Query().Get("abort") != "" {
			panic(http.ErrAbortHandler)
		}
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	s := trusting(t, server)
	if o := send(t, s, server.URL); o.Class != S || proto.Load() != "HTTP/2.0" {
		t.Errorf("%+v over %v", o, proto.Load())
	}
	if o := send(t, s, server.URL+"/?abort=1"); o.Class != R || o.Reason != "protocol" || o.Resends != 0 {
		t.Errorf("a reset stream: %+v", o)
	}
	if o := send(t, sender(t, devGuard(t)), server.URL); o.Class != E || o.Reason != "certificate" {
		t.Errorf("unknown issuer: %+v", o)
	}
	if o := send(t, s, strings.Replace(server.URL, "127.0.0.1", "localhost", 1)); o.Class != E || o.Reason != "certificate" {
		t.Errorf("wrong host: %+v", o)
	}
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11} //nolint:gosec // the point of the test
	old.Config.ErrorLog = server.Config.ErrorLog
	old.StartTLS()
	defer old.Close()
	if o := send(t, trusting(t, old), old.URL); o.Class != E || o.Reason != "tls" {
		t.Errorf("TLS 1.1: %+v", o)
	}
	plain, _ := rawServer(t, answerWith("HTTP/1.1 200 OK\r\n\r\n"))
	if o := send(t, s, strings.Replace(plain, "http:", "https:", 1)); o.Class != E || o.Reason != "tls" {
		t.Errorf("plain HTTP behind https: %+v", o)
	}
	closes, _ := rawServer(t, func(_ int, c net.Conn, r *bufio.Reader) { _, _ = r.ReadByte(); reset(c) })
	if o := send(t, s, strings.Replace(closes, "http:", "https:", 1)); o.Class != E || o.Reason != "tls" {
		t.Errorf("reset in the handshake: %+v", o)
	}
}

func TestStalledHandshake(t *testing.T) {
	url, _ := rawServer(t, func(_ int, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	d := delivery(t, strings.Replace(url, "http:", "https:", 1), subscriptions.FormatRaw, record(nil, nil))
	d.Subscription.Endpoint.Timeout = subscriptions.Duration(300 * time.Millisecond)
	if o := sender(t, devGuard(t)).Send(t.Context(), d); o.Class != R || o.Reason != "timeout_tls" {
		t.Errorf("%+v", o)
	}
}

func TestExhaustedDescriptorsAreOurs(t *testing.T) {
	x := newExchange(t.Context(), time.Second)
	defer x.end()
	x.first()
	for err, want := range map[error]Fault{
		&net.OpError{Op: "dial", Err: syscall.EMFILE}:       Exhausted,
		&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}: Unreachable,
		&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}:  Unreachable,
		&net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}:    TimeoutConnect,
		errors.New("whatever"):                              Unreachable,
	} {
		if got := x.fault(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// The headers that make net/http resend a POST by itself are never sent.
func TestNoIdempotencyKey(t *testing.T) {
	_, h, _ := wire(t, delivery(t, "https://a.example", subscriptions.FormatBinary, record(nil, []byte("1"), sluice.Header{Name: "Idempotency-Key", Value: []byte("x")})))
	for name := range h {
		if strings.Contains(strings.ToLower(name), "idempotency") {
			t.Errorf("%s is sent", name)
		}
	}
}

// Nothing that a sender says, logs or counts holds a secret, whatever happens to the attempt.
func TestSecretsNeverShow(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewJSONHandler(&lockedWriter{&mu, &out}, nil))
	g, err := NewGuard(GuardConfig{AnyLoopback: true}, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSender(Default(), g, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	bad, _ := rawServer(t, answerWith("garbage\r\n\r\n"))
	resets, _ := rawServer(t, func(_ int, c net.Conn, _ *bufio.Reader) { reset(c) })
	for _, url := range []string{bad, resets, "http://127.0.0.1:1/?token=s3cret", "https://10.0.0.1/?token=s3cret", "https://user:s3cret@example.com/", "https://%zz/?token=s3cret", "http://nowhere.invalid/?token=s3cret"} {
		d := delivery(t, url, subscriptions.FormatRaw, record(nil, []byte("1")))
		o := s.Send(t.Context(), d)
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		fmt.Fprintf(&out, "%v %+v %#v %s\n", o, o, d.Subscription.Signing, text)
		mu.Unlock()
		log.Info("attempt", "outcome", o, "signing", d.Subscription.Signing)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, leak := range []string{secretText[6:], "s3cret"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q shows in\n%s", leak, out.String())
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
