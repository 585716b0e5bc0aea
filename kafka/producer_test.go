package kafka

import (
	"context"
	"testing"
	"time"
)

// testProducer runs until the end of the test, and must then stop in time.
func testProducer(t testing.TB, c *Clients) *Producer {
	t.Helper()
	p, err := NewProducer(c, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}
