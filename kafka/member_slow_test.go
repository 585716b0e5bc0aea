package kafka

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A Kafka that takes 700 ms for every answer is slow, and there (B7): a member joins, and keeps its session.
func TestAMemberJoinsASlowKafka(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "slow", 2), groupClients(t, k.Brokers)
	slow := &slowNet{by: 700 * time.Millisecond}
	clients.dial = slow.dial
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a := w.join(t, clients, "a")
	settle(t, 30*time.Second, 2, a)
	first := a.now()
	answers := slow.answers.Load()
	await(t, 30*time.Second, func() string { return "five more answers, heartbeats most of them" }, func() bool { return slow.answers.Load() > answers+5 })
	if a.now() != first {
		t.Errorf("the session ended though Kafka answered all the time")
	}
}

// slowNet brings every answer late: so long after what was written last.
type slowNet struct {
	by      time.Duration
	answers atomic.Int64
}

func (n *slowNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := dialTCP(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: conn, net: n, closed: make(chan struct{})}, nil
}

type slowConn struct {
	net.Conn
	net    *slowNet
	asked  atomic.Int64 // when, in nanoseconds since 1970; 0 when the answer has begun to come
	closed chan struct{}
	end    atomic.Bool
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.asked.Store(time.Now().UnixNano())
	return c.Conn.Write(b)
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if at := c.asked.Swap(0); err == nil && at != 0 {
		late := time.NewTimer(time.Until(time.Unix(0, at).Add(c.net.by)))
		defer late.Stop()
		select {
		case <-late.C:
			c.net.answers.Add(1)
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (c *slowConn) Close() error {
	if !c.end.Swap(true) {
		close(c.closed)
	}
	return c.Conn.Close()
}
