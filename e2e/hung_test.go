package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// trouble is something that is wrong with Kafka for a while.
type trouble struct {
	begin func(t *testing.T) (mend func(t *testing.T))
	slow  bool // it answers all the same
}

// Kafka away, hung or slow: endpoints see nothing of it, memory is bounded, streams keep their heartbeat, a produce
// answers in its bound and says what is known, and all is well again within ten seconds (B4, B6, B7).
func TestKafkaInTroubleIsNobodysFault(t *testing.T) {
	behind := func(t *testing.T, slow bool, fault func(*network, *testing.T) func(*testing.T)) {
		t.Helper()
		if backend.Name() != backend.KFake { // there it works in this very process, under the race detector
			t.Parallel() // they wait most of the time
		}
		n := newNetwork(t)
		k := kafkaBehind(t, n.to)
		through(t, k, trouble{begin: func(t *testing.T) func(*testing.T) { t.Helper(); return fault(n, t) }, slow: slow})
	}
	t.Run("slow", func(t *testing.T) {
		behind(t, true, func(n *network, t *testing.T) func(*testing.T) { t.Helper(); return n.slow(t, 2000) })
	})
	if backend.Name() == backend.KFake {
		t.Run("away", func(t *testing.T) { behind(t, false, (*network).down) })
		t.Run("hung", func(t *testing.T) { behind(t, false, (*network).hole) })
		return
	}
	for name, fault := range map[string]func(*backend.RealCluster, *testing.T) func(*testing.T){
		"away": func(c *backend.RealCluster, t *testing.T) func(*testing.T) {
			t.Helper()
			c.Kill(t, 1)
			return func(t *testing.T) { t.Helper(); c.Start(t, 1) }
		},
		"hung": func(c *backend.RealCluster, t *testing.T) func(*testing.T) {
			t.Helper()
			c.Pause(t, 1)
			return func(t *testing.T) { t.Helper(); c.Resume(t, 1) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := backend.Cluster(t, 1)
			through(t, &c.Broker, trouble{begin: func(t *testing.T) func(*testing.T) { t.Helper(); return fault(c, t) }})
		})
	}
}

const (
	patience    = 5 * time.Second // for what cannot be answered without Kafka
	slack       = 2 * time.Second // a busy machine's
	cached      = 4 * time.Second // what is known of topics is true for three
	recovery    = 10 * time.Second
	maxResident = 320 << 20 // rings and cache (90 MiB), the callers' bodies, and as much again between collections
)

