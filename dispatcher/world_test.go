package dispatcher

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/deadletters"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/partition/partitiontest"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// house is what dispatchers of a test share: Kafka and Redis as far as a dispatcher sees them.
type house struct {
	t      *testing.T
	source *partitiontest.Memory
	ids    map[string]sluice.TopicID

	mu      sync.Mutex
	commits map[string]map[sluice.Partition]sluice.Commit // by group
	refuse  error                                         // what commits are answered with
	deleted []string
	subs    map[string]*subscriptions.Subscription
	bell    chan struct{}
	letters []deadletters.Letter
	deaf    error // what dead letters are answered with
	counts  map[string]int32
	states  map[string]sluice.GroupState // of groups that are not as ours should be
	reports []subscriptions.LaneHealth
	mute    error // what reading positions is answered with

	tooLong       int                   // metadata that is refused, 0 for none
	metadataBytes int                   // what the brokers take, of the next replica; 0 is the default
	registry      prometheus.Registerer // of the next replica's metrics
}

func newHouse(t *testing.T) *house {
	return &house{t: t, source: partitiontest.NewMemory(), ids: map[string]sluice.TopicID{}, counts: map[string]int32{}, states: map[string]sluice.GroupState{},
		commits: map[string]map[sluice.Partition]sluice.Commit{}, subs: map[string]*subscriptions.Subscription{}, bell: make(chan struct{})}
}

func part(topic string, n int32) sluice.Partition { return sluice.Partition{Topic: topic, Number: n} }

func (h *house) topic(name string, partitions int32) {
	for n := range partitions {
		h.source.Create(part(name, n))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[name] = partitions
	h.ids[name], _ = h.source.TopicID(context.Background(), name)
}

// produce appends records; of "a1" the key is "a".
func (h *house) produce(topic string, values ...string) {
	var recs []sluice.NewRecord
	for _, v := range values {
		recs = append(recs, sluice.NewRecord{Key: []byte(v[:1]), Value: []byte(v), Timestamp: time.Now()})
	}
	h.source.Produce(part(topic, 0), recs...)
}

func (h *house) subscribe(id string, change func(*subscriptions.Subscription), topics ...string) *subscriptions.Subscription {
	s := &subscriptions.Subscription{ID: id, Owner: "me", Revision: 1, State: subscriptions.Active}
	s.Source.Topics, s.Source.Resolved = topics, map[string]subscriptions.Resolved{}
	s.Endpoint.URL, s.Endpoint.Timeout = "http://hook/"+id, subscriptions.Duration(15*time.Second)
	s.Delivery.Ordering, s.Delivery.MaxInFlight = subscriptions.OrderKey, 32
	for _, d := range []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute} {
		s.Retry.Schedule = append(s.Retry.Schedule, subscriptions.Duration(d))
	}
	if change != nil {
		change(s)
	}
	h.mu.Lock()
	for _, topic := range topics {
		resolved := subscriptions.Resolved{ID: h.ids[topic], Offsets: map[int32]int64{}}
		group := h.group(s.ProgressGroup())
		for n := range h.counts[topic] {
			resolved.Offsets[n] = 0
			group[part(topic, n)] = sluice.Commit{Topic: topic, Partition: n}
		}
		s.Source.Resolved[topic] = resolved
	}
	h.mu.Unlock()
	h.put(s)
	return s
}

func (h *house) put(s *subscriptions.Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[s.ID] = s
	close(h.bell)
	h.bell = make(chan struct{})
}

func (h *house) group(name string) map[sluice.Partition]sluice.Commit {
	if h.commits[name] == nil {
		h.commits[name] = map[sluice.Partition]sluice.Commit{}
	}
	return h.commits[name]
}

func (h *house) committed(sub string, p sluice.Partition) sluice.Commit {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.commits["sluice.sub."+sub][p]
	if !ok {
		c.Offset = sluice.NoOffset
	}
	return c
}

// The book and the registry.
func (h *house) All() []*subscriptions.Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*subscriptions.Subscription
	for _, id := range slices.Sorted(maps.Keys(h.subs)) {
		all = append(all, h.subs[id])
	}
	return all
}

func (h *house) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bell
}

func (h *house) Ready(context.Context) error { return nil }

func (h *house) Remove(_ context.Context, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, id)
	close(h.bell)
	h.bell = make(chan struct{})
	return nil
}

