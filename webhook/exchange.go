package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"
)

// exchange watches one attempt: its one deadline, and how far each sending of it came. The callbacks of httptrace may
// outlive the request, so they only touch atomics.
type exchange struct {
	outer   context.Context // the caller's
	ctx     context.Context // ends at the endpoint's deadline
	cancel  context.CancelCauseFunc
	timeout *time.Timer
	try     *try // the latest; changed only between sendings, by the goroutine that sends
	resends int
}

var (
	errTimeout = errors.New("the endpoint did not answer in time")
	errConnect = errors.New("no connection in time")
)

// try is one sending.
type try struct {
	stage   atomic.Int32 // only grows
	reused  atomic.Bool
	http2   atomic.Bool
	wrote   atomic.Int64 // Unix nanoseconds when the request was written or the writing failed; 0 before
	connect *time.Timer  // ends dial and TLS together
}

const (
	dialing int32 = iota
	shaking       // TLS
	connected
	answered // the first byte of a response came
)

func newExchange(outer context.Context, timeout time.Duration) *exchange {
	x := &exchange{outer: outer}
	x.ctx, x.cancel = context.WithCancelCause(outer)
	x.timeout = time.AfterFunc(timeout, func() { x.cancel(errTimeout) }) // a second context would cost more than a timer
	return x
}

func (x *exchange) end() {
	x.try.connect.Stop()
	x.timeout.Stop()
	x.cancel(nil)
}

// first is the context of the first sending.
func (x *exchange) first() context.Context {
	t := &try{}
	x.try = t
	t.connect = time.AfterFunc(connectFor, func() {
		if t.stage.Load() < connected {
			x.cancel(errConnect)
		}
	})
	return httptrace.WithClientTrace(x.ctx, t.trace())
}

// again is the context of another one.
func (x *exchange) again() context.Context {
	x.resends++
	x.try.connect.Stop()
	return x.first()
}

func (t *try) reach(stage int32) {
	for {
		now := t.stage.Load()
		if now >= stage || t.stage.CompareAndSwap(now, stage) {
			return
		}
	}
}

func (t *try) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		TLSHandshakeStart: func() { t.reach(shaking) },
		GotConn: func(info httptrace.GotConnInfo) {
			t.connect.Stop()
			t.reused.Store(info.Reused)
			if c, is := info.Conn.(*tls.Conn); is {
				t.http2.Store(c.ConnectionState().NegotiatedProtocol == "h2")
			}
			t.reach(connected)
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { t.wrote.Store(time.Now().UnixNano()) },
		GotFirstResponseByte: func() { t.reach(answered) },
	}
}

// lostRace reports whether a failed sending was the keep-alive race and nothing else: an old connection of HTTP/1 (for
// HTTP/2 the transport knows what was not processed), no
// byte of an answer, and it broke right after the request was written. A receiver that crashes over a record
// takes longer, and must not get it twice for one attempt.
func (x *exchange) lostRace() bool {
	wrote := x.try.wrote.Load()
	return x.resends == 0 && !x.try.http2.Load() && x.try.reused.Load() && x.try.stage.Load() == connected && wrote != 0 &&
		time.Since(time.Unix(0, wrote)) <= resendWithin
}

// fault says what a failed exchange means. It goes by types and by how far the exchange came, never by texts.
func (x *exchange) fault(err error) Fault {
	stage := x.try.stage.Load()
	if x.outer.Err() != nil {
		return Shutdown
	}
	if x.ctx.Err() != nil {
		return timeoutAt(stage)
	}
	if errors.Is(err, ErrBlocked) {
		return BlockedAddress
	}
	if errors.Is(err, errResolverDown) {
		return ResolverDown
	}
	if _, is := errors.AsType[*net.DNSError](err); is {
		return DNS
	}
	for _, ours := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, ours) {
			return Exhausted
		}
	}
	if stage == shaking {
		return tlsFault(err)
	}
	if stage == dialing {
		return dialFault(err)
	}
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ConnReset
	case isTimeout(err): // a ping of HTTP/2 without an answer
		return TimeoutHeaders
	case stage == connected && !x.try.http2.Load(), stage == connected && errors.Is(err, io.EOF):
		return ConnReset // closed before an answer
	}
	return Protocol
}

func timeoutAt(stage int32) Fault {
	switch stage {
	case dialing:
		return TimeoutConnect
	case shaking:
		return TimeoutTLS
	}
	return TimeoutHeaders
}

func dialFault(err error) Fault {
	switch {
	case isTimeout(err), errors.Is(err, syscall.ETIMEDOUT):
		return TimeoutConnect
	case errors.Is(err, syscall.ECONNREFUSED):
		return ConnRefused
	case errors.Is(err, syscall.ECONNRESET):
		return ConnReset
	}
	return Unreachable
}

func tlsFault(err error) Fault {
	if isTimeout(err) {
		return TimeoutTLS
	}
	if _, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return Certificate
	}
	if _, is := errors.AsType[x509.HostnameError](err); is {
		return Certificate
	}
	return TLS
}

func isTimeout(err error) bool {
	t, is := errors.AsType[net.Error](err)
	return is && t.Timeout()
}
