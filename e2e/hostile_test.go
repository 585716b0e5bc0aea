package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Fault F: what an attacker can make the process hold is bounded by the budget for bodies. Each attack is first seen to
// happen, then the process, the one it was before, has stayed small and serves.
func TestHostileClientsCannotMakeTheProcessGrow(t *testing.T) {
	const (
		goal     = 460 << 20 // what Go is told to stay below: nine tenths of a pod of 512 MiB
		inflight = goal / 2  // the budget that follows from it
		most     = 512 << 20
	)
	t.Setenv("GOMEMLIMIT", strconv.Itoa(goal)) // of the process under test; ours has read its own
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "what bodies cost has nothing to do with the Kafka behind; kfake has shown it")
	}
	topic := k.Topic(t, "attacked", 1)
	r := (gateway{brokers: k.Brokers, redis: backend.Redis(t)}).replica(t)
	idle := resident(t, r)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var watch sync.WaitGroup
	var alive, slowest atomic.Int64
	watch.Go(func() { // somebody else's health check, which no attack may delay for long
		for ctx.Err() == nil {
			began := time.Now()
			if err := peers.Call(ctx, http.MethodGet, r.URL+"/__live", "", nil, http.StatusOK, nil); err == nil {
				alive.Add(1)
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			}
		}
	})

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true}}
	defer client.CloseIdleConnections()
	n := 200
	if os.Getenv("TEST_LONG") != "" {
		n = 1000
	}
	bomb := packed(t, strings.Repeat(" ", 1<<30>>4), 16) // a gigabyte of white space: JSON until the limit
	million := []byte(`{"records":[{}` + strings.Repeat(`,{}`, 999_999) + `]}`)
	for name, attack := range map[string]struct {
		path, encoding string
		body           []byte
		times          int
		want           map[int]bool
	}{
		"gzip bombs":        {"/topics/" + topic, "gzip", bomb, n, map[int]bool{413: true, 503: true}},
		"bombs to create":   {"/consumers/g", "gzip", bomb, n / 4, map[int]bool{413: true, 503: true}},
		"a million at once": {"/topics/" + topic, "", million, n / 10, map[int]bool{503: true}},
		"deep":              {"/topics/" + topic, "", bytes.Repeat([]byte(`{"records":[{"value":`), 1<<20), n / 10, map[int]bool{400: true, 422: true, 503: true}},
		"names":             {"/consumers/g", "", []byte(`{"a":1` + names(1_000_000) + `}`), n / 10, map[int]bool{422: true, 503: true}},
	} {
		t.Run(name, func(t *testing.T) {
			statuses := storm(t, client, r.URL+attack.path, attack.encoding, attack.body, attack.times)
			for status, times := range statuses {
				if !attack.want[status] {
					t.Errorf("%d answers of %d", times, status)
				}
			}
			t.Logf("%v; %d MiB resident at most", statuses, resident(t, r)>>20)
		})
	}

	t.Run("slow bodies", func(t *testing.T) {
		const announced = 1 << 20
		var held []net.Conn
		defer func() {
			for _, conn := range held {
				_ = conn.Close()
			}
		}()
		refused := 0
		for range 512 {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
			fmt.Fprintf(conn, "POST /topics/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", topic, announced, strings.Repeat(" ", 10<<10))
		}
		var answered sync.WaitGroup
		var mu sync.Mutex
		for _, conn := range held {
			answered.Go(func() {
				_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					return // it is waited for
				}
				defer res.Body.Close()
				mu.Lock()
				defer mu.Unlock()
				refused++
				if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !res.Close {
					t.Errorf("%d, Retry-After %q, close %v", res.StatusCode, res.Header.Get("Retry-After"), res.Close)
				}
			})
		}
		answered.Wait()
		if served := 512 - refused; served > inflight/announced || served < inflight/announced/2 {
			t.Errorf("%d bodies of a MiB are held in a budget of %d MiB", served, inflight>>20)
		}
		if used := metric(t, r.URL, "sluice_inflight_bytes"); used > inflight || used < inflight/2 {
			t.Errorf("%.0f bytes of the budget are used", used)
		}
		t.Logf("%d of 512 refused, %d MiB resident at most", refused, resident(t, r)>>20)
	})

	stop()
	watch.Wait()
	if alive.Load() == 0 || time.Duration(slowest.Load()) > 5*time.Second {
		t.Errorf("the health check was answered %d times, once after %s", alive.Load(), time.Duration(slowest.Load()))
	}
	if peak := resident(t, r); peak > most {
		t.Errorf("%d MiB were resident, idle were %d", peak>>20, idle>>20)
	}
	eventually(t, 20*time.Second, "the budget is given back", func() bool { return metric(t, r.URL, "sluice_inflight_bytes") == 0 })
	produce(t, r.URL, topic, 0, 100)
	if panics := metric(t, r.URL, "sluice_http_panics_total"); panics != 0 {
		t.Errorf("%.0f handlers panicked", panics)
	}
}

// storm sends one body many times, 16 at once, and counts what is answered.
func storm(t *testing.T, client *http.Client, url, encoding string, body []byte, times int) map[int]int {
	t.Helper()
	statuses := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	turns := make(chan struct{}, 16)
	for range times {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			if encoding != "" {
				req.Header.Set("Content-Encoding", encoding)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Error(err) // every refusal can be read, also by who still sends
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			mu.Lock()
			statuses[res.StatusCode]++
			mu.Unlock()
		})
	}
	all.Wait()
	return statuses
}

func packed(t *testing.T, text string, members int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.Repeat(b.Bytes(), members)
}

func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%x":1`, i)
	}
	return b.String()
}

// resident is the most memory that the process has had so far, by the kernel's account, in bytes.
func resident(t *testing.T, r *peers.Replica) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.PID()))
	if err != nil {
		backend.NotRun(t, "no /proc on this system: "+err.Error())
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kib), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
