package httpapi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// PullConfig is what the classic consumer API can be told beside consumers.Config: under which address clients come back
// to their instances (rest-api.md 5.3), and two points on which other proxies differ.
type PullConfig struct {
	BaseURL             string   `name:"base-url" env:"SLUICE_BASE_URL" default:"" placeholder:"URL" help:"Fixed beginning of base_uri: scheme, host, port and path prefix."`
	BaseURI             string   `name:"base-uri" env:"SLUICE_BASE_URI" default:"absolute" enum:"absolute,relative" help:"relative leaves scheme and host out of base_uri."`
	BaseURIPrefix       string   `name:"base-uri-prefix" env:"SLUICE_BASE_URI_PREFIX" default:"off" enum:"off,forwarded" help:"forwarded puts X-Forwarded-Prefix into base_uri; clients that add their prefix themselves would then have it twice."`
	TrustedProxies      []string `name:"trusted-proxies" env:"SLUICE_TRUSTED_PROXIES" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10" help:"Who may say by Forwarded and X-Forwarded-* what the client asked for."`
	AdvertisedListeners []string `name:"advertised-listeners" hidden:"" help:"The classic proxy's advertised.listeners."`
	HostName            string   `name:"host-name" hidden:"" help:"The classic proxy's host.name: host or host:port."`
	RecordExtras        bool     `name:"record-extras" env:"SLUICE_RECORD_EXTRAS" default:"true" negatable:"" help:"Give records their timestamp and headers in v2."`
	CommitOffsets       string   `name:"commit-offsets" env:"SLUICE_COMMIT_OFFSETS" default:"last" enum:"last,next" help:"What the offsets of a commit mean: the last record processed, or the next to read."`
}

func defaultPull() PullConfig {
	return PullConfig{
		BaseURI: "absolute", BaseURIPrefix: "off", RecordExtras: true, CommitOffsets: "last",
		TrustedProxies: strings.Split("127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10", ","),
	}
}

func (p PullConfig) validate() error {
	if p.BaseURL != "" {
		if u, err := url.Parse(p.BaseURL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return errors.New("base-url must be an absolute http or https URL without query and fragment")
		}
	}
	for _, l := range p.AdvertisedListeners {
		if u, err := url.Parse(l); err != nil || u.Host == "" {
			return fmt.Errorf("advertised-listeners: %q is no URL", l)
		}
	}
	if _, err := prefixes(p.TrustedProxies); err != nil {
		return err
	}
	switch {
	case p.BaseURI != "absolute" && p.BaseURI != "relative":
		return errors.New("base-uri must be absolute or relative")
	case p.BaseURIPrefix != "off" && p.BaseURIPrefix != "forwarded":
		return errors.New("base-uri-prefix must be off or forwarded")
	case p.CommitOffsets != "last" && p.CommitOffsets != "next":
		return errors.New("commit-offsets must be last or next")
	}
	return nil
}

func prefixes(list []string) (all []netip.Prefix, err error) {
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("trusted-proxies: %q is no network", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		all = append(all, p)
	}
	return all, nil
}

// baseOf is what stands before the path of a base_uri: the first of five that says something (rest-api.md 5.3).
func (s *Server) baseOf(c *fiber.Ctx) string {
	pull := &s.cfg.Pull
	if pull.BaseURI == "relative" {
		return s.linkPrefix(c)
	}
	if pull.BaseURL != "" {
		return strings.TrimRight(pull.BaseURL, "/") + s.forwardedPrefix(c)
	}
	scheme := "http"
	if c.Context().IsTLS() {
		scheme = "https"
	}
	host := string(c.Request().Header.Host()) // as sent
	if host == "" {                           // HTTP/1.0
		host = c.Context().LocalAddr().String()
	}
	for _, l := range pull.AdvertisedListeners {
		if strings.HasPrefix(l, scheme+"://") {
			if u, err := url.Parse(l); err == nil && strings.Trim(u.Path, "/") != "" { // the prefix is in it
				return strings.TrimRight(l, "/") + s.forwardedPrefix(c)
			}
			return strings.TrimRight(l, "/") + s.linkPrefix(c)
		}
	}
	switch {
	case pull.HostName != "":
		host = s.hostName(host)
	case s.trusted(c):
		scheme, host = forwarded(c, scheme, host)
	}
	return scheme + "://" + host + s.linkPrefix(c)
}

