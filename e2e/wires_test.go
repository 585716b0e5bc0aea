package e2e

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
)

// wires are the connections to a Kafka, told apart by the process and by the client in it: each request of the protocol
// begins with the client's id. Toxiproxy knows no such thing.
type wires struct {
	t    *testing.T
	done sync.WaitGroup

	mu    sync.Mutex
	all   map[*wire]bool
	holes map[hole]bool
	lost  map[hole]int // bytes
	close []func()
}

// hole is where packets get lost: between one process's clients of one role and all brokers.
type hole struct {
	pid  int
	role string // the client id
}

type wire struct {
	client, broker net.Conn
	known          chan struct{} // closed when it is known whose it is
	hole           hole
}

func newWires(t *testing.T) *wires {
	w := &wires{t: t, all: map[*wire]bool{}, holes: map[hole]bool{}, lost: map[hole]int{}}
	t.Cleanup(func() {
		w.mu.Lock()
		for _, stop := range w.close {
			stop()
		}
		for one := range w.all {
			_ = one.client.Close()
			_ = one.broker.Close()
		}
		w.mu.Unlock()
		w.done.Wait()
	})
	return w
}

// to passes connections on to upstream, and returns where it listens.
func (w *wires) to(upstream string) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	senders := peers.NewSenders(l.Addr().(*net.TCPAddr).Port)
	w.close = append(w.close, func() { _ = l.Close() }, senders.Stop)
	w.done.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			broker, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = client.Close()
				continue
			}
			one := &wire{client: client, broker: broker, known: make(chan struct{})}
			w.mu.Lock()
			w.all[one] = true
			w.mu.Unlock()
			senders.Find(client.RemoteAddr().(*net.TCPAddr).Port, func(pid int) {
				w.mu.Lock()
				defer w.mu.Unlock()
				one.hole.pid = pid
				close(one.known)
			})
			w.done.Go(func() { w.carry(one, client, broker) })
			w.done.Go(func() { w.carry(one, broker, client) })
		}
	})
	return l.Addr().String(), nil
}

// carry copies one direction until either end closes.
func (w *wires) carry(one *wire, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for first := from == one.client; ; first = false {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if first {
			w.mu.Lock()
			one.hole.role = clientID(buf[:n])
			holes := len(w.holes)
			w.mu.Unlock()
			if holes > 0 { // a single exchange that gets through is enough to keep a session
				select {
				case <-one.known:
				case <-time.After(time.Second):
				}
			}
		}
		if !w.swallows(one, n) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

func (w *wires) swallows(one *wire, n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holes[one.hole] {
		w.lost[one.hole] += n
		return true
	}
	return false
}

// clientID is that of a request: size int32, key int16, version int16, correlation id int32, client id as a string.
func clientID(request []byte) string {
	if len(request) < 14 {
		return ""
	}
	n := int(request[12])<<8 | int(request[13])
	if len(request) < 14+n {
		return ""
	}
	return string(request[14 : 14+n])
}

// blackHole loses every packet of these clients of a process from now on, also on new connections.
func (w *wires) blackHole(pid int, roles ...string) (mend func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, role := range roles {
		w.holes[hole{pid, role}] = true
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, role := range roles {
			delete(w.holes, hole{pid, role})
		}
		for one := range w.all { // what is in the middle of a request cannot go on
			if one.hole.pid == pid && strings.Contains(strings.Join(roles, " "), one.hole.role) {
				_ = one.client.Close()
				_ = one.broker.Close()
				delete(w.all, one)
			}
		}
	}
}

// swallowed is how many bytes of these clients of a process were lost.
func (w *wires) swallowed(pid int, roles ...string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, role := range roles {
		n += w.lost[hole{pid, role}]
	}
	return n
}
