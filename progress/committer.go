package progress

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

// Account is one lane as the Committer sees it. Both methods are called from goroutines of the Committer.
type Account interface {
	// Statement is what may be committed now, and the version of the state that it tells. final asks for the last word
	// before the partition is given back. False: the lane may not speak (no valid session) or has nothing to say.
	Statement(now time.Time, final bool) (c sluice.Commit, version uint64, ok bool)
	// Committed says what became of the statement of that version.
	Committed(version uint64, err error)
}

// offsets is kafka.Offsets: one error per commit, nil for stored.
type offsets interface {
	Commit(ctx context.Context, c sluice.GroupCommit) []error
}

// Committer writes the progress of lanes to Kafka: one request per group that changed, every interval; a group with
// many completions at once. It never has two requests of one group in flight, so answers come in the order of the
// states they carry.
type Committer struct {
	cfg     Config
	kafka   offsets
	log     *slog.Logger
	metrics *metrics
	pace    pace
	kick    chan struct{}
	workers chan struct{} // a token per request in flight

	mu     sync.Mutex
	groups map[string]*group
	dirty  map[*group]struct{}
	urgent bool
}

type group struct {
	name  string
	turn  chan struct{} // holds one token: whoever has it may commit for the group
	lines map[*Line]struct{}
	done  atomic.Int64 // completions since the last commit
}

// Line is one lane's place in the Committer.
type Line struct {
	c       *Committer
	group   *group
	account Account
	dirty   atomic.Bool
	again   atomic.Bool // commit even what has not changed

	// The rest belongs to whoever has the group's turn.
	acked    uint64    // version that Kafka has
	at       time.Time // of the last commit that was stored
	force    bool      // commit even what has not changed
	failures int
	bare     bool // the metadata was too large for the broker: the offset alone
	retryAt  atomic.Int64
	keepFor  time.Duration
}

// NewCommitter starts nothing: see Run. A nil Registerer keeps the metrics private.
func NewCommitter(cfg Config, kafka offsets, log *slog.Logger, reg prometheus.Registerer) (*Committer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Committer{
		cfg: cfg, kafka: kafka, log: cmp.Or(log, slog.New(slog.DiscardHandler)), metrics: newMetrics(reg),
		kick: make(chan struct{}, 1), workers: make(chan struct{}, cfg.Workers),
		groups: map[string]*group{}, dirty: map[*group]struct{}{},
	}, nil
}

// Open gives a lane its line in the commits of a group. The lane's position counts as not yet committed.
func (c *Committer) Open(name string, a Account) *Line {
	l := &Line{c: c, account: a, at: time.Now(), keepFor: c.cfg.keepFor(rand.Int64N)}
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.groups[name]
	if g == nil {
		g = &group{name: name, turn: make(chan struct{}, 1), lines: map[*Line]struct{}{}}
		c.groups[name] = g
	}
	g.lines[l] = struct{}{}
	l.group = g
	return l
}

// Close takes the line out: its lane has let go. A commit under way still gets its answer.
func (l *Line) Close() {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	delete(l.group.lines, l)
	if len(l.group.lines) > 0 {
		return
	}
	delete(l.c.dirty, l.group)
	select {
	case l.group.turn <- struct{}{}:
		delete(l.c.groups, l.group.name)
		<-l.group.turn
	default: // whoever has the turn forgets the group; a lane opened meanwhile must not commit beside that request
	}
}

// giveBack ends a turn.
func (c *Committer) giveBack(g *group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	<-g.turn
	if len(g.lines) == 0 && c.groups[g.name] == g {
		delete(c.groups, g.name)
	}
}

// Changed says that the lane's state is another than the committed one; completions is by how many records. It is
// cheap and may be called under the lane's lock.
func (l *Line) Changed(completions int) {
	done := l.group.done.Add(int64(completions))
	urgent := done/l.c.cfg.Completions > (done-int64(completions))/l.c.cfg.Completions
	if !l.dirty.Swap(true) {
		l.c.mu.Lock()
		if _, open := l.group.lines[l]; open {
			l.c.dirty[l.group] = struct{}{}
		}
		l.c.mu.Unlock()
	}
	if urgent {
		l.c.hurry()
	}
}

