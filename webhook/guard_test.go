package webhook

import (
	"context"
	"errors"
	"net"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluicegate/sluice"
)

// stubborn fails every look-up the same way.
type stubborn struct{ err error }

func (s stubborn) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, s.err
}

func guard(t testing.TB, c GuardConfig, r resolver) *Guard {
	t.Helper()
	g, err := newGuard(c, r, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

var zone = dns{
	"public.example":           {"93.184.216.34"},
	"private.example":          {"10.1.2.3"},
	"mixed.example":            {"10.1.2.3", "93.184.216.34", "::1", "2606:4700:4700::1111"},
	"meta.example":             {"169.254.169.254"},
	"mapped.example":           {"::ffff:10.1.2.3"},
	"loop.example":             {"127.0.0.1"},
	"nat64.example":            {"64:ff9b::a01:203"},
	"nat64meta.example":        {"64:ff9b::a9fe:a9fe"},
	"metadata.google.internal": {"93.184.216.34"},
	"hook.internal":            {"93.184.216.34"},
	"hook.default.svc":         {"93.184.216.34"},
	"kafka.example":            {"93.184.216.35"},
	"alias-of-kafka.example":   {"93.184.216.35"},
}

// The corpus of addresses that must not be called, in every disguise.
var corpus = []string{
	"http://public.example/", "https://user@public.example/", "https://user:pw@public.example/", "https://public.example/#f", "ftp://public.example/", "https:public.example", "//public.example/",
	"https://public.example:22/", "https://public.example:25/", "https://public.example:6379/", "https://public.example:9092/", "https://public.example:0/", "https://public.example:65536/", "https://public.example:99999999999/", "https://public.example:-1/", "https://public.example:x/",
	"https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/", "https://100.64.0.1/", "https://100.127.255.255/", "https://100.100.100.200/", "https://127.0.0.1/", "https://127.1.2.3/",
	"https://0.0.0.0/", "https://0.1.2.3/", "https://169.254.169.254/", "https://168.63.129.16/", "https://192.0.0.1/", "https://192.0.0.192/", "https://192.0.2.1/", "https://192.31.196.1/", "https://192.52.193.1/", "https://192.88.99.1/", "https://192.175.48.1/",
	"https://198.18.0.1/", "https://198.19.255.255/", "https://198.51.100.1/", "https://203.0.113.1/", "https://224.0.0.1/", "https://239.1.1.1/", "https://240.0.0.1/", "https://255.255.255.255/",
	"http://2130706433/", "https://2130706433/", "https://0x7f.1/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://127.0.1/", "https://1.1/", "https://017700000001/", "https://0xA9FEA9FE/", "https://0x7f.0.0.1/", "https://127.0.0.0x1/", "https://1.1.1.1.1/", "https://256.1.1.1/",
	"https://127.0.0.1./", "https://10.0.0.1./", "https://8.8.8.8./", "https://localhost./", "https://2130706433./", "https://metadata.google.internal./",
	"https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:10.0.0.1]/", "https://[::ffff:a9fe:a9fe]/", "https://[::127.0.0.1]/", "https://[::a9fe:a9fe]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b::a9fe:a9fe]/", "https://[64:ff9b::8.8.8.8]/",
	"https://[64:ff9b:1::7f00:1]/", "https://[2002:7f00:1::]/", "https://[2002:a9fe:a9fe::1]/", "https://[2002:808:808::1]/", "https://[2001:0:7f00:1::]/", "https://[2001:0:808:808:0:0:80ff:fffe]/", "https://[2001::1]/", "https://[2001:db8::1]/", "https://[3fff::1]/", "https://[fc00::1]/", "https://[fd00:ec2::254]/",
	"https://[fd20:ce::254]/", "https://[fe80::1]/", "https://[fe80::1%25eth0]/", "https://[fec0::1]/", "https://[ff02::1]/", "https://[100::1]/", "https://[100:0:0:1::1]/", "https://[5f00::1]/", "https://[2606:4700::5efe:a9fe:a9fe]/", "https://[2606:4700::200:5efe:7f00:1]/", "https://[2606:4700:4700::1111%25lo]/",
	"https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://printer.local/", "https://hook.internal/", "https://hook.default.svc/", "https://hook.default.svc.cluster.local/", "https://metadata.google.internal/", "https://METADATA.google.internal/",
	"https://private.example/", "https://meta.example/", "https://mapped.example/", "https://loop.example/", "https://nat64.example/", "https://nat64meta.example/", "https://unknown.example/",
	"https://bücher.example/", "https://a..example/", "https://.example/", "https://a_b%00.example/", "https://a%20b.example/", "https://exa mple/", "https:///x", "https://", "", "x", "https://[", "https://[1.2.3.4]/", "https://public.example,other.example/", "https://public.example\\@10.0.0.1/",
}

var permitted = []string{
	"https://public.example/", "https://PUBLIC.example./", "https://public.example:8443/hook?a=b", "https://public.example:80/", "https://public.example:8080/", "https://mixed.example/",
	"https://100.63.255.254/", "https://100.128.0.1/", "https://[2606:4700:4700::1111]/", "https://8.8.8.8/", "https://[::ffff:8.8.8.8]/", "https://172.15.255.255/", "https://172.32.0.1/", "https://11.0.0.1/",
}

// No setting is open here: everything of the corpus is refused when it is registered, with one text, and when it is
// called, without a connection.
func TestGuardCorpus(t *testing.T) {
	g := guard(t, GuardConfig{}, zone)
	s := sender(t, g)
	if s.transport.DialContext == nil {
		t.Fatal("the sender dials past the guard")
	}
	var texts sync.Map
	var wg sync.WaitGroup // refusals take their time
	for _, one := range corpus {
		wg.Go(func() {
			err := g.Check(t.Context(), one)
			if sluice.KindOf(err) != sluice.Invalid {
				t.Errorf("%s may be registered: %v", one, err)
				return
			}
			texts.Store(err.Error(), true)
			u, err := url.Parse(one)
			if err != nil || u.Hostname() == "unknown.example" { // at the dial a name without an address is DNS's affair
				return
			}
			if _, ok := g.target(u); ok {
				if conn, err := g.DialContext(t.Context(), "tcp", net.JoinHostPort(u.Hostname(), "443")); !errors.Is(err, ErrBlocked) {
					t.Errorf("%s may be dialled: %v %v", one, conn, err)
				}
			}
			if o := send(t, s, one); o.Class == S || o.Reason != "blocked_address" {
				t.Errorf("%s was called: %+v", one, o)
			}
		})
	}
	wg.Wait()
	count := 0
	texts.Range(func(any, any) bool { count++; return true })
	if count != 1 {
		t.Errorf("refusals tell their causes apart: %d texts", count)
	}
	for _, one := range permitted {
		if err := g.Check(t.Context(), one); err != nil {
			t.Errorf("%s: %v", one, err)
		}
	}
}

// What the operator opens is open, and what nobody may open stays shut.
func TestGuardSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config    GuardConfig
		good, bad []string
	}{
		"cidr": {GuardConfig{AllowCIDRs: []string{"10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "fd00::/8"}},
			[]string{"https://10.0.0.1/", "http://10.0.0.1/", "https://private.example/", "https://mapped.example/", "https://[fd00::1]/", "https://100.64.0.1/"},
			[]string{"https://169.254.169.254/", "https://meta.example/", "https://[fd00:ec2::254]/", "https://100.100.100.200/", "http://private.example/", "https://192.168.0.1/", "https://10.0.0.1:9092/", "https://nat64.example/", "https://[::ffff:169.254.169.254]/"}},
		"everything": {GuardConfig{AllowCIDRs: []string{"0.0.0.0/0", "::/0"}, AllowHTTP: true},
			[]string{"http://192.168.0.1/", "http://public.example", "https://nat64.example/", "https://[2002:808:808::1]/", "https://[fc00::1]/"},
			[]string{"http://127.0.0.1/", "http://[::1]/", "http://0.0.0.0/", "http://[::]/", "http://169.254.169.254/", "http://[fe80::1]/", "http://nat64meta.example/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[::7f00:1]/", "http://224.0.0.1/", "http://255.255.255.255/", "http://[ff02::1]/",
				"http://[2001:0:7f00:1::]/", "http://[2001:0:808:808::5601:5601]/", "http://192.0.0.192/", "http://168.63.129.16/", "http://[::ffff:127.0.0.1]/", "http://localhost/", "http://loop.example/", "http://metadata.google.internal/", "http://2130706433/"}},
		"hosts": {GuardConfig{AllowHosts: []string{"private.example", "*.default.svc", "hook.internal", "meta.example", "*.google.internal", "loop.example"}},
			[]string{"http://private.example/", "https://hook.default.svc/", "http://hook.internal:8080/"},
			[]string{"https://default.svc/", "https://meta.example/", "https://metadata.google.internal/", "https://loop.example/", "https://other.internal/", "https://xprivate.example/", "https://10.1.2.3/", "https://private.example:9092/"}},
		"nat64": {GuardConfig{AllowCIDRs: []string{"64:ff9b::/96"}},
			[]string{"https://[64:ff9b::8.8.8.8]/"}, []string{"https://nat64.example/", "https://nat64meta.example/", "https://[64:ff9b::7f00:1]/"}},
		"ports": {GuardConfig{Ports: "9000, 9100-9110"},
			[]string{"https://public.example:9000/", "https://public.example:9105/", "https://public.example/"}, []string{"https://public.example:9001/", "https://public.example:9111/", "https://127.0.0.1:9000/"}},
		"loopback": {GuardConfig{AllowLoopback: "9900,9950-9960"},
			[]string{"http://127.0.0.1:9900/", "http://localhost:9955/", "https://[::1]:9960/", "http://127.9.9.9:9900/"},
			[]string{"http://127.0.0.1:9901/", "http://127.0.0.1:80/", "http://localhost/", "http://[::ffff:127.0.0.1]:9900/", "http://public.example:9900/", "http://0.0.0.0:9900/", "http://127.1:9900/", "https://10.0.0.1:9900/"}},
		"dev": {GuardConfig{AnyLoopback: true},
			[]string{"http://127.0.0.1:8083/", "http://localhost:1/", "http://a.localhost:65535/", "http://[::1]:8083/"},
			[]string{"http://10.0.0.1/", "http://public.example/", "http://0.0.0.0:8083/", "http://127.0.0.1:0/", "http://169.254.169.254/"}},
	} {
		zone := dns(map[string][]string(zone))
		g := guard(t, c.config, with(zone, "localhost", "127.0.0.1", "a.localhost", "127.0.0.1"))
		for _, one := range c.good {
			if err := g.Check(t.Context(), one); err != nil {
				t.Errorf("%s: %s is refused", name, one)
			}
		}
		for _, one := range c.bad {
			if err := g.Check(t.Context(), one); err == nil {
				t.Errorf("%s: %s is allowed", name, one)
			}
		}
	}
}

func with(z dns, pairs ...string) dns {
	all := dns{}
	for k, v := range z {
		all[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = []string{pairs[i+1]}
	}
	return all
}

// Our own listeners, the brokers and Redis are shut even where loopback or everything is open.
func TestForbiddenIsNeverOpened(t *testing.T) {
	t.Parallel()
	g := guard(t, GuardConfig{AnyLoopback: true, AllowCIDRs: []string{"0.0.0.0/0"}, AllowHosts: []string{"kafka.example"}, KubernetesHost: "10.96.0.1"}, with(zone, "localhost", "127.0.0.1"))
	g.Forbid("127.0.0.1:8082", ":8090", "[::]:8091", "localhost:6379", "10.9.9.9:9092", "kafka.example:9092")
	for _, one := range []string{"http://127.0.0.1:8082/", "http://localhost:8082/", "http://[::1]:8082/", "http://127.0.0.2:8090/", "http://127.0.0.1:8091/", "http://127.0.0.1:6379/", "https://10.9.9.9/", "https://[::ffff:10.9.9.9]/", "https://10.96.0.1/",
		"https://kafka.example/", "https://KAFKA.example./", "https://alias-of-kafka.example/", "https://93.184.216.35/"} {
		if err := g.Check(t.Context(), one); err == nil {
			t.Errorf("%s is allowed", one)
		}
	}
	for _, one := range []string{"http://127.0.0.1:8083/", "https://10.9.9.8/", "https://public.example/"} {
		if err := g.Check(t.Context(), one); err != nil {
			t.Errorf("%s is refused", one)
		}
	}
}

func TestOwnAddressesAreForbidden(t *testing.T) {
	t.Parallel()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, GuardConfig{AllowCIDRs: []string{"0.0.0.0/0", "::/0"}}, zone)
	for _, a := range addrs {
		ip := netip.MustParsePrefix(a.String()).Addr()
		if err := g.Check(t.Context(), "https://"+net.JoinHostPort(ip.WithZone("").String(), "443")+"/"); err == nil {
			t.Errorf("our own address %v is allowed", ip)
		}
	}
}

// rebinding answers with a public address first and with a private one from then on.
type rebinding struct {
	asked atomic.Int32
	then  string
}

func (r *rebinding) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if r.asked.Add(1) == 1 {
		return []netip.Addr{netip.MustParseAddr("93.184.216.34")}, nil
	}
	return []netip.Addr{netip.MustParseAddr(r.then)}, nil
}

// A name that meant something harmless when it was registered is judged by what it means now. Nothing connects.
func TestRebinding(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	g := guard(t, GuardConfig{AllowHTTP: true, Ports: port}, &rebinding{then: "127.0.0.1"})
	target := "http://rebind.example:" + port + "/"
	if err := g.Check(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	clear(g.names.cache) // 30 s later
	if o := send(t, sender(t, g), target); o.Class != E || o.Reason != "blocked_address" || o.Error != ErrBlocked.Error() || o.Response != nil {
		t.Errorf("%+v", o)
	}
	if n := testutil.ToFloat64(g.blocked.WithLabelValues("dial")); n != 1 {
		t.Errorf("%v counted", n)
	}
}

// The socket itself is the last check: an address that slips through resolution does not connect.
func TestTheSocketIsCheckedToo(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	addr := netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))
	g := guard(t, GuardConfig{}, zone)
	d := g.dialer(target{host: "public.example", port: addr.Port()})
	if conn, err := d.DialContext(t.Context(), "tcp", addr.String()); !errors.Is(err, ErrBlocked) {
		t.Errorf("%v %v", conn, err)
	}
	d = guard(t, GuardConfig{AnyLoopback: true}, zone).dialer(target{port: addr.Port() + 1})
	if conn, err := d.DialContext(t.Context(), "tcp", addr.String()); !errors.Is(err, ErrBlocked) {
		t.Errorf("another port: %v %v", conn, err)
	}
}

