package kafka

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
	"pgregory.net/rapid"
)

func membersNamed(ids ...string) []subscriber {
	list := make([]subscriber, len(ids))
	for i, id := range ids {
		list[i] = subscriber{id: id, topics: []string{"t"}}
	}
	return list
}

// Whatever the members and partitions, each partition has one owner, the shares are even, and the same question has the
// same answer in any order of the members.
func TestAssignorsCoverEvenlyAndAgree(t *testing.T) {
	for name, share := range map[string]assignor{"rendezvous": rendezvous, "range": ranges} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				ids := rapid.SliceOfNDistinct(rapid.StringMatching(`sluice-own-[0-9a-f]{8}`), 1, 9, rapid.ID).Draw(t, "ids")
				partitions := rapid.Int32Range(1, 60).Draw(t, "partitions")
				members := membersNamed(ids...)
				shares := share("orders", partitions, members)
				owner := map[int32]string{}
				for i, s := range shares {
					if n := int(partitions) / len(ids); len(s) != n && len(s) != n+1 {
						t.Fatalf("%s has %d of %d partitions among %d", ids[i], len(s), partitions, len(ids))
					}
					if !slices.IsSorted(s) {
						t.Fatalf("not ascending: %v", s)
					}
					for _, p := range s {
						if before, taken := owner[p]; taken {
							t.Fatalf("partition %d is %s's and %s's", p, before, ids[i])
						}
						owner[p] = ids[i]
					}
				}
				if len(owner) != int(partitions) {
					t.Fatalf("%d of %d partitions have an owner", len(owner), partitions)
				}
				perm := rand.New(rand.NewPCG(1, uint64(partitions))).Perm(len(ids))
				other := make([]subscriber, len(ids))
				for i, j := range perm {
					other[i] = members[j]
				}
				for i, s := range share("orders", partitions, other) {
					if !slices.Equal(s, shares[perm[i]]) {
						t.Fatalf("another order of the members, another answer for %s", other[i].id)
					}
				}
			})
		})
	}
}

// When a replica comes, its share moves and little else: for 12 partitions the mean of many groups stays near the
// minimum, 4 from two to three members and 3 from three to four.
func TestRendezvousMovesLittle(t *testing.T) {
	for n, limit := range map[int]float64{2: 5, 3: 4.4} {
		moved := 0
		const groups = 2000
		for g := range groups {
			var ids []string
			for i := range n + 1 {
				ids = append(ids, fmt.Sprintf("sluice-own-%d-%d", g, i))
			}
			before, after := rendezvous("orders", 12, membersNamed(ids[:n]...)), rendezvous("orders", 12, membersNamed(ids...))
			for i := range before {
				for _, p := range before[i] {
					if !slices.Contains(after[i], p) {
						moved++
					}
				}
			}
		}
		mean := float64(moved) / groups
		t.Logf("%d to %d members: %.2f of 12 partitions move", n, n+1, mean)
		if mean > limit {
			t.Errorf("%d to %d members: %.2f of 12 partitions move, limit %.1f", n, n+1, mean, limit)
		}
	}
}

// Topics of one partition do not pile up on one replica.
func TestRendezvousSpreadsOnePartitionTopics(t *testing.T) {
	members := membersNamed("sluice-own-a", "sluice-own-b", "sluice-own-c")
	held := make([]int, 3)
	for i := range 300 {
		for m, s := range rendezvous(fmt.Sprintf("topic-%d", i), 1, members) {
			held[m] += len(s)
		}
	}
	if slices.Max(held) > 130 || slices.Min(held) < 70 {
		t.Errorf("300 topics over 3 replicas: %v", held)
	}
}

// The hash is a contract between releases: replicas of two of them share groups.
func TestRendezvousHashStays(t *testing.T) {
	for _, v := range []struct {
		topic     string
		partition int32
		member    string
		want      uint64
	}{
		{"orders", 0, "sluice-own-1", 0xa2e333b1a39f3121},
		{"orders", 1, "sluice-own-1", 0xa4572b00274e47a},
		{"NativeCmsPublicationEvents", 0, "", 0x31cf0ba083d6b613},
	} {
		if got := hash64(v.topic, v.partition, v.member); got != v.want {
			t.Errorf("hash64(%q, %d, %q) = %#x, want %#x", v.topic, v.partition, v.member, got, v.want)
		}
	}
}

// What foreign members write after the topics of their subscription is theirs; a subscription cut short costs its
// member its share and nobody else theirs.
func TestLeaderReadsForeignSubscriptions(t *testing.T) {
	v1 := []byte{0, 1, 0, 0, 0, 2, 0, 1, 'a', 0, 2, 'b', 'c', 0xff, 0xff, 0xff, 0xff} // no owned partitions, though version 1 has them
	list, err := subscribers([]sarama.GroupMember{
		{MemberId: "java", Metadata: append(v1, "anything at all"...)},
		{MemberId: "broken", Metadata: []byte{0, 0, 0, 0, 0, 9, 0, 200, 'x'}},
		{MemberId: "empty", Metadata: nil},
	})
	if err == nil {
		t.Error("a subscription that is cut short was not reported")
	}
	if !slices.Equal(list[0].topics, []string{"a", "bc"}) || len(list[1].topics) != 0 || len(list[2].topics) != 0 {
		t.Errorf("read %v", list)
	}
	shares := plan(ranges, list, map[string]int32{"a": 3, "bc": 1})
	if len(shares) != 3 || !slices.Equal(shares["java"]["a"], []int32{0, 1, 2}) {
		t.Errorf("plan %v", shares)
	}
}

// What a member notes is in the assignment of every member; what cannot be read is nothing.
func TestNotesAreReadAsTheyWereWritten(t *testing.T) {
	r := &sarama.JoinGroupRequest{}
	if err := protocolOf(r, sluice.Membership{Topics: []string{"a"}, Assignor: sluice.Rendezvous}, []byte("one")); err != nil {
		t.Fatal(err)
	}
	old := []byte{0, 0, 0, 0, 0, 1, 0, 1, 'a', 0xff, 0xff, 0xff, 0xff} // a release that notes nothing
	list, err := subscribers([]sarama.GroupMember{
		{MemberId: "new", Metadata: r.OrderedGroupProtocols[0].Metadata}, {MemberId: "old", Metadata: old},
		{MemberId: "endless", Metadata: append(old[:9:9], 0x7f, 0xff, 0xff, 0xff, 'x')}, // more than is there
	})
	if err != nil {
		t.Fatal(err)
	}
	written := writeNotes(list)
	if got := fmt.Sprintf("%q", readNotes(written)); got != `["one" "" ""]` {
		t.Errorf("notes %s", got)
	}
	for _, b := range [][]byte{nil, {}, {2, 1, 'x'}, {1, 9, 'x'}, {1, 0x80}} {
		if got := readNotes(b); got != nil {
			t.Errorf("%x: notes %q", b, got)
		}
	}
}

// Java sorts static members first, by their instance, and each member gets a run.
func TestRangeIsKafkas(t *testing.T) {
	members := []subscriber{{id: "b"}, {id: "z", instance: "i2"}, {id: "a"}, {id: "y", instance: "i1"}}
	want := [][]int32{{6}, {2, 3}, {4, 5}, {0, 1}}
	if got := ranges("t", 7, members); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("shares %v, want %v", got, want)
	}
}
