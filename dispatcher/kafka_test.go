package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/deadletters"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// fleet is some replicas in one process over a Kafka of the back end's, and the account of what they deliver.
type fleet struct {
	t       *testing.T
	kafka   *backend.Broker
	brokers []string
	cfg     Config // of the next replica
	bytes   int    // of metadata that the next replica believes its brokers take
	topic   string
	parts   int32
	book    *house // definitions and dead letters only
	control *kafkaSide
	wait    time.Duration // how long the endpoint takes
	refuse  func(d webhook.Delivery) int

	mu        sync.Mutex
	delivered map[deliveryKey]int
	firsts    map[string]int64 // newest first success by subscription, partition and key
	wrongs    []string
	attempts  map[deliveryKey]int // highest attempt number
	again     int                 // deliveries of what was delivered before
}

type deliveryKey struct {
	sub       string
	partition int32
	offset    int64
}

// kafkaSide is one process's way to Kafka.
type kafkaSide struct {
	clients *kafka.Clients
	admin   *kafka.Admin
	offsets *kafka.Offsets
	groups  *kafka.Groups
}

func connect(t *testing.T, brokers []string) *kafkaSide {
	t.Helper()
	cfg := kafka.Default()
	cfg.Brokers = brokers
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	clients, err := kafka.Connect(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clients.Close() })
	return &kafkaSide{clients, kafka.NewAdmin(clients), kafka.NewOffsets(clients), kafka.NewGroups(clients, nil)}
}

func newFleet(t *testing.T, partitions int32) *fleet {
	return newFleetOn(t, backend.Kafka(t), partitions)
}

func newFleetOn(t *testing.T, k *backend.Broker, partitions int32) *fleet {
	f := &fleet{t: t, kafka: k, brokers: k.Brokers, parts: partitions, book: newHouse(t), cfg: Default(),
		delivered: map[deliveryKey]int{}, firsts: map[string]int64{}, attempts: map[deliveryKey]int{}}
	f.topic = k.Topic(t, "deliver", partitions)
	f.control = connect(t, k.Brokers)
	return f
}

// subscribe commits the first positions as the registry does, then puts the definition into the book.
func (f *fleet) subscribe(change func(*subscriptions.Subscription)) *subscriptions.Subscription {
	f.t.Helper()
	s := &subscriptions.Subscription{ID: backend.Unique("sub"), Owner: "me", Revision: 1, State: subscriptions.Active}
	s.Source.Topics = []string{f.topic}
	s.Endpoint.URL, s.Endpoint.Timeout = "http://hook/", subscriptions.Duration(time.Second)
	s.Delivery.Ordering, s.Delivery.MaxInFlight = subscriptions.OrderKey, 32
	for _, d := range []time.Duration{0, time.Second, 2 * time.Second, 30 * time.Second, time.Minute} {
		s.Retry.Schedule = append(s.Retry.Schedule, subscriptions.Duration(d))
	}
	if change != nil {
		change(s)
	}
	ctx := f.within(10 * time.Second)
	topic, err := f.control.admin.Topic(ctx, f.topic)
	if err != nil {
		f.t.Fatal(err)
	}
	resolved := subscriptions.Resolved{ID: topic.ID, Offsets: map[int32]int64{}}
	commit := sluice.GroupCommit{Group: s.ProgressGroup(), Generation: -1}
	for n := range f.parts {
		resolved.Offsets[n] = 0
		commit.Commits = append(commit.Commits, sluice.Commit{Topic: f.topic, Partition: n})
	}
	s.Source.Resolved = map[string]subscriptions.Resolved{f.topic: resolved}
	if err := errors.Join(f.control.offsets.Commit(ctx, commit)...); err != nil {
		f.t.Fatal(err)
	}
	f.book.put(s)
	return s
}

func (f *fleet) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	f.t.Cleanup(cancel)
	return ctx
}

// crew is one replica of a fleet.
type crew struct {
	*Dispatcher
	fleet *fleet
	name  string
	side  *kafkaSide
	log   *partition.Log
	done  chan struct{}
	dead  atomic.Bool
	gone  bool
}

