package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The ratio that counts is the median of the pairs' ratios, not the ratio of the medians.
func TestARatioComparesOnlyWithinItsPair(t *testing.T) {
	second := func(count int, cpu time.Duration) reading {
		return reading{count: count, took: time.Second, cpu: cpu}
	}
	got := report(path{name: "p", aim: 0.5, unit: "records"}, []pair{
		{second(100, time.Second), second(1000, time.Second)}, // 0.1, on a slow second
		{second(600_000, 3*time.Second), second(1_000_000, 5*time.Second)},
		{second(900_000, 3*time.Second), second(1_000_000, 5*time.Second)},
	})
	for _, want := range []string{"ratio 0.60 (0.10 to 0.90, aim 0.5)", "sluice 600,000, limit 1,000,000", "sluice 0.5, limit 0.5 (1.0 times)"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

// Waits are told as medians of the pairs, the size by the beginning and the end of one reading.
func TestALineTellsWaitsAndSizes(t *testing.T) {
	ms := func(all ...int) (waits []time.Duration) {
		for _, n := range all {
			waits = append(waits, time.Duration(n)*time.Millisecond)
		}
		return waits
	}
	r := reading{count: 1, took: time.Second, cpu: time.Second, waits: ms(9, 1, 2, 3), sizes: []int64{1e6, 3e6, 9e6, 9e6, 5e6, 6e6}}
	got := report(path{name: "p", unit: "records"}, []pair{{r, reading{count: 1, took: time.Second, cpu: time.Second}}})
	for _, want := range []string{"ratio 1.00 (1.00 to 1.00)", "ms p50/p99: sluice 2/3", "MB resident: first third 2, last third 6, most 9"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

// The client reads what a server may answer with, and no more of it.
func TestTheWireReadsBothFramings(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			http.NotFound(w, r)
			return
		}
		for range 3 {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 100_000)) // the client sees what is missing
			if r.URL.Path == "/chunked" {
				_ = http.NewResponseController(w).Flush()
			}
		}
	}))
	defer server.Close()
	host := server.Listener.Addr().String()
	c, err := dialWire(host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	for _, path := range []string{"/", "/chunked", "/"} {
		if body, err := c.do(request("GET", host, path, "", nil)); err != nil || len(body) != 300_000 {
			t.Errorf("%s gave %d bytes, %v", path, len(body), err)
		}
	}
	if _, err := c.do(request("GET", host, "/missing", "", nil)); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an answer of 404 was %v", err)
	}
}

func TestTheMeterSeesWorkOfItsProcess(t *testing.T) {
	m := meter{pid: os.Getpid()}
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
	for time.Since(m.began) < 200*time.Millisecond { // work
	}
	r, err := m.stop(1)
	if err != nil || r.cpu < 2*tick || r.took < 200*time.Millisecond {
		t.Fatalf("%+v, %v", r, err)
	}
}

// The limit of the stream path loses nothing either: else its figures would flatter it.
func TestBareStreamsWriteEverythingToEverybody(t *testing.T) {
	s := &bareStreams{bell: make(chan struct{})}
	server := httptest.NewServer(s)
	defer server.Close()
	clients := make([]streamClient, 3)
	done := make(chan error, len(clients))
	for i := range clients {
		if err := clients[i].connect(server.Listener.Addr().String(), "/"); err != nil {
			t.Fatal(err)
		}
		go func() { done <- clients[i].read(t.Context()) }()
	}
	for range 10 {
		s.append([]byte("data: ~\n\ndata: ~\n\n"))
		s.ring()
	}
	for i := range clients {
		for deadline := time.Now().Add(10 * time.Second); clients[i].got.Load() < 20; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("client %d has %d of 20", i, clients[i].got.Load())
			}
		}
		_ = clients[i].conn.Close()
		<-done
	}
}
