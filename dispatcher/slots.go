package dispatcher

import (
	"slices"
	"sync"
)

// mostPerHost is how many attempts a replica has in flight to one host, over all subscriptions: as many as it keeps idle
// connections to it (webhooks.md 5.3).
const mostPerHost = 256

// slots is the replica's budget for attempts in flight, in number and in bytes. One subscription gets a quarter of it,
// and no more than its own limit; so many subscriptions of one host get mostPerHost. Where slots are short the
// subscriptions that wait take turns.
type slots struct {
	most      int
	mostBytes int64
	perHost   int

	mu    sync.Mutex
	used  int
	bytes int64
	turns []*account       // of subscriptions that wait for the replica, not for themselves
	hosts map[string]*host // with something in flight, or somebody who waits for it
}

// host is one endpoint's server, by name and port.
type host struct {
	used    int
	waiting []*account // whose first wish waits for nothing but the host
}

// account is what a subscription has of the slots. Its fields belong to slots.mu.
type account struct {
	limit   int // attempts in flight on this replica
	host    string
	used    int
	bytes   int64
	waiting []*slot
	inTurn  bool
	atHost  bool // in the line of a host
}

// slot is one attempt's place, asked for, granted or given back.
type slot struct {
	account *account
	host    string // once granted
	bytes   int64
	alone   bool // its lane has nothing in flight: each lane may have one, whatever the limit of the account says
	granted func()
}

func newSlots(most int, mostBytes int64) *slots {
	return &slots{most: most, mostBytes: mostBytes, perHost: mostPerHost, hosts: map[string]*host{}}
}

// ask takes a slot: true, or later granted is called, without a lock, unless cancel comes first.
func (s *slots) ask(w *slot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (len(w.account.waiting) == 0 || w.alone) && s.may(w) && !s.full(w.account.host) && s.room(w) {
		s.take(w)
		return true
	}
	w.account.waiting = append(w.account.waiting, w)
	s.enrol(w.account)
	return false
}

// cancel withdraws a wish. False: it was granted already.
func (s *slots) cancel(w *slot) bool {
	s.mu.Lock()
	i := slices.Index(w.account.waiting, w)
	if i < 0 {
		s.mu.Unlock()
		return false
	}
	w.account.waiting = slices.Delete(w.account.waiting, i, i+1)
	s.enrol(w.account)
	s.grant()
	return true
}

// release gives a slot back, and it to whoever is next.
func (s *slots) release(w *slot) {
	s.mu.Lock()
	s.used--
	s.bytes -= w.bytes
	w.account.used--
	w.account.bytes -= w.bytes
	s.leave(w.host)
	s.enrol(w.account)
	s.grant()
}

// limit sets how many a subscription may have in flight on this replica, and to which host.
func (s *slots) limit(a *account, n int, host string) {
	s.mu.Lock()
	if host != a.host && a.atHost {
		h := s.hosts[a.host]
		h.waiting, a.atHost = slices.DeleteFunc(h.waiting, func(one *account) bool { return one == a }), false
	}
	a.limit, a.host = n, host
	s.enrol(a)
	s.grant()
}

// may is whether the account has room for it, room whether the replica has. What is larger than a budget passes alone.
func (s *slots) may(w *slot) bool {
	a := w.account
	return (a.used < a.limit || w.alone) && (a.used < s.most/4 || a.used == 0) &&
		(a.bytes+w.bytes <= s.mostBytes/4 || a.bytes == 0)
}

func (s *slots) room(w *slot) bool {
	return s.used < s.most && (s.bytes+w.bytes <= s.mostBytes || s.bytes == 0)
}

func (s *slots) take(w *slot) {
	s.used++
	s.bytes += w.bytes
	w.account.used++
	w.account.bytes += w.bytes
	w.host = w.account.host
	s.at(w.host).used++
}

func (s *slots) at(name string) *host {
	h := s.hosts[name]
	if h == nil {
		h = &host{}
		s.hosts[name] = h
	}
	return h
}

func (s *slots) full(name string) bool { h := s.hosts[name]; return h != nil && h.used >= s.perHost }

// leave frees a place at a host.
func (s *slots) leave(name string) {
	h := s.hosts[name]
	h.used--
	s.next(name)
	if h.used == 0 && len(h.waiting) == 0 {
		delete(s.hosts, name)
	}
}

// next lets the account that has waited longest for a host go on to the replica's line. Whoever leaves that line without
// a slot calls it again, so that no free place is forgotten.
func (s *slots) next(name string) {
	h := s.hosts[name]
	for h != nil && h.used < s.perHost && len(h.waiting) > 0 {
		a := h.waiting[0]
		h.waiting = slices.Delete(h.waiting, 0, 1)
		a.atHost = false
		if s.enrol(a); a.inTurn {
			return
		}
	}
}

// enrol puts an account in the line for the replica's slots if its first wish waits for nothing else, or in the line of
// its host if that is what it waits for first.
func (s *slots) enrol(a *account) {
	if a.inTurn || a.atHost || len(a.waiting) == 0 || !s.may(a.waiting[0]) {
		return
	}
	if s.full(a.host) {
		h := s.at(a.host)
		a.atHost, h.waiting = true, append(h.waiting, a)
		return
	}
	a.inTurn = true
	s.turns = append(s.turns, a)
}

// grant hands out what there is, one slot to each account in line and round again, and unlocks.
func (s *slots) grant() {
	var happy []*slot
	for len(s.turns) > 0 {
		a := s.turns[0]
		granted := len(a.waiting) > 0 && s.may(a.waiting[0]) && !s.full(a.host)
		if granted {
			if !s.room(a.waiting[0]) {
				break
			}
			w := a.waiting[0]
			a.waiting = slices.Delete(a.waiting, 0, 1)
			s.take(w)
			happy = append(happy, w)
		}
		s.turns = slices.Delete(s.turns, 0, 1)
		a.inTurn = false
		s.enrol(a)
		if !granted {
			s.next(a.host)
		}
	}
	s.mu.Unlock()
	for _, w := range happy {
		w.granted()
	}
}

// inUse is for the gauges.
func (s *slots) inUse() (used int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.bytes
}
