package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// Why a session ended, where no broker said so.
var (
	errLeaseOver     = errors.New("the lease ran out")
	errRepartitioned = errors.New("the number of partitions changed")
	errPanic         = errors.New("the session panicked")
)

// session runs fn for one generation and returns why it ended.
func (m *member) session(ctx context.Context, gen *generation) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	lease := grant(gen.sent, func() { end(errLeaseOver) })
	session := sluice.Session{Member: m.id, Generation: gen.number, Claims: gen.claims, Notes: gen.notes, Valid: lease.valid}
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

// heartbeat sends one and returns when it was sent. It connects if it has to, all within callTime.
func (m *member) heartbeat(ctx context.Context, gen *generation) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	l, err := m.connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
	sent := time.Now()
	answer, err := ask(ctx, m, l, "Heartbeat", callTime, l.broker.Heartbeat, &sarama.HeartbeatRequest{
		Version: 4, GroupId: m.wish.Group, MemberId: m.id, GenerationId: gen.number,
	})
	if err != nil {
		return time.Time{}, err
	}
	if answer.Err != sarama.ErrNoError {
		return time.Time{}, fmt.Errorf("heartbeat: %w", answer.Err)
	}
	m.lost = ""
	return sent, nil
}
