package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/time/rate"

	"github.com/sluicegate/sluice"
)

// Why a session ended, where no broker said so.
var (
	errLeaseOver     = errors.New("the lease ran out")
	errRepartitioned = errors.New("the number of partitions changed")
	errPanic         = errors.New("the session panicked")
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

// generation is one generation of the group as this member joined it.
type generation struct {
	number int32
	claims map[string][]int32
	sent   time.Time        // when its first heartbeat was sent
	counts map[string]int32 // partitions by topic as the plan had them; nil unless this member leads
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
	text := err.Error()
	if code, ok := errors.AsType[sarama.KError](err); ok {
		text = code.Error() // without addresses, which alternate
	}
	if text == m.told {
		return
	}
	m.told = text
	m.log.Warn("group membership interrupted", slog.Any("error", err))
}

// join enters the next generation. If its first heartbeat is refused, it never began.
func (m *member) join(ctx context.Context) (*generation, error) {
	if err := m.joins.Wait(ctx); err != nil {
		return nil, err
	}
	linking, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	l, err := m.connect(linking)
	if err != nil {
		return nil, err
	}
	answer, err := m.askToJoin(ctx, l)
	if err == nil && answer.Err == sarama.ErrMemberIdRequired {
		m.id = answer.MemberId
		answer, err = m.askToJoin(ctx, l)
	}
	if err != nil {
		return nil, err
	}
	if answer.Err != sarama.ErrNoError {
		if answer.Err == sarama.ErrUnknownMemberId {
			m.id = "" // not when a heartbeat says so: only this one comes from whoever coordinates now
		}
		return nil, fmt.Errorf("join: %w", answer.Err)
	}
	m.id = answer.MemberId
	gen := &generation{number: answer.GenerationId}
	shares := map[string]map[string][]int32{}
	if answer.LeaderId == m.id {
		if shares, err = m.lead(ctx, l, gen, answer.Members); err != nil {
			return nil, err
		}
	}
	if err := m.sync(ctx, l, gen, shares); err != nil {
		return nil, err
	}
	gen.sent, err = m.heartbeat(ctx, gen)
	return gen, err
}

func (m *member) askToJoin(ctx context.Context, l *link) (*sarama.JoinGroupResponse, error) {
	ask := sarama.NewJoinGroupRequest(m.groups.cfg.Version)
	ask.GroupId, ask.MemberId, ask.ProtocolType = m.wish.Group, m.id, "consumer"
	ask.SessionTimeout, ask.RebalanceTimeout = int32(sessionTime.Milliseconds()), int32(rebalanceTime.Milliseconds())
	if err := protocolOf(ask, m.wish); err != nil {
		return nil, fmt.Errorf("write the subscription: %w", err)
	}
	return call(ctx, l, joinTime, l.broker.JoinGroup, ask)
}

// lead makes the plan of the generation for all members, foreign ones included.
func (m *member) lead(ctx context.Context, l *link, gen *generation, members []sarama.GroupMember) (map[string]map[string][]int32, error) {
	list, err := subscribers(members)
	if err != nil {
		m.tell(err)
	}
	counts := map[string]int32{}
	for _, s := range list {
		for _, topic := range s.topics {
			counts[topic] = 0
		}
	}
	if gen.counts, err = m.count(ctx, l, counts); err != nil {
		return nil, err
	}
	return plan(m.share, list, gen.counts), nil
}

// count reads how many partitions each of the topics has now. One that does not exist has none: a member may wait for a
// topic. Partitions without a leader count; ownership does not need one.
func (m *member) count(ctx context.Context, l *link, topics map[string]int32) (map[string]int32, error) {
	counts := make(map[string]int32, len(topics))
	if len(topics) == 0 {
		return counts, nil // a request without topics would mean all of them
	}
	ask := sarama.NewMetadataRequest(m.groups.cfg.Version, slices.Sorted(maps.Keys(topics)))
	answer, err := call(ctx, l, callTime, l.broker.GetMetadata, ask)
	if err != nil {
		return nil, err
	}
	for topic := range topics {
		counts[topic] = 0
	}
	for _, t := range answer.Topics {
		counts[t.Name] = int32(len(t.Partitions))
	}
	return counts, nil
}

func (m *member) sync(ctx context.Context, l *link, gen *generation, shares map[string]map[string][]int32) error {
	kind, protocol := "consumer", string(m.wish.Assignor)
	ask := &sarama.SyncGroupRequest{
		Version: 5, GroupId: m.wish.Group, MemberId: m.id, GenerationId: gen.number,
		ProtocolType: &kind, ProtocolName: &protocol,
	}
	for _, id := range slices.Sorted(maps.Keys(shares)) {
		if err := ask.AddGroupAssignmentMember(id, &sarama.ConsumerGroupMemberAssignment{Topics: shares[id]}); err != nil {
			return fmt.Errorf("write the assignment: %w", err)
		}
	}
	answer, err := call(ctx, l, joinTime, l.broker.SyncGroup, ask)
	if err != nil {
		return err
	}
	if answer.Err != sarama.ErrNoError {
		return fmt.Errorf("sync: %w", answer.Err)
	}
	gen.claims, err = claimsOf(answer)
	return err
}

// heartbeat sends one and returns when it was sent. It connects if it has to, all within callTime.
func (m *member) heartbeat(ctx context.Context, gen *generation) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	l, err := m.connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
	sent := time.Now()
	answer, err := call(ctx, l, callTime, l.broker.Heartbeat, &sarama.HeartbeatRequest{
		Version: 4, GroupId: m.wish.Group, MemberId: m.id, GenerationId: gen.number,
	})
	if err != nil {
		return time.Time{}, err
	}
	if answer.Err != sarama.ErrNoError {
		return time.Time{}, fmt.Errorf("heartbeat: %w", answer.Err)
	}
	return sent, nil
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

// session runs fn for one generation and returns why it ended.
func (m *member) session(ctx context.Context, gen *generation) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	lease := grant(gen.sent, func() { end(errLeaseOver) })
	session := sluice.Session{Member: m.id, Generation: gen.number, Claims: gen.claims, Valid: lease.valid}
	m.log.Info("session begins", slog.Any("session", about(session)))
	done := make(chan struct{})
	m.work.Go(func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				m.log.Error("session panicked", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
				end(errPanic)
			}
		}()
		m.fn(ctx, session)
	})
	why := m.beat(ctx, gen, lease)
	end(why)
	drain := time.NewTimer(drainTime)
	defer drain.Stop()
	late := false
	select {
	case <-done:
	case <-drain.C:
		late = true // it may finish beside the next session, which its Valid tells it
	}
	lease.finish() // before anything is sent that lets the broker give the partitions to others
	m.log.Info("session ends", slog.Int("generation", int(gen.number)), slog.String("reason", why.Error()), slog.Bool("late", late))
	return why
}

