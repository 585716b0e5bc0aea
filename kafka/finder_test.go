package kafka

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// mute is a broker that takes connections and says nothing.
func mute(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return ln.Addr().String()
}

// A broker that hangs costs one asker one second, and the next ten seconds nobody anything.
func TestFinderPassesAHungBrokerOnce(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	c := newClients(Default(), nil)
	f := newFinder(c.config(roleOwn), dialTCP, append([]string{mute(t)}, k.Brokers...))
	f.brokers = f.seeds
	defer f.close()
	f.failed[k.Brokers[0]] = time.Now() // so that the mute one is asked first
	began := time.Now()
	want, err := f.coordinator(within(t, 5*time.Second), "g")
	took := time.Since(began)
	if err != nil || took < askTime || took > 2*askTime {
		t.Fatalf("after %v: %q, %v", took, want, err)
	}
	began = time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got, err := f.coordinator(within(t, 5*time.Second), "g"); err != nil || got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > askTime {
		t.Errorf("50 look-ups past a hung broker took %v", took)
	}
}

// Every seed may go away once metadata has named the others; a closed finder fails at once.
func TestFinderLearnsTheBrokers(t *testing.T) {
	t.Parallel()
	k := backend.KafkaOf(t, 3)
	f := newFinder(newClients(Default(), nil).config(roleOwn), dialTCP, k.Brokers[:1])
	if _, err := f.coordinator(within(t, 5*time.Second), "g"); err != nil {
		t.Fatal(err)
	}
	if !k.Real() && len(f.brokers) < 3 {
		t.Errorf("knows %v of %v", f.brokers, k.Brokers)
	}
	f.close()
	if _, err := f.coordinator(within(t, 5*time.Second), "g"); !errors.Is(err, sarama.ErrClosedClient) {
		t.Errorf("closed: %v", err)
	}
}

// No broker at all: the caller hears of it within its time.
func TestFinderWithoutBrokersFailsInTime(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := ln.Addr().String()
	_ = ln.Close()
	f := newFinder(newClients(Default(), nil).config(roleOwn), dialTCP, []string{refusing, mute(t), mute(t)})
	defer f.close()
	began := time.Now()
	if addr, err := f.coordinator(within(t, 1500*time.Millisecond), "g"); err == nil {
		t.Errorf("found %q", addr)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}