func (f *fleet) launch(name string) *crew {
	f.t.Helper()
	side := connect(f.t, f.brokers)
	log, err := partition.New(partition.Default(), kafka.NewFetcher(side.clients), nil, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	c := &crew{fleet: f, name: name, side: side, log: log, done: make(chan struct{})}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("TEST_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("replica", name)
	}
	c.Dispatcher, err = New(f.cfg, Needs{Log: log, Book: f.book, Registry: f.book, Groups: side.groups, Offsets: side.offsets,
		Topics: side.admin, Sender: c, Letters: f.book, Health: f.book, ClusterID: "c", MetadataBytes: f.bytes}, logger, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		_ = c.Run(context.Background())
	}()
	f.t.Cleanup(c.leave)
	return c
}

// leave is an ordered stop.
func (c *crew) leave() {
	if c.gone {
		return
	}
	c.gone = true
	if err := c.Stop(c.fleet.within(40 * time.Second)); err != nil {
		c.fleet.t.Errorf("replica %s: %v", c.name, err)
	}
	<-c.done
	if err := c.log.Stop(c.fleet.within(10 * time.Second)); err != nil {
		c.fleet.t.Error(err)
	}
	_ = c.side.clients.Close()
}

// crash is kill -9 as far as lanes go: flights are cut, connections are gone, nothing more is committed. The member may
// still say good-bye, so that the next owner starts sooner than after a real one: the harder case for the order.
func (c *crew) crash() {
	c.gone = true
	c.dead.Store(true)
	_ = c.side.clients.Close()
	c.ground()
	_ = c.Stop(c.fleet.within(40 * time.Second))
	<-c.done
	_ = c.log.Stop(c.fleet.within(10 * time.Second))
}

// Send is the endpoint.
func (c *crew) Send(ctx context.Context, d webhook.Delivery) webhook.Outcome {
	if c.dead.Load() {
		return ours(webhook.Shutdown)
	}
	if c.fleet.wait > 0 {
		select {
		case <-time.After(c.fleet.wait):
		case <-ctx.Done():
			return ours(webhook.Shutdown)
		}
	}
	return status(c.fleet.arrive(c.name, d))
}

func (f *fleet) arrive(who string, d webhook.Delivery) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := deliveryKey{d.Subscription.ID, d.Record.Partition, d.Record.Offset}
	if d.Attempt < f.attempts[k] {
		f.wrongs = append(f.wrongs, fmt.Sprintf("attempt %d of %v after attempt %d", d.Attempt, k, f.attempts[k]))
	}
	f.attempts[k] = d.Attempt
	if f.refuse != nil {
		if code := f.refuse(d); code != 200 {
			return code
		}
	}
	f.delivered[k]++
	if f.delivered[k] > 1 {
		f.again++
		return 200
	}
	if len(d.Record.Key) == 0 || d.Subscription.Delivery.Ordering == subscriptions.OrderNone {
		return 200
	}
	line := fmt.Sprint(k.sub, "/", k.partition, "/", string(d.Record.Key))
	if last, ok := f.firsts[line]; ok && last > k.offset {
		f.wrongs = append(f.wrongs, fmt.Sprintf("%s: %d first after %d, by %s", line, k.offset, last, who))
	}
	f.firsts[line] = k.offset
	return 200
}

func (f *fleet) count(sub string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.delivered {
		if k.sub == sub {
			n++
		}
	}
	return n
}

// await polls until the condition holds.
func await(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// producer writes to the topic of a fleet.
func (f *fleet) producer() func(from, n, keys int) {
	f.t.Helper()
	p, err := kafka.NewProducer(f.control.clients, false, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	f.t.Cleanup(func() {
		_ = p.Stop(f.within(10 * time.Second))
		cancel()
		<-done
	})
	return func(from, n, keys int) {
		f.t.Helper()
		recs := make([]sluice.NewRecord, n)
		for i := range recs {
			recs[i] = sluice.NewRecord{Partition: sluice.AnyPartition, Key: fmt.Appendf(nil, "k%d", (from+i)%keys), Value: fmt.Appendf(nil, "v%d", from+i)}
		}
		receipts, err := p.Produce(f.within(20*time.Second), f.topic, recs)
		if err != nil {
			f.t.Error(err)
		}
		for _, r := range receipts {
			if r.Err != nil {
				f.t.Error(r.Err)
			}
		}
	}
}

// settled is whether every progress group stands at the end of every partition.
func (f *fleet) settled(subs ...*subscriptions.Subscription) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for n := range f.parts {
		p := part(f.topic, n)
		r, err := f.control.admin.Range(ctx, p)
		if err != nil {
			return false
		}
		for _, s := range subs {
			c, err := f.control.offsets.Group(ctx, s.ProgressGroup(), []sluice.Partition{p})
			if err != nil || c[0].Offset != r.End {
				return false
			}
		}
	}
	return true
}

func (f *fleet) owned(crews ...*crew) (n int) {
	for _, c := range crews {
		c.mu.Lock()
		o := c.owners[f.topic]
		c.mu.Unlock()
		if o == nil {
			continue
		}
		for p := range f.parts {
			if o.owns(p) {
				n++
			}
		}
	}
	return n
}

func (f *fleet) checkWrongs() {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.wrongs {
		f.t.Error(w)
	}
}

// Two and three replicas join, leave and crash while records come: nothing is lost, order per key holds, what is sent
// again is bounded by what a crash had in flight or not committed.
func TestReplicasJoinLeaveAndCrashWithoutLoss(t *testing.T) {
	f := newFleet(t, 6)
	f.wait = 2 * time.Millisecond
	subs := []*subscriptions.Subscription{f.subscribe(nil), f.subscribe(func(s *subscriptions.Subscription) {
		s.Delivery.Ordering = subscriptions.OrderNone
	})}
	produce := f.producer()
	var total atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i += 20 {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				produce(i, 20, 40)
				total.Add(20)
			}
		}
	}()
	moves := func(since int, what string) {
		t.Helper()
		await(t, 30*time.Second, what+": no delivery goes on", func() bool { return f.count(subs[0].ID) > since+200 })
	}
	a := f.launch("a")
	moves(0, "one replica")
	b := f.launch("b")
	await(t, 20*time.Second, "two replicas do not share the partitions", func() bool { return f.owned(b) == 3 && f.owned(a) == 3 })
	moves(f.count(subs[0].ID), "two replicas")
	c := f.launch("c")
	await(t, 20*time.Second, "three replicas do not share the partitions", func() bool {
		return f.owned(a) == 2 && f.owned(b) == 2 && f.owned(c) == 2
	})
	moves(f.count(subs[0].ID), "three replicas")
	calm := f.duplicates()
	if calm > 0 {
		t.Errorf("%d sent again by joins alone", calm)
	}
	b.leave()
	moves(f.count(subs[0].ID), "after a leave")
	if n := f.duplicates(); n > calm {
		t.Errorf("%d sent again by an ordered leave", n-calm)
	}
	calm = f.duplicates()
	c.crash()
	await(t, 30*time.Second, "the partitions of the crashed replica are orphaned", func() bool { return f.owned(a) == 6 })
	moves(f.count(subs[0].ID), "after a crash")
	close(stop)
	<-stopped
	for _, s := range subs {
		await(t, 30*time.Second, "not everything is delivered", func() bool { return f.count(s.ID) == int(total.Load()) })
	}
	await(t, 30*time.Second, "a progress group is not at the end", func() bool { return f.settled(subs...) })
	// In flight at most 2 x 32; not committed at most about 1.1 s x 1,000 records a second x a third x 2.
	if n := f.duplicates() - calm; n > 64+800 {
		t.Errorf("%d sent again by a crash", n)
	}
	t.Logf("%d records to %d subscriptions; sent again: %d by the crash", total.Load(), len(subs), f.duplicates()-calm)
	f.checkWrongs()
}

