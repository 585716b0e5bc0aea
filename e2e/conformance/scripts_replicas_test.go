package conformance

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// fleet is replicas of this tree that share a Redis, behind a balancer that is not sticky.
type fleet struct {
	*server
	settings []string
	replicas []*peers.Replica
	balancer *peers.Balancer
}

// fleet starts n of them.
func (s *server) fleet(t *testing.T, n int) *fleet {
	t.Helper()
	if !s.ours {
		s.notRun(t, "needs three replicas of sluice")
	}
	f := &fleet{settings: []string{"SLUICE_REDIS_URL=" + backend.Redis(t), "SLUICE_REPLICA_SECRET=a secret of the replicas", "SLUICE_REPLICA_LEASE=3s"}}
	for range n {
		f.replicas = append(f.replicas, start(t, s.kafka.Brokers, f.settings...))
	}
	f.balancer = peers.Balance(f.replicas...)
	t.Cleanup(f.balancer.Close)
	f.server = &server{url: f.balancer.URL, kafka: s.kafka, ours: true, report: s.report}
	return f
}

// working is a consumer script that goes on until it is told to stop, and notes what it saw.
type working struct {
	*scripted
	seen  map[string]int // by the body of the message
	reads int
	err   error
}

// replicas is rest-api.md 15.1.
func replicas(t *testing.T, s *server) {
	s.row(t, "scripts against three replicas, and while each is replaced", func(t *testing.T) {
		t.Parallel()
		rolling(t, s.fleet(t, 3))
	})
	s.row(t, "the owner is killed between read and commit", func(t *testing.T) {
		t.Parallel()
		killed(t, s.fleet(t, 2))
	})
}

// rolling runs producers and consumers of section 9 while each replica gets SIGTERM in turn and another takes its place.
// Nobody sees anything but the status that the script expects: a client that did would delete its instance and make
// another. Each instance is made once; nothing is lost, and in an orderly hand-over nothing is repeated (5.5).
func rolling(t *testing.T, f *fleet) {
	topic := f.kafka.Topic(t, "NativeCmsPublicationEvents", 2)
	var consumers []*working
	for _, d := range []dialect{goV1, goV2, javaV1, javaV2, namesV2} {
		w := &working{scripted: f.script(t, d, "", topic), seen: map[string]int{}}
		_, err := w.make("earliest")
		f.must(t, err)
		consumers = append(consumers, w)
	}
	producing, enough := context.WithCancel(t.Context())
	defer enough()
	reading, stop := context.WithCancel(t.Context())
	defer stop()

	// Scripts C, D and G write; the body of a message says who wrote it, and its number.
	sent := make(chan map[string]int, 3)
	for name, headers := range map[string][]string{
		"C": {"Host: {host}", goAgent, "Content-Length: {length}", "Content-Type: " + binaryV1, gzipped},
		"D": {"Content-Type: application/json", "Accept: application/json", javaAgent, "Host: {host}", "Connection: keep-alive", "Content-Length: {length}"},
		"G": {"Content-Type: " + binaryV1, "Host: {host}", "Connection: close", "Content-Length: {length}"},
	} {
		c := f.script(t, goV1, "", topic)
		c.name = name
		go func() {
			all := map[string]int{}
			for n := 0; producing.Err() == nil; n++ {
				body := fmt.Sprint(name, n)
				value := base64.StdEncoding.EncodeToString([]byte(ftMessage(n, body)))
				a, err := c.step(200, "POST", "/topics/"+topic, headers, `{"records":[{"key":"","value":"`+value+`"}]}`)
				switch {
				case err != nil:
					t.Errorf("producer: %v", err)
				case !strings.Contains(string(a.body), `"error_code":null`):
					t.Errorf("producer: %v", a)
				default:
					all[body] = 1
				}
				wait(producing, 40*time.Millisecond)
			}
			sent <- all
		}()
	}
	var mu sync.Mutex
	var running sync.WaitGroup
	for _, w := range consumers {
		running.Go(func() {
			for reading.Err() == nil && w.err == nil {
				some, _, err := w.get()
				if err == nil {
					_, err = w.save()
				}
				mu.Lock()
				for _, m := range some {
					w.seen[ftBody(m.Value)]++
				}
				w.reads++
				w.err = err
				mu.Unlock()
			}
		})
	}
	everybody := func(when string) {
		t.Helper()
		before := map[*working]int{}
		mu.Lock()
		for _, w := range consumers {
			before[w] = w.reads
		}
		mu.Unlock()
		began := time.Now()
		eventually(t, 30*time.Second, "every client reads "+when, func() bool {
			mu.Lock()
			defer mu.Unlock()
			all := true
			for _, w := range consumers {
				if w.err != nil {
					f.report.note(t, differs, w.err.Error())
					t.Fatalf("%s: %v", when, w.err)
				}
				all = all && w.reads >= before[w]+4 && len(w.seen) > 0
			}
			return all
		})
		t.Logf("%s: all five clients had four reads %s after %v", f.kafka.Name, when, time.Since(began).Round(time.Millisecond))
	}
	everybody("from three replicas")
	for n, old := range f.replicas {
		f.replicas[n] = start(t, f.kafka.Brokers, f.settings...)
		f.balancer.Set(n, f.replicas[n])
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := old.Stop(ctx); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		cancel()
		everybody(fmt.Sprintf("after replica %d was replaced", n))
	}
	enough()
	produced := map[string]int{}
	for range 3 {
		for body := range <-sent {
			produced[body] = 1
		}
	}
	eventually(t, 20*time.Second, "every script has every message", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, w := range consumers {
			if len(w.seen) < len(produced) && w.err == nil {
				return false
			}
		}
		return true
	})
	stop()
	running.Wait()
	for _, w := range consumers {
		f.must(t, w.err)
		twice := 0
		for body, n := range w.seen {
			if produced[body] == 0 {
				t.Errorf("script %s read %q, which nobody is known to have sent", w.name, body)
			}
			twice += n - 1
		}
		if twice > 0 {
			f.differ(t, "script %s got %d messages twice", w.name, twice)
		}
		t.Logf("%s: script %s read %d of %d messages in %d reads, %d of them twice", f.kafka.Name, w.name, len(w.seen), len(produced), w.reads, twice)
		f.must(t, w.end())
	}
}

