package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// stranger is a consumer that somebody started in the progress group of a subscription.
type stranger struct {
	name    string
	command func(t *testing.T, group string) *exec.Cmd
	newest  bool // of the protocol of KIP-848

	id, group string
	hook      *peers.Collector
	stop      func()
}

// B26: a foreign consumer in a progress group takes the right to commit away. The subscription says so and stands still,
// others do not notice, and when it has left everything goes on from where it was, whatever the stranger committed.
func TestAForeignConsumerInAProgressGroup(t *testing.T) {
	t.Parallel() // it waits most of the time
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 3)
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		backend.NotRun(t, "needs kcat")
	}
	strangers := []*stranger{{name: "kcat", command: func(t *testing.T, group string) *exec.Cmd {
		t.Helper()
		return exec.Command(kcat, "-b", k.Brokers[0], "-q", "-G", group, topic)
	}}}
	java := func(properties ...string) func(t *testing.T, group string) *exec.Cmd {
		return func(t *testing.T, group string) *exec.Cmd {
			t.Helper()
			args := []string{"--topic", topic, "--group", group}
			for _, p := range properties {
				args = append(args, "--consumer-property", p)
			}
			return k.Tool(context.Background(), t, "ConsoleConsumer", args...)
		}
	}
	if k.Real() {
		strangers = append(strangers, &stranger{name: "Java", command: java()})
	}
	if k.Name == backend.Kafka41 {
		strangers = append(strangers, &stranger{name: "Java, KIP-848", command: java("group.protocol=consumer"), newest: true})
	}

	alone := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{alone.Port}}
	for _, s := range strangers {
		s.hook = collector(t, nil)
		g.ports = append(g.ports, s.hook.Port)
	}
	r := g.replica(t)
	if _, err := alone.Subscribe(t.Context(), r.URL, topic, nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range strangers {
		if s.id, err = s.hook.Subscribe(t.Context(), r.URL, topic, nil); err != nil {
			t.Fatal(err)
		}
		s.group = "sluice.sub." + s.id
	}
	produced := spread(t, r.URL, topic, 0, 60)
	for _, s := range strangers {
		eventually(t, time.Minute, "deliveries begin", func() bool { return s.hook.Seen.Missing(produced) == 0 && lag(t, r.URL, s.id) == 0 })
	}

	for _, s := range strangers {
		s.stop = running(t, s.command(t, s.group))
	}
	for _, s := range strangers {
		eventually(t, time.Minute, s.name+" is a member of the progress group", func() bool { return members(t, k, s) == 1 })
	}
	first := spread(t, r.URL, topic, 100, 60) // their commits are the first to be refused
	for _, s := range strangers {
		eventually(t, 20*time.Second, "GET /subscriptions/{id} says that "+s.name+" is there", func() bool { return reason(t, r.URL, s.id) == "group_hijacked" })
		if !logged(r, s.id, "group_hijacked") {
			t.Errorf("%s: the log does not say so:\n%s", s.name, lastLines(r.Log(), 5))
		}
	}
	reached := map[*stranger]int{}
	eventually(t, 10*time.Second, "what was in flight has landed", func() bool {
		settled := true
		for _, s := range strangers {
			n := len(s.hook.Attempts())
			settled = settled && reached[s] == n
			reached[s] = n
		}
		return settled && alone.Seen.Missing(first) == 0
	})
	more := spread(t, r.URL, topic, 200, 60)
	eventually(t, 10*time.Second, "a subscription without a stranger goes on", func() bool { return alone.Seen.Missing(more) == 0 })
	wait(t.Context(), phase(30*time.Second))
	for _, s := range strangers {
		if n := len(s.hook.Attempts()); n != reached[s] {
			t.Errorf("%s: %d requests while nothing could be committed", s.name, n-reached[s])
		}
		if members(t, k, s) != 1 {
			t.Errorf("%s has left the group by itself; this shows nothing", s.name)
		}
	}

	for _, s := range strangers {
		s.stop()
	}
	left := time.Now()
	produced = append(append(produced, first...), more...)
	for _, s := range strangers {
		eventually(t, 80*time.Second, "the subscription goes on when "+s.name+" has left", func() bool { return s.hook.Seen.Missing(produced) == 0 })
		t.Logf("%s: going on %s after it left", s.name, time.Since(left).Round(time.Millisecond))
		eventually(t, 20*time.Second, "it says so, and its progress is committed", func() bool {
			return reason(t, r.URL, s.id) == "" && lag(t, r.URL, s.id) == 0
		})
		if err := s.hook.Seen.Compare(produced); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		keyOrder(t, s.hook.Seen)
		if distinct, sightings := s.hook.Seen.Count(); sightings != distinct {
			t.Errorf("%s: %d records came twice", s.name, sightings-distinct)
		}
		// Offsets of a group that had a member expire whatever is committed later: it must be another group by now.
		// The owner of partition 0 looks every thirty seconds.
		eventually(t, 45*time.Second, "the group of "+s.name+" was made anew", func() bool {
			state, kind := describe(t, k, s.group)
			return state == "Empty" && kind == ""
		})
		eventually(t, 20*time.Second, "with everything in it", func() bool { return lag(t, r.URL, s.id) == 0 })
	}
}

// members is how many the coordinator knows of.
func members(t *testing.T, k *backend.Broker, s *stranger) int {
	t.Helper()
	if s.newest {
		ask := kmsg.NewPtrConsumerGroupDescribeRequest()
		ask.Groups = []string{s.group}
		answer, err := request(t, k, 0, ask)
		if err != nil {
			return 0
		}
		return len(answer.(*kmsg.ConsumerGroupDescribeResponse).Groups[0].Members)
	}
	ask := kmsg.NewPtrDescribeGroupsRequest()
	ask.Groups = []string{s.group}
	answer, err := request(t, k, 0, ask)
	if err != nil || answer.(*kmsg.DescribeGroupsResponse).Groups[0].State != "Stable" {
		return 0
	}
	return len(answer.(*kmsg.DescribeGroupsResponse).Groups[0].Members)
}

// describe is what the coordinator says about a group.
func describe(t *testing.T, k *backend.Broker, group string) (state, kind string) {
	t.Helper()
	ask := kmsg.NewPtrDescribeGroupsRequest()
	ask.Groups = []string{group}
	answer, err := request(t, k, 0, ask)
	if err != nil {
		return err.Error(), ""
	}
	about := answer.(*kmsg.DescribeGroupsResponse).Groups[0]
	return about.State, about.ProtocolType
}

// reason is why a subscription stands still, by its status.
func reason(t *testing.T, base, id string) string {
	t.Helper()
	var doc struct {
		Status struct {
			Reason string `json:"reason"`
		} `json:"status"`
	}
	if err := peers.Call(t.Context(), http.MethodGet, base+"/subscriptions/"+id, "", nil, http.StatusOK, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Status.Reason
}

// logged is whether one line of the replica's log has all the words.
func logged(r *peers.Replica, words ...string) bool {
	for line := range strings.Lines(r.Log()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}

// running starts a process of the test's own and ends it by SIGTERM, at the end of the test at the latest.
func running(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait() // it says that it was ended
		if t.Failed() {
			t.Log(fmt.Sprint(cmd.Args), "said:", lastLines(out.String(), 20))
		}
	})
	t.Cleanup(stop)
	return stop
}
