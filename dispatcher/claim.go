package dispatcher

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

const (
	readPositions = 30 * time.Second
	restartWait   = time.Second
	sweepEvery    = 10 * time.Second // what lanes at rest do not need is given back
	lookTwice     = 5                // at the end of a log that seems to lie below a position
	lookAgain     = 500 * time.Millisecond
)

// claim is one partition that the ownership group has lent to this replica, with a lane for each subscription. It
// outlives the session while the partition may come back to it.
type claim struct {
	d      *Dispatcher
	p      sluice.Partition
	flying context.Context // the attempts in flight live in it; it ends when the partition is let go
	cancel context.CancelFunc

	flights flights
	session atomic.Pointer[claimSession]
	topic   atomic.Pointer[sluice.Topic]
	free    atomic.Bool // the session is over, or the replica stops: nothing new
	renew   chan struct{}

	mu      sync.Mutex
	lanes   map[string]*runner
	benched map[string]bool // lanes that stopped because another owner spoke
	moved   uint64          // bells so far
	waiting []*runner       // lanes at the end of the partition
}

type claimSession struct {
	sluice.Session
	ctx     context.Context
	company company
}

func (d *Dispatcher) newClaim(p sluice.Partition) *claim {
	c := &claim{d: d, p: p, lanes: map[string]*runner{}, benched: map[string]bool{}, renew: make(chan struct{}, 1)}
	c.flying, c.cancel = context.WithCancel(d.flying)
	return c
}

func (c *claim) released() bool           { return c.free.Load() }
func (c *claim) leased() bool             { return c.session.Load().Valid() }
func (c *claim) valid() bool              { return !c.released() && c.leased() }
func (c *claim) context() context.Context { return c.session.Load().ctx }

func (c *claim) topicID() sluice.TopicID {
	if t := c.topic.Load(); t != nil {
		return t.ID
	}
	return sluice.TopicID{}
}

// begin starts or resumes the claim for a session. Lanes that were suspended wake as they were.
func (c *claim) begin(ctx context.Context, s sluice.Session) {
	with := companyOf(s.Notes, c.d.process)
	c.session.Store(&claimSession{Session: s, ctx: ctx, company: with})
	c.mu.Lock()
	c.waiting = nil // all look for themselves when they wake
	c.moved++
	c.mu.Unlock()
	c.free.Store(false)
	if c.d.stopping.Load() { // asked after, so that a stop that came in between is not overruled
		c.free.Store(true)
		return
	}
	c.each(event{kind: evWake})
	for _, r := range c.runners() {
		r.reassure(with)
	}
}

func (c *claim) each(e event) {
	for _, r := range c.runners() {
		r.post(e)
	}
}

func (c *claim) runners() []*runner {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*runner, 0, len(c.lanes))
	for _, r := range c.lanes {
		all = append(all, r)
	}
	return all
}

// run keeps the lanes in step with the subscriptions until the session ends.
func (c *claim) run(ctx context.Context) {
	wait, told := firstPause, ""
	readBack := c.soon(true)
	for {
		changed := c.d.changed()
		due := !time.Now().Before(readBack)
		if due {
			c.unbench()
		}
		err := c.reconcile(ctx)
		if due && err == nil {
			c.readBack(ctx)
			readBack = c.soon(false)
		}
		again := max(time.Until(readBack), 0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if kind := string(sluice.KindOf(err)); kind != told {
				told = kind
				c.d.log.LogAttrs(ctx, slog.LevelWarn, "positions cannot be read", slog.String("topic", c.p.Topic),
					slog.Int("partition", int(c.p.Number)), slog.Any("error", err))
			}
			again, wait = wait, min(2*wait, lastPause) // a read-back that is due comes after it
		default:
			wait, told = firstPause, ""
		}
		if !c.sleep(ctx, changed, again) {
			return
		}
	}
}

// sleep waits for a change, for a lane that is to begin anew, or for a time; false when the session is over.
func (c *claim) sleep(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-time.After(d):
	case <-c.renew:
		select {
		case <-ctx.Done():
			return false
		case <-time.After(restartWait):
		}
	}
	return true
}

// reconcile drops the lanes of subscriptions that are gone, tells the others what changed, and takes over new ones.
func (c *claim) reconcile(ctx context.Context) error {
	if c.released() {
		return nil
	}
	wanted := c.d.of(c.p.Topic)
	var fresh []*subscriptions.Subscription
	c.mu.Lock()
	gone := map[string]*runner{}
	for id, r := range c.lanes {
		gone[id] = r
	}
	type update struct {
		r   *runner
		def *subscriptions.Subscription
	}
	var updates []update
	for _, def := range wanted {
		r := c.lanes[def.ID]
		switch {
		case r == nil && c.benched[def.ID]:
		case r == nil:
			fresh = append(fresh, def)
		case r.share.definition.Load().Delivery.Ordering != def.Delivery.Ordering:
			fresh = append(fresh, def) // another order is another lane
		default:
			delete(gone, def.ID)
			updates = append(updates, update{r, def})
		}
	}
	for id := range gone {
		delete(c.lanes, id)
	}
	c.mu.Unlock()
	for _, r := range gone {
		r.drop()
	}
	for _, u := range updates {
		if old := u.r.share.definition.Load(); u.def.Revision > old.Revision || u.r.revision != u.def.Revision {
			u.r.revision = u.def.Revision
			c.d.enter(u.r, u.def)
			u.r.post(event{kind: evPlan, plan: u.r.share.plan.Load()})
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return c.takeOver(ctx, fresh)
}

// watch is the bell: it wakes the lanes at the end of the partition when that moves. The channel is always taken before
// they look, so no move is missed.
func (c *claim) watch(ctx context.Context) {
	bell := c.d.needs.Log.Changed(c.p)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			for _, r := range c.runners() {
				r.trim()
			}
			continue
		case <-bell:
		}
		next := c.d.needs.Log.Changed(c.p)
		if next == bell { // the log was stopped: nothing will move any more
			<-ctx.Done()
			return
		}
		bell = next
		c.mu.Lock()
		waiting := c.waiting
		c.waiting = nil
		c.moved++
		c.mu.Unlock()
		for _, r := range waiting {
			r.post(event{kind: evBell})
		}
	}
}

// moves is how often the bell rang; a lane asks before it reads.
func (c *claim) moves() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}

// await rings for a lane at the next bell, or at once if one was missed since seen.
func (c *claim) await(r *runner, seen uint64) {
	c.mu.Lock()
	missed := c.moved != seen
	if !missed {
		c.waiting = append(c.waiting, r)
	}
	c.mu.Unlock()
	if missed {
		r.post(event{kind: evBell})
	}
}

// suspend stops the lanes: nothing new is sent or read, what is in flight goes on.
func (c *claim) suspend() {
	c.free.Store(true)
	c.each(event{kind: evSuspend})
}

// drop lets the partition go: flights are cancelled, and what they bring counts for nothing.
func (c *claim) drop() {
	c.free.Store(true)
	c.cancel()
	c.mu.Lock()
	lanes := c.lanes
	c.lanes, c.waiting = map[string]*runner{}, nil
	c.mu.Unlock()
	for _, r := range lanes {
		r.drop()
	}
}
