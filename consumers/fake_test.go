package consumers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/partition/partitiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is Kafka in memory: partitions, and groups with Kafka's rules for joins, generations and commits.
type cluster struct {
	*partitiontest.Memory

	mu     sync.Mutex
	counts map[string]int32
	groups map[string]*group
	down   error         // of every call but those of members
	slow   time.Duration // of metadata
	hung   map[sluice.Partition]chan struct{}
}

// hang lets every call for some partitions wait, as a broker does that was stopped.
func (k *cluster) hang(topic string, ns ...int32) (release func()) {
	hung := make(chan struct{})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hung = map[sluice.Partition]chan struct{}{}
	for _, n := range ns {
		k.hung[sluice.Partition{Topic: topic, Number: n}] = hung
	}
	return func() { close(hung) }
}

func (k *cluster) wait(ctx context.Context, p sluice.Partition) {
	k.mu.Lock()
	hung := k.hung[sluice.Partition{Topic: p.Topic, Number: p.Number}]
	k.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
		}
	}
}

func (k *cluster) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	k.wait(ctx, p)
	return k.Memory.Range(ctx, p)
}

func (k *cluster) Fetch(ctx context.Context, p sluice.Partition, from int64, maxBytes int) (sluice.Chunk, error) {
	k.wait(ctx, p)
	return k.Memory.Fetch(ctx, p, from, maxBytes)
}

func (k *cluster) Follow(ctx context.Context, p sluice.Partition, from int64, add func(sluice.Chunk)) error {
	k.wait(ctx, p)
	return k.Memory.Follow(ctx, p, from, add)
}

type group struct {
	generation int32
	serial     int
	waiting    map[string]*membersWish // in the order of a rebalance: all of them must be here
	members    map[string]*membersWish
	stored     map[sluice.Partition]sluice.Commit
}

type membersWish struct {
	topics  []string
	cancel  context.CancelFunc // of the session
	granted chan sluice.Session
}

func newCluster() *cluster {
	return &cluster{Memory: partitiontest.NewMemory(), counts: map[string]int32{}, groups: map[string]*group{}}
}

func (k *cluster) topic(name string, partitions int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts[name] = partitions
	for n := range partitions {
		k.Create(sluice.Partition{Topic: name, Number: n})
	}
}

// produce writes values to one partition, with empty keys.
func (k *cluster) produce(topic string, n int32, values ...string) {
	for _, v := range values {
		k.Produce(sluice.Partition{Topic: topic, Number: n}, sluice.NewRecord{Value: []byte(v)})
	}
}

func (k *cluster) setDown(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = err
	k.SetFail(err)
}

func (k *cluster) setSlow(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slow = d
}

func (k *cluster) Topics(ctx context.Context) ([]string, error) {
	k.mu.Lock()
	slow := k.slow
	k.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.counts)), k.down
}

func (k *cluster) OffsetAt(ctx context.Context, p sluice.Partition, t time.Time) (int64, error) {
	r, err := k.Memory.Range(ctx, p)
	if err != nil || r.Start == r.End {
		return r.End, err
	}
	c, err := k.Memory.Fetch(ctx, p, r.Start, 1<<20)
	if err != nil {
		return 0, err
	}
	for _, one := range c.Records {
		if !one.Timestamp.Before(t) {
			return one.Offset, nil
		}
	}
	return r.End, nil
}

// of is the group; the lock is held.
func (k *cluster) of(name string) *group {
	g := k.groups[name]
	if g == nil {
		g = &group{waiting: map[string]*membersWish{}, members: map[string]*membersWish{}, stored: map[sluice.Partition]sluice.Commit{}}
		k.groups[name] = g
	}
	return g
}

func (k *cluster) Member(ctx context.Context, m sluice.Membership, fn sluice.SessionFunc) error {
	k.mu.Lock()
	g := k.of(m.Group)
	g.serial++
	id := fmt.Sprintf("member-%d", g.serial)
	me := &membersWish{topics: m.Topics, granted: make(chan sluice.Session, 1), cancel: func() {}}
	g.members[id] = me
	g.rebalance()
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(g.members, id)
		delete(g.waiting, id)
		g.rebalance()
		k.complete(g)
	}()
	for ctx.Err() == nil {
		session, cancel := context.WithCancel(ctx)
		k.mu.Lock()
		me.cancel = cancel
		g.waiting[id] = me
		k.complete(g)
		k.mu.Unlock()
		select {
		case s := <-me.granted:
			s.Valid = func() bool { return session.Err() == nil }
			fn(session, s)
		case <-ctx.Done():
		}
		cancel()
	}
	return nil
}

// rebalance ends the sessions of all members; each joins again when its work has ended.
func (g *group) rebalance() {
	for _, m := range g.members {
		m.cancel()
	}
}

