package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/time/rate"

	"github.com/sluicegate/sluice"
)

// The terms of every membership. The session time is what the broker waits for a heartbeat before it gives the
// partitions to others (it refuses less than 6 s), the rebalance time what it waits for a member to join again.
const (
	sessionTime   = 10 * time.Second
	rebalanceTime = 10 * time.Second
	// A member hears of a rebalance at its next heartbeat, so this is what a hand-over waits. Pull instances beat as often:
	// the partitions of one that is deleted are to be with another within a second.
	heartbeatTime = 500 * time.Millisecond
	callTime      = 3 * time.Second                           // for every call but join and sync
	linkTime      = patientTime + handshakeTime + time.Second // to find the coordinator and to connect
	joinTime      = rebalanceTime + 5*time.Second
	watchTime     = 500 * time.Millisecond // a call may take, before the finder is asked whether it waits at the right broker
	drainTime     = 4 * time.Second        // that a session's func has after its context ended
	leaveTime     = 2 * time.Second        // connecting included
	recountTime   = 8 * time.Second        // how often a leader looks whether partitions were added: new topics within 10 s (rest-api.md 7.2)

	// leaseTime is how long a session outlives the sending of its last answered heartbeat. The broker counts from the
	// arrival, which is later, so two seconds are left for clocks that run apart and for a thread that was not scheduled.
	leaseTime = min(sessionTime, rebalanceTime) - 2*time.Second
)

// Groups makes this process a member of consumer groups: membership and nothing else. It fetches nothing and commits
// nothing. Each membership has one connection of its own, so that no long poll and no other group delays a heartbeat.
type Groups struct {
	cfg    *sarama.Config
	finder *finder
	dial   dialer
	log    *slog.Logger
	starts *rate.Limiter // of memberships: brokers of managed clusters may take only 100 new connections a second
}

// NewGroups opens no connection.
func NewGroups(c *Clients, log *slog.Logger) *Groups {
	cfg := c.config(roleOwn)
	cfg.Net.ReadTimeout = joinTime + callTime // never the first to give up: links are cut at bounds of our own
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Groups{cfg: cfg, finder: c.coordinators(), dial: c.dial, log: log, starts: rate.NewLimiter(20, 1)}
}

// Member joins the group of m, calls fn once for each generation, and leaves when ctx ends; then it returns nil. What
// Kafka refuses is logged and tried again; the error is for what no trying helps. When it returns, every fn has.
func (g *Groups) Member(ctx context.Context, m sluice.Membership, fn sluice.SessionFunc) error {
	share, err := assignorOf(m.Assignor)
	if err != nil {
		return err
	}
	if m.Group == "" || len(m.Topics) == 0 {
		return errors.New("a membership needs a group and at least one topic")
	}
	if g.starts.Wait(ctx) != nil {
		<-ctx.Done() // it has ended, or would before its turn
		return nil
	}
	member := &member{
		groups: g, wish: m, share: share, fn: fn,
		log:   g.log.With(slog.String("group", m.Group)),
		joins: rate.NewLimiter(5, 2),
	}
	return member.run(ctx)
}

// remedy is what a member does about an error.
type remedy int

const (
	joinAgain remedy = iota // at once
	lookAgain               // soon, at the coordinator that a new look-up names; a session goes on meanwhile
	joinLater               // later, and somebody should know
	fatal                   // never
)

// judge is the one place where a member's errors get their meaning.
func judge(err error) remedy {
	code, ok := errors.AsType[sarama.KError](err)
	switch {
	case errors.Is(err, sarama.ErrClosedClient):
		return fatal
	case errors.Is(err, errPanic):
		return joinLater
	case errors.Is(err, errLeaseOver), errors.Is(err, errRepartitioned):
		return joinAgain
	case !ok:
		return lookAgain // transport
	}
	switch code {
	case sarama.ErrMemberIdRequired, sarama.ErrRebalanceInProgress, sarama.ErrIllegalGeneration, sarama.ErrUnknownMemberId:
		return joinAgain
	case sarama.ErrOffsetsLoadInProgress, sarama.ErrNotCoordinatorForConsumer, sarama.ErrConsumerCoordinatorNotAvailable,
		sarama.ErrRequestTimedOut, sarama.ErrNetworkException, sarama.ErrBrokerNotAvailable:
		return lookAgain
	case sarama.ErrFencedInstancedId:
		return fatal
	}
	return joinLater
}

// pause waits, and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// soon is the wait before a look-up: short, and not the same for the many members that one broker's death wakes.
func soon() time.Duration { return 50*time.Millisecond + rand.N(200*time.Millisecond) }

func assignorOf(name sluice.Assignor) (assignor, error) {
	switch name {
	case sluice.Rendezvous:
		return rendezvous, nil
	case sluice.RangeAssignor:
		return ranges, nil
	}
	return nil, fmt.Errorf("unknown assignor %q", name)
}
