package httpapi

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	writePatience  = 30 * time.Second // for each piece of an answer; a client that takes longer has gone
	writePiece     = 256 << 10        // so that a large answer to a slow reader is not one deadline
	lingerPatience = 5 * time.Second  // rest-api.md 1.2
	lingerBytes    = 64 << 20
	acceptPause    = 5 * time.Millisecond
)

// listener hands out clientConns and knows those that are open, so that a stop can end what outstays its bound.
type listener struct {
	net.Listener
	mu   sync.Mutex
	open map[*clientConn]struct{}
}

func newListener(ln net.Listener) *listener {
	return &listener{Listener: ln, open: map[*clientConn]struct{}{}}
}

// Accept waits out what passes, above all a lack of descriptors: to fasthttp every error is the end of the listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	for wait := acceptPause; err != nil; wait = min(2*wait, time.Second) {
		if passing, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err); !ok || !passing.Temporary() || errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		time.Sleep(wait)
		conn, err = l.Listener.Accept()
	}
	c := &clientConn{Conn: conn, from: l}
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.mu.Unlock()
	return c, nil
}

// closeAll cuts what is still open; connections that were taken over are not ours any more.
func (l *listener) closeAll() {
	l.mu.Lock()
	open := make([]*clientConn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		c.linger.Store(false)
		_ = c.Conn.Close()
	}
}

func (l *listener) forget(c *clientConn) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

// clientConn is a connection that can say what fasthttp does not: whether an answer was written to its last byte, and
// whether the client has left (operations-and-security.md 10, "Held reads and delivered").
type clientConn struct {
	net.Conn
	from    *listener
	framing framing

	written  atomic.Int64
	writeErr atomic.Pointer[error] // the first
	linger   atomic.Bool           // the client may still be sending: read on before closing, or it never sees the answer
	closed   atomic.Bool

	settleMu sync.Mutex
	settle   func(ok bool)
}

// Write gives each piece its own deadline: fasthttp's WriteTimeout is absolute and would cut healthy slow readers.
func (c *clientConn) Write(p []byte) (n int, err error) {
	for {
		piece := p[n:]
		if len(piece) > writePiece {
			piece = piece[:writePiece]
		}
		if err = c.Conn.SetWriteDeadline(time.Now().Add(writePatience)); err == nil {
			var m int
			m, err = c.Conn.Write(piece)
			n += m
			c.written.Add(int64(m))
		}
		if err != nil {
			c.writeErr.CompareAndSwap(nil, &err)
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// whenSettled calls fn once with whether everything written so far, the answer under way included, reached the socket
// without an error. It must be the last thing a handler does with the connection, after its last read of the request.
//
// fasthttp flushes an answer at once when its handler has set a write deadline, and touches the connection again only
// afterwards: the end of that deadline, the next read, its deadline or the close is the moment.
func (c *clientConn) whenSettled(fn func(ok bool)) {
	c.settled() // a pipelined answer before this one
	c.settleMu.Lock()
	c.settle = fn
	c.settleMu.Unlock()
}

func (c *clientConn) settled() {
	c.settleMu.Lock()
	fn := c.settle
	c.settle = nil
	c.settleMu.Unlock()
	if fn != nil {
		fn(c.writeErr.Load() == nil)
	}
}

// Read passes on what is framed soundly and fails behind it, for good. fasthttp reads with one goroutine at a time.
func (c *clientConn) Read(p []byte) (int, error) {
	c.settled()
	if c.framing.broken {
		return 0, errFraming
	}
	n, err := c.Conn.Read(p)
	if sound := c.framing.see(p[:n]); sound < n {
		if n, err = sound, nil; n == 0 {
			err = errFraming
		}
	}
	return n, err
}

func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.settled()
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is fasthttp's; Write sets its own. A zero one says that the answer is out.
func (c *clientConn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		c.settled()
	}
	return c.Conn.SetWriteDeadline(t)
}

// Gone peeks, without waiting, whether the client has closed its side. A client that only half-closed counts as gone.
func (c *clientConn) Gone() bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	var gone bool
	// Control, not Read: an expired read deadline would answer for the socket.
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		again := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		gone = (err == nil && n == 0) || (err != nil && !again)
	})
	return gone || err != nil
}

// takeOver gives the bare connection to somebody who will close it: no deadlines of ours, no lingering, no counting.
func (c *clientConn) takeOver() net.Conn {
	c.from.forget(c)
	return c.Conn
}

// Close lingers if asked to: closing a socket with unread input sends a reset, and the reset can overtake the answer.
func (c *clientConn) Close() error {
	c.settled()
	if c.closed.Swap(true) {
		return nil
	}
	defer c.from.forget(c)
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if ok && c.linger.Load() && c.writeErr.Load() == nil && half.CloseWrite() == nil {
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingerPatience))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // any end of it is the end
	}
	return c.Conn.Close()
}
