package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
)

// errAskAgain says that the replica is not the owner, or did not answer: the roster is asked again.
var errAskAgain = errors.New("the replica did not answer")

const (
	forwardDial    = time.Second
	forwardHeaders = 2 * time.Minute // above the longest hold, and the longest wait of a seek
	aliveEvery     = time.Second
	receiptEvery   = 200 * time.Millisecond // before a receipt that was not taken is sent again
)

// newForwarder keeps its connections: an answer counts as lost when the one it came over ends before its receipt.
func newForwarder() *http.Client {
	dialer := &net.Dialer{Timeout: forwardDial}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 1 << 10,
			IdleConnTimeout: idlePatience / 2, ResponseHeaderTimeout: forwardHeaders,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// hopByHop headers concern one connection (RFC 9110, 7.6.1); the others here are written anew by whoever sends.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Content-Length": true, "Expect": true, "Host": true, "Date": true,
}

// forward sends a request to the replica that owns its instance, and its answer back as it is. It is the only hop. It
// waits for that replica as long as the roster says that it lives.
func (s *Server) forward(c *fiber.Ctx, base, owner string) error {
	x := of(c)
	body, err := s.kept(c)
	if err != nil {
		return err
	}
	ctx, stop := s.whileThere(c)
	if owner != "" {
		ctx, stop = s.whileAlive(ctx, owner, stop)
	}
	req, err := s.replicaRequest(ctx, c.Method(), base, target(c), body)
	if err != nil {
		stop()
		return err
	}
	for name, value := range c.Request().Header.All() {
		n := http.CanonicalHeaderKey(string(name))
		if !hopByHop[n] && !strings.HasPrefix(n, "Sluice-") && (n != "Content-Encoding" || len(body) == 0) {
			req.Header.Add(n, string(value))
		}
	}
	req.Host = string(c.Request().Header.Host())
	req.Header.Set(fiber.HeaderXRequestID, x.id)
	if s.basePath(c) != "" {
		req.Header.Set(headerReplicaPrefixed, "1")
	}
	res, err := s.forwarder.Do(req)
	if err != nil {
		gone := context.Cause(ctx)
		stop()
		if errors.Is(gone, errGone) {
			return errGone
		}
		s.log.Info("replica did not answer", slog.String("replica", base), slog.Any("error", err))
		return errAskAgain
	}
	if res.Header.Get(headerNotOwner) != "" {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, bodyPiece))
		_ = res.Body.Close()
		stop()
		return errAskAgain
	}
	return s.passOn(c, res, base, stop)
}

// whileAlive is a context that also ends when another replica is not alive any more.
func (s *Server) whileAlive(ctx context.Context, owner string, stop func()) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		look := time.NewTicker(aliveEvery)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				if !s.needs.Consumers.Alive(ctx, owner) {
					cancel(errAskAgain)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-watched; stop() }
}

// kept is the request's body. It is read once, and stays for another try or for a handler of our own.
func (s *Server) kept(c *fiber.Ctx) ([]byte, error) {
	x := of(c)
	if x.sent == nil {
		body, err := s.body(c)
		if err != nil {
			return nil, err
		}
		if len(body.bytes) == 0 {
			body.release()
			x.sent = []byte{}
		} else {
			x.sent, x.sentRoom = body.bytes, body.lease // both until the end of the request
		}
	}
	return x.sent, nil
}

