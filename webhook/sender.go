package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Config is the guard's settings and what the binary knows of itself.
type Config struct {
	Guard   GuardConfig `embed:""`
	Version string      `kong:"-"` // for User-Agent
}

// Default opens nothing.
func Default() Config { return Config{Version: "dev"} }

// Validate names the first setting that cannot work.
func (c Config) Validate() error { return c.Guard.Validate() }

const (
	readLimit    = 64 << 10 // of a response body
	keepResponse = 1 << 10
	headerLimit  = 64 << 10
	errorLimit   = 512
	resendWithin = 50 * time.Millisecond
)

// Sender makes attempts. It is safe for concurrent use; Close ends its idle connections.
type Sender struct {
	client    *http.Client
	transport *http.Transport
	guard     *Guard
	userAgent string
	log       *slog.Logger
	resends   prometheus.Counter
	panics    prometheus.Counter
}

// NewSender dials nobody. reg may be nil.
func NewSender(c Config, g *Guard, log *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	if g == nil {
		return nil, errors.New("webhook: a sender needs a guard")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &http.Transport{
		Proxy:                  nil, // never the environment's: a proxy would dial past the guard
		DialContext:            g.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    2 * connectFor, // ends what a request has given up on; requests have a tighter one
		DisableCompression:     true,           // a small answer must not inflate
		MaxIdleConns:           2048,
		MaxIdleConnsPerHost:    256,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: headerLimit,
		ForceAttemptHTTP2:      true, // a dialer of one's own switches HTTP/2 off otherwise
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	auto := promauto.With(reg)
	return &Sender{
		transport: t,
		client:    &http.Client{Transport: onlyRoundTrip{t}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		guard:     g,
		userAgent: "Sluice/" + c.Version,
		log:       log,
		resends:   auto.NewCounter(prometheus.CounterOpts{Name: "sluice_transport_retries_total", Help: "Requests sent again because a kept-alive connection had been closed meanwhile."}),
		panics:    auto.NewCounter(prometheus.CounterOpts{Name: "sluice_webhook_panics_total", Help: "Attempts that ended in a panic of our own code."}),
	}, nil
}

// onlyRoundTrip hides CloseIdleConnections: retryablehttp calls it after every failed Do, and one dead endpoint would
// cut the connections of all the others.
type onlyRoundTrip struct{ http.RoundTripper }

// Close ends the idle connections; flights end with their contexts.
func (s *Sender) Close() { s.transport.CloseIdleConnections() }

// Send makes one attempt and returns within the endpoint's timeout. When ctx ends before, the outcome is ours, not the
// endpoint's (class G, shutdown).
func (s *Sender) Send(ctx context.Context, d Delivery) (out Outcome) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil { // costs this attempt, not the process
			s.panics.Inc()
			s.log.Error("panic in a webhook attempt", "subscription", d.Subscription.ID, "panic", p, "stack", string(debug.Stack()))
			out = failed(Facts{Fault: Panic}, errors.New("panic in the gateway"))
		}
		out.Latency = time.Since(began)
	}()
	r, fault, err := newRequest(d, s.userAgent)
	if err != nil {
		return failed(Facts{Fault: fault}, err)
	}
	facts := Facts{BodyBytes: len(r.body)}
	if _, ok := s.guard.target(r.url); !ok {
		s.guard.blocked.WithLabelValues("dial").Inc()
		pause(ctx)
		facts.Fault = BlockedAddress
		return failed(facts, ErrBlocked)
	}
	x := newExchange(ctx, d.Subscription.Endpoint.Timeout.Std())
	defer x.end()
	resp, err := s.do(x, r, d.Now) //nolint:bodyclose // outcome reads and closes it
	out = s.outcome(x, facts, resp, err, d.Now.Add(time.Since(began)))
	out.Resends = x.resends
	s.resends.Add(float64(x.resends))
	return out
}

// do sends, and once more if the connection was lost in the keep-alive race.
func (s *Sender) do(x *exchange, r *request, now time.Time) (*http.Response, error) {
	began := time.Now()
	req, err := retryablehttp.NewRequestWithContext(x.first(), http.MethodPost, r.url.String(), r.body)
	if err != nil {
		return nil, err
	}
	req.Header = r.signed(now)
	client := &retryablehttp.Client{
		HTTPClient: s.client,
		Logger:     nil, // it would print URLs with their queries
		RetryMax:   1,
		CheckRetry: func(ctx context.Context, resp *http.Response, err error) (bool, error) {
			return resp == nil && err != nil && ctx.Err() == nil && x.lostRace(), nil
		},
		Backoff:      func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return 0 },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		PrepareRetry: func(again *http.Request) error {
			*again = *again.WithContext(x.again())
			again.Header = r.signed(now.Add(time.Since(began)))
			return nil
		},
	}
	return client.Do(req)
}

// outcome reads the answer and gives it its class. After a 2xx nothing undoes the success, a broken body included.
func (s *Sender) outcome(x *exchange, f Facts, resp *http.Response, err error, now time.Time) Outcome {
	if err != nil {
		f.Fault = x.fault(err)
		return failed(f, err)
	}
	f.Status = resp.StatusCode
	text := readSome(resp.Body)
	class, reason := Classify(f)
	out := Outcome{Class: class, Reason: reason, Facts: f, Status: f.Status, Response: text}
	if class == S {
		return out
	}
	out.RetryAfter = ParseRetryAfter(resp.Header.Get("Retry-After"), now)
	out.Error = fmt.Sprintf("the endpoint answered %d %s", f.Status, http.StatusText(f.Status))
	if reason == "redirect" {
		if to, err := url.Parse(resp.Header.Get("Location")); err == nil && to.Host != "" {
			out.Error += "; it redirects to " + to.Host + ", which is not followed"
		}
	}
	out.Error = clean(out.Error)
	return out
}

// readSome reads a bounded part of the body, so that the connection can be used again, and keeps the beginning. A longer
// body closes the connection.
func readSome(b io.ReadCloser) []byte {
	defer b.Close()
	if b == http.NoBody {
		return nil
	}
	head := make([]byte, keepResponse)
	n, err := io.ReadFull(b, head)
	if err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(b, readLimit-keepResponse)) // only for the connection's sake
	}
	return head[:n:n]
}

func failed(f Facts, err error) Outcome {
	class, reason := Classify(f)
	if f.Fault == BlockedAddress {
		err = ErrBlocked // one text for every cause
	}
	if u, is := errors.AsType[*url.Error](err); is {
		err = u.Err // its text begins with the URL, query included
	}
	return Outcome{Class: class, Reason: reason, Facts: f, Error: clean(err.Error())}
}

// clean bounds a text and takes out what would break a log line; endpoints have a say in it.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	for len(s) > errorLimit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
