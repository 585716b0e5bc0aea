package kafka

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// kfake keeps its goroutines for a moment after Close; those of the product must be gone by then.
func TestMain(m *testing.M) {
	quiet() // before the first client, as Connect does: a metric of the library starts a ticker that never ends
	goleak.VerifyTestMain(m)
}

// testClients connects to the back end of the test.
func testClients(t testing.TB, k *backend.Broker, change ...func(*Config)) *Clients {
	t.Helper()
	cfg := Default()
	cfg.Brokers = k.Brokers
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := Connect(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// eventually polls until cond holds, or the test fails.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}