// Of one good and one denied address the good one is used.
func TestOneGoodAddressIsEnough(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	g := guard(t, GuardConfig{AllowLoopback: port}, dns{"both.localhost": {"169.254.169.254", "10.0.0.1", "::", "127.0.0.1"}})
	if o := send(t, sender(t, g), "http://both.localhost:"+port+"/"); o.Status != 404 {
		t.Errorf("%+v", o)
	}
}

func TestAnAddressThatFailsGivesWayToTheNext(t *testing.T) {
	server := httptest.NewServer(nil) // on 127.0.0.1 only
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	for _, addrs := range [][]string{{"127.0.0.2", "127.0.0.1"}, {"::1", "127.0.0.1"}, {"127.0.0.1", "::1"}} {
		g := guard(t, GuardConfig{AllowLoopback: port}, dns{"two.localhost": addrs})
		if o := send(t, sender(t, g), "http://two.localhost:"+port+"/"); o.Status != 404 {
			t.Errorf("%v: %+v", addrs, o)
		}
	}
}

func TestLookUpsAreSharedAndShort(t *testing.T) {
	counting := &rebinding{then: "93.184.216.34"}
	g := guard(t, GuardConfig{}, counting)
	for range 5 {
		if err := g.Check(t.Context(), "https://public.example/"); err != nil {
			t.Fatal(err)
		}
	}
	if n := counting.asked.Load(); n != 1 {
		t.Errorf("%d look-ups within 30 s", n)
	}
	// A resolver in trouble does not refuse a subscription: every dial asks again anyway.
	if err := guard(t, GuardConfig{}, stubborn{&net.DNSError{IsTemporary: true}}).Check(t.Context(), "https://public.example/"); err != nil {
		t.Error(err)
	}
}