// beat keeps the session alive until it ends, and returns why.
func (m *member) beat(ctx context.Context, gen *generation, lease *lease) error {
	counted, fewer := time.Now(), false
	for wait := heartbeatTime; pause(ctx, wait); {
		wait = heartbeatTime
		sent, err := m.heartbeat(ctx, gen)
		if err == nil {
			lease.extend(sent)
			if gen.counts != nil && time.Since(counted) >= recountTime {
				counted = time.Now()
				fewer, err = m.recount(ctx, gen, fewer)
			}
		}
		switch {
		case ctx.Err() != nil:
		case err == nil:
			m.told = ""
		case judge(err) == lookAgain:
			m.tell(err)
			m.mourn(err)
			wait = soon()
		default:
			return err
		}
	}
	return context.Cause(ctx)
}

// recount is the leader's look at the partition counts. More of them, or a topic that came, is news at once; fewer is
// believed when it is seen twice, because a broker that just started may not know its topics yet.
func (m *member) recount(ctx context.Context, gen *generation, fewerBefore bool) (fewer bool, err error) {
	counts, err := m.count(ctx, m.link, gen.counts)
	if err != nil || maps.Equal(counts, gen.counts) {
		return false, err
	}
	for topic, n := range counts {
		fewer = fewer || n < gen.counts[topic]
	}
	if fewer && !fewerBefore {
		return true, nil
	}
	return fewer, errRepartitioned
}

// about is a session in a log line.
func about(s sluice.Session) slog.Value {
	n := 0
	for _, partitions := range s.Claims {
		n += len(partitions)
	}
	return slog.GroupValue(slog.String("member", s.Member), slog.Int("generation", int(s.Generation)), slog.Int("partitions", n))
}
