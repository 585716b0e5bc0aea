package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// handshakeTime bounds dialing, TLS, ApiVersions and SASL together. A broker stopped by SIGSTOP takes the connection and
// then says nothing, so this is what a look-up that names such a broker costs.
const handshakeTime = 2 * time.Second

// dialer opens a TCP connection. It is a field where links are made, so that a test can lose the packets of one of them.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// dialTCP is the dialer of the product. It also owns the keep-alive: sarama's own settings do not reach a dialer of ours.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 30 * time.Second}
	return d.DialContext(ctx, network, addr)
}

// link is one bare connection to one broker, without a sarama.Client around it. sarama's calls know no context, and even
// Broker.Close waits for the lock of a call that hangs; so a link ends calls by closing the socket under them. A link
// that lost one call is dead: open another.
type link struct {
	addr   string
	broker *sarama.Broker
	wire   *wire
}

// openLink connects within handshakeTime. sarama opens in the background; Connected waits for it, and the wire is cut
// when the time is up.
func openLink(ctx context.Context, cfg *sarama.Config, dial dialer, addr string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	w := &wire{ctx: ctx, dial: dial}
	conf := *cfg
	conf.Net.Proxy.Enable, conf.Net.Proxy.Dialer = true, w
	l := &link{addr: addr, broker: sarama.NewBroker(addr), wire: w}
	if err := l.broker.Open(&conf); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, w.cut)
	ok, err := l.broker.Connected()
	if stop() && ok && err == nil {
		return l, nil
	}
	l.close()
	return nil, fmt.Errorf("connect to %s: %w", addr, errors.Join(ctx.Err(), err))
}

// close never waits for a broker: the socket goes first.
func (l *link) close() {
	l.wire.cut()
	_ = l.broker.Close() // frees sarama's reader; what it has to say about a cut socket is nothing new
}

// call makes one call within bound. When the time is up, or ctx ends, the link is cut and the error says so.
func call[Q, A any](ctx context.Context, l *link, bound time.Duration, f func(Q) (A, error), ask Q) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	stop := context.AfterFunc(ctx, l.wire.cut)
	answer, err := f(ask)
	if !stop() && err != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return answer, fmt.Errorf("%s: %w", l.addr, err)
	}
	return answer, nil
}

// wire is the socket of a link, where it can be reached without sarama's locks. It is a proxy.Dialer for one dial.
type wire struct {
	ctx  context.Context // of the handshake: proxy.Dialer has no place for one
	dial dialer

	mu      sync.Mutex
	conn    net.Conn
	severed bool
}

func (w *wire) Dial(network, addr string) (net.Conn, error) {
	conn, err := w.dial(w.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.severed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	w.conn = conn
	return conn, nil
}

// cut closes the socket, now or as soon as there is one. Whoever reads or writes on it fails at once.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.severed = true
	if w.conn != nil {
		_ = w.conn.Close()
	}
}
