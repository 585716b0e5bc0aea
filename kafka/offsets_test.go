package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// standalone is a commit as a progress group has it.
func standalone(group string, commits ...sluice.Commit) sluice.GroupCommit {
	return sluice.GroupCommit{Group: group, Generation: -1, Commits: commits}
}

func mustCommit(t testing.TB, o *Offsets, g sluice.GroupCommit) {
	t.Helper()
	for i, err := range o.Commit(within(t, 20*time.Second), g) {
		if err != nil {
			t.Fatalf("%v: %v", g.Commits[i], err)
		}
	}
}

// What was committed is read back, metadata and all; what was not is NoOffset, and so is all of a group that does not
// exist. A later commit moves back as well as forward, and changes the metadata alone.
func TestCommitsAreReadBack(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, o, group := k.Topic(t, "offsets", 3), NewOffsets(groupClients(t, k.Brokers)), backend.Unique("sluice.sub")
	parts := []sluice.Partition{{Topic: topic, Number: 2}, {Topic: topic, Number: 0}, {Topic: topic, Number: 1}}
	read := func() []sluice.Commit {
		t.Helper()
		commits, err := o.Group(within(t, 20*time.Second), group, parts)
		if err != nil {
			t.Fatal(err)
		}
		return commits
	}
	for i, c := range read() {
		if want := (sluice.Commit{Topic: topic, Partition: parts[i].Number, Offset: sluice.NoOffset}); c != want {
			t.Errorf("before any commit: %v, want %v", c, want)
		}
	}
	full := strings.Repeat("x", 4096) // what the encoder of progress may use up
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Partition: 0, Offset: 42, Metadata: full}, sluice.Commit{Topic: topic, Partition: 2, Offset: 0}))
	if got := read(); got[0].Offset != 0 || got[0].Metadata != "" || got[1].Offset != 42 || got[1].Metadata != full || got[2].Offset != sluice.NoOffset {
		t.Errorf("read back %.200v", got)
	}
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Partition: 0, Offset: 7, Metadata: "a"}))
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Partition: 0, Offset: 7, Metadata: "b"}))
	if got := read()[1]; got.Offset != 7 || got.Metadata != "b" {
		t.Errorf("after a commit that goes back: %v", got)
	}
	if commits, err := o.Group(within(t, time.Second), group, nil); err != nil || len(commits) != 0 {
		t.Errorf("no partitions: %v, %v", commits, err)
	}
}

// One commit that Kafka refuses leaves its neighbours alone.
func TestRefusedCommitFailsAlone(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	if !k.Real() {
		backend.NotRun(t, "the embedded Kafka takes metadata of any size and unknown topics")
	}
	topic, o, group := k.Topic(t, "refuse", 1), NewOffsets(groupClients(t, k.Brokers)), backend.Unique("sluice.sub")
	errs := o.Commit(within(t, 20*time.Second), standalone(group,
		sluice.Commit{Topic: topic, Partition: 0, Offset: 1},
		sluice.Commit{Topic: backend.Unique("nowhere"), Partition: 0, Offset: 1},
	))
	if errs[0] != nil || sluice.KindOf(errs[1]) != sluice.UnknownTopic {
		t.Errorf("errors %v", errs)
	}
	errs = o.Commit(within(t, 20*time.Second), standalone(group, sluice.Commit{Topic: topic, Partition: 0, Offset: 2, Metadata: strings.Repeat("x", 4097)}))
	if sluice.KindOf(errs[0]) != sluice.TooLarge {
		t.Errorf("4,097 characters of metadata: %v", errs[0])
	}
}

