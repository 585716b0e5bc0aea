package webhook

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	lookupFor   = 3 * time.Second
	positiveFor = 30 * time.Second
	negativeFor = 5 * time.Second
	maxNames    = 10_000
	downAfter   = 3 // different names in a row without one answer: it is the resolver, not the names
)

// errResolverDown wraps a failed look-up when no name at all can be looked up.
var errResolverDown = errors.New("the resolver does not answer")

// names looks hosts up for the guard: bounded in time, cached shortly, one look-up for all who ask.
type names struct {
	resolver resolver
	flight   singleflight.Group

	mu      sync.Mutex
	cache   map[string]answer
	failing map[string]bool // names that failed since the last answer of any kind
}

type answer struct {
	addrs []netip.Addr
	err   error
	until time.Time
}

func newNames(r resolver) *names {
	return &names{resolver: r, cache: map[string]answer{}, failing: map[string]bool{}}
}

// lookup is the addresses of host, unmapped; the error is a *net.DNSError, with errResolverDown around it when it is
// not about this name, or that of ctx.
func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	known, there := n.cache[host]
	n.mu.Unlock()
	if there && time.Now().Before(known.until) {
		return known.addrs, known.err
	}
	done := n.flight.DoChan(host, func() (any, error) {
		// Detached: the look-up of one who gave up serves the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupFor)
		defer cancel()
		addrs, err := n.resolver.LookupNetIP(ctx, "ip", host)
		return n.remember(host, addrs, err), nil
	})
	select {
	case r := <-done:
		a := r.Val.(answer)
		return a.addrs, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *names) remember(host string, addrs []netip.Addr, err error) answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := answer{until: time.Now().Add(positiveFor)}
	for _, one := range addrs {
		a.addrs = append(a.addrs, one.Unmap())
	}
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	dns, is := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil || is && dns.IsNotFound:
		clear(n.failing)
	case !is:
		dns = &net.DNSError{Err: "look-up failed", Name: host, IsTimeout: true, IsTemporary: true}
		fallthrough
	default:
		err = dns
		n.failing[host] = true
		if len(n.failing) >= downAfter {
			err = errors.Join(errResolverDown, dns)
		}
	}
	if a.err = err; err != nil {
		a.addrs, a.until = nil, time.Now().Add(negativeFor)
	}
	if len(n.cache) >= maxNames || len(n.failing) >= maxNames {
		clear(n.cache)
		clear(n.failing)
	}
	n.cache[host] = a
	return a
}
