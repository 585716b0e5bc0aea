package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/time/rate"

	"github.com/sluicegate/sluice"
)

// member is one membership of one group: the client half of Kafka's classic group protocol, eager. It is one goroutine,
// which joins, beats and leaves, and one more for the work of each session.
//
//	joining (JoinGroup, SyncGroup, first heartbeat) -> session -> draining (≤ drainTime) -> joining … -> left
//
// # When the coordinator's broker dies or freezes
//
// Until Kafka names another one there is nobody to ask, and the lease, which is shorter than the time after which Kafka
// gives a broker up, may run out. From then on these steps are left, each with its bound, so that a session is back
// within five seconds and with brokers that are well within one:
//
//	500 ms  a call that hangs is not waited for: the finder is asked meanwhile (watch)
//	  1 s   the finder itself asks a broker that hangs, at most once in ten seconds (4 s where all of them are slower)
//	250 ms  soon
//	500 ms  the finder's broker was the last to hear of it: another one's opinion (finder.another)
//	        and the round trips of a connection and a heartbeat
//
// A heartbeat is all it takes: a generation whose lease ran out goes on if whoever coordinates now knows it still
// (resume). To join instead would end the sessions of the others, wait for their last commits, up to drainTime, and for
// whoever still hangs.
type member struct {
	groups *Groups
	wish   sluice.Membership
	share  assignor
	fn     sluice.SessionFunc
	log    *slog.Logger
	joins  *rate.Limiter
	work   sync.WaitGroup // every fn, the late ones too

	link *link  // to the coordinator, or nil
	lost string // the coordinator that hung or went away, until one answers
	id   string // given by the coordinator; kept over generations, since the rendezvous hash rests on it
	told string // the last trouble that was logged
}

func (m *member) run(ctx context.Context) error {
	defer m.work.Wait()
	defer m.leave(ctx)
	again := time.Duration(0)
	var lapsed *generation // one whose lease ran out, and of which nobody has said that it is over
	for ctx.Err() == nil {
		gen, err := m.enter(ctx, lapsed)
		if err == nil {
			m.told, again = "", 0
			err = m.session(ctx, gen)
		}
		if ctx.Err() != nil {
			break
		}
		switch {
		case errors.Is(err, errLeaseOver):
			lapsed = gen
		case judge(err) != lookAgain:
			lapsed = nil
		}
		m.mourn(err)
		switch judge(err) {
		case joinAgain:
		case lookAgain:
			m.tell(err)
			pause(ctx, soon())
		case joinLater:
			m.tell(err)
			again = min(max(2*again, time.Second), 4*time.Second)
			pause(ctx, again)
		case fatal:
			return kafkaError("be a member of "+m.wish.Group, err)
		}
	}
	return nil
}

// connect finds the coordinator and opens the link, unless there is one.
func (m *member) connect(ctx context.Context) (*link, error) {
	if m.link != nil {
		return m.link, nil
	}
	addr, err := m.groups.finder.another(ctx, m.wish.Group, m.lost)
	if err != nil {
		return nil, err
	}
	ctx, done := m.watch(ctx, addr)
	defer done()
	began := time.Now()
	if m.link, err = openLink(ctx, m.groups.cfg, m.groups.dial, addr); err != nil {
		m.lost = addr
		m.noteCall("Connect", addr, time.Since(began), err)
	}
	return m.link, err
}

// ask makes one call to the coordinator, watched. name is Kafka's word for it.
func ask[Q, A any](ctx context.Context, m *member, l *link, name string, bound time.Duration, f func(Q) (A, error), q Q) (A, error) {
	ctx, done := m.watch(ctx, l.addr)
	defer done()
	began := time.Now()
	answer, err := call(ctx, l, bound, f, q)
	if took := time.Since(began); err != nil || took > watchTime {
		m.noteCall(name, l.addr, took, err)
	}
	return answer, err
}

func (m *member) noteCall(name, addr string, took time.Duration, err error) {
	m.log.Debug("group call failed or took long", slog.String("call", name), slog.String("broker", addr), slog.Duration("took", took), slog.Any("error", err))
}

// watch ends ctx when a broker keeps the member waiting and another one is named coordinator meanwhile: a broker that was
// stopped takes connections and requests, and answers when it wakes. done ends the watch, and waits for it.
func (m *member) watch(ctx context.Context, addr string) (watched context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	timer := time.AfterFunc(watchTime, func() {
		defer close(over)
		for ctx.Err() == nil {
			if now, err := m.groups.finder.another(ctx, m.wish.Group, addr); err == nil && now != addr {
				cancel()
			}
			pause(ctx, watchTime)
		}
	})
	return ctx, func() {
		cancel()
		if !timer.Stop() {
			<-over
		}
	}
}

// mourn does what an error asks for before the next try: a new look-up.
func (m *member) mourn(err error) {
	code, answered := errors.AsType[sarama.KError](err)
	switch {
	case errors.Is(err, errRepartitioned), errors.Is(err, errPanic): // the link is fine
	case code == sarama.ErrUnknownMemberId: // a coordinator that was frozen says so too: see who it is now
		m.hangUp()
	case answered && !coordinatorMoved(err):
	default:
		if m.link != nil {
			m.lost = m.link.addr
		}
		m.hangUp()
	}
}

func (m *member) hangUp() {
	if m.link != nil {
		m.link.close()
		m.link = nil
	}
}

// tell logs a trouble once, until it changes.
func (m *member) tell(err error) {
	var text string // without addresses and ports, which alternate
	switch code, ok := errors.AsType[sarama.KError](err); {
	case ok:
		text = code.Error()
	case unreachable(err):
		text = "unreachable"
	default:
		text = err.Error()
	}
	if text == m.told {
		return
	}
	m.told = text
	m.log.Warn("group membership interrupted", slog.Any("error", err))
}

// leave tells the coordinator that nobody has to wait for this member. Best effort: it would find out by itself.
func (m *member) leave(ctx context.Context) {
	defer m.hangUp()
	if m.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	for range 2 { // the link may be one that was cut with the call under way
		err := m.sayGoodbye(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		m.hangUp()
	}
}

func (m *member) sayGoodbye(ctx context.Context) error {
	l, err := m.connect(ctx)
	if err != nil {
		return err
	}
	_, err = ask(ctx, m, l, "LeaveGroup", leaveTime, l.broker.LeaveGroup, &sarama.LeaveGroupRequest{
		Version: 3, GroupId: m.wish.Group, MemberId: m.id, Members: []sarama.MemberIdentity{{MemberId: m.id}},
	})
	return err
}
