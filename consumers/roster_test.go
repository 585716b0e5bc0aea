package consumers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// replicas are registries over one cluster and one Redis, in real time: sockets do not live in a bubble.
type replicas struct {
	t     *testing.T
	k     *cluster
	redis *backend.Server
	asks  func(redis.UniversalClient) redis.UniversalClient // nil: as it is
}

func newReplicas(t *testing.T) *replicas {
	return &replicas{t: t, k: newCluster(), redis: backend.RedisServer(t)}
}

// replica starts one. die ends it as a crash does, stop as an orderly end.
func (rs *replicas) replica() (r *Registry, die, stop func()) {
	t := rs.t
	t.Helper()
	options, err := redis.ParseURL(rs.redis.URL)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(options)
	log, err := partition.New(partition.Default(), rs.k, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.ReplicaLease, c.ReplicaURL, c.ReplicaSecret = time.Second, "http://replica.test:8082", "a secret of the replicas"
	var asked redis.UniversalClient = rdb
	if rs.asks != nil {
		asked = rs.asks(rdb)
	}
	if r, err = New(c, Needs{Log: log, Groups: rs.k, Offsets: rs.k, Topics: rs.k, Redis: asked}, nil, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	die = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		_ = rdb.Close() // from here on nothing is written, whatever the members do
		_ = r.Stop(context.Background())
		_ = log.Stop(context.Background())
	})
	stop = sync.OnceFunc(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		die()
	})
	t.Cleanup(die)
	return r, die, stop
}

func (rs *replicas) create(r *Registry, options map[string]any) *Instance {
	rs.t.Helper()
	s, err := ParseSettings(options, func(string) bool { return true })
	if err != nil {
		rs.t.Fatal(err)
	}
	i, err := r.Create(rs.t.Context(), "g", s, V2)
	if err != nil {
		rs.t.Fatal(err)
	}
	if err := i.Subscribe(rs.t.Context(), Wish{Topics: []string{"orders"}}); err != nil {
		rs.t.Fatal(err)
	}
	return i
}

func (rs *replicas) find(r *Registry, i *Instance) *Instance {
	rs.t.Helper()
	ctx, cancel := context.WithTimeout(rs.t.Context(), AdoptPatience)
	defer cancel()
	seat, err := r.Find(ctx, i.Group(), i.ID(), true)
	for errors.Is(err, ErrNotOwner) { // as another replica would ask again
		seat, err = r.Find(ctx, i.Group(), i.ID(), true)
	}
	if err != nil || seat.Instance == nil {
		rs.t.Fatal(seat, err)
	}
	return seat.Instance
}

// read reads until something comes.
func (rs *replicas) read(i *Instance, w Want) (all []string) {
	rs.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(all) == 0; {
		a, err := i.Read(rs.t.Context(), w)
		if err != nil {
			rs.t.Fatal(err)
		}
		all = values(a)
		a.Settled()
		if time.Now().After(deadline) {
			rs.t.Fatal("no records came")
		}
	}
	return all
}

func (rs *replicas) want(got []string, want ...string) {
	rs.t.Helper()
	if strings.Join(got, ",") != strings.Join(want, ",") {
		rs.t.Fatalf("read %q, want %q", got, want)
	}
}

// saved waits until the roster holds what the instance has delivered.
func (rs *replicas) saved(r *Registry, i *Instance) {
	rs.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); i.unsaved.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			rs.t.Fatal("the position was not written")
		}
	}
	if err := i.save(rs.t.Context(), writeChanges); err != nil { // behind one that is under way
		rs.t.Fatal(err)
	}
}

// tardy is a client whose first answer to a script is late, as of a Redis that stands still for a moment: it asks again.
type tardy struct{ redis.UniversalClient }

func (c tardy) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	first := c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if redis.HasErrorPrefix(first.Err(), "NOSCRIPT") {
		return first
	}
	return c.UniversalClient.EvalSha(ctx, sha, keys, args...)
}

func (c tardy) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	c.UniversalClient.Eval(ctx, script, keys, args...)
	return c.UniversalClient.Eval(ctx, script, keys, args...)
}

// Whoever creates an instance is not told that it exists already because Redis was asked twice.
func TestAnInstanceIsMadeOnceHoweverOftenRedisIsAsked(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	second, _, _ := rs.replica()
	rs.asks = func(c redis.UniversalClient) redis.UniversalClient { return tardy{c} }
	first, _, _ := rs.replica()
	for range 2 { // with the script in Redis, and without
		rs.create(first, nil)
	}
	i := rs.create(first, map[string]any{"id": "mine"})
	for _, r := range []*Registry{first, second} {
		if _, err := r.Create(t.Context(), "g", Settings{ID: "mine"}, V2); sluice.KindOf(err) != sluice.Conflict {
			t.Errorf("a second one: %v", err)
		}
	}
	if err := first.Delete(t.Context(), "g", i.ID()); err != nil {
		t.Error(err)
	}
}