// killed ends the owner of two instances by SIGKILL between a read and its commit. Under the same ids the other replica
// goes on: no gap, and at most the last second of answers twice.
func killed(t *testing.T, f *fleet) {
	owner := &server{url: f.replicas[0].URL, kafka: f.kafka, ours: true, report: f.report}
	var bodies []string
	for n := range 40 {
		bodies = append(bodies, fmt.Sprint(n))
	}
	var scripts []*scripted
	for _, d := range []dialect{goV1, goV2} {
		c := owner.script(t, d, "", f.kafka.Topic(t, "NativeCmsPublicationEvents", 1))
		for n, body := range bodies {
			f.fill(t, c.topic, 0, ftMessage(n, body))
		}
		_, err := c.make("earliest")
		f.must(t, err)
		f.wantBodies(t, c.messages(t, f.server, 40, true), bodies...) // committed
		f.fill(t, c.topic, 0, ftMessage(40, "40"), ftMessage(41, "41"))
		f.wantBodies(t, c.messages(t, f.server, 2, false), "40", "41")
		scripts = append(scripts, c)
	}
	if err := f.replicas[0].Kill(); err != nil {
		t.Fatal(err)
	}
	var saving sync.WaitGroup
	errs := make([]error, len(scripts))
	for n, c := range scripts {
		c.hangUp()
		c.addr = strings.TrimPrefix(f.replicas[1].URL, "http://")
		saving.Go(func() {
			began := time.Now()
			_, errs[n] = c.save() // waits for the lease
			t.Logf("%s: script %s committed %v after its owner was killed", f.kafka.Name, c.name, time.Since(began).Round(time.Millisecond))
		})
	}
	saving.Wait()
	for n, c := range scripts {
		f.must(t, errs[n])
		f.fill(t, c.topic, 0, ftMessage(42, "42"))
		var got []string
		for len(got) == 0 || got[len(got)-1] != "42" {
			for _, m := range c.messages(t, f.server, 1, true) {
				got = append(got, ftBody(m.Value))
			}
		}
		if text := strings.Join(got, " "); text != "42" && text != "41 42" && text != "40 41 42" {
			f.differ(t, "script %s went on with %q", c.name, text)
		}
		f.must(t, c.end())
	}
}
