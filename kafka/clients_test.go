package kafka

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A client that hangs while it connects holds up those who want the same one, and nobody else. One that failed is
// tried again.
func TestClientsOpenSideBySide(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 100)
	go func() {
		defer close(conns)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	cfg := Default()
	cfg.Brokers = []string{l.Addr().String()}
	c := newClients(cfg, nil)
	hung := make(chan error, 1)
	for range 2 {
		go func() {
			_, err := c.client(roleAdmin, 0) // full metadata: it connects at once
			hung <- err
		}()
	}
	silent := <-conns

	begin := time.Now()
	first, err := c.client(roleCommit, 0) // connects at its first use
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("another client took %v", took)
	}
	if again, err := c.client(roleCommit, 0); err != nil || again != first {
		t.Errorf("the same client twice: %v", err)
	}
	if other, err := c.client(roleCommit, 1); err != nil || other == first {
		t.Errorf("the second of its role: %v", err)
	}
	_ = l.Close()
	_ = silent.Close()
	for conn := range conns {
		_ = conn.Close()
	}
	for range 2 {
		if err := <-hung; !unreachable(err) {
			t.Errorf("the silent broker: %v", err)
		}
	}
	if _, err := c.client(roleAdmin, 0); !unreachable(err) || errors.Is(err, sarama.ErrClosedClient) {
		t.Errorf("tried again: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// After Close nothing opens, and what was being opened is closed.
func TestClosedClientsStayClosed(t *testing.T) {
	k := backend.Kafka(t)
	c := testClients(t, k)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() { _, _ = c.client(roleCommit, i) }) // either way; goleak finds what stays open
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wait.Wait()
	if _, err := c.client(roleCommit, 99); !errors.Is(err, sarama.ErrClosedClient) {
		t.Errorf("open after Close: %v", err)
	}
	if err := NewAdmin(c).Reachable(testContext(t)); sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("reachable after Close: %v", err)
	}
}

// A setting that cannot work stops the start with its name.
func TestConfigNamesWhatIsWrong(t *testing.T) {
	good := Default()
	good.Brokers = []string{"localhost:9092"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"brokers":               func(c *Config) { c.Brokers = nil },
		"produce-timeout":       func(c *Config) { c.ProduceTimeout = time.Millisecond },
		"max-record-bytes":      func(c *Config) { c.MaxRecordBytes = 0 },
		"kafka-fetch-max-bytes": func(c *Config) { c.FetchMaxBytes = 1 },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