// And whoever takes one over is not told that somebody, who is itself, was faster.
func TestATakeoverIsSeenHoweverOftenRedisIsAsked(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "a")
	first, _, stop := rs.replica()
	i := rs.create(first, earliest)
	rs.asks = func(c redis.UniversalClient) redis.UniversalClient { return tardy{c} }
	second, _, _ := rs.replica()
	stop()
	rs.want(rs.read(rs.find(second, i), Want{}), "a")
}

// In an orderly hand-over nothing is repeated, and what was delivered by the replica before can be committed by the next.
func TestAHandOverRepeatsNothing(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "a", "b", "c")
	first, _, stop := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, earliest)
	rs.want(rs.read(i, Want{MaxBytes: 1}), "a")
	if _, err := second.Find(t.Context(), "g", i.ID(), true); !errors.Is(err, ErrNotOwner) {
		t.Fatal(err)
	}
	stop()
	if err := i.Unsubscribe(t.Context()); !errors.Is(err, ErrMoved) {
		t.Fatal(err)
	}
	j := rs.find(second, i)
	if _, err := j.Commit(t.Context()); err != nil || rs.k.committed("g", "orders", 0) != 1 {
		t.Fatal(err, rs.k.committed("g", "orders", 0))
	}
	rs.want(rs.read(j, Want{}), "b", "c")
}

// A crash repeats at most what was not written yet, skips nothing, and with latest does not begin at the new end.
func TestAfterACrashNothingIsSkipped(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "before")
	first, die, _ := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, map[string]any{"auto.commit.enable": "false", "consumer.request.timeout.ms": "200"})
	if err := i.Seek(t.Context(), []Target{{Topic: "orders", To: ToEnd}}); err != nil { // waits for the assignment
		t.Fatal(err)
	}
	die()
	rs.k.produce("orders", 0, "a", "b")
	j := rs.find(second, i)
	rs.want(rs.read(j, Want{MaxBytes: 1}), "a")
	rs.saved(second, j)
	rs.want(rs.read(j, Want{}), "b")
}

// A later commit of the group wins over the stored position.
func TestACommitBehindTheStoredPositionWins(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "a", "b", "c")
	first, die, _ := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, earliest)
	rs.want(rs.read(i, Want{MaxBytes: 1}), "a")
	rs.saved(first, i)
	die()
	for n, err := range rs.k.Commit(t.Context(), sluice.GroupCommit{Group: "g", Generation: -1, Commits: []sluice.Commit{{Topic: "orders", Offset: 2}}}) {
		if err != nil {
			t.Fatal(n, err)
		}
	}
	rs.want(rs.read(rs.find(second, i), Want{}), "c")
}

// A sought position is stored at once, also before what is committed.
func TestASeekBackOutlivesItsReplica(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "a", "b", "c")
	first, die, _ := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, earliest)
	rs.want(rs.read(i, Want{}), "a", "b", "c")
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Seek(t.Context(), []Target{{Topic: "orders", Offset: 1}}); err != nil {
		t.Fatal(err)
	}
	die()
	rs.want(rs.read(rs.find(second, i), Want{}), "b", "c")
}

// What one replica ends has ended for all, with its reason; the name is free again.
func TestAnEndIsTheEndEverywhere(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	first, _, _ := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, map[string]any{"id": "one"})
	if _, err := second.Create(t.Context(), "g", Settings{ID: "one"}, V1); sluice.KindOf(err) != sluice.Conflict {
		t.Fatal(err)
	}
	if err := first.Delete(t.Context(), "g", i.ID()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Registry{first, second} {
		_, err := r.Find(t.Context(), "g", "one", false)
		e, ok := errors.AsType[*sluice.Error](err)
		if !ok || e.Kind != sluice.NotFound || e.Detail != "deleted by the client" {
			t.Fatal(err)
		}
	}
	if _, err := second.Create(t.Context(), "g", Settings{ID: "one"}, V1); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Find(t.Context(), "g", "none", false); sluice.KindOf(err) != sluice.NotFound {
		t.Fatal(err)
	}
}