// Again asks for a commit although nothing changed since the last, and although the last may have failed: what Kafka has
// is not what it was told.
func (l *Line) Again() {
	l.again.Store(true)
	l.retryAt.Store(0)
	l.Changed(0)
}

// Now asks for a commit of all that is dirty without waiting for the interval: a takeover pins its position so.
func (c *Committer) Now() {
	c.mu.Lock()
	c.urgent = true
	c.mu.Unlock()
	c.hurry()
}

func (c *Committer) hurry() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Run commits until ctx ends, then waits for the requests in flight. The last word of a lane is Flush's affair.
func (c *Committer) Run(ctx context.Context) error {
	var requests sync.WaitGroup
	defer requests.Wait()
	next := time.Now().Add(minInterval)
	keepAlive := time.Now().Add(c.cfg.lookEvery())
	timer := time.NewTimer(minInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.kick:
		}
		now := time.Now()
		if !now.Before(keepAlive) {
			keepAlive = now.Add(c.cfg.lookEvery())
			c.markOld(now)
		}
		due, dirty := c.due(now, !now.Before(next))
		for i, g := range due {
			select {
			case <-ctx.Done():
				for _, g := range due[i:] {
					c.giveBack(g)
				}
				return nil
			case c.workers <- struct{}{}:
			}
			requests.Go(func() {
				defer func() { <-c.workers }()
				c.write(context.WithoutCancel(ctx), g)
			})
		}
		if !now.Before(next) {
			next = now.Add(c.pace.interval(dirty, c.cfg.Workers))
		}
		timer.Reset(max(time.Until(next), 0))
	}
}

// due takes the groups to write now: all that are dirty when the interval is over, else those that cannot wait.
func (c *Committer) due(now time.Time, all bool) (due []*group, dirty int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, c.urgent = all || c.urgent, false
	dirty = len(c.dirty)
	c.metrics.dirty.Set(float64(dirty))
	for g := range c.dirty {
		if !all && g.done.Load() < c.cfg.Completions {
			continue
		}
		if !g.ready(now) {
			continue
		}
		select {
		case g.turn <- struct{}{}:
		default:
			continue // a request of this group is under way; it stays dirty
		}
		delete(c.dirty, g)
		due = append(due, g)
	}
	return due, dirty
}

// ready is whether some dirty line of the group need not wait after a failure.
func (g *group) ready(now time.Time) bool {
	for l := range g.lines {
		if l.dirty.Load() && l.retryAt.Load() <= now.UnixNano() {
			return true
		}
	}
	return false
}

// markOld makes lines dirty whose commit would expire: Kafka forgets an offset of a group without members a while
// after its last commit (KIP-211), and a lane that stands still commits nothing of itself.
func (c *Committer) markOld(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.groups {
		select {
		case g.turn <- struct{}{}:
		default:
			continue // it is committing this moment; the next round looks again
		}
		for l := range g.lines {
			if now.Sub(l.at) >= l.keepFor {
				l.force = true
				l.dirty.Store(true)
				c.dirty[g] = struct{}{}
			}
		}
		<-g.turn
	}
}

// write commits what is dirty in a group whose turn the caller took.
func (c *Committer) write(ctx context.Context, g *group) {
	defer c.giveBack(g)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	g.done.Store(0)
	now := time.Now()
	c.mu.Lock()
	lines := make([]*Line, 0, len(g.lines))
	for l := range g.lines {
		if l.dirty.Load() && l.retryAt.Load() <= now.UnixNano() {
			lines = append(lines, l)
		}
	}
	c.mu.Unlock()
	c.commit(ctx, g, lines, false)

	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range g.lines {
		if l.dirty.Load() {
			c.dirty[g] = struct{}{} // failed, or changed meanwhile
			return
		}
	}
}

// Flush writes the last word of lanes before their partitions are given back, and tries again until ctx ends. It
// returns how many of them Kafka does not have.
func (c *Committer) Flush(ctx context.Context, lines []*Line) (missing int) {
	byGroup := map[*group][]*Line{}
	for _, l := range lines {
		byGroup[l.group] = append(byGroup[l.group], l)
	}
	var left atomic.Int64
	var requests sync.WaitGroup
	for g, lines := range byGroup {
		// The workers of Run are not asked for: a release has three seconds and may not stand behind anybody's hung
		// request. kafka.Offsets bounds its connections itself.
		requests.Go(func() { left.Add(int64(c.flush(ctx, g, lines))) })
	}
	requests.Wait()
	return int(left.Load())
}