// hostName adds our port to the configured name if that has none, but only for a client that needed one itself.
func (s *Server) hostName(asked string) string {
	name := s.cfg.Pull.HostName
	if _, _, err := net.SplitHostPort(name); err == nil {
		return name
	}
	if _, _, err := net.SplitHostPort(asked); err != nil || s.ln == nil {
		return name
	}
	_, port, err := net.SplitHostPort(s.ln.Addr().String())
	if err != nil {
		return name
	}
	return net.JoinHostPort(strings.Trim(name, "[]"), port)
}

func (s *Server) trusted(c *fiber.Ctx) bool {
	peer, err := netip.ParseAddrPort(c.Context().RemoteAddr().String())
	if err != nil {
		return false
	}
	for _, p := range s.proxies {
		if p.Contains(peer.Addr().Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// forwarded reads what a proxy says of the request as the client sent it: Forwarded (RFC 7239), else X-Forwarded-*.
// Of several proxies the first, nearest to the client, counts.
func forwarded(c *fiber.Ctx, scheme, host string) (string, string) {
	if all := c.Get(fiber.HeaderForwarded); all != "" {
		first, _, _ := strings.Cut(all, ",")
		for pair := range strings.SplitSeq(first, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value = strings.Trim(value, `"`)
			switch {
			case strings.EqualFold(name, "proto") && isScheme(value):
				scheme = strings.ToLower(value)
			case strings.EqualFold(name, "host") && isAuthority(value):
				host = value
			}
		}
		return strings.Clone(scheme), strings.Clone(host)
	}
	if proto := firstOf(c, fiber.HeaderXForwardedProto); isScheme(proto) {
		scheme = strings.ToLower(proto)
	}
	if name := firstOf(c, fiber.HeaderXForwardedHost); isAuthority(name) {
		host = name
	}
	if port := firstOf(c, "X-Forwarded-Port"); isPort(port) {
		bare := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			bare = h
		}
		host = strings.Trim(bare, "[]")
		if standard := map[string]string{"http": "80", "https": "443"}[scheme]; port != standard {
			host = net.JoinHostPort(host, port)
		} else if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
	}
	return strings.Clone(scheme), strings.Clone(host)
}

func firstOf(c *fiber.Ctx, header string) string {
	first, _, _ := strings.Cut(c.Get(header), ",")
	return strings.TrimSpace(first)
}

func isScheme(s string) bool { return strings.EqualFold(s, "http") || strings.EqualFold(s, "https") }

func isAuthority(s string) bool {
	u, err := url.Parse("http://" + s)
	return err == nil && s != "" && u.Host == s
}

func isPort(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && len(s) <= 5
}

// linkPrefix is what stood before the path of this request where its client sent it: what a proxy has stripped, if that
// is to be put back, and the base path. A proxy that names the base path and does not strip it says it a second time.
func (s *Server) linkPrefix(c *fiber.Ctx) string {
	stripped, base := s.forwardedPrefix(c), s.basePath(c)
	if base != "" && strings.HasSuffix(stripped, base) {
		return stripped
	}
	return stripped + base
}

// forwardedPrefix is the path that a proxy has stripped, if it is to be put back.
func (s *Server) forwardedPrefix(c *fiber.Ctx) string {
	if s.cfg.Pull.BaseURIPrefix != "forwarded" || !s.trusted(c) {
		return ""
	}
	prefix := strings.TrimRight(firstOf(c, "X-Forwarded-Prefix"), "/")
	if u, err := url.Parse(prefix); err != nil || u.Path != prefix || !strings.HasPrefix(prefix, "/") || strings.HasPrefix(prefix, "//") {
		return ""
	}
	return strings.Clone(prefix)
}
