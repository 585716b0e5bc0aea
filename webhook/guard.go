package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sluicegate/sluice"
)

// GuardConfig opens what the guard denies by default. Nothing in it opens the addresses of always.
type GuardConfig struct {
	AllowCIDRs     []string `name:"webhook-allow-cidrs" env:"SLUICE_WEBHOOK_ALLOW_CIDRS" placeholder:"CIDR,..." help:"Private networks whose addresses webhooks may have."`
	AllowHosts     []string `name:"webhook-allow-hosts" env:"SLUICE_WEBHOOK_ALLOW_HOSTS" placeholder:"HOST,..." help:"Hosts that may have private addresses and plain http: a name, or *.suffix."`
	AllowHTTP      bool     `name:"webhook-allow-http" env:"SLUICE_WEBHOOK_ALLOW_HTTP" help:"Allow plain http for every host."`
	Ports          string   `name:"webhook-ports" env:"SLUICE_WEBHOOK_PORTS" placeholder:"PORTS" help:"Ports of webhooks besides 443, 8443, 80 and 8080, such as 9000,9100-9110."`
	AllowLoopback  string   `name:"webhook-allow-loopback" env:"SLUICE_WEBHOOK_ALLOW_LOOPBACK" placeholder:"PORTS" help:"Ports of this machine's loopback that webhooks may call, such as 9900,9950-9960: for a receiver in the same pod."`
	KubernetesHost string   `name:"kubernetes-service-host" env:"KUBERNETES_SERVICE_HOST" hidden:"" help:"The cluster's API server, which no webhook may call."`

	AnyLoopback bool `kong:"-"` // sluice dev: every loopback port and plain http to it
}

// DefaultGuard opens nothing.
func DefaultGuard() GuardConfig { return GuardConfig{} }

// Validate names the first setting that cannot work.
func (c GuardConfig) Validate() error {
	_, err := newRules(c)
	return err
}

// ErrBlocked is what a dial to a denied address ends in. Its text is the same for every cause.
var ErrBlocked = errors.New("the endpoint's address or port is not allowed")

type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Guard keeps webhooks away from what they must not reach. It is asked when a subscription is created, and again at
// every dial.
type Guard struct {
	rules
	names   *names
	log     *slog.Logger
	blocked *prometheus.CounterVec

	mu        sync.Mutex
	forbidden forbidden
}

// NewGuard reads the addresses of this machine's interfaces and looks no name up. reg may be nil.
func NewGuard(c GuardConfig, log *slog.Logger, reg prometheus.Registerer) (*Guard, error) {
	return newGuard(c, &net.Resolver{PreferGo: true}, log, reg)
}

func newGuard(c GuardConfig, r resolver, log *slog.Logger, reg prometheus.Registerer) (*Guard, error) {
	rules, err := newRules(c)
	if err != nil {
		return nil, fmt.Errorf("webhook guard: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Guard{
		rules: rules,
		names: newNames(r),
		log:   log,
		blocked: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{Name: "sluice_ssrf_blocked_total",
			Help: "Endpoints refused by the address guard: when a subscription is written (create) or when it is called (dial)."}, []string{"stage"}),
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("webhook guard: list the addresses of this machine: %w", err)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().Unmap().IsLoopback() {
			g.forbidden.addrs = append(g.forbidden.addrs, p.Addr().Unmap().WithZone(""))
		}
	}
	if c.KubernetesHost != "" {
		g.forbidden.add(net.JoinHostPort(c.KubernetesHost, "443"))
	}
	if c.AllowLoopback != "" {
		log.Warn("webhooks may call loopback ports of this machine", "ports", c.AllowLoopback)
	}
	return g, nil
}

// Check is for the moment a subscription is written: Kind Invalid, with one text for every cause, when the endpoint must
// not be called. A name that cannot be looked up just now passes; every dial decides anew anyway.
func (g *Guard) Check(ctx context.Context, text string) error {
	if g.mayCall(ctx, text) {
		return nil
	}
	g.blocked.WithLabelValues("create").Inc()
	pause(ctx)
	return &sluice.Error{Kind: sluice.Invalid, Msg: "The endpoint's address or port is not allowed.", Err: ErrBlocked}
}

func (g *Guard) mayCall(ctx context.Context, text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	t, ok := g.target(u)
	if !ok {
		return false
	}
	addrs, err := g.resolve(ctx, t)
	if dns, is := errors.AsType[*net.DNSError](err); is && dns.IsNotFound {
		return false
	}
	return err != nil && !errors.Is(err, ErrBlocked) || len(addrs) > 0
}

// target is a host and port that passed every rule that needs no look-up.
type target struct {
	host    string     // lower case, no trailing dot
	literal netip.Addr // of a host that is an address
	port    uint16
	trusted bool // the host is on the operator's list: private addresses are fine
}

// target applies the rules for the URL: scheme, name, literal address, port.
func (g *Guard) target(u *url.URL) (target, bool) {
	if (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return target{}, false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	t, ok := g.hostPort(u.Hostname(), port)
	if !ok {
		return target{}, false
	}
	plain := t.trusted || g.http || g.local(t) || (t.literal.IsValid() && g.inCIDRs(t.literal.Unmap()))
	return t, u.Scheme == "https" || plain
}

func (g *Guard) hostPort(host, port string) (target, bool) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return target{}, false
	}
	t := target{port: uint16(number)}
	if t.literal, err = netip.ParseAddr(host); err == nil {
		t.host = t.literal.String()
		return t, (g.ports.has(t.port) || g.local(t)) && t.literal.Zone() == "" && g.allowed(t.literal, t)
	}
	t.host = strings.TrimSuffix(strings.ToLower(host), ".")
	t.trusted = g.onList(t.host)
	if !legalName(t.host) || g.deniedName(t) {
		return target{}, false
	}
	return t, g.ports.has(t.port) || g.local(t)
}

// local reports whether t names this machine's loopback outright and may be called.
func (g *Guard) local(t target) bool {
	named := t.host == "localhost" || strings.HasSuffix(t.host, ".localhost") || (t.literal.IsValid() && t.literal.IsLoopback() && !t.literal.Is4In6())
	return named && g.loopbackPort(t.port)
}

func (g *Guard) deniedName(t target) bool {
	if t.host == "metadata.google.internal" || g.isForbiddenName(t.host) {
		return true
	}
	return internalName(t.host) && !t.trusted && !g.local(t)
}

// allowed decides about a concrete address, for the port and the trust of t.
func (g *Guard) allowed(a netip.Addr, t target) bool {
	mapped := a.Is4In6()
	if a = a.Unmap(); !a.IsValid() || a.Zone() != "" {
		return false
	}
	if a.IsLoopback() {
		return !mapped && g.loopbackPort(t.port)
	}
	if never(a) || g.isForbidden(a) {
		return false
	}
	if !private(a) {
		return true
	}
	if !t.trusted && !g.inCIDRs(a) {
		return false
	}
	// An allowed prefix that embeds IPv4, such as a NAT64 network, leads to the IPv4 address.
	return !slices.ContainsFunc(embedded(a), func(v4 netip.Addr) bool { return !g.allowed(v4, t) })
}

// loopbackPort never opens what we listen on ourselves, the brokers or Redis.
func (g *Guard) loopbackPort(port uint16) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.loopback.has(port) && !slices.Contains(g.forbidden.loopback, port)
}

// pause makes refusals take a while that says nothing about their cause.
func pause(ctx context.Context) {
	timer := time.NewTimer(10*time.Millisecond + rand.N(50*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
