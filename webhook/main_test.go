package webhook

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secretText = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var (
	topicID = sluice.TopicID{0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255}
	now     = time.Date(2026, 11, 23, 4, 47, 12, 0, time.UTC)
)

func subscription(t testing.TB, url, format string) *subscriptions.Subscription {
	t.Helper()
	secret, err := subscriptions.ParseSecret(secretText)
	if err != nil {
		t.Fatal(err)
	}
	return &subscriptions.Subscription{
		ID:       "sub_01jdb2x0000000000000000000",
		Endpoint: subscriptions.Endpoint{URL: url, Timeout: subscriptions.Duration(2 * time.Second)},
		Signing:  subscriptions.Signing{Secrets: []subscriptions.SigningSecret{{ID: "1", Secret: secret}}},
		Payload:  subscriptions.Payload{Format: format},
	}
}

func record(key, value []byte, headers ...sluice.Header) *sluice.Record {
	return &sluice.Record{Topic: "orders.v1", Partition: 3, Offset: 104857, Timestamp: time.UnixMilli(1795409232118), Key: key, Value: value, Headers: headers}
}

func delivery(t testing.TB, url, format string, r *sluice.Record) Delivery {
	t.Helper()
	return Delivery{Subscription: subscription(t, url, format), Record: r, TopicID: topicID, ClusterID: "prod", Attempt: 2, FirstAttempt: now.Add(-5 * time.Second), Now: now}
}

// dns is a resolver by table; what it does not know does not exist.
type dns map[string][]string

func (d dns) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, one := range d[host] {
		all = append(all, netip.MustParseAddr(one))
	}
	return all, nil
}

// devGuard lets the test's own servers be called, as sluice dev does.
func devGuard(t testing.TB) *Guard {
	t.Helper()
	g, err := NewGuard(GuardConfig{AnyLoopback: true}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func sender(t testing.TB, g *Guard) *Sender {
	t.Helper()
	s, err := NewSender(Config{Version: "1.0.0"}, g, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