// Commits of more metadata than one request carries are split, and a request that is too large for the broker all the
// same, which says only UNKNOWN_SERVER_ERROR, is halved until it passes.
func TestLargeCommitsAreSplit(t *testing.T) {
	t.Parallel()
	const partitions = 300
	k := backend.Kafka(t)
	topic, o, group := k.Topic(t, "large", partitions), NewOffsets(groupClients(t, k.Brokers)), backend.Unique("sluice.sub")
	commits, parts := make([]sluice.Commit, partitions), make([]sluice.Partition, partitions)
	for p := range commits {
		commits[p] = sluice.Commit{Topic: topic, Partition: int32(p), Offset: int64(p), Metadata: strings.Repeat("y", 4000)}
		parts[p] = sluice.Partition{Topic: topic, Number: int32(p)}
	}
	check := func() {
		t.Helper()
		got, err := o.Group(within(t, 20*time.Second), group, parts)
		if err != nil {
			t.Fatal(err)
		}
		for p, c := range got {
			if c != commits[p] {
				t.Fatalf("partition %d: offset %d with %d characters", p, c.Offset, len(c.Metadata))
			}
		}
	}
	mustCommit(t, o, standalone(group, commits...))
	check()

	for p := range commits {
		commits[p].Offset++
	}
	var refusals *kfake.FaultHandle
	if !k.Real() {
		refusals = k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownServerError, Group: group})
	}
	errs := make([]error, partitions)
	o.commit(within(t, 20*time.Second), standalone(group), commits, errs) // past the split: 1.2 MB at once
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	check()
	if refusals != nil && refusals.Hits() == 0 {
		t.Error("nothing was refused, so nothing was halved")
	}
}

// A standalone commit to a group with a member is refused, and so is a member's when its generation is over; a member's
// own is taken. A group with a member cannot be deleted, one without can, twice.
func TestCommitsAndMembersOfAGroup(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	clients, topic, group := groupClients(t, k.Brokers), k.Topic(t, "hijack", 2), backend.Unique("sluice.sub")
	o := NewOffsets(clients)
	mine := sluice.Commit{Topic: topic, Partition: 0, Offset: 5}
	mustCommit(t, o, standalone(group, mine))

	a := newWorld(t, group, sluice.RangeAssignor, topic).join(t, clients, "a")
	settle(t, 10*time.Second, 2, a)
	if err := o.Commit(within(t, 10*time.Second), standalone(group, mine))[0]; sluice.KindOf(err) != sluice.StaleSession {
		t.Errorf("a standalone commit beside a member: %v", err)
	}
	s := a.now().session
	member := sluice.GroupCommit{Group: group, Member: s.Member, Generation: s.Generation, Commits: []sluice.Commit{{Topic: topic, Partition: 1, Offset: 9}}}
	mustCommit(t, o, member)
	older := member
	older.Generation--
	if err := o.Commit(within(t, 10*time.Second), older)[0]; sluice.KindOf(err) != sluice.StaleSession {
		t.Errorf("a commit of an old generation: %v", err)
	}
	if err := o.DeleteGroup(within(t, 10*time.Second), group); sluice.KindOf(err) != sluice.Conflict {
		t.Errorf("deleting a group with a member: %v", err)
	}
	a.leave(t)
	if err := o.Commit(within(t, 10*time.Second), member)[0]; sluice.KindOf(err) != sluice.StaleSession {
		t.Errorf("a commit of a member that left: %v", err)
	}
	got, err := o.Group(within(t, 10*time.Second), group, []sluice.Partition{{Topic: topic, Number: 0}, {Topic: topic, Number: 1}})
	if err != nil || got[0].Offset != 5 || got[1].Offset != 9 {
		t.Errorf("read %v, %v", got, err)
	}
	for range 2 {
		if err := o.DeleteGroup(within(t, 10*time.Second), group); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	got, err = o.Group(within(t, 10*time.Second), group, []sluice.Partition{{Topic: topic, Number: 0}})
	if err != nil || got[0].Offset != sluice.NoOffset {
		t.Errorf("after deleting: %v, %v", got, err)
	}
}

// The positions of many groups on one partition come with few calls where the broker can, and one by one where not.
func TestManyGroupsAreReadTogether(t *testing.T) {
	t.Parallel()
	const groups = 1100
	k := backend.Kafka(t)
	topic, o, prefix := k.Topic(t, "many", 2), NewOffsets(groupClients(t, k.Brokers)), backend.Unique("sluice.sub")
	var names []string
	for i := range groups {
		name := fmt.Sprint(prefix, "-", i)
		names = append(names, name)
		if i%50 == 0 {
			mustCommit(t, o, standalone(name, sluice.Commit{Topic: topic, Partition: 1, Offset: int64(i), Metadata: name}))
		}
	}
	began := time.Now()
	found, err := o.Groups(within(t, 30*time.Second), sluice.Partition{Topic: topic, Number: 1}, names)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d groups read in %v", groups, time.Since(began))
	if len(found) != groups {
		t.Fatalf("%d of %d groups were read", len(found), groups)
	}
	for i, name := range names {
		want := sluice.Commit{Topic: topic, Partition: 1, Offset: sluice.NoOffset}
		if i%50 == 0 {
			want.Offset, want.Metadata = int64(i), name
		}
		if found[name] != want {
			t.Fatalf("%s: %v, want %v", name, found[name], want)
		}
	}
}

// A coordinator that moved is looked up again; the commit and the read take place.
func TestOffsetsFollowTheirCoordinator(t *testing.T) {
	t.Parallel()
	k := backend.KafkaOf(t, 3)
	if k.Real() {
		backend.NotRun(t, "a shared broker's coordinator does not move for one test; the cluster tests move it")
	}
	topic, o, group := k.Topic(t, "moving", 1), NewOffsets(groupClients(t, k.Brokers)), backend.Unique("sluice.sub")
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Offset: 1}))
	moved := 0
	for i := range int64(20) {
		before := k.Fake().CoordinatorFor(group)
		k.Fake().RehashCoordinators()
		if k.Fake().CoordinatorFor(group) != before {
			moved++
		}
		mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Offset: i}))
		got, err := o.Groups(within(t, 10*time.Second), sluice.Partition{Topic: topic}, []string{group})
		if err != nil || got[group].Offset != i {
			t.Fatalf("read %v, %v, want %d", got, err, i)
		}
	}
	if moved == 0 {
		t.Error("the coordinator never moved")
	}
	for _, code := range []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator} {
		f := k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit, kmsg.OffsetFetch}, Group: group, Err: code, Count: 3})
		mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Offset: 77}))
		if f.Hits() == 0 {
			t.Errorf("%v was never answered", code)
		}
		f.Remove()
	}
}

