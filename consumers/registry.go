// Package consumers holds the instances of the classic consumer API (rest-api.md 5 to 7). An instance is what a client
// of that API reads through: a member of a consumer group, a position in each partition that the group lends it, and
// the one answer that may be on its way to the client.
//
// The membership grants partitions and nothing else; it lives in the background, so that an instance is never thrown
// out of its group for polling slowly. Records come from partition.Log, like everybody's. The cursor belongs to the
// instance and moves after the work: a record is delivered when the whole answer that holds it has reached the client's
// socket. Until then the answer is kept as offsets, and a lost one is given again.
//
//	subscribe -> membership -> session (one generation) -> claims -> position: committed, else auto.offset.reset
//	read      -> waits for a session and for records, takes from its claims in turn -> Answer
//	Answer    -> Settled: positions move; Lost: they do not
//	commit    -> what was delivered, with the member's id and generation
//
// An instance lives on one replica, its owner. Redis holds what the others need to send a request there, or to go on with
// the instance when its owner has died or left (roster.go): Find answers where an instance is, Run keeps leases and
// positions written, Stop hands everything over. None of that is on the way of a record: positions are written behind,
// but before a read can tell of a place that was just found or sought.
//
//	Find      -> here | at another replica | nobody's: adopted from its settings, subscription and spots
//	save      -> one script: are we still the owner? then the changes, and the lease for another while
//
// Locks: Registry.mu before Instance.mu; neither is held while anything waits. What takes time on one instance is kept
// apart by three slots of one place each: reads (until their answer is settled), changes of the subscription, commits.
package consumers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
)

type groups interface {
	Member(ctx context.Context, m sluice.Membership, fn sluice.SessionFunc) error
}

type offsets interface {
	Commit(ctx context.Context, c sluice.GroupCommit) []error
	Group(ctx context.Context, group string, parts []sluice.Partition) ([]sluice.Commit, error)
}

type topics interface {
	Topics(ctx context.Context) ([]string, error)
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
	OffsetAt(ctx context.Context, p sluice.Partition, t time.Time) (int64, error)
}

// Needs is what the instances work with.
type Needs struct {
	Log     *partition.Log
	Groups  groups
	Offsets offsets
	Redis   redis.UniversalClient // nil keeps the instances in memory alone
	Topics  topics                // for patterns, seeks by time, and to tell a slow join from a Kafka that is gone
}

// Registry knows the instances of this replica.
type Registry struct {
	cfg     Config
	needs   Needs
	log     *slog.Logger
	metrics *metrics

	roster *roster // nil: this replica is alone
	secret string

	mu       sync.Mutex
	open     map[name]*Instance
	leaving  map[*Instance]bool // not open any more, and receipts may still come
	gone     graveyard
	unstruck map[*Instance]bool   // ended, and Redis does not know it yet
	alive    map[string]time.Time // other replicas, and when they were last asked for
	stopped  bool
	ending   sync.WaitGroup // instances that are on their way out of their group
}

// name is what tells an instance from all others: ids are unique in their group only.
type name struct{ group, id string }

// New starts nothing; every instance starts what it needs when it subscribes.
func New(cfg Config, needs Needs, log *slog.Logger, reg prometheus.Registerer) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("consumers: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("consumers: %w", err)
	}
	r := &Registry{cfg: cfg, needs: needs, log: log, metrics: m, open: map[name]*Instance{}, leaving: map[*Instance]bool{}, unstruck: map[*Instance]bool{}, alive: map[string]time.Time{}}
	if r.secret, err = cfg.secret(); err != nil {
		return nil, fmt.Errorf("consumers: %w", err)
	}
	if needs.Redis != nil {
		r.roster = &roster{rdb: needs.Redis, me: replicaName(), lease: cfg.ReplicaLease, idle: cfg.InstanceTimeout}
	}
	return r, nil
}

// replicaName is this process's alone: one that comes back after a crash must not take the leases of the one before for
// its own, whose positions it does not have.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "replica"
	}
	return host + "-" + uuid()
}

var (
	errStopping = &sluice.Error{Kind: sluice.Overloaded, Msg: "This replica is stopping."}
	errTaken    = &sluice.Error{Kind: sluice.Conflict, Msg: "Consumer with specified consumer ID already exists in the specified consumer group."}
)

