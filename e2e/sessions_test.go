package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
)

// ownership is one generation of a topic's ownership group as a replica lived it, by its log.
type ownership struct {
	Time       time.Time
	Topic      string
	Partitions []int32
	Member     string
	Generation int32
}

// sessions are those of a replica, in order.
func sessions(t *testing.T, r *peers.Replica, topic string) (all []ownership) {
	t.Helper()
	for line := range strings.Lines(r.Log()) {
		if !strings.Contains(line, `"session begins"`) || !strings.Contains(line, `"partitions":`) {
			continue
		}
		var s ownership
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			continue // the line of the kafka room, which counts partitions
		}
		if s.Topic == topic {
			all = append(all, s)
		}
	}
	return all
}

// follows is whether nobody else can have owned what both sessions have: the rule of webhooks.md 6.3 step 6.
func (s ownership) follows(before ownership) bool {
	return s.Member == before.Member && (s.Generation == before.Generation || s.Generation == before.Generation+1)
}

// settled is how long after a flight a release may still matter to it: a second to land and three to commit.
const settled = 5 * time.Second

// stayed is whether the partition of a flight was its sender's from the begin of the flight until its outcome was safe.
// across is how many sessions began meanwhile.
func stayed(all []ownership, f peers.Flight) (ok bool, across int) {
	i, found := slices.BinarySearchFunc(all, f.Began, func(s ownership, at time.Time) int { return s.Time.Compare(at) })
	if !found {
		i--
	}
	if i < 0 || !slices.Contains(all[i].Partitions, f.Partition) {
		return false, 0 // it began while another session was on its way
	}
	for ; i+1 < len(all) && all[i+1].Time.Before(f.Ended.Add(settled)); i++ {
		if next := all[i+1]; !next.follows(all[i]) || !slices.Contains(next.Partitions, f.Partition) {
			return false, across
		}
		if all[i+1].Time.Before(f.Ended) {
			across++
		}
	}
	return true, across
}

// unharmed fails the test when a flight whose partition stayed with its sender was cancelled or repeated, and returns
// how many of them lived through the begin of a session.
func unharmed(t *testing.T, topic string, flights []peers.Flight, replicas ...*peers.Replica) (survivors int) {
	t.Helper()
	of := map[int][]ownership{}
	for _, r := range replicas {
		of[r.PID()] = sessions(t, r, topic)
	}
	type record struct {
		subscription string
		peers.Place
	}
	last := map[record]time.Time{} // when it was sent last
	for _, f := range flights {
		last[record{f.Subscription, f.Place}] = f.Began
	}
	cut, repeated, moved := 0, 0, 0
	for _, f := range flights {
		ok, across := stayed(of[f.Sender], f)
		switch {
		case f.Ended.IsZero():
			continue
		case !ok:
			moved++
			continue
		case f.Cut():
			if cut++; cut <= 3 {
				t.Errorf("the flight of %v by %d was cancelled after %s, %d sessions later", f.Place, f.Sender, f.Ended.Sub(f.Began), across)
			}
		case f.Status/100 == 2 && last[record{f.Subscription, f.Place}].After(f.Began):
			if repeated++; repeated <= 3 {
				t.Errorf("%v was delivered by %d, whose partition stayed, within %s, and sent again", f.Place, f.Sender, f.Ended.Sub(f.Began))
			}
		}
		if across > 0 {
			survivors++
		}
	}
	if cut+repeated > 6 {
		t.Errorf("%d flights of partitions that stayed were cancelled and %d repeated", cut, repeated)
	}
	t.Logf("%d flights: %d of partitions that stayed through a new session, %d of partitions that moved", len(flights), survivors, moved)
	return survivors
}
