package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A record that comes in the moment after a client has left its held read was delivered to nobody, whichever replica the
// client spoke to: the next read gives it.
func TestARecordBehindItsClientStaysBehindAnyReplica(t *testing.T) {
	t.Parallel() // it waits most of the time
	k := backend.Kafka(t)
	topic := k.Topic(t, "left", 1)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t)}
	owner, other := g.replica(t, replicaSecret), g.replica(t, replicaSecret)
	var i struct {
		Base string `json:"base_uri"`
	}
	create := []byte(`{"auto.offset.reset":"earliest","auto.commit.enable":"false","consumer.request.timeout.ms":"20000"}`)
	if err := peers.Call(t.Context(), http.MethodPost, owner.URL+"/consumers/"+backend.Unique("left"), "application/vnd.kafka.v2+json", create, http.StatusOK, &i); err != nil {
		t.Fatal(err)
	}
	subscribe := fmt.Appendf(nil, `{"topics":[%q]}`, topic)
	if err := peers.Call(t.Context(), http.MethodPost, i.Base+"/subscription", "application/vnd.kafka.v2+json", subscribe, http.StatusNoContent, nil); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(i.Base)
	if err != nil {
		t.Fatal(err)
	}
	var got []struct{ Value []byte }
	next := func(through *peers.Replica, want []byte) {
		t.Helper()
		if err := peers.Call(t.Context(), http.MethodGet, through.URL+at.Path+"/records", "", nil, http.StatusOK, &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || !bytes.Equal(got[0].Value, want) {
			t.Fatalf("the read through %s gave %s, want %s", through.URL, got, want)
		}
	}
	send := func(value []byte) {
		t.Helper()
		if err := peers.Produce(t.Context(), owner.URL, topic, []peers.Record{{Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	send([]byte("first"))
	next(owner, []byte("first"))
	for n, through := range []*peers.Replica{owner, other, owner, other} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(through.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s/records HTTP/1.1\r\nHost: sluice\r\n\r\n", at.Path)
		eventually(t, 10*time.Second, "the owner holds the read", func() bool { return metric(t, owner.URL, "sluice_consumer_reads") == 1 })
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		late := fmt.Appendf(nil, "late %d", n)
		send(late)
		next(through, late)
	}
}
