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
type member struct {
	groups *Groups
	wish   sluice.Membership
	share  assignor
	fn     sluice.SessionFunc
	log    *slog.Logger
	joins  *rate.Limiter
	work   sync.WaitGroup // every fn, the late ones too

	link *link  // to the coordinator, or nil
	id   string // given by the coordinator; kept over generations, since the rendezvous hash rests on it
	told string // the last trouble that was logged
}

func (m *member) run(ctx context.Context) error {
	defer m.work.Wait()
	defer m.leave(ctx)
	again := time.Duration(0)
	for ctx.Err() == nil {
		gen, err := m.join(ctx)
		if err == nil {
			m.told, again = "", 0
			err = m.session(ctx, gen)
		}
		if ctx.Err() != nil {
			break
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
	addr, err := m.groups.finder.coordinator(ctx, m.wish.Group)
	if err != nil {
		return nil, err
	}
	m.link, err = openLink(ctx, m.groups.cfg, m.groups.dial, addr)
	return m.link, err
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
	_, err = call(ctx, l, leaveTime, l.broker.LeaveGroup, &sarama.LeaveGroupRequest{
		Version: 3, GroupId: m.wish.Group, MemberId: m.id, Members: []sarama.MemberIdentity{{MemberId: m.id}},
	})
	return err
}