func (s *Server) replicaRequest(ctx context.Context, method, base, target string, body []byte) (*http.Request, error) {
	at, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	// Opaque goes out as it is; a parsed path might be escaped otherwise than the client did, and than it was signed.
	req, err := http.NewRequestWithContext(ctx, method, base, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(target, "?")
	req.URL = &url.URL{Scheme: at.Scheme, Host: at.Host, Opaque: path, RawQuery: query}
	call := consumers.Call{Method: method, Target: target, At: time.Now()}
	signature, ok := s.needs.Consumers.Sign(call)
	if !ok {
		return nil, &sluice.Error{Kind: sluice.Overloaded, Msg: "The consumer instance is on another replica."}
	}
	req.Header.Set(headerReplicaTime, strconv.FormatInt(call.At.UnixMilli(), 10))
	req.Header.Set(headerReplicaPrincipal, call.Principal)
	req.Header.Set(headerReplicaSignature, signature)
	return req, nil
}

// passOn gives the client what the owner answered. A numbered answer gets its receipt when its last byte went out, or
// could not.
func (s *Server) passOn(c *fiber.Ctx, res *http.Response, base string, stop func()) error {
	for name, values := range res.Header {
		if hopByHop[name] || strings.HasPrefix(name, "Sluice-") {
			continue
		}
		c.Response().Header.Del(name)
		for _, v := range values {
			c.Response().Header.Add(name, v)
		}
	}
	c.Status(res.StatusCode)
	c.Response().Header.SetContentType(res.Header.Get(fiber.HeaderContentType))
	stream := &passing{from: res.Body, stop: stop}
	if res.ContentLength >= 0 && res.ContentLength <= streamAbove {
		whole, err := io.ReadAll(stream)
		_ = stream.Close()
		if err != nil {
			c.Response().Reset()
			c.Set(fiber.HeaderXRequestID, of(c).id)
			s.cors(c)
			return errAskAgain // nothing was written yet; a receipt will not come, so the owner gives it again
		}
		c.Response().SetBodyRaw(whole)
	} else {
		c.Context().SetBodyStream(stream, -1)
	}
	number := res.Header.Get(headerAnswer)
	if number == "" {
		return nil
	}
	path, _, _ := strings.Cut(target(c), "?")
	receipt := answersPath(path, number)
	settled := func(ok bool) { s.waiting.Go(func() { s.sendReceipt(base, receipt, ok && stream.ended) }) }
	conn, ok := c.Context().Conn().(*clientConn)
	if !ok {
		settled(false)
		return nil
	}
	if conn.Gone() { // see deliver
		settled(false)
		return errGone
	}
	if err := c.Context().SetWriteDeadline(time.Now().Add(time.Hour)); err != nil { // see deliver
		settled(false)
		return err
	}
	conn.whenSettled(settled)
	return nil
}

// answersPath is where receipts of the reads at path go.
func answersPath(path, number string) string {
	parts := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 5) // consumers/{g}/instances/{i}/…
	return "/" + strings.Join(parts[:4], "/") + "/answers/" + number
}

// sendReceipt tells the owner what became of an answer, until it knows: its instance waits for that. If the owner has
// died, so has the answer.
func (s *Server) sendReceipt(base, target string, delivered bool) {
	ctx, cancel := context.WithTimeout(context.Background(), receiptPatience)
	defer cancel()
	// A stop leaves it a moment; what the owner does not hear, it finds out from the end of our connections.
	defer context.AfterFunc(s.requests, func() { time.AfterFunc(receiptGrace, cancel) })()
	for {
		req, err := s.replicaRequest(ctx, http.MethodPost, base, target, nil)
		if err != nil {
			return
		}
		if !delivered {
			req.Header.Set(headerReplicaLost, "1")
		}
		res, err := s.forwarder.Do(req)
		if err == nil {
			_ = res.Body.Close()
			return
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		pause := time.NewTimer(receiptEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// passing is the body of an answer on its way through. The watch of the client ends with it: fasthttp writes a stream
// after the handler has returned, and a write to a client that has gone fails by itself.
type passing struct {
	from  io.ReadCloser
	stop  func()
	ended bool // all of it was read
}

func (p *passing) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	p.ended = p.ended || err == io.EOF
	return n, err
}

// Close is fasthttp's, when the answer was written or could not be.
func (p *passing) Close() error {
	err := p.from.Close()
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
	return err
}
