package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

func balance(t *testing.T, replicas ...*peers.Replica) *peers.Balancer {
	t.Helper()
	b := peers.Balance(replicas...)
	t.Cleanup(b.Close)
	return b
}

const replicaSecret = "--replica-secret=a secret of the replicas"

// puller is one client: it creates its instance once and never again.
type puller struct {
	group, base, places string
	seen                *peers.Seen // of its whole group
	reads               atomic.Int64
	took                atomic.Int64 // the longest time from trouble to the next good read, in nanoseconds
}

// run reads and commits until ctx ends. Anything but success, and 5xx while replicas come and go, is a fault.
func (p *puller) run(ctx context.Context) error {
	trouble := time.Time{}
	for ctx.Err() == nil {
		err := p.cycle(ctx)
		status, known := errors.AsType[*peers.StatusError](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if !trouble.IsZero() {
				p.took.Store(max(p.took.Load(), time.Since(trouble).Nanoseconds()))
				trouble = time.Time{}
			}
			p.reads.Add(1)
		case known && status.Status < 500, errors.Is(err, errRepeated):
			return err
		default:
			if trouble.IsZero() {
				trouble = time.Now()
			}
			wait(ctx, 100*time.Millisecond)
		}
	}
	return nil
}

// holds is how many partitions the instance has now.
func (p *puller) holds(ctx context.Context) int {
	var doc struct {
		Partitions []struct{} `json:"partitions"`
	}
	if err := peers.Call(ctx, http.MethodGet, p.base+"/assignments", "", nil, http.StatusOK, &doc); err != nil {
		return 0
	}
	return len(doc.Partitions)
}

var errRepeated = errors.New("committed work came again")

// cycle asks what is committed, reads, and commits: nothing that was committed before the read may come in it.
func (p *puller) cycle(ctx context.Context) error {
	var committed struct {
		Offsets []struct {
			Partition int32 `json:"partition"`
			Offset    int64 `json:"offset"`
		} `json:"offsets"`
	}
	const v2 = "application/vnd.kafka.v2+json"
	if err := peers.Call(ctx, http.MethodGet, p.base+"/offsets", v2, []byte(p.places), http.StatusOK, &committed); err != nil {
		return err
	}
	var got []struct {
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Key       []byte `json:"key"`
		Value     []byte `json:"value"`
	}
	if err := peers.Call(ctx, http.MethodGet, p.base+"/records?timeout=1000&max_bytes=4000", "", nil, http.StatusOK, &got); err != nil {
		return err
	}
	for _, r := range got {
		for _, c := range committed.Offsets {
			if r.Partition == c.Partition && r.Offset < c.Offset {
				return fmt.Errorf("%w: %s got %d/%d, and %d was committed", errRepeated, p.base, r.Partition, r.Offset, c.Offset)
			}
		}
		p.seen.Add(peers.Record{Place: peers.Place{Partition: r.Partition, Offset: r.Offset}, Key: r.Key, Value: r.Value})
	}
	if len(got) == 0 {
		return nil
	}
	return peers.Call(ctx, http.MethodPost, p.base+"/offsets", v2, nil, http.StatusOK, nil)
}

