package kafka

import (
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A group that only ever took standalone commits is told from one that a consumer is in, or was: Kafka expires the
// offsets of the latter by another clock.
func TestAGroupThatEverHadAMemberIsToldFromOurs(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "describe", 2), groupClients(t, k.Brokers)
	o, ours, theirs := NewOffsets(clients), backend.Unique("sluice.sub"), backend.Unique("sluice.sub")
	mustCommit(t, o, standalone(ours, sluice.Commit{Topic: topic, Offset: 5}))
	mustCommit(t, o, standalone(theirs, sluice.Commit{Topic: topic, Offset: 5}))
	describe := func() map[string]sluice.GroupState {
		t.Helper()
		states, err := o.Describe(within(t, 10*time.Second), []string{ours, theirs, ours + "-nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		if got := states[ours+"-nowhere"]; got.State != "Dead" || got.Untouched() {
			t.Errorf("a group that does not exist: %+v", got)
		}
		if !states[ours].Untouched() {
			t.Errorf("our group: %+v", states[ours])
		}
		return states
	}
	if got := describe()[theirs]; !got.Untouched() {
		t.Errorf("before the member: %+v", got)
	}
	a := newWorld(t, theirs, sluice.RangeAssignor, topic).join(t, clients, "a")
	settle(t, 10*time.Second, 2, a)
	if got := describe()[theirs]; got.Members != 1 || got.Protocol != "consumer" || got.Untouched() {
		t.Errorf("with a member: %+v", got)
	}
	a.leave(t)
	if got := describe()[theirs]; got.State != "Empty" || got.Members != 0 || got.Untouched() {
		t.Errorf("after the member left: %+v", got)
	}
	if err := o.DeleteGroup(within(t, 10*time.Second), theirs); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, o, standalone(theirs, sluice.Commit{Topic: topic, Offset: 5}))
	if got := describe()[theirs]; !got.Untouched() {
		t.Errorf("made anew: %+v", got)
	}
}
