package webhook

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// rules is the static part of the guard: what the operator opened.
type rules struct {
	cidrs    []netip.Prefix
	exact    []string
	suffixes []string // with the leading dot
	http     bool
	ports    ports
	loopback ports
}

func newRules(c GuardConfig) (rules, error) {
	r := rules{http: c.AllowHTTP}
	for _, text := range c.AllowCIDRs {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return rules{}, fmt.Errorf("webhook-allow-cidrs: %q is no network such as 10.0.0.0/8", text)
		}
		r.cidrs = append(r.cidrs, p.Masked())
	}
	for _, text := range c.AllowHosts {
		host := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(text)), ".")
		suffix, wild := strings.CutPrefix(host, "*")
		switch {
		case wild && strings.HasPrefix(suffix, ".") && legalName(suffix[1:]):
			r.suffixes = append(r.suffixes, suffix)
		case !wild && legalName(host):
			r.exact = append(r.exact, host)
		default:
			return rules{}, fmt.Errorf("webhook-allow-hosts: %q is neither a name nor *.suffix", text)
		}
	}
	var err error
	if r.ports, err = parsePorts(c.Ports); err != nil {
		return rules{}, fmt.Errorf("webhook-ports: %w", err)
	}
	r.ports = append(r.ports, portRange{443, 443}, portRange{8443, 8443}, portRange{80, 80}, portRange{8080, 8080})
	if r.loopback, err = parsePorts(c.AllowLoopback); err != nil {
		return rules{}, fmt.Errorf("webhook-allow-loopback: %w", err)
	}
	if c.AnyLoopback {
		r.loopback = ports{{1, 65535}}
	}
	return r, nil
}

func (r rules) inCIDRs(a netip.Addr) bool {
	return slices.ContainsFunc(r.cidrs, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (r rules) onList(host string) bool {
	return slices.Contains(r.exact, host) ||
		slices.ContainsFunc(r.suffixes, func(s string) bool { return strings.HasSuffix(host, s) && len(host) > len(s) })
}

type portRange struct{ first, last uint16 }

type ports []portRange

func (p ports) has(port uint16) bool {
	return slices.ContainsFunc(p, func(r portRange) bool { return port >= r.first && port <= r.last })
}

// parsePorts reads 9900,9950-9960.
func parsePorts(text string) (ports, error) {
	var all ports
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
		last, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
		if err1 != nil || err2 != nil || first == 0 || last < first {
			return nil, fmt.Errorf("%q is neither a port nor a range such as 9950-9960", part)
		}
		all = append(all, portRange{uint16(first), uint16(last)})
	}
	return all, nil
}

// legalName is a host name as DNS knows it, and not a number in disguise: a host whose last label is numeric or hex is
// an address to some parser or other (WHATWG URL, "ends in a number").
func legalName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	last := labels[len(labels)-1]
	if strings.HasPrefix(last, "0x") || last[0] >= '0' && last[0] <= '9' && digits(last) {
		return false
	}
	return true
}

// internalName is what only makes sense inside: denied unless the operator lists it.
func internalName(host string) bool {
	for _, name := range []string{"localhost", "local", "internal", "svc"} {
		if host == name || strings.HasSuffix(host, "."+name) {
			return true
		}
	}
	return false // *.svc.cluster.local ends in .local
}

var (
	denied4 = prefixes("0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 " +
		"192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 " +
		"224.0.0.0/4 240.0.0.0/4 255.255.255.255/32 168.63.129.16/32")
	public6 = netip.MustParsePrefix("2000::/3")
	denied6 = prefixes("2001::/23 2001:db8::/32 2002::/16 3fff::/20")

	// No setting opens these: this host, link-local, the metadata services of the clouds, multicast.
	always = prefixes("0.0.0.0/8 169.254.0.0/16 100.100.100.200/32 192.0.0.192/32 168.63.129.16/32 224.0.0.0/4 255.255.255.255/32 " +
		"::/128 fe80::/10 ff00::/8 fd00:ec2::254/128 fd00:ec2::23/128 fd20:ce::254/128")

	nat64Known = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	compatible = netip.MustParsePrefix("::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
)

func prefixes(text string) []netip.Prefix {
	var all []netip.Prefix
	for one := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func within(a netip.Addr, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// private is the table of addresses that are denied unless the operator allows them. a is unmapped.
func private(a netip.Addr) bool {
	if a.Is4() {
		return within(a, denied4)
	}
	return !public6.Contains(a) || within(a, denied6)
}

// never is the table that no setting opens, with every IPv6 form that embeds one of it or a loopback address. a is
// unmapped and no loopback itself.
func never(a netip.Addr) bool {
	if within(a, always) {
		return true
	}
	return slices.ContainsFunc(embedded(a), func(v4 netip.Addr) bool { return v4.IsLoopback() || within(v4, always) })
}

// embedded is every IPv4 address that a may stand for: NAT64, IPv4-compatible, 6to4, Teredo's server and client, ISATAP.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	low := netip.AddrFrom4([4]byte(b[12:]))
	switch {
	case nat64Known.Contains(a), nat64Local.Contains(a), compatible.Contains(a):
		return []netip.Addr{low}
	case sixToFour.Contains(a):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	case teredo.Contains(a):
		client := binary.BigEndian.AppendUint32(nil, ^binary.BigEndian.Uint32(b[12:]))
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte(client))}
	case b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe:
		return []netip.Addr{low}
	}
	return nil
}
