package httpapi

import (
	"strings"
	"testing"
	"time"
)

// All headers together have a limit, and it is the one that was set.
func TestHeadersHaveTheLimitThatWasSet(t *testing.T) {
	long := strings.Repeat("x", 12<<10)
	for limit, status := range map[int]int{Default().MaxHeader: 200, 8 << 10: 431, 64 << 10: 200} {
		w := start(t, func(c *Config, _ *Needs) { c.MaxHeader = limit })
		if got := w.raw("GET /topics HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Long: " + long + "\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 "+map[int]string{200: "200", 431: "431"}[status]) {
			t.Errorf("limit %d: %.60q, want %d", limit, got, status)
		}
	}
}

// fasthttp closes idle connections; a test of three minutes would only show that.
func TestIdleConnectionsStayAsLongAsWasSet(t *testing.T) {
	c := Default()
	c.IdleTimeout = 7 * time.Minute
	s, err := New(c, Needs{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.app.Server().IdleTimeout; got != 7*time.Minute {
		t.Errorf("%s", got)
	}
	c.IdleTimeout = 2 * time.Minute
	if c.Validate() == nil {
		t.Error("shorter than its clients'")
	}
}