// complete begins a generation once every member has joined: topics are dealt out by range.
func (k *cluster) complete(g *group) {
	if len(g.members) == 0 || len(g.waiting) != len(g.members) {
		return
	}
	g.generation++
	ids := slices.Sorted(maps.Keys(g.members))
	claims := map[string]map[string][]int32{}
	for _, topic := range slices.Sorted(maps.Keys(k.counts)) {
		var want []string
		for _, id := range ids {
			if slices.Contains(g.members[id].topics, topic) {
				want = append(want, id)
			}
		}
		for n := range k.counts[topic] {
			if len(want) == 0 {
				break
			}
			id := want[int(n)*len(want)/int(k.counts[topic])]
			if claims[id] == nil {
				claims[id] = map[string][]int32{}
			}
			claims[id][topic] = append(claims[id][topic], n)
		}
	}
	for id, m := range g.members {
		m.granted <- sluice.Session{Member: id, Generation: g.generation, Claims: claims[id]}
	}
	clear(g.waiting)
}

func (k *cluster) Commit(_ context.Context, c sluice.GroupCommit) []error {
	k.mu.Lock()
	defer k.mu.Unlock()
	errs := make([]error, len(c.Commits))
	g := k.of(c.Group)
	var refused error
	switch {
	case k.down != nil:
		refused = k.down
	case c.Member == "" && len(g.members) > 0, c.Member != "" && g.members[c.Member] == nil, c.Member != "" && c.Generation != g.generation:
		refused = &sluice.Error{Kind: sluice.StaleSession, Msg: "no such member or generation"}
	}
	for n, commit := range c.Commits {
		if errs[n] = refused; refused == nil {
			g.stored[sluice.Partition{Topic: commit.Topic, Number: commit.Partition}] = commit
		}
	}
	return errs
}

func (k *cluster) Group(_ context.Context, name string, parts []sluice.Partition) ([]sluice.Commit, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.down != nil {
		return nil, k.down
	}
	var all []sluice.Commit
	for _, p := range parts {
		c, ok := k.of(name).stored[sluice.Partition{Topic: p.Topic, Number: p.Number}]
		if !ok {
			c = sluice.Commit{Topic: p.Topic, Partition: p.Number, Offset: sluice.NoOffset}
		}
		all = append(all, c)
	}
	return all, nil
}

func (k *cluster) committed(group, topic string, n int32) int64 {
	cs, _ := k.Group(context.Background(), group, []sluice.Partition{{Topic: topic, Number: n}})
	if cs == nil {
		return sluice.NoOffset
	}
	return cs[0].Offset
}

// foreign is a member of somebody else's; it holds what it is given until stop, and then leaves.
func (k *cluster) foreign(t *testing.T, group string, topics ...string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = k.Member(ctx, sluice.Membership{Group: group, Topics: topics}, func(ctx context.Context, _ sluice.Session) { <-ctx.Done() })
	}()
	synctest.Wait()
	return func() { cancel(); <-done; synctest.Wait() }
}

// room is a registry over a cluster, inside a bubble of synthetic time.
type room struct {
	*Registry
	t *testing.T
	k *cluster
}

// inRoom runs fn in a bubble, where time stands still while anybody works.
func inRoom(t *testing.T, fn func(t *testing.T, r *room)) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster()
		log, err := partition.New(partition.Default(), k, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		reg, err := New(Default(), Needs{Log: log, Groups: k, Offsets: k, Topics: k}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := reg.Stop(context.Background()); err != nil {
				t.Error(err)
			}
			if err := log.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		fn(t, &room{reg, t, k})
	})
}

func (r *room) create(group string, options map[string]any) *Instance {
	r.t.Helper()
	s, err := ParseSettings(options, func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	i, err := r.Create(r.t.Context(), group, s, V2)
	if err != nil {
		r.t.Fatal(err)
	}
	return i
}

func (r *room) subscribed(group string, options map[string]any, topics ...string) *Instance {
	r.t.Helper()
	i := r.create(group, options)
	if err := i.Subscribe(r.t.Context(), Wish{Topics: topics}); err != nil {
		r.t.Fatal(err)
	}
	return i
}

var earliest = map[string]any{"auto.offset.reset": "earliest", "auto.commit.enable": "false"}

// read is one read whose answer reaches the client.
func (r *room) read(i *Instance, w Want) []string {
	r.t.Helper()
	a, err := i.Read(r.t.Context(), w)
	if err != nil {
		r.t.Fatal(err)
	}
	if a.Err != nil {
		a.Settled()
		return []string{"undecodable"}
	}
	a.Settled()
	return values(a)
}

func values(a *Answer) []string {
	vs := make([]string, 0, len(a.Records))
	for _, r := range a.Records {
		vs = append(vs, string(r.Value))
	}
	return vs
}

func (r *room) want(got []string, want ...string) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.t.Fatalf("read %q, want %q", got, want)
	}
}

// wantSorted is for records of several partitions.
func (r *room) wantSorted(got []string, want ...string) {
	r.t.Helper()
	slices.Sort(got)
	r.want(got, want...)
}

func (r *room) wantKind(err error, k sluice.Kind) {
	r.t.Helper()
	if sluice.KindOf(err) != k {
		r.t.Fatalf("error %v, want kind %s", err, k)
	}
}

// took is how long fn takes in the bubble's time.
func took(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}