// A client's instance is forwarded to its owner, and nowhere without a secret or a signature that holds.
func TestCallsBetweenReplicasAreSigned(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	first, _, _ := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, earliest)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seat, err := second.Find(ctx, "g", i.ID(), false)
	if err != nil || seat.URL != "http://replica.test:8082" {
		t.Fatal(seat, err)
	}
	call := Call{Method: "GET", Target: "/consumers/g/instances/x/records?timeout=1", At: time.Now()}
	signature, ok := first.Sign(call)
	if !ok || !second.Signed(call, signature) {
		t.Fatal("a good signature was refused")
	}
	for name, change := range map[string]func(*Call){
		"method":    func(c *Call) { c.Method = "POST" },
		"target":    func(c *Call) { c.Target += "0" },
		"principal": func(c *Call) { c.Principal = "root" },
		"time":      func(c *Call) { c.At = c.At.Add(time.Millisecond) },
		"age":       func(c *Call) { c.At = c.At.Add(-time.Hour) },
	} {
		other := call
		if change(&other); second.Signed(other, signature) {
			t.Errorf("a signature of another %s was taken", name)
		}
	}
	if signature, _ := first.Sign(Call{At: time.Now().Add(-time.Hour)}); second.Signed(Call{At: time.Now().Add(-time.Hour)}, signature) {
		t.Error("an old call was taken")
	}
	second.secret = ""
	if second.Signed(call, signature) {
		t.Error("a replica without a secret took a call")
	}
	short, done := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer done()
	if _, err := second.Find(short, "g", i.ID(), false); sluice.KindOf(err) != sluice.Overloaded {
		t.Fatal(err)
	}
}

// Without Redis what a replica owns works on; the rest, and create, are told to come back.
func TestWithoutRedisWhatIsOwnedWorksOn(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "a", "b", "c")
	first, _, _ := rs.replica()
	i := rs.create(first, earliest)
	rs.want(rs.read(i, Want{MaxBytes: 1}), "a")
	rs.redis.Stop(t)
	for time.Now().UnixNano() < i.leased.Load() { // until it has run out by its owner's clock
		time.Sleep(20 * time.Millisecond)
	}
	rs.want(rs.read(rs.find(first, i), Want{MaxBytes: 1}), "b")
	if _, err := i.Commit(t.Context()); err != nil || rs.k.committed("g", "orders", 0) != 2 {
		t.Fatal(err)
	}
	if _, err := first.Create(t.Context(), "g", Settings{}, V1); sluice.KindOf(err) != sluice.StoreDown {
		t.Fatal(err)
	}
	if _, err := first.Find(t.Context(), "g", "another", false); sluice.KindOf(err) != sluice.StoreDown {
		t.Fatal(err)
	}
	rs.redis.Start(t)
	second, _, _ := rs.replica()
	for deadline := time.Now().Add(20 * time.Second); i.save(t.Context(), writeChanges) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the instance was not written again")
		}
	}
	if _, err := second.Find(t.Context(), "g", i.ID(), true); !errors.Is(err, ErrNotOwner) {
		t.Fatal(err)
	}
	rs.want(rs.read(rs.find(first, i), Want{}), "c")
}

// The receipt for an answer may come when its instance is being handed over, which waits for it: the client has the
// records, and its commit goes to the next owner already.
func TestAHandOverTakesTheLastReceipt(t *testing.T) {
	rs := newReplicas(t)
	rs.k.topic("orders", 1)
	rs.k.produce("orders", 0, "a", "b")
	first, _, stop := rs.replica()
	second, _, _ := rs.replica()
	i := rs.create(first, earliest)
	a, err := i.Read(t.Context(), Want{MaxBytes: 1})
	if err != nil || len(a.Records) != 1 {
		t.Fatal(err, len(a.Records))
	}
	number, closed := a.Number()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	<-i.ended
	first.Receipt("g", i.ID(), number, true)
	select {
	case <-closed:
	case <-stopped:
		t.Error("the instance was handed over without its receipt")
	}
	<-stopped
	j := rs.find(second, i)
	if _, err := j.Commit(t.Context()); err != nil || rs.k.committed("g", "orders", 0) != 1 {
		t.Error(err, rs.k.committed("g", "orders", 0))
	}
	rs.want(rs.read(j, Want{}), "b")
}

// An answer that goes out through another replica is delivered when that one says so.
func TestANumberedAnswerWaitsForItsReceipt(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		r.k.topic("orders", 1)
		r.k.produce("orders", 0, "a")
		i := r.subscribed("g", earliest, "orders")
		for _, delivered := range []bool{false, true} {
			a, err := i.Read(t.Context(), Want{})
			if err != nil || len(a.Records) != 1 {
				t.Fatal(err, len(a.Records))
			}
			number, closed := a.Number()
			i.confirm("another", true)
			select {
			case <-closed:
				t.Fatal("settled by a number that is not its own")
			default:
			}
			i.confirm(number, delivered)
			<-closed
			i.confirm(number, !delivered)
		}
		r.want(r.read(i, Want{}))
		a, err := i.Read(t.Context(), Want{Timeout: time.Millisecond})
		if number, _ := a.Number(); err != nil || number != "" {
			t.Fatal(fmt.Sprint(number, err))
		}
		a.Settled()
	})
}