// Three replicas behind a balancer that is not sticky, killed and restarted in turn, then stopped in order and replaced:
// no 404, no record lost, nothing repeated that was committed (rest-api.md 5.5).
func TestNoStickinessWhileReplicasDie(t *testing.T) {
	const partitions, groups, each = 10, 10, 5
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", partitions)
	lease := "--replica-lease=3s"
	if phase(time.Second) == time.Second {
		lease = "--replica-lease=10s"
	}
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t)}
	replicas := []*peers.Replica{g.replica(t, replicaSecret, lease), g.replica(t, replicaSecret, lease), g.replica(t, replicaSecret, lease)}
	b := balance(t, replicas...)

	var places []string
	for n := range partitions {
		places = append(places, fmt.Sprintf(`{"topic":%q,"partition":%d}`, topic, n))
	}
	var all []*puller
	seen := make([]*peers.Seen, groups)
	for n := range groups {
		seen[n] = peers.NewSeen()
		group := backend.Unique("stickless")
		for range each {
			i, err := peers.NewInstance(t.Context(), b.URL, group, topic)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &puller{group: group, base: i.Base, places: `{"partitions":[` + strings.Join(places, ",") + `]}`, seen: seen[n]})
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for _, p := range all {
		running.Go(func() {
			if err := p.run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	var produced []peers.Record
	sent := make(chan struct{})
	producing, done := context.WithCancel(ctx)
	defer done()
	go func() {
		defer close(sent)
		for n := 0; producing.Err() == nil; n += 20 {
			var records []peers.Record
			for i := n; i < n+20; i++ {
				records = append(records, record(i))
			}
			if err := peers.Produce(ctx, b.URL, topic, records); err == nil { // else nobody knows; what came is checked below
				produced = append(produced, records...)
			}
			wait(producing, 100*time.Millisecond)
		}
	}()
	everybodyReads := func(after string) {
		t.Helper()
		before := make([]int64, len(all))
		for n, p := range all {
			before[n] = p.reads.Load()
		}
		start := time.Now()
		eventually(t, 2*time.Minute, "every instance reads on "+after, func() bool {
			for n, p := range all {
				if p.reads.Load() < before[n]+2 {
					return false
				}
			}
			return true
		})
		read := time.Since(start)
		// And the next fault waits for whole groups: kfake never times out a member that dies while it joins, and the
		// others wait for it for ever.
		eventually(t, 2*time.Minute, "every partition of every group has an instance on "+after, func() bool {
			for n := range groups {
				held := 0
				for _, p := range all[n*each : (n+1)*each] {
					held += p.holds(t.Context())
				}
				if held != partitions {
					return false
				}
			}
			return true
		})
		t.Logf("on %s every instance read after %v, and every partition had one after %v", after, read.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
	}
	everybodyReads("at first")
	for n := range replicas {
		if err := replicas[n].Kill(); err != nil {
			t.Fatal(err)
		}
		everybodyReads(fmt.Sprintf("without replica %d", n))
		replicas[n] = g.replica(t, replicaSecret, lease)
		b.Set(n, replicas[n])
	}
	for n := range replicas {
		fresh := g.replica(t, replicaSecret, lease)
		old := replicas[n]
		b.Set(n, fresh)
		replicas[n] = fresh
		stopping, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		if err := old.Stop(stopping); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		cancel()
		everybodyReads(fmt.Sprintf("while replica %d was replaced", n))
	}
	done()
	<-sent
	defer func() {
		if t.Failed() {
			tell(t, replicas, all, seen, produced, each)
		}
	}()
	for n, s := range seen {
		eventually(t, 40*time.Second, fmt.Sprintf("group %d has every record", n), func() bool { return s.Missing(produced) == 0 })
	}
	stop()
	running.Wait()
	distinct, sightings, longest := 0, 0, time.Duration(0)
	for _, s := range seen {
		d, n := s.Count()
		distinct, sightings = distinct+d, sightings+n
	}
	for _, p := range all {
		longest = max(longest, time.Duration(p.took.Load()))
	}
	t.Logf("%s: %d instances in %d groups, %d records each, %d of %d sightings were repeats of uncommitted records; longest trouble of a client %v",
		k.Name, len(all), groups, len(produced), sightings-distinct, sightings, longest.Round(time.Millisecond))
}

// An owner that is frozen for longer than its lease is replaced while it is; when it wakes it lets go, and neither loses
// nor repeats anything that was committed.
func TestAFrozenOwnerIsReplaced(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 3)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t)}
	lease := "--replica-lease=3s"
	owner, other := g.replica(t, replicaSecret, lease), g.replica(t, replicaSecret, lease)
	i, err := peers.NewInstance(t.Context(), owner.URL, backend.Unique("frozen"), topic)
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(i.Base)
	if err != nil {
		t.Fatal(err)
	}
	places := fmt.Sprintf(`{"partitions":[{"topic":%q,"partition":0},{"topic":%[1]q,"partition":1},{"topic":%[1]q,"partition":2}]}`, topic)
	p := &puller{base: other.URL + at.Path, places: places, seen: i.Seen}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.run(ctx); err != nil {
			t.Error(err)
		}
	})
	produced := produce(t, other.URL, topic, 0, 200)
	eventually(t, time.Minute, "the records before", func() bool { return i.Seen.Missing(produced) == 0 })
	if err := owner.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	frozen := time.Now()
	produced = append(produced, produce(t, other.URL, topic, 200, 200)...)
	eventually(t, time.Minute, "the records while it is frozen", func() bool { return i.Seen.Missing(produced) == 0 })
	t.Logf("%s: the other replica had gone on %v after the owner froze", k.Name, time.Since(frozen).Round(time.Millisecond))
	if err := owner.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	produced = append(produced, produce(t, other.URL, topic, 400, 200)...)
	eventually(t, time.Minute, "the records after it woke", func() bool { return i.Seen.Missing(produced) == 0 })
	eventually(t, 20*time.Second, "the owner lets go", func() bool { return metric(t, owner.URL, "sluice_consumer_instances") == 0 })
	stop()
	running.Wait()
}