func TestGuardSettingsAreValidated(t *testing.T) {
	for _, c := range []GuardConfig{{AllowCIDRs: []string{"10.0.0.1"}}, {AllowHosts: []string{"*"}}, {AllowHosts: []string{"a b"}}, {AllowHosts: []string{"*foo.example"}}, {AllowHosts: []string{"10.0.0.1"}},
		{Ports: "0"}, {Ports: "70000"}, {Ports: "5-3"}, {Ports: "x"}, {AllowLoopback: "1-"}} {
		if err := c.Validate(); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

// Whatever the text: a URL that passes leads to a host and a port that are allowed, however often it is looked at.
func FuzzURLPolicy(f *testing.F) {
	for _, one := range append(corpus, permitted...) {
		f.Add(one)
	}
	g, err := newGuard(GuardConfig{}, zone, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		got, ok := g.target(u)
		if !ok {
			return
		}
		if u.Scheme != "https" || u.User != nil || !g.ports.has(got.port) {
			t.Errorf("%q passed as %+v", text, got)
		}
		if got.literal.IsValid() && (private(got.literal.Unmap()) || got.literal.IsLoopback() || never(got.literal.Unmap())) {
			t.Errorf("%q passed as the address %v", text, got.literal)
		}
		if a, err := netip.ParseAddr(got.host); err == nil && !got.literal.IsValid() {
			t.Errorf("%q passed as a name and is the address %v", text, a)
		}
		// net/http dials what it finds in the URL: the guard must see the same there.
		again, ok := g.hostPort(u.Hostname(), portOf(u))
		if !ok || again != got {
			t.Errorf("%q: the dial would see %+v, not %+v", text, again, got)
		}
	})
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "443"
}
