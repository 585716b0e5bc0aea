package consumers

import (
	"fmt"
	"time"
)

// reason says why an instance ended; it is a metric label.
type reason string

const (
	reasonDeleted  reason = "deleted"
	reasonExpired  reason = "expired"
	reasonShutdown reason = "shutdown"
	reasonMoved    reason = "moved" // handed over, or another replica has it already
)

// text is the reason in words for a client.
func (i *Instance) text(why reason) string { return i.room.textOf(why) }

func (r *Registry) textOf(why reason) string {
	switch why {
	case reasonExpired:
		return fmt.Sprintf("expired after %d s without a request", int(r.cfg.InstanceTimeout.Seconds()))
	case reasonMoved:
		return "moved to another replica"
	case reasonDeleted:
		return "deleted by the client"
	}
	return "ended with the replica that held it"
}

const (
	mournFor  = time.Hour
	mournMost = 10_000 // health checks create and delete instances all day
)

// graveyard remembers for an hour why instances ended, so that a 40403 can say so.
type graveyard struct {
	graves []grave // oldest first
	latest map[name]grave
}

type grave struct {
	name name
	why  string
	at   time.Time
}

func (g *graveyard) add(n name, why string, now time.Time) {
	if g.latest == nil {
		g.latest = map[name]grave{}
	}
	fresh := grave{n, why, now}
	g.latest[n] = fresh
	g.graves = append(g.graves, fresh)
	for len(g.graves) > mournMost || now.Sub(g.graves[0].at) > mournFor {
		oldest := g.graves[0]
		g.graves = g.graves[1:]
		if g.latest[oldest.name] == oldest { // else the name lived and died again
			delete(g.latest, oldest.name)
		}
	}
}

func (g *graveyard) why(n name, now time.Time) string {
	if last, ok := g.latest[n]; ok && now.Sub(last.at) <= mournFor {
		return last.why
	}
	return "never existed"
}