// tell logs what a group that misses records holds and has committed.
func tell(t *testing.T, replicas []*peers.Replica, all []*puller, seen []*peers.Seen, produced []peers.Record, each int) {
	for n, s := range seen {
		if s.Missing(produced) == 0 {
			continue
		}
		have := map[peers.Place]bool{}
		for _, r := range s.Order() {
			have[r.Place] = true
		}
		missing := map[int32][]int64{}
		for _, r := range produced {
			if !have[r.Place] {
				missing[r.Partition] = append(missing[r.Partition], r.Offset)
			}
		}
		for p, offsets := range missing {
			t.Logf("group %d misses %d records of partition %d, from %d to %d", n, len(offsets), p, offsets[0], offsets[len(offsets)-1])
		}
		for _, p := range all[n*each : (n+1)*each] {
			var doc json.RawMessage
			err := peers.Call(context.Background(), http.MethodGet, p.base+"/assignments", "", nil, http.StatusOK, &doc)
			t.Logf("%s is assigned %s, %v", p.base, doc, err)
		}
		for at, r := range replicas {
			for line := range strings.Lines(r.Log()) {
				if strings.Contains(line, all[n*each].group) && !strings.Contains(line, `"uri"`) {
					t.Logf("replica %d: %s", at, line)
				}
			}
		}
	}
}

// A client that is cut off in the middle of an answer gets all of it again, whichever replica it talked to: what counts
// is the client's own connection, also where the answer came from another replica.
func TestAnAnswerCutOffBehindAnyReplicaComesAgain(t *testing.T) {
	const count = 60
	k := backend.Kafka(t)
	topic := k.Topic(t, "large", 1, "max.message.bytes=2097152")
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t)}
	replicas := []*peers.Replica{g.replica(t, replicaSecret), g.replica(t, replicaSecret), g.replica(t, replicaSecret)}
	big := strings.Repeat("0123456789abcdef", 1<<15)
	for n := range count {
		one := []peers.Record{{Value: fmt.Appendf(nil, "%d %s", n, big)}}
		if err := peers.Produce(t.Context(), replicas[0].URL, topic, one); err != nil {
			t.Fatal(err)
		}
	}
	b := balance(t, replicas...)
	// A read waits for ten megabytes: more than the sockets between take in, so that no cut answer counts as written.
	var i struct {
		Base string `json:"base_uri"`
	}
	create := []byte(`{"auto.offset.reset":"earliest","auto.commit.enable":"false","fetch.min.bytes":"10000000","consumer.request.timeout.ms":"30000"}`)
	if err := peers.Call(t.Context(), http.MethodPost, b.URL+"/consumers/"+backend.Unique("cut"), "application/vnd.kafka.v2+json", create, http.StatusOK, &i); err != nil {
		t.Fatal(err)
	}
	subscribe := fmt.Appendf(nil, `{"topics":[%q]}`, topic)
	if err := peers.Call(t.Context(), http.MethodPost, i.Base+"/subscription", "application/vnd.kafka.v2+json", subscribe, http.StatusNoContent, nil); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(i.Base)
	if err != nil {
		t.Fatal(err)
	}
	first := func(base string) (int64, int) {
		t.Helper()
		var got []struct {
			Offset int64 `json:"offset"`
		}
		eventually(t, time.Minute, "records", func() bool {
			if err := peers.Call(t.Context(), http.MethodGet, base+at.Path+"/records?max_bytes=1", "", nil, http.StatusOK, &got); err != nil {
				t.Fatal(err)
			}
			return len(got) > 0
		})
		return got[0].Offset, len(got)
	}
	if o, n := first(b.URL); o != 0 || n != 1 {
		t.Fatalf("the first read gave %d records from offset %d on", n, o)
	}
	for n, r := range replicas {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s/records HTTP/1.1\r\nHost: sluice\r\n\r\n", at.Path)
		if _, err := io.ReadFull(conn, make([]byte, 300<<10)); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if o, _ := first(replicas[(n+1)%3].URL); o != int64(n+1) {
			t.Fatalf("after a cut behind replica %d the next read began at %d, want %d", n, o, n+1)
		}
	}
	// Nothing of what was cut off can have been committed.
	var committed struct {
		Offsets []json.RawMessage `json:"offsets"`
	}
	if err := peers.Call(t.Context(), http.MethodPost, i.Base+"/offsets", "application/vnd.kafka.v2+json", nil, http.StatusOK, nil); err != nil {
		t.Fatal(err)
	}
	if err := peers.Call(t.Context(), http.MethodGet, i.Base+"/offsets", "", nil, http.StatusOK, &committed); err != nil {
		t.Fatal(err)
	}
	if len(committed.Offsets) != 1 || !strings.Contains(string(committed.Offsets[0]), `"offset":4,`) {
		t.Fatalf("committed %s, want 4", committed.Offsets)
	}
}
