package httpapi

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func TestTwoInstancesSeeEveryRecordOnce(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 6), backend.Unique("g")
	bases := []string{p.consumer(group, earliestJSON, topic), p.consumer(group, earliestJSON, topic)}
	p.awaitMembers(group, bases, 3)
	var want []string
	for n := range 300 {
		want = append(want, fmt.Sprintf("%04d", n))
	}
	for part := range 6 {
		var vs []string
		for n := part; n < 300; n += 6 {
			vs = append(vs, want[n])
		}
		p.produce(topic, part, vs...)
	}
	var mu sync.Mutex
	var all []string
	shares := make([]int, 2)
	var wg sync.WaitGroup
	for n, base := range bases {
		wg.Go(func() {
			for {
				rs := p.read(base, "?timeout=2000&max_bytes=100")
				if len(rs) == 0 {
					return
				}
				mu.Lock()
				all, shares[n] = append(all, p.values(rs)...), shares[n]+len(rs)
				mu.Unlock()
				p.want(200, "[]", "POST", base+"/offsets", "")
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	if !slices.Equal(all, want) || shares[0] != 150 || shares[1] != 150 {
		t.Fatalf("%d records, shares %v", len(all), shares)
	}
	p.want(204, "", "DELETE", bases[0], "")
	p.want(204, "", "DELETE", bases[1], "")
	p.produce(topic, 3, "next")
	p.wantValues(p.readSome(p.consumer(group, earliestJSON, topic), "", 1), "next")
}

// A foreign member of the group shares the partitions with an instance, and every record is seen by one of the two.
func TestForeignMembersShareTheGroup(t *testing.T) {
	for name, start := range map[string]func(p *pull, t *testing.T, group, topic string) *exec.Cmd{
		"kcat": func(p *pull, t *testing.T, group, topic string) *exec.Cmd {
			if _, err := exec.LookPath("kcat"); err != nil {
				backend.NotRun(t, "needs kcat")
			}
			return exec.Command("kcat", "-b", p.k.Brokers[0], "-q", "-u", "-X", "auto.offset.reset=earliest", "-f", "%s\n", "-G", group, topic)
		},
		"java": func(p *pull, t *testing.T, group, topic string) *exec.Cmd {
			return p.k.Tool(t.Context(), t, "ConsoleConsumer", "--topic", topic, "--group", group, "--from-beginning")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := pullers(t)
			topic, group := p.k.Topic(t, "orders", 4), backend.Unique("g")
			cmd := start(p, t, group, topic)
			base := p.consumer(group, earliestJSON, topic)
			p.awaitMembers(group, []string{base}, 4)
			printed, stop := running(t, cmd)
			p.awaitMembers(group, []string{base}, 2)
			for part := range 4 {
				for n := range 10 {
					p.produce(topic, part, fmt.Sprintf("record-%d-%d", part, n))
				}
			}
			mine := p.values(p.readSome(base, "?timeout=2000", 20))
			pattern := regexp.MustCompile(`record-\d-\d`)
			var theirs []string
			await(t, "what the other printed", func() bool {
				theirs = pattern.FindAllString(printed(), -1)
				return len(theirs) >= 20
			})
			all := append(slices.Clone(mine), theirs...)
			slices.Sort(all)
			if len(mine) != 20 || len(theirs) != 20 || len(slices.Compact(all)) != 40 {
				t.Fatalf("mine %v, theirs %v", mine, theirs)
			}
			p.want(200, "[]", "POST", base+"/offsets", "")
			stop() // it leaves the group, and its partitions come to us
			p.awaitMembers(group, []string{base}, 4)
			p.produce(topic, 0, "last-0")
			p.produce(topic, 3, "last-3")
			var last []string // and perhaps, once more, what the other left uncommitted
			await(t, "what the other held", func() bool {
				for _, v := range p.values(p.read(base, "?timeout=1000")) {
					if strings.HasPrefix(v, "last") {
						last = append(last, v)
					}
				}
				return len(last) >= 2
			})
			slices.Sort(last)
			if !slices.Equal(last, []string{"last-0", "last-3"}) {
				t.Fatal(last)
			}
		})
	}
}

// DELETE leaves the group at once: the other instance reads the partitions within a second (issue 4, section 7).
func TestDeleteHandsOverWithinASecond(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 2), backend.Unique("g")
	first := p.consumer(group, earliestJSON, topic)
	second := p.consumer(group, earliestJSON, topic)
	p.awaitMembers(group, []string{first, second}, 1)
	p.produce(topic, 0, "0")
	p.produce(topic, 1, "1")
	p.readSome(first, "", 1)
	p.readSome(second, "", 1)
	p.want(200, "[]", "POST", first+"/offsets", "")
	p.want(200, "[]", "POST", second+"/offsets", "")
	p.produce(topic, 0, "handed")
	p.produce(topic, 1, "over")
	p.readSome(second, "", 1) // its own
	start := time.Now()
	p.want(204, "", "DELETE", first, "")
	left := time.Since(start)
	p.readSome(second, "", 1)
	took := time.Since(start)
	t.Logf("%s: DELETE answered after %v, the other instance had the record after %v", p.k.Name, left.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > time.Second {
		t.Fatalf("handing over took %v", took)
	}
}

// Instances come and go, some by DELETE, some abandoned with an answer under way: every record is seen, and what is
// committed was seen before.
func TestNothingIsLostWhileInstancesComeAndGo(t *testing.T) {
	const partitions, each = 4, 250
	p := pullers(t, func(_ *Config, c *consumers.Config) { c.InstanceTimeout = time.Second })
	topic, group := p.k.Topic(t, "orders", partitions), backend.Unique("g")
	var mu sync.Mutex
	seen := map[string]int{}
	ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range each {
			for part := range partitions {
				p.produce(topic, part, fmt.Sprintf("%d-%03d", part, n))
			}
		}
	})
	for worker := range 3 {
		wg.Go(func() {
			for round := worker; ctx.Err() == nil; round++ {
				base := p.consumer(group, `{"auto.offset.reset":"earliest","auto.commit.enable":"false"}`, topic)
				for range 6 + 3*worker {
					rs := p.read(base, "?timeout=400&max_bytes=20")
					mu.Lock()
					for _, r := range rs {
						seen[r.value(t)]++
					}
					done := len(seen) == partitions*each
					mu.Unlock()
					if done {
						stop()
						return
					}
					if a := p.call("POST", base+"/offsets", ""); a.status != 200 && a.status != 500 {
						t.Errorf("commit: %d %s", a.status, a.body)
					}
				}
				if round%3 == 0 {
					continue // abandoned: it expires
				}
				p.want(204, "", "DELETE", base, "")
			}
		})
	}
	wg.Wait()
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	t.Logf("%s: %d records seen, %d of them more than once", p.k.Name, len(seen), twice)
	if len(seen) != partitions*each {
		t.Fatalf("%d of %d records were seen", len(seen), partitions*each)
	}
}
