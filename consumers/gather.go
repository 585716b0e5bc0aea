package consumers

import (
	"context"
	"slices"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	readAhead   = 1 << 20                // bytes asked of the log for one partition at a time
	plenty      = 3 << 18                // bytes that are answer enough while there could be more
	gatherGrace = 20 * time.Millisecond  // for the other partitions, once one has records
	troubleWait = 250 * time.Millisecond // before a partition that failed is read again
	goneWait    = time.Second            // before one whose topic is gone is looked at again
)

// gathering collects records from the claims of one session. Each claim has one look at the log under way, in a
// goroutine of its own, so that a partition without a leader holds up no other. The looks end with the gathering, but
// not the fetches that they began: these go into the log's memory. So a gathering that has plenty ends although there is
// more, and what comes next is fetched while the client takes the answer.
type gathering struct {
	h       *held
	s       *session
	cursors []*cursor // beginning with the partition whose turn it is
	found   chan *cursor
	asking  int  // looks under way that wait for nothing
	closing bool // no more looks

	records     []*sluice.Record
	bytes       int
	full        bool  // the answer ends here
	undecodable error // of its first record
	unjudged    error // nobody could say whether its first record decodes
	turn        sluice.Partition
	owed        bool
}

// cursor is a claim and how far it was gathered. A look fills in the second half and hands it back by found.
type cursor struct {
	c           *claim
	start, from int64
	last        int64 // the last record gathered, or NoOffset
	fresh       bool  // what the look found is not gathered yet

	looked  int64 // where the look began
	asked   bool  // the look waits for nothing
	records []*sluice.Record
	next    int64
	bell    <-chan struct{} // rings when there may be more behind next
	err     error
}

