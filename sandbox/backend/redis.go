package backend

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox"
)

// Server is the Redis of one test.
type Server struct {
	URL  string
	mini *sandbox.Redis
	args []string
	addr string
	cmd  *exec.Cmd
}

// Redis is the URL of a Redis of the test's own.
func Redis(t testing.TB) string { t.Helper(); return RedisServer(t).URL }

// RedisServer is a Redis of the test's own that can be stopped and started again. What it held survives neither.
func RedisServer(t testing.TB) *Server {
	t.Helper()
	if os.Getenv("TEST_REDIS") != "real" {
		mini, err := sandbox.StartRedis()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(mini.Close)
		return &Server{URL: mini.URL, mini: mini}
	}
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("TEST_REDIS=real needs redis-server on the PATH")
	}
	port := FreePort(t)
	s := &Server{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	s.URL = "redis://" + s.addr + "/0"
	s.args = []string{binary, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--maxmemory-policy", "noeviction", "--dir", t.TempDir(), "--logfile", filepath.Join(t.TempDir(), "redis.log")}
	s.Start(t)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Stop ends the server at once. Its port answers nobody.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.mini != nil {
		s.mini.Mini.Close()
		return
	}
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill redis-server: %v", err)
	}
	_ = s.cmd.Wait() // killed: its exit code says only that
	s.cmd = nil
}

// Start brings a stopped server back on the same port.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if s.mini != nil {
		if err := s.mini.Mini.Restart(); err != nil {
			t.Fatalf("restart miniredis: %v", err)
		}
		return
	}
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	AwaitPort(t, s.addr)
}

// Pause stops a real server by SIGSTOP: its sockets stay open and answer nothing. False: it is embedded, and cannot be.
// The end of the test kills it all the same.
func (s *Server) Pause(t testing.TB) bool {
	t.Helper()
	if s.mini != nil {
		return false
	}
	s.signal(t, syscall.SIGSTOP)
	return true
}

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%v to redis-server: %v", sig, err)
	}
}

// FreePort is a port that nobody listened on a moment ago, below the ephemeral range: a client that probes a closed
// ephemeral port can connect to itself.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := 15_000 + int(time.Now().UnixNano()/1000+serial.Add(1)*131)%15_000
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatal("no free port between 15000 and 30000")
	return 0
}

// AwaitPort returns when something listens on addr, and fails the test when nothing does within 30 s.
func AwaitPort(t testing.TB, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nothing listens on %s", addr)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