// through lives through a trouble of Kafka with a webhook, two streams, a pull consumer and 32 producers.
func through(t *testing.T, k *backend.Broker, what trouble) {
	lasts := max(phase(time.Minute), 20*time.Second) // what a stop of Kafka may cost nobody; two heartbeats at least
	bound := 5 * time.Second                         // of a produce
	if what.slow {
		bound = 20 * time.Second // two seconds an answer, and one at a time
	}
	topic, quiet := k.Topic(t, "orders", 3), k.Topic(t, "quiet", 1)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	r := g.replica(t, fmt.Sprintf("--produce-timeout=%s", bound))
	if _, err := hook.Subscribe(t.Context(), r.URL, topic, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tail := peers.Follow(ctx, r.URL, topic, "from=earliest&heartbeat=5s")
	pull, err := peers.NewInstance(t.Context(), r.URL, backend.Unique("readers"), topic)
	if err != nil {
		t.Fatal(err)
	}
	// Its topic is followed well before the fault: that costs three exchanges on the connection that brings the others' records.
	beats := heartbeats(ctx, t, r.URL+"/topics/"+quiet+"/events?heartbeat=5s")
	produced := spread(t, r.URL, topic, 0, 300)
	eventually(t, time.Minute, "everybody gets records", func() bool {
		if _, err := pull.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		return hook.Seen.Missing(produced) == 0 && tail.Seen.Missing(produced) == 0 && pull.Seen.Missing(produced) == 0
	})
	sessionsBefore, resident := metric(t, r.URL, "sluice_rebalances_total"), residentBytes(t, r)

	load := startLoad(ctx, r.URL, topic)
	eventually(t, time.Minute, "the load gets its first receipts", func() bool { return len(load.acked()) > 0 })
	mend := what.begin(t)
	began := time.Now()
	proveTrouble(t, k, what)
	beats.count()
	lines := beats.n

	peak := resident
	for next := cached; time.Since(began) < lasts; wait(ctx, 200*time.Millisecond) {
		peak = max(peak, residentBytes(t, r))
		if time.Since(began) < next {
			continue
		}
		next = time.Since(began) + 3*time.Second
		answersWithin(t, time.Second+slack, http.StatusOK, 0, r.URL+"/__live")
		if what.slow {
			continue
		}
		answersWithin(t, patience+slack, http.StatusServiceUnavailable, 50302, r.URL+"/topics/"+topic+"/events")
		if n, err := pull.Read(t.Context()); n == 0 {
			wantRefusal(t, "a read without records", err, http.StatusServiceUnavailable, 50302)
		}
	}
	if got, want := beats.count()-lines, int(lasts/(6*time.Second))-1; got < want {
		t.Errorf("%d heartbeats within %s, want %d", got, lasts, want)
	}
	if what.slow {
		// The client that follows asks one thing at a time. Something is produced every exchange, so every fetch brings
		// records; between two of them stands at most the look for the leaders, every 30 s: two exchanges.
		progressed(t, hook.Flights(), began, time.Now(), 2*2*time.Second+slack)
		if more := metric(t, r.URL, "sluice_rebalances_total") - sessionsBefore; more > 0 {
			t.Errorf("%v rebalances because Kafka was slow", more)
		}
	}
	load.cancel()
	mend(t)
	awaitKafka(t, k, topic)
	well := time.Now()
	var more []peers.Record
	eventually(t, time.Minute, "a produce is acknowledged", func() bool {
		batch := []peers.Record{record(20_000), record(20_001), record(20_002)}
		if err := peers.Produce(t.Context(), r.URL, topic, batch); err != nil {
			return false
		}
		more = append(more, batch...)
		return true
	})
	produces := time.Since(well)
	eventually(t, time.Minute, "webhook and stream go on", func() bool { return hook.Seen.Missing(more) == 0 && tail.Seen.Missing(more) == 0 })
	delivers := time.Since(well)
	eventually(t, time.Minute, "the pull consumer goes on", func() bool {
		_, err := pull.Read(t.Context())
		return err == nil && pull.Seen.Missing(more) == 0
	})
	t.Logf("well again: produce after %s, webhook and stream after %s, pull after %s", produces, delivers, time.Since(well))
	if took := time.Since(well); took > recovery {
		t.Errorf("it took %s until everything went on", took)
	}

	load.stop()
	load.judge(t, bound, what.slow)
	eventually(t, time.Minute, "everything acknowledged is delivered", func() bool {
		return hook.Seen.Missing(load.acked()) == 0 && tail.Seen.Missing(load.acked()) == 0
	})
	t.Logf("resident memory: %d MiB before, %d MiB at most", resident>>20, peak>>20)
	if peak > maxResident {
		t.Errorf("%d MiB of resident memory", peak>>20)
	}
	load.compare(t, hook.Seen)
	if distinct, sightings := hook.Seen.Count(); sightings > distinct {
		t.Logf("%d records came twice", sightings-distinct)
	}
	if failed := metric(t, r.URL, `sluice_deliveries_total{`) - metric(t, r.URL, `sluice_deliveries_total{class="S"`); failed > 0 {
		t.Errorf("%v attempts did not end well", failed)
	}
	keyOrder(t, hook.Seen)
	cancel()
	if err := tail.Wait(); err != nil {
		t.Errorf("SSE: %v", err)
	}
	<-beats.done
}

// proveTrouble fails the test when Kafka is well.
func proveTrouble(t *testing.T, k *backend.Broker, what trouble) {
	t.Helper()
	began := time.Now()
	err := askKafka(t, k, 1500*time.Millisecond)
	t.Logf("a client of its own gets from Kafka, after %s: %v", time.Since(began).Round(time.Millisecond), err)
	if err == nil {
		t.Fatal("Kafka answers at once: there is no fault")
	}
	if what.slow {
		if err := askKafka(t, k, 20*time.Second); err != nil {
			t.Fatalf("Kafka is more than slow: %v", err)
		}
	}
}

func askKafka(t *testing.T, k *backend.Broker, within time.Duration) error {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	_, err = client.SeedBrokers()[0].Request(ctx, kmsg.NewPtrMetadataRequest())
	return err
}

// awaitKafka returns when a client of the test's own can write to the topic's partitions again: they have leaders.
func awaitKafka(t *testing.T, k *backend.Broker, topic string) {
	t.Helper()
	eventually(t, time.Minute, "Kafka is well", func() bool {
		about := kmsg.NewMetadataRequestTopic()
		about.Topic = &topic
		ask := kmsg.NewPtrMetadataRequest()
		ask.Topics = append(ask.Topics, about)
		answer, err := request(t, k, 0, ask)
		if err != nil {
			return false
		}
		for _, p := range answer.(*kmsg.MetadataResponse).Topics[0].Partitions {
			if p.ErrorCode != 0 || p.Leader < 0 {
				return false
			}
		}
		return true
	})
}

// answersWithin is one GET that must have that status and error code in that time.
func answersWithin(t *testing.T, within time.Duration, status, code int, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*within)
	defer cancel()
	began := time.Now()
	err := peers.Call(ctx, http.MethodGet, url, "", nil, http.StatusOK, nil)
	took := time.Since(began).Round(time.Millisecond)
	if took > within {
		t.Errorf("GET %s took %s", url, took)
	}
	if err != nil || status != http.StatusOK {
		wantRefusal(t, fmt.Sprintf("GET %s, after %s", url, took), err, status, code)
	}
}

func wantRefusal(t *testing.T, what string, err error, status, code int) {
	t.Helper()
	refused, ok := errors.AsType[*peers.StatusError](err)
	if !ok || refused.Status != status || !strings.Contains(refused.Body, fmt.Sprintf(`"error_code":%d,`, code)) {
		t.Errorf("%s: %v, want %d/%d", what, err, status, code)
	}
}

