package kafka

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// subscriber is a member of a group as its leader sees it: ours or foreign.
type subscriber struct {
	id       string
	instance string // static membership (KIP-345), of foreign members; else ""
	topics   []string
}

// assignor shares out the partitions of one topic, which are counted from 0. The members are those that subscribe to
// it, at least one; the answer has the partitions of each member, ascending, in the order of members.
type assignor func(topic string, partitions int32, members []subscriber) [][]int32

// plan is what the leader of a generation hands to the coordinator: partitions by topic by member id. Every member is
// in it, with or without partitions. A topic without a count does not exist and has none.
func plan(share assignor, members []subscriber, counts map[string]int32) map[string]map[string][]int32 {
	plan := make(map[string]map[string][]int32, len(members))
	byTopic := map[string][]subscriber{}
	for _, m := range members {
		plan[m.id] = map[string][]int32{}
		for _, topic := range m.topics {
			byTopic[topic] = append(byTopic[topic], m)
		}
	}
	for topic, subscribed := range byTopic {
		if counts[topic] == 0 {
			continue
		}
		for i, partitions := range share(topic, counts[topic], subscribed) {
			if len(partitions) > 0 {
				plan[subscribed[i].id][topic] = partitions
			}
		}
	}
	return plan
}

// ranges is Kafka's RangeAssignor without racks: in the order of the members, each gets a run of partitions, the first
// ones one more where it does not come out even. Java and librdkafka compute the same, so anyone may lead.
func ranges(_ string, partitions int32, members []subscriber) [][]int32 {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return compareMembers(members[a], members[b]) })
	shares := make([][]int32, len(members))
	each, more := int(partitions)/len(members), int(partitions)%len(members)
	next := int32(0)
	for place, i := range order {
		n := each
		if place < more {
			n++
		}
		for range n {
			shares[i] = append(shares[i], next)
			next++
		}
	}
	return shares
}

// compareMembers is the order of AbstractPartitionAssignor.MemberInfo: static members first, by their instance.
func compareMembers(a, b subscriber) int {
	switch {
	case a.instance != "" && b.instance != "":
		return cmp.Compare(a.instance, b.instance)
	case a.instance != "":
		return -1
	case b.instance != "":
		return 1
	}
	return cmp.Compare(a.id, b.id)
}

// rendezvous is Sluice's own assignor. Partitions in the order of their hash go each to the member with the highest
// hash of topic, partition and member id that still has room: P mod N members may hold ⌈P/N⌉ and the rest ⌊P/N⌋. Topics
// of one partition spread over the replicas, and because members keep their ids little moves when one comes or goes.
func rendezvous(topic string, partitions int32, members []subscriber) [][]int32 {
	n := len(members)
	each, more := int(partitions)/n, int(partitions)%n
	order := make([]int32, partitions)
	for p := range order {
		order[p] = int32(p)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(hash64(topic, a, ""), hash64(topic, b, "")), cmp.Compare(a, b))
	})
	shares := make([][]int32, n)
	for _, p := range order {
		best, bestHash := -1, uint64(0)
		for i, m := range members {
			held := len(shares[i])
			if held > each || held == each && more == 0 {
				continue
			}
			h := hash64(topic, p, m.id)
			if best < 0 || h > bestHash || h == bestHash && m.id < members[best].id {
				best, bestHash = i, h
			}
		}
		if len(shares[best]) == each {
			more--
		}
		shares[best] = append(shares[best], p)
	}
	for _, s := range shares {
		slices.Sort(s)
	}
	return shares
}

// hash64 is FNV-1a over topic, 0, partition (big endian), member, and then the finalizer of MurmurHash3, without which
// names that differ in their last byte alone would rank alike. It may never change: replicas of two releases share a
// group, and each may lead it.
func hash64(topic string, partition int32, member string) uint64 {
	h := uint64(14695981039346656037)
	add := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for i := range len(topic) {
		add(topic[i])
	}
	add(0)
	var number [4]byte
	binary.BigEndian.PutUint32(number[:], uint32(partition))
	for _, b := range number {
		add(b)
	}
	for i := range len(member) {
		add(member[i])
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// subscribers reads the members that a join answer gives the leader.
func subscribers(members []sarama.GroupMember) ([]subscriber, error) {
	list := make([]subscriber, 0, len(members))
	var bad []error
	for _, m := range members {
		topics, err := topicsOf(m.Metadata)
		if err != nil {
			bad = append(bad, fmt.Errorf("member %s: %w", m.MemberId, err)) // it gets no partitions, the others theirs
		}
		s := subscriber{id: m.MemberId, topics: topics}
		if m.GroupInstanceId != nil {
			s.instance = *m.GroupInstanceId
		}
		list = append(list, s)
	}
	return list, errors.Join(bad...)
}

// topicsOf reads the beginning of a ConsumerProtocolSubscription, which is the same in all its versions: version,
// topics. The rest (user data, owned partitions, rack) is the business of assignors we do not offer; foreign clients
// have been seen to write it wrong, so it is not looked at.
func topicsOf(metadata []byte) ([]string, error) {
	short := errors.New("its subscription is cut short")
	if len(metadata) < 6 {
		return nil, short
	}
	n, rest := int32(binary.BigEndian.Uint32(metadata[2:])), metadata[6:]
	var topics []string
	for range n { // negative is null: none
		if len(rest) < 2 {
			return nil, short
		}
		size := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; len(rest) < size {
			return nil, short
		}
		if name := string(rest[:size]); !slices.Contains(topics, name) {
			topics = append(topics, name)
		}
		rest = rest[size:]
	}
	return topics, nil
}

// claimsOf reads an assignment. An empty one, which a leader may give to a member without partitions, has no version
// either and must not be decoded.
func claimsOf(answer *sarama.SyncGroupResponse) (map[string][]int32, error) {
	if len(answer.MemberAssignment) == 0 {
		return map[string][]int32{}, nil
	}
	assignment, err := answer.GetMemberAssignment()
	if err != nil {
		return nil, fmt.Errorf("read the assignment: %w", err)
	}
	claims := make(map[string][]int32, len(assignment.Topics))
	for topic, partitions := range assignment.Topics {
		if len(partitions) > 0 {
			slices.Sort(partitions)
			claims[topic] = partitions
		}
	}
	return claims, nil
}

// protocolOf is the subscription we join with. Version 0 says all that an eager member has to say.
func protocolOf(r *sarama.JoinGroupRequest, m sluice.Membership) error {
	return r.AddGroupProtocolMetadata(string(m.Assignor), &sarama.ConsumerGroupMemberMetadata{Topics: m.Topics})
}
