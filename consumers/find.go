package consumers

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	// AdoptPatience is how long a request waits for an instance to be taken over (rest-api.md 5.5).
	AdoptPatience = 15 * time.Second
	findPause     = 100 * time.Millisecond
)

// ErrNotOwner answers a request that another replica forwarded here by mistake: it asks the roster again.
var ErrNotOwner = &sluice.Error{Kind: sluice.Overloaded, Msg: "The consumer instance is on another replica.", RetryAfter: time.Second}

// ErrMoved is told by an instance that went to another replica while a call was under way: Find knows where.
var ErrMoved = &sluice.Error{Kind: sluice.Overloaded, Msg: "The consumer instance is moving to another replica.", RetryAfter: time.Second}

var errTakeover = &sluice.Error{Kind: sluice.Overloaded, Msg: "The consumer instance is being taken over.", RetryAfter: time.Second}

// Seat is where an instance is served: here, or at the URL of another replica, whose name is Owner.
type Seat struct {
	Instance *Instance
	URL      string
	Owner    string
}

// Find says where an instance is, and takes it over if its owner has let go of it. forwarded says that another replica
// asks, which must not be sent on. It waits for a takeover until ctx ends. Kinds: NotFound, whose Detail says why there is
// none; StoreDown; Overloaded. ErrNotOwner for a forwarded call.
func (r *Registry) Find(ctx context.Context, group, id string, forwarded bool) (Seat, error) {
	n := name{group, id}
	for {
		if i := r.local(n); i != nil && r.stillOurs(ctx, i) {
			return Seat{Instance: i}, nil
		}
		if r.roster == nil {
			i, err := r.Instance(group, id)
			return Seat{Instance: i}, err
		}
		seat, err := r.seek(ctx, n, forwarded)
		if err != nil && ctx.Err() != nil {
			return Seat{}, errTakeover // out of patience, in the middle of a question
		}
		if err != nil || seat != (Seat{}) {
			return seat, err
		}
		if !pause(ctx, findPause) {
			return Seat{}, errTakeover
		}
	}
}

func (r *Registry) local(n name) *Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[n]
}

// stillOurs asks again when the lease has run out by our own clock: this process was frozen, or Redis was away. As long
// as Redis is away nobody else can have taken the instance, and it works on.
func (r *Registry) stillOurs(ctx context.Context, i *Instance) bool {
	if r.roster == nil || time.Now().UnixNano() < i.leased.Load() {
		return true
	}
	i.saveNow(ctx)
	if i.unsaved.Load() { // Redis does not answer: not every call is to wait for that
		i.leased.Store(time.Now().Add(keepEvery).UnixNano())
	}
	return !i.hasEnded()
}

// seek looks once; no seat and no error says that it is worth looking again.
func (r *Registry) seek(ctx context.Context, n name, forwarded bool) (Seat, error) {
	r.mu.Lock()
	stopped := r.stopped
	r.mu.Unlock()
	s, err := r.roster.claim(ctx, n, !stopped, r.textOf(reasonExpired))
	if err != nil {
		return Seat{}, err
	}
	switch s.state {
	case "gone":
		if s.why == "" {
			s.why = "never existed"
		}
		return Seat{}, notFound(s.why)
	case "mine":
		i, err := r.adopt(ctx, n, s.fields)
		return Seat{Instance: i}, err
	}
	switch {
	case s.owner == r.roster.me: // a request beside this one is taking it over, or it is on its way out
		return Seat{}, nil
	case forwarded:
		return Seat{}, ErrNotOwner
	case r.secret == "":
		return Seat{}, nil
	case s.state == "free": // and this replica takes no more
		return Seat{URL: r.Another(ctx)}, nil
	}
	document, err := r.roster.replica(ctx, s.owner)
	if err != nil || document == "" {
		return Seat{}, err
	}
	return Seat{URL: urlOf(document), Owner: s.owner}, nil
}

const aliveFor = time.Second // how old the news of another replica may be

// Alive is whether another replica still says so. One that is frozen takes connections and never answers; whoever waits
// for it asks now and then. All who ask share the answer. Without Redis nobody can tell, and it counts as alive.
func (r *Registry) Alive(ctx context.Context, owner string) bool {
	r.mu.Lock()
	last, known := r.alive[owner]
	if known && time.Since(last) < aliveFor {
		r.mu.Unlock()
		return true
	}
	r.alive[owner] = time.Now()
	r.mu.Unlock()
	document, err := r.roster.replica(ctx, owner)
	if err != nil || document != "" {
		return true
	}
	r.mu.Lock()
	delete(r.alive, owner)
	r.mu.Unlock()
	return false
}

// replicaDocument is what a replica says of itself.
type replicaDocument struct {
	URL     string `json:"url"`
	Version string `json:"version"`
}

func urlOf(document string) string {
	var d replicaDocument
	_ = json.Unmarshal([]byte(document), &d) // what cannot be read leads nowhere
	return d.URL
}

// Another is the URL of some other live replica, "" if there is none that could be asked.
func (r *Registry) Another(ctx context.Context) string {
	if r.roster == nil || r.secret == "" {
		return ""
	}
	all, err := r.roster.others(ctx)
	if err != nil || len(all) == 0 {
		return ""
	}
	return urlOf(all[rand.IntN(len(all))])
}

// Shared is whether instances can go to other replicas.
func (r *Registry) Shared() bool { return r.roster != nil }

// Stopping is whether this replica takes no instances any more.
func (r *Registry) Stopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped
}

// adopt goes on with an instance of another replica: under its settings and subscription, from its stored positions.
func (r *Registry) adopt(ctx context.Context, n name, fields map[string]string) (*Instance, error) {
	i, wish, err := r.restore(n, fields)
	if err != nil {
		return nil, err
	}
	i.leased.Store(time.Now().Add(r.cfg.ReplicaLease).UnixNano())
	i.saving <- struct{}{} // nothing is written before the subscription is there again
	defer i.saving.free()
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		if _, err := r.roster.write(ctx, n, writeRelease, nil, nil); err != nil {
			return nil, err // its lease must run out
		}
		return nil, ErrMoved
	}
	r.open[n] = i
	r.mu.Unlock()
	r.metrics.instances.Inc()
	r.metrics.adopted.Inc()
	r.log.Info("consumer instance adopted", slog.String("group", n.group), slog.String("instance", n.id), slog.Int("positions", len(i.claims)))
	if wish != nil {
		i.changing <- struct{}{} // a change that came first would have made it the instance's own
		i.mu.Lock()
		fresh := i.member == nil && i.why == ""
		i.mu.Unlock()
		if fresh {
			i.join(*wish)
		}
		i.changing.free()
	}
	i.leave()
	return i, nil
}
