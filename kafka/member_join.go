package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// generation is one generation of the group as this member joined it.
type generation struct {
	number int32
	claims map[string][]int32
	notes  [][]byte         // of all its members
	said   []byte           // those notes as the leader hands them on; nil unless this member leads
	sent   time.Time        // when its first heartbeat was sent
	counts map[string]int32 // partitions by topic as the plan had them; nil unless this member leads
}

// enter begins a session: that of a generation whose lease ran out, if it goes on, else that of the next one.
func (m *member) enter(ctx context.Context, lapsed *generation) (*generation, error) {
	if err := m.joins.Wait(ctx); err != nil {
		return nil, err
	}
	if lapsed != nil {
		return m.resume(ctx, lapsed)
	}
	return m.join(ctx)
}

// resume goes on with a generation whose lease ran out, which is right if the coordinator knows it still: nobody can have
// been lent its partitions in between. The answer is worth what the one to a follower is that joins an unchanged group:
// both come from the coordinator's memory. One that was deposed and has not heard of it could give them for a moment, so
// the brokers are asked first, again, who it is, and the one that was lost is asked last.
func (m *member) resume(ctx context.Context, lapsed *generation) (*generation, error) {
	sent, err := m.heartbeat(ctx, lapsed)
	if err != nil {
		return nil, err
	}
	gen := *lapsed
	gen.sent = sent
	return &gen, nil
}

// join enters the next generation. If its first heartbeat is refused, it never began.
func (m *member) join(ctx context.Context) (*generation, error) {
	linking, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	l, err := m.connect(linking)
	if err != nil {
		return nil, err
	}
	note := m.note()
	answer, err := m.askToJoin(ctx, l, note)
	if err == nil && answer.Err == sarama.ErrMemberIdRequired {
		m.id = answer.MemberId
		answer, err = m.askToJoin(ctx, l, note)
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

// note is what there is to say to the other members, now that the session before is over.
func (m *member) note() []byte {
	if m.wish.Note == nil {
		return nil
	}
	note := m.wish.Note()
	if len(note) > sluice.MaxNote {
		return nil
	}
	return note
}

func (m *member) askToJoin(ctx context.Context, l *link, note []byte) (*sarama.JoinGroupResponse, error) {
	q := sarama.NewJoinGroupRequest(m.groups.cfg.Version)
	q.GroupId, q.MemberId, q.ProtocolType = m.wish.Group, m.id, "consumer"
	q.SessionTimeout, q.RebalanceTimeout = int32(sessionTime.Milliseconds()), int32(rebalanceTime.Milliseconds())
	if err := protocolOf(q, m.wish, note); err != nil {
		return nil, fmt.Errorf("write the subscription: %w", err)
	}
	return ask(ctx, m, l, "JoinGroup", joinTime, l.broker.JoinGroup, q)
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
	if m.wish.Note != nil {
		gen.said = writeNotes(list)
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
	q := sarama.NewMetadataRequest(m.groups.cfg.Version, slices.Sorted(maps.Keys(topics)))
	answer, err := ask(ctx, m, l, "Metadata", callTime, l.broker.GetMetadata, q)
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
	q := &sarama.SyncGroupRequest{
		Version: 5, GroupId: m.wish.Group, MemberId: m.id, GenerationId: gen.number,
		ProtocolType: &kind, ProtocolName: &protocol,
	}
	for _, id := range slices.Sorted(maps.Keys(shares)) {
		if err := q.AddGroupAssignmentMember(id, &sarama.ConsumerGroupMemberAssignment{Topics: shares[id], UserData: gen.said}); err != nil {
			return fmt.Errorf("write the assignment: %w", err)
		}
	}
	answer, err := ask(ctx, m, l, "SyncGroup", joinTime, l.broker.SyncGroup, q)
	if err != nil {
		return err
	}
	if answer.Err != sarama.ErrNoError {
		return fmt.Errorf("sync: %w", answer.Err)
	}
	gen.claims, gen.notes, err = assignmentOf(answer)
	return err
}