// residentBytes is the memory of a replica, by proc(5).
func residentBytes(t *testing.T, r *peers.Replica) int64 {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.PID()))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// load is 32 producers that never give up, each with a quarter of a megabyte at a time.
type load struct {
	cancel  context.CancelFunc
	callers sync.WaitGroup
	serial  atomic.Int64

	mu      sync.Mutex
	stored  []peers.Record
	unknown map[string]bool // by value
	refused map[string]bool
	slowest time.Duration
	faults  []string
	answers map[string]int
}

const (
	loadCallers = 32
	loadRecords = 4
	loadBytes   = 64 << 10
)

func startLoad(ctx context.Context, base, topic string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, unknown: map[string]bool{}, refused: map[string]bool{}, answers: map[string]int{}}
	for range loadCallers {
		l.callers.Go(func() {
			for ctx.Err() == nil {
				l.call(base, topic)
				wait(ctx, 200*time.Millisecond)
			}
		})
	}
	return l
}

func (l *load) stop() {
	l.cancel()
	l.callers.Wait()
}

func (l *load) call(base, topic string) {
	type entry struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	}
	var body struct {
		Records []entry `json:"records"`
	}
	for range loadRecords {
		n := l.serial.Add(1)
		value := fmt.Appendf(nil, "load-%d ", n)
		value = append(value, strings.Repeat("x", loadBytes-len(value))...)
		body.Records = append(body.Records, entry{fmt.Appendf(nil, "load-%d", n), value})
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	var answer struct {
		Offsets []struct {
			Partition *int32 `json:"partition"`
			Offset    *int64 `json:"offset"`
			ErrorCode *int   `json:"error_code"`
			Error     string `json:"error"`
		} `json:"offsets"`
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = peers.Call(ctx, http.MethodPost, base+"/topics/"+topic, "application/vnd.kafka.binary.v2+json", raw, http.StatusOK, &answer)
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	refused, ok := errors.AsType[*peers.StatusError](err)
	switch {
	case ok && refused.Status == http.StatusServiceUnavailable:
		l.answers[refused.Body]++
		for _, r := range body.Records {
			l.refused[string(r.Value)] = true
		}
		return
	case err != nil || len(answer.Offsets) != len(body.Records):
		l.faults = append(l.faults, fmt.Sprintf("after %s: %d slots, %v", took, len(answer.Offsets), err))
		return
	}
	for i, slot := range answer.Offsets {
		r := body.Records[i]
		switch {
		case slot.ErrorCode == nil && slot.Partition != nil && slot.Offset != nil:
			l.answers["stored"]++
			l.stored = append(l.stored, peers.Record{Place: peers.Place{Partition: *slot.Partition, Offset: *slot.Offset}, Key: r.Key, Value: r.Value})
		case slot.ErrorCode != nil && strings.Contains(slot.Error, "outcome unknown"):
			l.answers[fmt.Sprint(*slot.ErrorCode, " ", slot.Error)]++
			l.unknown[string(r.Value)] = true
		case slot.ErrorCode != nil && strings.Contains(slot.Error, "not written"):
			l.answers[fmt.Sprint(*slot.ErrorCode, " ", slot.Error)]++
			l.refused[string(r.Value)] = true
		default:
			l.faults = append(l.faults, fmt.Sprintf("after %s: a slot that says nothing: %+v", took, slot))
		}
	}
}

func (l *load) acked() []peers.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stored
}

// judge looks at the answers.
func (l *load) judge(t *testing.T, bound time.Duration, slow bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("the slowest produce took %s; answers: %v", l.slowest, l.answers)
	if l.slowest > bound+slack {
		t.Errorf("a produce took %s, the bound is %s", l.slowest, bound)
	}
	for i, f := range l.faults {
		if i < 5 {
			t.Errorf("a produce answered neither what is known nor that nothing was tried: %s", f)
		}
	}
	if len(l.stored) == 0 {
		t.Error("nothing at all was stored")
	}
	if !slow && len(l.refused)+len(l.unknown) == 0 {
		t.Error("no produce failed; this shows nothing")
	}
}

// compare holds what was delivered against what was said about it.
func (l *load) compare(t *testing.T, seen *peers.Seen) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	stored := map[string]peers.Place{}
	for _, r := range l.stored {
		stored[string(r.Value)] = r.Place
	}
	places := map[string]peers.Place{}
	wrong := 0
	for _, r := range seen.Order() {
		value := string(r.Value)
		if !strings.HasPrefix(value, "load-") {
			continue
		}
		name, _, _ := strings.Cut(value, " ")
		if before, again := places[value]; again && before != r.Place {
			wrong++
			t.Errorf("%s is in the log twice: at %v and %v", name, before, r.Place)
		}
		places[value] = r.Place
		at, acked := stored[value]
		switch {
		case acked && at != r.Place:
			wrong++
			t.Errorf("%s was acknowledged at %v and lies at %v", name, at, r.Place)
		case !acked && l.refused[value]:
			wrong++
			t.Errorf("%s was said not to be written and lies at %v", name, r.Place)
		}
		if wrong > 5 {
			return
		}
	}
}
