package kafka

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A pull instance shares its group with a Java and a kcat member, whoever leads: every partition has one owner in the
// coordinator's books, everyone has some, and what we believe to own is what the books say.
func TestForeignMembersShareTheGroup(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	if !k.Real() {
		backend.NotRun(t, "Java's console consumer comes with the real back ends")
	}
	if _, err := exec.LookPath("kcat"); err != nil {
		backend.NotRun(t, "needs kcat")
	}
	const partitions = 12
	topic, clients, group := k.Topic(t, "mixed", partitions), groupClients(t, k.Brokers), backend.Unique("group")
	books := coordinatorBooks(t, k, group)
	w := newWorld(t, group, sluice.RangeAssignor, topic)
	java := func() (stop func()) {
		cmd := k.Tool(t.Context(), t, "ConsoleConsumer", "--topic", topic, "--group", group)
		return running(t, cmd)
	}
	kcat := func() (stop func()) {
		return running(t, exec.Command("kcat", "-b", k.Brokers[0], "-q", "-G", group, topic))
	}

	stopJava := java() // first, so it leads
	books.await(t, 1, partitions)
	a := w.join(t, clients, "a")
	books.await(t, 2, partitions)
	stopKcat := kcat()
	books.await(t, 3, partitions, a)
	stopJava() // now another leads: kcat or we
	books.await(t, 2, partitions, a)
	stopKcat()
	books.await(t, 1, partitions, a) // we lead
	java()
	kcat()
	books.await(t, 3, partitions, a)
}

// running starts a process of the test's own and ends it by SIGTERM, at the end of the test at the latest.
func running(t testing.TB, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait() // it says that it was ended
		if t.Failed() {
			t.Logf("%v said: %.2000s", cmd.Args, out.String())
		}
	}
	t.Cleanup(stop)
	return stop
}

// books is what the coordinator says about a group.
type books struct {
	client *kgo.Client
	group  string
}

func coordinatorBooks(t testing.TB, k *backend.Broker, group string) *books {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &books{client, group}
}

// read is the partitions by member id, of a group that is stable.
func (b *books) read(t testing.TB) (shares map[string][]int32, state string) {
	t.Helper()
	ask := kmsg.NewPtrDescribeGroupsRequest()
	ask.Groups = []string{b.group}
	answer, err := ask.RequestWith(within(t, 10*time.Second), b.client)
	if err != nil {
		t.Fatal(err)
	}
	shares = map[string][]int32{}
	for _, m := range answer.Groups[0].Members {
		var assignment kmsg.ConsumerMemberAssignment
		if len(m.MemberAssignment) > 0 {
			if err := assignment.ReadFrom(m.MemberAssignment); err != nil {
				t.Fatalf("the assignment of %s: %v", m.MemberID, err)
			}
		}
		shares[m.MemberID] = nil
		for _, topic := range assignment.Topics {
			shares[m.MemberID] = append(shares[m.MemberID], topic.Partitions...)
		}
	}
	return shares, answer.Groups[0].State
}

// await waits until so many members share all partitions evenly, and ours own what the books say.
func (b *books) await(t testing.TB, members, partitions int, ours ...*replica) {
	t.Helper()
	var last string
	await(t, 40*time.Second, func() string { return last }, func() bool {
		shares, state := b.read(t)
		last = fmt.Sprintf("%d members of %d share %d partitions: %s %v", members, len(shares), partitions, state, shares)
		if state != "Stable" || len(shares) != members {
			return false
		}
		var all []int32
		for _, s := range shares {
			if len(s) != partitions/members {
				return false
			}
			all = append(all, s...)
		}
		slices.Sort(all)
		if len(slices.Compact(all)) != partitions {
			return false
		}
		for _, r := range ours {
			h := r.now()
			if h == nil {
				return false
			}
			for _, mine := range h.session.Claims {
				theirs := slices.Sorted(slices.Values(shares[h.session.Member]))
				if !slices.Equal(mine, theirs) {
					last += fmt.Sprintf("; %s believes in %v", r.name, mine)
					return false
				}
			}
		}
		return true
	})
	t.Log(last)
}
