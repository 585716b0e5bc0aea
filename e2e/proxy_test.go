package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// network is the way to a dependency, one proxy per address, and what can be wrong with it.
type network struct {
	server  *toxiproxy.ApiServer
	proxies []*toxiproxy.Proxy
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
	t.Cleanup(func() {
		for _, p := range n.proxies {
			p.Stop()
		}
	})
	return n
}

// to begins a proxy in front of an address and returns its own.
func (n *network) to(upstream string) (string, error) {
	p := toxiproxy.NewProxy(n.server, fmt.Sprintf("proxy-%d", len(n.proxies)), "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		return "", err
	}
	n.proxies = append(n.proxies, p)
	return p.Listen, nil
}

// slow delays each answer.
func (n *network) slow(t *testing.T, ms int) (mend func(*testing.T)) {
	t.Helper()
	return n.poison(t, "latency", fmt.Sprintf(`{"latency":%d}`, ms))
}

// hole swallows what is said on the connections there are, and on new ones.
func (n *network) hole(t *testing.T) (mend func(*testing.T)) {
	t.Helper()
	return n.poison(t, "timeout", `{"timeout":0}`)
}

func (n *network) poison(t *testing.T, kind, attributes string) (mend func(*testing.T)) {
	t.Helper()
	for _, p := range n.proxies {
		toxic := fmt.Sprintf(`{"name":"fault","type":%q,"stream":"downstream","toxicity":1,"attributes":%s}`, kind, attributes)
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) {
		t.Helper()
		for _, p := range n.proxies {
			if err := p.Toxics.RemoveToxic(context.Background(), "fault"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// down refuses connections and cuts those there are.
func (n *network) down(t *testing.T) (mend func(*testing.T)) {
	t.Helper()
	for _, p := range n.proxies {
		p.Stop()
	}
	return func(t *testing.T) {
		t.Helper()
		for _, p := range n.proxies {
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// kafkaBehind is a Kafka of the test's own whose one broker says that it lives where to leads from: a proxy's address.
func kafkaBehind(t *testing.T, to func(upstream string) (string, error)) *backend.Broker {
	t.Helper()
	if backend.Name() != backend.KFake {
		return &backend.ClusterBehind(t, to).Broker
	}
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{
		"group.initial.rebalance.delay.ms": "0", "message.max.bytes": "25165824",
	}), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addr, err := to(l.Addr().String())
		if err != nil {
			return nil, err
		}
		proxied, err := net.ResolveTCPAddr("tcp", addr)
		return advertised{l, proxied}, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return &backend.Broker{Name: backend.KFake, Brokers: fake.ListenAddrs()}
}

// advertised is a listener that claims to be somewhere else.
type advertised struct {
	net.Listener
	addr net.Addr
}

func (a advertised) Addr() net.Addr { return a.addr }
