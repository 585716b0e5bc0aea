package backend_test

import (
	"net"
	"net/url"
	"testing"

	"github.com/sluicegate/sluice/sandbox/backend"
)

func TestTopicsGetNamesOfTheirOwn(t *testing.T) {
	k := backend.Kafka(t)
	a, b := k.Topic(t, "orders", 3, "max.message.bytes=25165824"), k.Topic(t, "orders", 1)
	if a == b {
		t.Fatalf("two topics share the name %q", a)
	}
}

func TestAStoppedRedisComesBackOnItsPort(t *testing.T) {
	r := backend.RedisServer(t)
	u, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	r.Stop(t)
	if c, err := net.Dial("tcp", u.Host); err == nil {
		_ = c.Close()
		t.Fatal("a stopped Redis still answers")
	}
	r.Start(t)
	backend.AwaitPort(t, u.Host)
}

func TestAKilledNodeComesBack(t *testing.T) {
	c := backend.Cluster(t, 1)
	c.Kill(t, 1)
	if conn, err := net.Dial("tcp", c.Brokers[0]); err == nil {
		_ = conn.Close()
		t.Fatal("a killed node still answers")
	}
	c.Start(t, 1)
	backend.AwaitPort(t, c.Brokers[0])
}
