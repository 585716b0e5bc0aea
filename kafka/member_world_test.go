package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

// await polls until the condition holds. What says what was waited for, and is asked only in the end.
func await(t testing.TB, within time.Duration, what func() string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what())
		}
		<-time.After(2 * time.Millisecond)
	}
}

// groupClients is one process's way to Kafka. It is closed after everything that was started later.
func groupClients(t testing.TB, brokers []string) *Clients {
	t.Helper()
	cfg := Default()
	cfg.Brokers = brokers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := Connect(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// world is a group in a test: its members, and the account of who owned what. The account is checked all the time:
// no partition may have two sessions whose Valid says true.
type world struct {
	group    string
	topics   []string
	assignor sluice.Assignor

	mu      sync.Mutex
	holders map[*holding]bool
	wrongs  []string
}

// holding is one session as its func sees it.
type holding struct {
	who     *replica
	session sluice.Session
	ctx     context.Context
	began   time.Time
	over    time.Time // when its context ended; under the replica's lock
}

func newWorld(t testing.TB, group string, a sluice.Assignor, topics ...string) *world {
	t.Helper()
	w := &world{group: group, topics: topics, assignor: a, holders: map[*holding]bool{}}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.audit()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		for _, wrong := range w.wrongs {
			t.Error(wrong)
		}
	})
	return w
}

func (w *world) audit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*holding, 0, len(w.holders))
	for h := range w.holders {
		list = append(list, h)
	}
	for i, a := range list {
		for _, b := range list[:i] {
			if a.who == b.who || !overlap(a.session, b.session) {
				continue
			}
			// a was valid before and after b was: then both were when b was.
			if a.session.Valid() && b.session.Valid() && a.session.Valid() {
				w.wrongs = append(w.wrongs, fmt.Sprintf("two owners: %s in generation %d and %s in generation %d", a.who.name, a.session.Generation, b.who.name, b.session.Generation))
				delete(w.holders, a)
			}
		}
	}
}

func overlap(a, b sluice.Session) bool {
	for topic, partitions := range a.Claims {
		for _, p := range partitions {
			if slices.Contains(b.Claims[topic], p) {
				return true
			}
		}
	}
	return false
}

// replica is one member of the world.
type replica struct {
	name string
	net  *lossyNet
	stop context.CancelFunc
	done chan struct{}
	err  error

	mu       sync.Mutex
	sessions []*holding
	linger   atomic.Int64 // how long its func works on after its context ended
}

// join starts a member. It leaves at the end of the test at the latest.
func (w *world) join(t testing.TB, c *Clients, name string) *replica {
	t.Helper()
	r := &replica{name: name, net: &lossyNet{under: c.dial}, done: make(chan struct{})}
	groups := NewGroups(c, slog.New(slog.NewTextHandler(testLog{t, name}, &slog.HandlerOptions{Level: slog.LevelDebug})))
	groups.dial = r.net.dial
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	go func() {
		defer close(r.done)
		note := func() []byte { return []byte(name) }
		r.err = groups.Member(ctx, sluice.Membership{Group: w.group, Topics: w.topics, Assignor: w.assignor, Note: note}, func(ctx context.Context, s sluice.Session) {
			h := &holding{who: r, session: s, ctx: ctx, began: time.Now()}
			w.mu.Lock()
			w.holders[h] = true
			w.mu.Unlock()
			r.mu.Lock()
			r.sessions = append(r.sessions, h)
			r.mu.Unlock()
			<-ctx.Done()
			r.mu.Lock()
			h.over = time.Now()
			r.mu.Unlock()
			pause(t.Context(), time.Duration(r.linger.Load()))
			w.mu.Lock()
			delete(w.holders, h)
			w.mu.Unlock()
		})
	}()
	t.Cleanup(func() { r.leave(t); r.net.end() })
	return r
}

func (r *replica) leave(t testing.TB) {
	t.Helper()
	r.stop()
	<-r.done
	if r.err != nil {
		t.Errorf("%s: %v", r.name, r.err)
	}
}

// all is every session it had.
func (r *replica) all() []*holding {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sessions)
}

// standstill is the longest time between two of its sessions.
func (r *replica) standstill() (worst time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, h := range r.sessions[1:] {
		worst = max(worst, h.began.Sub(r.sessions[i].over))
	}
	return worst
}

// begun is when the session after one began.
func (r *replica) begun(after *holding) time.Time {
	all := r.all()
	return all[slices.Index(all, after)+1].began
}

// now is its living session, or nil.
func (r *replica) now() *holding {
	all := r.all()
	if len(all) == 0 {
		return nil
	}
	if last := all[len(all)-1]; last.ctx.Err() == nil && last.session.Valid() {
		return last
	}
	return nil
}

// owns counts its partitions.
func (r *replica) owns() (n int) {
	if h := r.now(); h != nil {
		for _, partitions := range h.session.Claims {
			n += len(partitions)
		}
	}
	return n
}

// settled reports whether the replicas together own all, in one generation, with shares that differ by at most spread.
func settled(all int, spread int, replicas ...*replica) bool {
	sum, least, most, generation := 0, all, 0, int32(0)
	for i, r := range replicas {
		h := r.now()
		if h == nil || i > 0 && h.session.Generation != generation {
			return false
		}
		generation = h.session.Generation
		n := r.owns()
		sum, least, most = sum+n, min(least, n), max(most, n)
	}
	return sum == all && most-least <= spread
}

func settle(t testing.TB, within time.Duration, all int, replicas ...*replica) {
	t.Helper()
	await(t, within, func() string {
		s := fmt.Sprintf("%d partitions in even shares over", all)
		for _, r := range replicas {
			s += fmt.Sprintf(" %s:%d", r.name, r.owns())
		}
		return s
	}, func() bool { return settled(all, 1, replicas...) })
}

type testLog struct {
	t    testing.TB
	name string
}

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s: %s", l.name, b)
	return len(b), nil
}

// lossyNet is the network of one replica's memberships. Lost, it takes what is written and brings nothing, opens no
// connection, and not even its closing of one reaches the broker. Cut, every connection is gone and none is opened.
type lossyNet struct {
	under      dialer // nil is TCP
	lost, gone atomic.Bool
	writes     atomic.Int64 // that were lost
	dials      atomic.Int64 // that were refused or lost

	mu    sync.Mutex
	conns []net.Conn
}

func (n *lossyNet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	switch {
	case n.gone.Load():
		n.dials.Add(1)
		return nil, errors.New("connection refused")
	case n.lost.Load():
		n.dials.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	under := n.under
	if under == nil {
		under = dialTCP
	}
	conn, err := under(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, conn)
	return &lossyConn{Conn: conn, net: n}, nil
}

// crash is what a killed process looks like to the brokers.
func (n *lossyNet) crash() {
	n.gone.Store(true)
	n.end()
}

func (n *lossyNet) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
}

type lossyConn struct {
	net.Conn
	net    *lossyNet
	closed atomic.Bool
}

func (c *lossyConn) Write(b []byte) (int, error) {
	if c.net.lost.Load() {
		c.net.writes.Add(1)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *lossyConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.net.lost.Load() {
			return n, err
		}
	}
}

func (c *lossyConn) Close() error {
	if c.net.lost.Load() {
		c.closed.Store(true)
		return c.Conn.SetDeadline(time.Unix(1, 0)) // wakes the reader; the broker hears nothing until the test ends
	}
	return c.Conn.Close()
}

func (c *lossyConn) SetReadDeadline(at time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(at)
}
