package main

import (
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