// Create makes an instance in group. It speaks to Redis alone. Kinds: BadSetting for a group name that is not allowed,
// Conflict for an id that the group has already, StoreDown, Overloaded when the replica stops.
func (r *Registry) Create(ctx context.Context, group string, s Settings, v Version) (*Instance, error) {
	if err := checkGroup(group); err != nil {
		return nil, err
	}
	id := s.ID
	if id == "" {
		id = r.newID()
	}
	i := newInstance(r, name{group, id}, s, v)
	if r.roster != nil {
		if r.Stopping() {
			return nil, errStopping
		}
		fields := i.fields(nil)
		fields["touched"] = strconv.FormatInt(time.Now().UnixMilli(), 10)
		made, err := r.roster.enlist(ctx, i.name, fields)
		if err != nil {
			return nil, err
		}
		if !made {
			return nil, errTaken
		}
		i.saved = fields
		i.leased.Store(time.Now().Add(r.cfg.ReplicaLease).UnixNano())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return nil, errStopping // what was enlisted a moment ago expires
	}
	if r.open[i.name] != nil {
		return nil, errTaken
	}
	r.open[i.name] = i
	i.leave() // the creating call is over: the idle clock starts
	r.metrics.instances.Inc()
	return i, nil
}

func (r *Registry) newID() string {
	id := "rest-consumer-"
	if r.cfg.ID != "" {
		id += r.cfg.ID + "-"
	}
	return id + uuid()
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Instance finds one. Kind NotFound; its Detail says why there is none.
func (r *Registry) Instance(group, id string) (*Instance, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.open[name{group, id}]; i != nil {
		return i, nil
	}
	return nil, notFound(r.gone.why(name{group, id}, time.Now()))
}

func notFound(why string) error {
	return &sluice.Error{Kind: sluice.NotFound, Msg: "Consumer instance not found.", Detail: why}
}

// Delete ends an instance: a held read returns what it has, delivered records are committed if auto-commit is on, and
// the group is left at once. It waits for that, but not for a Kafka that hangs. Kind NotFound.
func (r *Registry) Delete(ctx context.Context, group, id string) error {
	i, err := r.Instance(group, id)
	if err != nil {
		return err
	}
	if !r.end(i, reasonDeleted) {
		if i.hasMoved() {
			return ErrMoved
		}
		_, err := r.Instance(group, id) // somebody was faster
		return err
	}
	wait, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	select {
	case <-i.left:
	case <-wait.Done(): // it goes on leaving
	}
	return nil
}

// leavePatience is how long a DELETE waits for the group to be left.
const leavePatience = 5 * time.Second

// end takes an instance out of the registry and lets it leave its group. It reports false if that is under way already,
// or if an instance that was thought idle is not.
func (r *Registry) end(i *Instance, why reason) bool {
	r.mu.Lock()
	if !i.close(why, i.text(why)) {
		r.mu.Unlock()
		return false
	}
	delete(r.open, i.name)
	r.leaving[i] = true
	if why != reasonMoved {
		r.gone.add(i.name, i.text(why), time.Now())
	}
	r.ending.Add(1)
	r.mu.Unlock()

	r.metrics.instances.Dec()
	r.metrics.ended.WithLabelValues(string(why)).Inc()
	r.log.Info("consumer instance ended", slog.String("group", i.name.group), slog.String("instance", i.name.id), slog.String("reason", string(why)))
	go func() {
		defer r.ending.Done()
		if r.roster != nil && why != reasonMoved { // first: the other replicas must not take it over
			_ = r.strike(context.Background(), i) // it is tried again, and logged there
		}
		i.depart()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.leaving, i)
	}()
	return true
}

// Stop gives every instance to the other replicas, or without a roster ends it, and takes no new one. Held reads return
// what they have; groups are left in order.
func (r *Registry) Stop(ctx context.Context) error {
	r.mu.Lock()
	r.stopped = true
	all := make([]*Instance, 0, len(r.open))
	for _, i := range r.open {
		all = append(all, i)
	}
	r.mu.Unlock()
	for _, i := range all {
		r.end(i, map[bool]reason{true: reasonMoved, false: reasonShutdown}[r.roster != nil])
	}
	done := make(chan struct{})
	go func() { r.ending.Wait(); close(done) }()
	select {
	case <-done:
		if r.roster != nil {
			_ = r.roster.retire(ctx) // else the others find out by themselves
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("consumers: instances still leave their groups: %w", ctx.Err())
	}
}