func (c *Committer) flush(ctx context.Context, g *group, lines []*Line) int {
	wait := firstRetry
	for {
		select {
		case g.turn <- struct{}{}:
		case <-ctx.Done():
			return len(lines)
		}
		for _, l := range lines {
			l.force = true
		}
		lines = c.commit(ctx, g, lines, true)
		c.giveBack(g)
		if len(lines) == 0 {
			return 0
		}
		select {
		case <-ctx.Done():
			return len(lines)
		case <-time.After(wait):
			wait = min(2*wait, lastRetry)
		}
	}
}

// commit writes lines of one group, whose turn the caller has, in requests that brokers take, and returns the lines
// that failed.
func (c *Committer) commit(ctx context.Context, g *group, lines []*Line, final bool) (failed []*Line) {
	now := time.Now()
	request := sluice.GroupCommit{Group: g.name, Generation: -1}
	var sent []statement
	size := 0
	flush := func() {
		failed = append(failed, c.send(ctx, request, sent)...)
		request.Commits, sent, size = nil, nil, 0
	}
	for _, l := range lines {
		l.dirty.Store(false) // before the look: what changes afterwards makes it dirty again
		commit, version, ok := l.account.Statement(now, final)
		l.force = l.again.Swap(false) || l.force
		if !ok || (version == l.acked && !l.force) {
			l.force = false
			continue
		}
		if l.bare {
			commit.Metadata = ""
		}
		c.metrics.metadata.Observe(float64(len(commit.Metadata)))
		request.Commits = append(request.Commits, commit)
		sent = append(sent, statement{l, version, final})
		if size += len(commit.Metadata); size >= maxRequest {
			flush()
		}
	}
	if len(sent) > 0 {
		flush()
	}
	return failed
}

type statement struct {
	line    *Line
	version uint64
	final   bool
}

func (c *Committer) send(ctx context.Context, request sluice.GroupCommit, sent []statement) (failed []*Line) {
	began := time.Now()
	errs := c.kafka.Commit(ctx, request)
	took := time.Since(began)
	c.metrics.seconds.Observe(took.Seconds())
	stored := false
	for i, s := range sent {
		err := errors.New("progress: no answer for this partition")
		if i < len(errs) {
			err = errs[i]
		}
		if err == nil {
			stored = true
			s.line.stored(s.version)
		} else {
			c.metrics.errors.WithLabelValues(string(sluice.KindOf(err))).Inc()
			c.failed(s, request.Group, request.Commits[i], err)
			failed = append(failed, s.line)
		}
		s.line.account.Committed(s.version, err)
	}
	if stored {
		c.pace.took(took)
	}
	return failed
}

func (l *Line) stored(version uint64) {
	l.acked, l.at, l.force, l.failures = version, time.Now(), false, 0
	l.retryAt.Store(0)
}

// failed schedules the next try. A group that a foreign member joined, a denied one and a topic that is gone are tried
// once a minute; what passes by itself after 50 ms doubling to 2 s.
func (c *Committer) failed(s statement, group string, commit sluice.Commit, err error) {
	l := s.line
	l.failures++
	wait := min(firstRetry<<min(l.failures-1, 10), lastRetry)
	switch sluice.KindOf(err) {
	case sluice.StaleSession, sluice.Forbidden, sluice.Unauthorized, sluice.UnknownTopic, sluice.UnknownPart:
		wait = slowRetry
	case sluice.TooLarge:
		l.bare = true // a limit below what HolesWithin was told: the offset alone always fits
	}
	if l.failures == 1 {
		c.log.LogAttrs(context.Background(), slog.LevelWarn, "commit failed", slog.String("group", group),
			slog.String("topic", commit.Topic), slog.Int("partition", int(commit.Partition)), slog.Any("error", err))
	}
	l.retryAt.Store(time.Now().Add(wait).UnixNano())
	l.dirty.Store(true)
}

// Pending is whether the lane has said something since its last commit.
func (l *Line) Pending() bool { return l.dirty.Load() }