// Topics.
func (h *house) Topic(_ context.Context, name string) (sluice.Topic, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, ok := h.counts[name]
	if !ok {
		return sluice.Topic{}, &sluice.Error{Kind: sluice.UnknownTopic}
	}
	return sluice.Topic{Name: name, ID: h.ids[name], Partitions: make([]sluice.PartitionState, n)}, nil
}

func (h *house) Range(ctx context.Context, p sluice.Partition) (sluice.Range, error) {
	return h.source.Range(ctx, p)
}

// offsetsOf is the offsets as one replica reaches them: a dead one reaches nothing.
type offsetsOf struct {
	*house
	dead *bool
}

func (o offsetsOf) Commit(_ context.Context, c sluice.GroupCommit) []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := make([]error, len(c.Commits))
	for i, one := range c.Commits {
		switch {
		case *o.dead:
			errs[i] = &sluice.Error{Kind: sluice.Unavailable}
		case o.tooLong > 0 && len(one.Metadata) > o.tooLong:
			errs[i] = &sluice.Error{Kind: sluice.TooLarge}
		case o.refuse != nil:
			errs[i] = o.refuse
		default:
			o.group(c.Group)[part(one.Topic, one.Partition)] = one
		}
	}
	return errs
}

func (o offsetsOf) Groups(_ context.Context, p sluice.Partition, groups []string) (map[string]sluice.Commit, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mute != nil {
		return nil, o.mute
	}
	found := map[string]sluice.Commit{}
	for _, g := range groups {
		if c, ok := o.commits[g][p]; ok {
			found[g] = c
		} else {
			found[g] = sluice.Commit{Topic: p.Topic, Partition: p.Number, Offset: sluice.NoOffset}
		}
	}
	return found, nil
}

func (o offsetsOf) Group(ctx context.Context, group string, parts []sluice.Partition) ([]sluice.Commit, error) {
	commits := make([]sluice.Commit, len(parts))
	for i, p := range parts {
		one, err := o.Groups(ctx, p, []string{group})
		if err != nil {
			return nil, err
		}
		commits[i] = one[group]
	}
	return commits, nil
}

func (o offsetsOf) Describe(_ context.Context, groups []string) (map[string]sluice.GroupState, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mute != nil {
		return nil, o.mute
	}
	states := map[string]sluice.GroupState{}
	for _, g := range groups {
		states[g] = sluice.GroupState{State: "Dead"}
		if _, there := o.commits[g]; there {
			states[g] = sluice.GroupState{State: "Empty"}
		}
		if s, told := o.states[g]; told {
			states[g] = s
		}
	}
	return states, nil
}

func (o offsetsOf) DeleteGroup(_ context.Context, group string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.states[group].Members > 0 {
		return &sluice.Error{Kind: sluice.Conflict}
	}
	delete(o.states, group)
	delete(o.commits, group)
	o.deleted = append(o.deleted, group)
	return nil
}

// Report is the health.
func (h *house) Report(_ context.Context, _, _ string, now subscriptions.LaneHealth) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports = append(h.reports[max(0, len(h.reports)-9):], now)
}

// Letters.
func (h *house) Write(_ context.Context, l deadletters.Letter) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deaf != nil {
		return h.deaf
	}
	h.letters = append(h.letters, l)
	return nil
}

// endpoint is every webhook of a test. answer decides; what it got is noted in the order of arrival.
type endpoint struct {
	mu     sync.Mutex
	got    []string
	passed []string
	flying int
	most   int
	answer func(d webhook.Delivery) (wait time.Duration, o webhook.Outcome)
}

func (e *endpoint) Send(ctx context.Context, d webhook.Delivery) webhook.Outcome {
	e.mu.Lock()
	e.got = append(e.got, fmt.Sprintf("%s#%d", d.Record.Value, d.Attempt))
	e.flying++
	e.most = max(e.most, e.flying)
	wait, o := time.Duration(0), status(200)
	if e.answer != nil {
		wait, o = e.answer(d)
	}
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.flying--
		if o.Class == webhook.S {
			e.passed = append(e.passed, string(d.Record.Value))
		}
	}()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			o = ours(webhook.Shutdown)
		}
	}
	return o
}

