package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	connectFor    = 5 * time.Second        // dial and TLS together, look-up included
	eyeballsAfter = 300 * time.Millisecond // then the other address family gets its chance (RFC 8305)
	keepAlive     = 30 * time.Second
)

// DialContext dials what the guard allows and nothing else: ErrBlocked, a *net.DNSError, or what the dial gave.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectFor) // net/http detaches dials from the request's deadline
	defer cancel()
	conn, err := g.dial(ctx, network, address)
	if errors.Is(err, ErrBlocked) {
		g.blocked.WithLabelValues("dial").Inc()
		pause(ctx)
	}
	return conn, err
}

func (g *Guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, ErrBlocked
	}
	t, ok := g.hostPort(host, port)
	if !ok {
		return nil, ErrBlocked
	}
	addrs, err := g.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	return race(ctx, g.dialer(t), network, addrs, port)
}

// dialer has the last word, on what the socket will really connect to.
func (g *Guard) dialer(t target) *net.Dialer {
	return &net.Dialer{KeepAlive: keepAlive, ControlContext: func(_ context.Context, _, concrete string, _ syscall.RawConn) error {
		if ap, err := netip.ParseAddrPort(concrete); err != nil || ap.Port() != t.port || !g.allowed(ap.Addr(), t) {
			return ErrBlocked
		}
		return nil
	}}
}

// resolve is the addresses of t that may be called: ErrBlocked if there are addresses and none of them may.
func (g *Guard) resolve(ctx context.Context, t target) ([]netip.Addr, error) {
	g.learn(ctx)
	addrs := []netip.Addr{t.literal}
	if !t.literal.IsValid() {
		var err error
		if addrs, err = g.names.lookup(ctx, t.host); err != nil {
			return nil, fmt.Errorf("look up the endpoint: %w", err)
		}
	}
	var good []netip.Addr
	for _, a := range addrs {
		if g.allowed(a, t) {
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		return nil, ErrBlocked
	}
	return good, nil
}

// race dials the addresses of the first one's family, and after a moment, or when those failed, the others beside them.
func race(ctx context.Context, d *net.Dialer, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	if len(second) == 0 {
		return inTurn(ctx, d, network, first, port)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 2)
	start := func(list []netip.Addr) {
		conn, err := inTurn(ctx, d, network, list, port)
		results <- result{conn, err}
	}
	go start(first)
	fallback := time.NewTimer(eyeballsAfter)
	defer fallback.Stop()
	running, started := 1, false
	var failed error
	for running > 0 {
		select {
		case <-fallback.C:
			if !started {
				started, running = true, running+1
				go start(second)
			}
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				for ; running > 0; running-- { // the loser ends at once and is waited for
					if late := <-results; late.conn != nil {
						_ = late.conn.Close()
					}
				}
				return r.conn, nil
			}
			if failed == nil {
				failed = r.err
			}
			if !started {
				started, running = true, running+1
				go start(second)
			}
		}
	}
	return nil, failed
}

// inTurn gives each address its share of the time that is left.
func inTurn(ctx context.Context, d *net.Dialer, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	var failed error
	for i, a := range addrs {
		share := connectFor
		if deadline, bounded := ctx.Deadline(); bounded {
			share = max(time.Until(deadline)/time.Duration(len(addrs)-i), time.Second)
		}
		oneCtx, cancel := context.WithTimeout(ctx, share)
		conn, err := d.DialContext(oneCtx, network, net.JoinHostPort(a.String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, failed
}
