package webhook

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// forbidden is what belongs to us: listeners, brokers, Redis, the API server. Loopback ones are told apart by their
// port, because a receiver may share the machine; anywhere else the whole address is denied.
type forbidden struct {
	addrs    []netip.Addr
	loopback []uint16
	names    []string
	resolved map[string][]netip.Addr // of names
	at       time.Time               // of resolved
	busy     bool                    // somebody is resolving
}

// Forbid denies host:port addresses of our own, for good and whatever is allowed. An empty or unspecified host is a
// listener on every address.
func (g *Guard) Forbid(hostports ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range hostports {
		g.forbidden.add(one)
	}
	g.forbidden.at = time.Time{}
}

func (f *forbidden) add(hostport string) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	number, _ := strconv.ParseUint(port, 10, 16)
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	a, err := netip.ParseAddr(host)
	a = a.Unmap()
	switch {
	case host == "" || host == "localhost" || (err == nil && (a.IsLoopback() || a.IsUnspecified())):
		f.loopback = append(f.loopback, uint16(number))
	case err == nil:
		f.addrs = append(f.addrs, a.WithZone(""))
	case !slices.Contains(f.names, host):
		f.names = append(f.names, host)
	}
}

func (g *Guard) isForbiddenName(host string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Contains(g.forbidden.names, host)
}

// isForbidden also looks behind IPv6 forms that embed IPv4.
func (g *Guard) isForbidden(a netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range append(embedded(a), a) {
		if slices.Contains(g.forbidden.addrs, one) {
			return true
		}
		for _, addrs := range g.forbidden.resolved {
			if slices.Contains(addrs, one) {
				return true
			}
		}
	}
	return false
}

// learn looks up the names of what is forbidden, at most every 30 s; who comes meanwhile uses what was known. A name
// that does not resolve keeps its last addresses.
func (g *Guard) learn(ctx context.Context) {
	g.mu.Lock()
	due := len(g.forbidden.names) > 0 && !g.forbidden.busy && time.Since(g.forbidden.at) > positiveFor
	if !due {
		g.mu.Unlock()
		return
	}
	g.forbidden.busy = true
	wanted := slices.Clone(g.forbidden.names)
	g.mu.Unlock()
	found := map[string][]netip.Addr{}
	for _, host := range wanted {
		if addrs, err := g.names.lookup(ctx, host); err == nil {
			found[host] = addrs
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.forbidden.resolved == nil {
		g.forbidden.resolved = map[string][]netip.Addr{}
	}
	for host, addrs := range found {
		g.forbidden.resolved[host] = addrs
	}
	g.forbidden.busy, g.forbidden.at = false, time.Now()
}
