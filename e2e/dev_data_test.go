package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// What `sluice dev --data` acknowledged is there after a kill -9, and after a stop in order: topics, records, definitions
// with their secrets, the offsets of pull consumers, and the position of a subscription with the attempts of what it
// has parked.
func TestDevKeepsItsDataOverAKillAndAStop(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start := func() *peers.Replica { t.Helper(); return developer(t, "--data", dir, "--topic", "parked:1") }
	first := start()
	eventually(t, 5*time.Second, "dev says what is kept, and where", func() bool { return strings.Contains(first.Log(), "stay in\n"+dir) })
	var mended atomic.Bool
	hook := collector(t, func(_ context.Context, a peers.Attempt) int {
		if a.Topic == "parked" && a.Offset == 0 && !mended.Load() {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	id, err := hook.Subscribe(t.Context(), first.URL, "parked", map[string]any{
		"endpoint": map[string]any{"url": hook.URL, "timeout": "1s"},
		"retry":    map[string]any{"schedule": []string{"0s", "1s", "2s", "4s", "8s", "8s", "8s", "8s"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	batch := []peers.Record{{Key: []byte("bad"), Value: []byte("refuse me")}}
	for i := range 200 {
		batch = append(batch, record(i))
	}
	if err := peers.Produce(t.Context(), first.URL, "parked", batch); err != nil {
		t.Fatal(err)
	}
	orders := produce(t, first.URL, "orders", 0, 300)
	pull(t, first.URL, orders, 300)
	eventually(t, 30*time.Second, "200 records above the parked one are delivered", func() bool { return hook.Seen.Missing(batch[1:]) == 0 })
	eventually(t, 30*time.Second, "the parked record has been tried three times", func() bool { return attemptsAt(hook, 0) >= 3 })
	eventually(t, 15*time.Second, "the progress is committed", func() bool { return committedAbove(t, first.URL, id, 200) })
	before := definitions(t, first.URL)
	topics := body(t, first.URL+"/topics")

	// The last thing before the kill: its answer is there, so it has to be as well.
	late, err := hook.Subscribe(t.Context(), first.URL, "NativeCmsPublicationEvents", map[string]any{"name": "late"})
	if err != nil {
		t.Fatal(err)
	}
	tried, seen := attemptsAt(hook, 0), len(hook.Attempts())
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}

	second := start()
	if got := body(t, second.URL+"/topics"); got != topics {
		t.Errorf("topics %s, were %s", got, topics)
	}
	after := definitions(t, second.URL)
	if after[late] == "" {
		t.Error("the subscription made just before the kill is gone")
	}
	delete(after, late)
	if after[id] != before[id] || len(after) != len(before) {
		t.Errorf("definitions are\n%v\nwere\n%v", after, before)
	}
	pull(t, second.URL, orders, 0) // its group goes on where it was
	tail(t, second.URL, orders)
	more := produce(t, second.URL, "orders", 300, 50)
	pull(t, second.URL, more, 50)
	orders = append(orders, more...)
	// The dead one's session lasts ten seconds; a retry that fell due while nobody ran is spread over half a minute, once.
	const again = 50 * time.Second
	began := time.Now()
	eventually(t, again, "the parked record is tried again", func() bool { return attemptsAt(hook, 0) > tried })
	t.Logf("tried again %s after the start", time.Since(began))
	tried = attemptsAt(hook, 0)
	stop(t, second)

	third := start()
	tail(t, third.URL, orders)
	pull(t, third.URL, orders, 0)
	if got := len(definitions(t, third.URL)); got != 2 {
		t.Errorf("%d subscriptions, were 2", got)
	}
	eventually(t, again, "the parked record is tried again after the stop", func() bool { return attemptsAt(hook, 0) > tried })
	mended.Store(true)
	eventually(t, 2*time.Minute, "the parked record is delivered", func() bool { return hook.Seen.Missing(batch) == 0 })
	eventually(t, 15*time.Second, "nothing is left", func() bool { return lag(t, third.URL, id) == 0 })

	numbers := []int{}
	for i, a := range hook.Attempts() {
		switch {
		case a.Offset == 0:
			numbers = append(numbers, a.Number)
		case i >= seen:
			t.Errorf("offset %d was sent again though its progress was committed", a.Offset)
		}
	}
	if !slices.IsSorted(numbers) || numbers[len(numbers)-1] < len(numbers)-1 { // the kill may have lost the last count
		t.Errorf("attempts were numbered %v: they began anew", numbers)
	}
}

// A kill in the middle of a stream of deliveries repeats no more than a commit interval of them, and loses none.
func TestDevRepeatsNoMoreThanACommitIntervalAfterAKill(t *testing.T) {
	const (
		n     = 3_000
		split = 1_500
		// A commit goes out each second, and takes its time on a machine that runs everything at once.
		interval = 2 * time.Second
	)
	dir := filepath.Join(t.TempDir(), "data")
	first := developer(t, "--data", dir)
	var mu sync.Mutex
	at := map[peers.Place][]time.Time{}
	hook := collector(t, func(ctx context.Context, a peers.Attempt) int {
		slow := time.NewTimer(10 * time.Millisecond)
		defer slow.Stop()
		select {
		case <-slow.C:
		case <-ctx.Done():
		}
		mu.Lock()
		at[a.Place] = append(at[a.Place], time.Now())
		mu.Unlock()
		return http.StatusNoContent
	})
	id, err := hook.Subscribe(t.Context(), first.URL, "orders", map[string]any{
		"delivery": map[string]any{"max_in_flight": 3},
		"endpoint": map[string]any{"url": hook.URL, "timeout": "1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	records := produce(t, first.URL, "orders", 0, n)
	eventually(t, time.Minute, "half is delivered", func() bool { seen, _ := hook.Seen.Count(); return seen >= split })
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	unsure := 0
	mu.Lock()
	for _, times := range at {
		if killed.Sub(times[len(times)-1]) < interval {
			unsure++
		}
	}
	done := len(at)
	mu.Unlock()

	second := developer(t, "--data", dir)
	eventually(t, 2*time.Minute, "all is delivered", func() bool { return hook.Seen.Missing(records) == 0 })
	if err := hook.Seen.Compare(records); err != nil {
		t.Error(err)
	}
	keyOrder(t, hook.Seen)
	eventually(t, 15*time.Second, "nothing is left", func() bool { return lag(t, second.URL, id) == 0 })
	distinct, sightings := hook.Seen.Count()
	t.Logf("%d delivered at the kill, %d of them in its last %s; %d repeats", done, unsure, interval, sightings-distinct)
	if sightings-distinct > unsure+3 {
		t.Errorf("%d of %d came twice; in the last %s before the kill only %d were delivered", sightings-distinct, done, interval, unsure)
	}
}

// Whatever had its answer when the kill came is there: records by their receipts, subscriptions by their ids. The kill
// comes in the middle of both.
func TestDevLosesNothingThatWasAcknowledgedAtTheKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := developer(t, "--data", dir)
	var (
		mu      sync.Mutex
		records []peers.Record
		ids     []string
		all     sync.WaitGroup
	)
	for writer := range 4 {
		all.Go(func() {
			for n := 0; ; n += 20 {
				var batch []peers.Record
				for i := range 20 {
					batch = append(batch, record(writer*1_000_000+n+i))
				}
				if peers.Produce(t.Context(), first.URL, "orders", batch) != nil {
					return // the kill
				}
				mu.Lock()
				records = append(records, batch...)
				mu.Unlock()
			}
		})
	}
	hook := collector(t, nil)
	all.Go(func() {
		for {
			id, err := hook.Subscribe(t.Context(), first.URL, "NativeCmsPublicationEvents", nil)
			if err != nil {
				return
			}
			mu.Lock()
			ids = append(ids, id)
			mu.Unlock()
		}
	})
	eventually(t, time.Minute, "records and subscriptions are acknowledged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(records) > 2_000 && len(ids) > 5
	})
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	t.Logf("killed after %d records and %d subscriptions", len(records), len(ids))

	second := developer(t, "--data", dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := peers.Follow(ctx, second.URL, "orders", "from=earliest")
	eventually(t, time.Minute, "every record is there", func() bool { return s.Seen.Missing(records) == 0 })
	cancel()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	got := map[peers.Place]peers.Record{}
	for _, r := range s.Seen.Order() {
		got[r.Place] = r
	}
	for _, r := range records {
		if g := got[r.Place]; string(g.Key) != string(r.Key) || string(g.Value) != string(r.Value) {
			t.Fatalf("%v holds %.60q, acknowledged was %.60q", r.Place, g.Value, r.Value)
		}
	}
	for _, id := range ids { // one by one: the list has pages
		if err := peers.Call(t.Context(), http.MethodGet, second.URL+"/subscriptions/"+id, "", nil, http.StatusOK, nil); err != nil {
			t.Error(err)
		}
	}
}

// A folder is one process's at a time, and only one of our own; the reason is one line, and the folder stays as it is.
func TestDevRefusesAFolderThatItCannotUse(t *testing.T) {
	used := filepath.Join(t.TempDir(), "data")
	developer(t, "--data", used)
	foreign, newer := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{filepath.Join(foreign, "thesis.txt"): "dear reader", filepath.Join(newer, "format.json"): `{"format":99}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for dir, says := range map[string]string{used: "in use", foreign: "not a data folder", newer: "newer sluice"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := exec.CommandContext(ctx, binary, "dev", "--data", dir, "--listen", "127.0.0.1:0", "--receiver", "127.0.0.1:0",
			"--kafka-port", fmt.Sprint(backend.FreePort(t))).CombinedOutput()
		cancel()
		line := strings.TrimSpace(string(out))
		if err == nil || strings.Contains(line, "\n") || !strings.HasPrefix(line, "sluice: ") || !strings.Contains(line, says) || !strings.Contains(line, dir) {
			t.Errorf("%s: %v\n%s", says, err, out)
		}
	}
}

// pull reads n records with an instance of the group "readers", commits them, and finds no more; the records must be the
// last n of those given.
func pull(t *testing.T, base string, records []peers.Record, n int) {
	t.Helper()
	i, err := peers.NewInstance(t.Context(), base, "readers", "orders")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	eventually(t, 30*time.Second, "the group reads its records and then none", func() bool {
		got, err := i.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total += got
		return got == 0 && total >= n
	})
	if err := i.Seen.Compare(records[len(records)-n:]); err != nil {
		t.Errorf("pull: %v", err)
	}
	if err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := i.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// tail reads the whole topic over SSE.
func tail(t *testing.T, base string, records []peers.Record) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := peers.Follow(ctx, base, "orders", "from=earliest")
	eventually(t, 30*time.Second, "the tail shows every record", func() bool { return s.Seen.Missing(records) == 0 })
	cancel()
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if err := s.Seen.Compare(records); err != nil {
		t.Errorf("tail: %v", err)
	}
}

// definitions are the subscriptions by id, as the list shows them.
func definitions(t *testing.T, base string) map[string]string {
	t.Helper()
	var list struct {
		Data []map[string]any `json:"data"`
	}
	if err := peers.Call(t.Context(), http.MethodGet, base+"/subscriptions", "", nil, http.StatusOK, &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, s := range list.Data {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		all[s["id"].(string)] = string(text)
	}
	return all
}

func body(t *testing.T, url string) string {
	t.Helper()
	var raw json.RawMessage
	if err := peers.Call(t.Context(), http.MethodGet, url, "", nil, http.StatusOK, &raw); err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// stop is SIGTERM, with its bound.
func stop(t *testing.T, r *peers.Replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, r.Log())
	}
}