// A broker that takes connections and says nothing costs a commit its context's time and no more, and the next one,
// when the broker is back, is stored.
func TestHungCoordinatorCostsTheDeadlineAlone(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, o, group := k.Topic(t, "hung", 1), NewOffsets(groupClients(t, k.Brokers)), backend.Unique("sluice.sub")
	net := &lossyNet{}
	t.Cleanup(net.end)
	o.dial = net.dial
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Offset: 1}))
	net.lost.Store(true)
	began := time.Now()
	err := o.Commit(within(t, 700*time.Millisecond), standalone(group, sluice.Commit{Topic: topic, Offset: 2}))[0]
	if took := time.Since(began); took > 1500*time.Millisecond || sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("after %v: %v", took, err)
	}
	if net.writes.Load() == 0 {
		t.Error("no write was lost")
	}
	net.lost.Store(false)
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Offset: 3}))
}

// Closing does not wait for a coordinator that hangs, and what was under way fails.
func TestClosingCutsWhatHangs(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients, group := k.Topic(t, "closing", 1), groupClients(t, k.Brokers), backend.Unique("sluice.sub")
	o := NewOffsets(clients)
	net := &lossyNet{}
	t.Cleanup(net.end)
	o.dial = net.dial
	mustCommit(t, o, standalone(group, sluice.Commit{Topic: topic, Offset: 1}))
	net.lost.Store(true)
	failed := make(chan error, 1)
	go func() {
		failed <- o.Commit(within(t, 30*time.Second), standalone(group, sluice.Commit{Topic: topic, Offset: 2}))[0]
	}()
	await(t, 5*time.Second, func() string { return "a commit is lost" }, func() bool { return net.writes.Load() > 0 })
	began := time.Now()
	if err := clients.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; sluice.KindOf(err) != sluice.Unavailable {
		t.Errorf("the commit under way: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("closing took %v", took)
	}
}
