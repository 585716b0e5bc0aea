package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/gateway"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),    // one for the process, for ever
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"), // sleeps for 10 s before it sees the stop
	)
}

func config(t *testing.T) gateway.Config {
	t.Helper()
	c := gateway.Default()
	c.HTTP.Listen = "127.0.0.1:0"
	c.Kafka.Brokers = backend.Kafka(t).Brokers
	c.Redis.RedisURL = backend.Redis(t)
	c.Auth, c.AllowNoAuth = "none", true
	c.Stream.Drain = time.Second
	return c
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// The whole of a gateway starts, answers, says 503 while it drains, and leaves nothing behind: goleak looks.
func TestAGatewayStartsServesAndStops(t *testing.T) {
	c := config(t)
	c.DrainDelay = time.Second
	g, err := gateway.New(t.Context(), c, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	base := "http://" + g.Addr().String()
	await(t, base+"/__gtg", http.StatusOK)
	for path, want := range map[string]int{"/__live": 200, "/__build-info": 200, "/topics": 200, "/subscriptions": 200, "/nothing": 404} {
		if got, _ := get(t, base+path); got != want {
			t.Errorf("%s answered %d, want %d", path, got, want)
		}
	}
	if _, metrics := get(t, base+"/metrics"); !strings.Contains(metrics, "sluice_owned_partitions") && !strings.Contains(metrics, "sluice_http_requests_total") {
		t.Errorf("/metrics shows no metric of ours: %.300s", metrics)
	}
	cancel()
	await(t, base+"/__gtg", http.StatusServiceUnavailable)
	if err := <-ran; err != nil {
		t.Errorf("the stop: %v", err)
	}
	if conn, err := net.Dial("tcp", g.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the port still listens after the stop")
	}
}

// What a failed start had acquired it gives back, the port included.
func TestAHalfStartIsUndone(t *testing.T) {
	c := config(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.HTTP.Listen = ln.Addr().String()
	_ = ln.Close()
	c.Redis.RedisURL = "redis://127.0.0.1:1/0"
	c.StartTimeout = 2 * time.Second
	if _, err := gateway.New(t.Context(), c, quiet()); sluice.KindOf(err) != sluice.StoreDown {
		t.Fatalf("got %v, want Kind %s", err, sluice.StoreDown)
	}
	again, err := net.Listen("tcp", c.HTTP.Listen)
	if err != nil {
		t.Fatalf("the port is still held: %v", err)
	}
	_ = again.Close()
}

// The start has its bound for Redis as it has for Kafka: one that comes up a moment later is waited for.
func TestTheStartWaitsForRedis(t *testing.T) {
	c := config(t)
	redis := backend.RedisServer(t)
	c.Redis.RedisURL = redis.URL
	redis.Stop(t)
	started := make(chan error, 1)
	var g *gateway.Gateway
	go func() {
		var err error
		g, err = gateway.New(t.Context(), c, quiet())
		started <- err
	}()
	select {
	case err := <-started:
		t.Fatalf("the start did not wait: %v", err)
	case <-time.After(time.Second):
	}
	redis.Start(t)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestNoSettingMeansAnOpenGateway(t *testing.T) {
	for _, c := range []struct {
		auth  string
		allow bool
	}{{"basic", true}, {"none", false}, {"", true}} {
		cfg := gateway.Default()
		cfg.Auth, cfg.AllowNoAuth = c.auth, c.allow
		cfg.Kafka.Brokers, cfg.Redis.RedisURL = []string{"127.0.0.1:1"}, "redis://127.0.0.1:1/0"
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "SLUICE_ALLOW_NO_AUTH") {
			t.Errorf("auth %q, allow %v: %v", c.auth, c.allow, err)
		}
	}
}

func TestTheLogIsOneJSONObjectALine(t *testing.T) {
	t.Setenv("APP_NAME", "sluice-test")
	var out bytes.Buffer
	log := gateway.NewLogger(&out, "warning")
	log.Info("not shown")
	log.Warn("shown", "n", 1)
	line := out.String()
	for _, want := range []string{`"level":"warning"`, `"msg":"shown"`, `"service_name":"sluice-test"`, `"n":1`} {
		if !strings.Contains(line, want) {
			t.Errorf("%s is not in %s", want, line)
		}
	}
	if strings.Count(line, "\n") != 1 {
		t.Errorf("want one line, got %q", line)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func await(t *testing.T, url string, want int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		status, body := get(t, url)
		if status == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s answers %d %s, want %d", url, status, body, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