func (f *fleet) duplicates() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.again
}

func TestAParkedRecordKeepsItsAttemptsOverACrash(t *testing.T) {
	f := newFleet(t, 1)
	var mend atomic.Bool
	f.refuse = func(d webhook.Delivery) int {
		if string(d.Record.Value) == "v0" && !mend.Load() {
			return 500
		}
		return 200
	}
	s := f.subscribe(nil)
	produce := f.producer()
	produce(0, 1, 1000)
	a := f.launch("a")
	first := deliveryKey{s.ID, 0, 0}
	await(t, 20*time.Second, "the first attempt", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.attempts[first] >= 1 })
	produce(1, 200, 1000)
	await(t, 20*time.Second, "two attempts and 200 deliveries", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.attempts[first] >= 3 && len(f.delivered) == 200
	})
	await(t, 10*time.Second, "the commit of all that", func() bool {
		c, err := f.control.offsets.Group(f.within(5*time.Second), s.ProgressGroup(), []sluice.Partition{part(f.topic, 0)})
		return err == nil && c[0].Offset == 0 && told(c[0]) == 3
	})
	a.crash()
	mend.Store(true)
	b := f.launch("b")
	await(t, 60*time.Second, "the parked record", func() bool { return f.count(s.ID) == 201 })
	if n := f.duplicates(); n != 0 {
		t.Errorf("%d of the 200 were sent again", n)
	}
	f.mu.Lock()
	if n := f.attempts[first]; n != 4 {
		t.Errorf("the parked record arrived with attempt %d, want 4", n)
	}
	f.mu.Unlock()
	f.checkWrongs()
	b.leave()
}

func TestDeletedSubscriptionsLeaveNoGroup(t *testing.T) {
	f := newFleet(t, 2)
	s := f.subscribe(nil)
	f.launch("a")
	f.launch("b")
	f.producer()(0, 10, 5)
	await(t, 20*time.Second, "the deliveries", func() bool { return f.count(s.ID) == 10 })
	gone := *s
	gone.State, gone.Revision = subscriptions.Deleting, 2
	f.book.put(&gone)
	await(t, 30*time.Second, "the definition is not removed", func() bool { return len(f.book.All()) == 0 })
	c, err := f.control.offsets.Group(f.within(5*time.Second), s.ProgressGroup(), []sluice.Partition{part(f.topic, 0)})
	if err != nil || c[0].Offset != sluice.NoOffset {
		t.Errorf("the progress group still says %+v, %v", c, err)
	}
}

// What the gateway will hand in.
var (
	_ letters  = (*deadletters.Writer)(nil)
	_ book     = (*subscriptions.Book)(nil)
	_ registry = (*subscriptions.Registry)(nil)
	_ health   = (*subscriptions.Health)(nil)
	_ sender   = (*webhook.Sender)(nil)
	_ groups   = (*kafka.Groups)(nil)
	_ offsets  = (*kafka.Offsets)(nil)
	_ topics   = (*kafka.Admin)(nil)
)

// told is the attempts of the only hole in a commit that tells of all 201 records.
func told(c sluice.Commit) int {
	_, l, _ := progress.Decode(c.Offset, c.Metadata)
	if h, ok := l.Hole(0); ok && l.Len() == 1 && l.Next() == 201 {
		return h.Attempts
	}
	return -1
}