// gather returns an answer, or an error, or neither: then the session changed and the read begins again.
func (h *held) gather(ctx context.Context, s *session, bell <-chan struct{}) (*Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := &gathering{h: h, s: s}
	if err := g.open(); err != nil {
		return nil, err
	}
	for _, c := range g.cursors {
		g.look(ctx, c, nil, 0)
	}
	grace := time.NewTimer(gatherGrace)
	grace.Stop()
	defer grace.Stop()
	begun, hurry := false, false
	for {
		select {
		case <-h.i.ended:
			return g.close(ctx)
		default: // before the bell, which rings for that too
		}
		select {
		case c := <-g.found:
			if g.arrived(c); len(c.records) == 0 {
				if err := g.again(ctx, c); err != nil { // now: another may be asked for ever
					return nil, err
				}
			} else if !begun {
				begun = true
				grace.Reset(gatherGrace)
			}
		case <-grace.C:
			hurry = true
		case <-h.over:
			return g.close(ctx)
		case <-h.i.ended:
			return g.close(ctx)
		case <-bell:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if g.asking > 0 && !hurry {
			continue // all that can answer at once are heard before any is gathered, so each gets its turn
		}
		if err := g.merge(ctx); err != nil {
			return nil, err
		}
		if g.full || (g.enough() && (hurry || g.asking == 0 || g.bytes >= plenty)) {
			return g.answer()
		}
	}
}

// open makes a cursor for each claim whose position is known. One that only the client can help is an error at once.
func (g *gathering) open() error {
	i := g.h.i
	i.mu.Lock()
	defer i.mu.Unlock()
	g.h.reached = g.h.reached || len(g.s.claims) == 0 // the coordinator was there to say so
	for _, c := range g.s.claims {
		if c.known {
			g.cursors = append(g.cursors, &cursor{c: c, start: c.next, from: c.next, last: sluice.NoOffset})
			continue
		}
		switch sluice.KindOf(c.err) {
		case "":
		case sluice.Rejected, sluice.Forbidden, sluice.Unauthorized:
			return c.err
		case sluice.UnknownTopic, sluice.UnknownPart: // an assignment is not checked; Kafka was there to say so
			g.h.reached = true
		default:
			g.h.trouble = c.err
		}
	}
	if at := slices.IndexFunc(g.cursors, func(c *cursor) bool { return c.c.p == i.turn }); at > 0 {
		g.cursors = slices.Concat(g.cursors[at:], g.cursors[:at])
	}
	g.owed = i.owed && len(g.cursors) > 0 && g.cursors[0].c.p == i.turn
	g.found = make(chan *cursor, len(g.cursors)) // a look never waits for the gathering
	return nil
}

// look asks the log for what lies behind the cursor: at once, or when bell rings, or after a while.
func (g *gathering) look(ctx context.Context, c *cursor, bell <-chan struct{}, wait time.Duration) {
	if g.closing {
		return
	}
	if c.asked = bell == nil && wait == 0; c.asked {
		g.asking++
	}
	c.looked = c.from
	log, from, most := g.h.i.room.needs.Log, c.from, max(min(g.h.limit-g.bytes, readAhead), 1)
	started := g.h.i.start(func() {
		if bell != nil {
			select {
			case <-bell:
			case <-ctx.Done():
				return
			}
		}
		if wait > 0 && !pause(ctx, wait) {
			return
		}
		bell := log.Changed(c.c.p) // before the look, or a record in between would go unnoticed
		records, next, err := log.Read(ctx, c.c.p, from, most)
		c.records, c.next, c.err, c.bell = records, next, err, bell
		g.found <- c
	})
	if !started && c.asked { // the instance has ended, and so does the gathering
		g.asking--
	}
}

func (g *gathering) arrived(c *cursor) {
	c.fresh = true
	if c.asked {
		c.asked = false
		g.asking--
	}
}

// again looks behind what a look found: at once if it found something, else when there is news.
func (g *gathering) again(ctx context.Context, c *cursor) error {
	c.fresh = false
	if c.err != nil {
		wait, err := g.failed(c)
		if err == nil {
			g.look(ctx, c, nil, wait)
		}
		return err
	}
	g.h.reached = true
	if c.from = max(c.from, c.next); c.from > c.looked { // over what no reader may see
		g.look(ctx, c, nil, 0)
	} else {
		g.look(ctx, c, c.bell, 0)
	}
	return nil
}

// merge adds what was found, in turn.
func (g *gathering) merge(ctx context.Context) error {
	order := g.cursors
	if g.owed && len(order) > 0 && order[0].fresh && len(g.records) == 0 {
		g.owed = false
		// The record that did not fit; then the others, so that one partition cannot keep them out.
		if g.add(order[0], 1); g.full {
			return nil
		}
		order = slices.Concat(order[1:], order[:1])
	}
	for _, c := range order {
		if !c.fresh {
			continue
		}
		if g.add(c, len(c.records)); g.full {
			return nil
		}
		if err := g.again(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// add takes up to most records of a cursor, within the limit; the first record of a read always fits.
func (g *gathering) add(c *cursor, most int) {
	for most = min(most, len(c.records)); most > 0 && !g.full; most-- {
		r := c.records[0]
		size := len(r.Key) + len(r.Value)
		if len(g.records) > 0 && g.bytes+size > g.h.limit {
			g.full, g.owed, g.turn = true, true, c.c.p
			return
		}
		if decodes := g.h.want.Decodes; decodes != nil {
			if err := decodes(r); err != nil {
				g.full, g.owed, g.turn = true, true, c.c.p
				if len(g.records) > 0 {
					return // the next read begins with it, and fails
				}
				if unjudged(err) {
					g.unjudged = err // the record stays the next
					return
				}
				g.owed, g.undecodable = false, undecodable(r, err)
				c.from, c.last = r.Offset+1, r.Offset
				return
			}
		}
		g.records = append(g.records, r)
		g.bytes += size
		c.records, c.from, c.last = c.records[1:], r.Offset+1, r.Offset
		g.full = g.bytes >= g.h.limit
	}
	if g.full {
		g.turn = g.after(c)
	}
}

// after is the partition whose turn comes after c's.
func (g *gathering) after(c *cursor) sluice.Partition {
	return g.cursors[(slices.Index(g.cursors, c)+1)%len(g.cursors)].c.p
}

// failed says when a partition whose look failed is looked at again.
func (g *gathering) failed(c *cursor) (wait time.Duration, err error) {
	switch sluice.KindOf(c.err) {
	case sluice.OutOfRange:
		if c.from == c.start {
			g.h.i.outOfRange(g.s, c.c, c.start) // rings the bell: this gathering is over
		}
	case sluice.UnknownTopic, sluice.UnknownPart:
		g.h.reached = true
		return goneWait, nil
	case sluice.Forbidden, sluice.Unauthorized:
		if len(g.records) == 0 {
			return 0, c.err
		}
	case sluice.NoLeader:
		g.h.trouble = &sluice.Error{Kind: sluice.Retriable, Msg: "Leader not available.", Err: c.err}
	default:
		g.h.trouble = c.err
	}
	return troubleWait, nil
}

func (g *gathering) enough() bool {
	least := g.h.i.minBytes()
	return len(g.records) > 0 && (g.bytes >= least || least <= 1)
}

// close ends the gathering with what it has.
func (g *gathering) close(ctx context.Context) (*Answer, error) {
	g.closing = true
	if err := g.merge(ctx); err != nil {
		return nil, err
	}
	if len(g.records) > 0 || g.undecodable != nil || g.unjudged != nil {
		return g.answer()
	}
	if g.h.i.hasEnded() {
		return g.h.nothing(), nil
	}
	return g.h.empty(ctx)
}

// answer is what was gathered, if the session still lends it; else the read begins again.
func (g *gathering) answer() (*Answer, error) {
	if g.unjudged != nil {
		return nil, g.unjudged
	}
	if !g.full && len(g.cursors) > 0 {
		g.turn, g.owed = g.after(g.cursors[0]), false
	}
	if a, ok := g.h.take(g.s, g); ok {
		return a, nil
	}
	return nil, nil
}

func (g *gathering) moves() (ms []move) {
	for _, c := range g.cursors {
		if c.from > c.start {
			ms = append(ms, move{c.c, c.from, c.last})
		}
	}
	return ms
}