func status(code int) webhook.Outcome {
	f := webhook.Facts{Status: code}
	class, reason := webhook.Classify(f)
	return webhook.Outcome{Class: class, Reason: reason, Status: code, Facts: f}
}

// want compares what was delivered so far, in order.
func (e *endpoint) want(t *testing.T, values ...string) {
	t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.passed, values) {
		t.Fatalf("delivered %v, want %v (attempts %v)", e.passed, values, e.got)
	}
}

func (e *endpoint) attempts() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.got)
}

func (e *endpoint) delivered() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.passed)
}

// membership plays the coordinator of every group, for one member: the test begins and ends its sessions.
type membership struct {
	mu       sync.Mutex
	sessions map[string]*seat
}

type seat struct {
	topic    string
	fn       sluice.SessionFunc
	note     func() []byte
	notes    [][]byte // of the next sessions
	ctx      context.Context
	end      context.CancelFunc
	done     chan struct{}
	member   string
	valid    bool
	gen      int32
	mu       sync.Mutex
	released time.Duration // how long the latest release took
}

func (m *membership) Member(ctx context.Context, wish sluice.Membership, fn sluice.SessionFunc) error {
	s := &seat{topic: wish.Topics[0], fn: fn, note: wish.Note, ctx: ctx, member: "m-1"}
	m.mu.Lock()
	m.sessions[s.topic] = s
	m.mu.Unlock()
	<-ctx.Done()
	s.finish()
	return nil
}

func (m *membership) seat(topic string) *seat {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[topic]
}

// begin starts a session with the given partitions.
func (s *seat) begin(gen int32, partitions ...int32) {
	s.mu.Lock()
	s.gen, s.valid = gen, true
	s.mu.Unlock()
	var ctx context.Context
	ctx, s.end = context.WithCancel(s.ctx)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		s.fn(ctx, sluice.Session{Member: s.member, Generation: gen, Claims: map[string][]int32{s.topic: partitions}, Notes: s.notes, Valid: func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.valid
		}})
	}()
	synctest.Wait()
}

// finish ends the session and waits for its release.
func (s *seat) finish() {
	if s.end == nil {
		return
	}
	began := time.Now()
	s.end()
	<-s.done
	s.released = time.Since(began)
	s.end = nil
}

// replica is one dispatcher with its doors to the house.
type replica struct {
	*Dispatcher
	house *house
	seats *membership
	log   *partition.Log
	dead  bool
	done  chan struct{}
}

func (h *house) replica(hook sender) *replica {
	h.t.Helper()
	log, err := partition.New(partition.Config{RingBytes: 64 << 10, RingRecords: 256, CacheBytes: 1 << 20}, h.source, nil, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	r := &replica{house: h, seats: &membership{sessions: map[string]*seat{}}, log: log, done: make(chan struct{})}
	needs := Needs{Log: log, Book: h, Registry: h, Groups: r.seats, Offsets: offsetsOf{h, &r.dead}, Topics: h, Sender: hook, Letters: h, Health: h,
		ClusterID: "c", MetadataBytes: h.metadataBytes}
	r.Dispatcher, err = New(Default(), needs, slog.New(slog.DiscardHandler), h.registry)
	if err != nil {
		h.t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		if err := r.Run(context.Background()); err != nil {
			h.t.Error(err)
		}
	}()
	synctest.Wait()
	return r
}

func (r *replica) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		r.house.t.Error(err)
	}
	<-r.done
	if err := r.log.Stop(ctx); err != nil {
		r.house.t.Error(err)
	}
}

// crash is kill -9: nothing is committed any more and nobody says good-bye.
func (r *replica) crash() {
	r.house.mu.Lock()
	r.dead = true
	r.house.mu.Unlock()
	r.seats.mu.Lock()
	for _, s := range r.seats.sessions {
		s.mu.Lock()
		s.valid = false
		s.mu.Unlock()
	}
	r.seats.mu.Unlock()
	r.ground()
	r.close()
}

// one makes a house with a topic, a subscription and a replica that owns its only partition.
func one(t *testing.T, hook *endpoint, change func(*subscriptions.Subscription)) (*house, *replica) {
	h := newHouse(t)
	h.topic("t", 1)
	h.subscribe("s", change, "t")
	r := h.replica(hook)
	r.seats.seat("t").begin(1, 0)
	return h, r
}

func counter(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}
