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
	note     []byte
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
		topics, note, err := subscriptionOf(m.Metadata)
		if err != nil {
			bad = append(bad, fmt.Errorf("member %s: %w", m.MemberId, err)) // it gets no partitions, the others theirs
		}
		s := subscriber{id: m.MemberId, topics: topics, note: note}
		if m.GroupInstanceId != nil {
			s.instance = *m.GroupInstanceId
		}
		list = append(list, s)
	}
	return list, errors.Join(bad...)
}

// subscriptionOf reads the beginning of a ConsumerProtocolSubscription, which is the same in all its versions: version,
// topics, user data. The rest (owned partitions, rack) is the business of assignors we do not offer; foreign clients have
// been seen to write it wrong, so it is not looked at, and user data that is cut short is none.
func subscriptionOf(metadata []byte) (topics []string, note []byte, err error) {
	short := errors.New("its subscription is cut short")
	if len(metadata) < 6 {
		return nil, nil, short
	}
	n, rest := int32(binary.BigEndian.Uint32(metadata[2:])), metadata[6:]
	for range n { // negative is null: none
		if len(rest) < 2 {
			return nil, nil, short
		}
		size := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; len(rest) < size {
			return nil, nil, short
		}
		if name := string(rest[:size]); !slices.Contains(topics, name) {
			topics = append(topics, name)
		}
		rest = rest[size:]
	}
	if len(rest) >= 4 {
		if size := int32(binary.BigEndian.Uint32(rest)); size > 0 && size <= sluice.MaxNote && int(size) <= len(rest)-4 {
			note = rest[4 : 4+size]
		}
	}
	return topics, note, nil
}

// assignmentOf reads what a member was given: its partitions, and the notes of all members. An empty one, which a leader
// may give to a member without partitions, has no version either and must not be decoded.
func assignmentOf(answer *sarama.SyncGroupResponse) (claims map[string][]int32, notes [][]byte, err error) {
	claims = map[string][]int32{}
	if len(answer.MemberAssignment) == 0 {
		return claims, nil, nil
	}
	assignment, err := answer.GetMemberAssignment()
	if err != nil {
		return nil, nil, fmt.Errorf("read the assignment: %w", err)
	}
	for topic, partitions := range assignment.Topics {
		if len(partitions) > 0 {
			slices.Sort(partitions)
			claims[topic] = partitions
		}
	}
	return claims, readNotes(assignment.UserData), nil
}

// protocolOf is the subscription we join with. Version 0 says all that an eager member has to say.
func protocolOf(r *sarama.JoinGroupRequest, m sluice.Membership, note []byte) error {
	return r.AddGroupProtocolMetadata(string(m.Assignor), &sarama.ConsumerGroupMemberMetadata{Topics: m.Topics, UserData: note})
}

// notesVersion begins the user data of an assignment with notes: then the length of each, uvarint, and its bytes.
const notesVersion = 1

func writeNotes(members []subscriber) []byte {
	b := []byte{notesVersion}
	for _, m := range members {
		b = binary.AppendUvarint(b, uint64(len(m.note)))
		b = append(b, m.note...)
	}
	return b
}

// readNotes gives nil for what it does not understand.
func readNotes(b []byte) (notes [][]byte) {
	if len(b) == 0 || b[0] != notesVersion {
		return nil
	}
	for b = b[1:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil
		}
		notes = append(notes, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return notes
}
