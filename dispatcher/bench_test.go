package dispatcher

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// prompt answers every delivery at once.
type prompt struct{ n atomic.Int64 }

func (p *prompt) Send(context.Context, webhook.Delivery) webhook.Outcome {
	p.n.Add(1)
	return status(200)
}

// steady lends the partitions for as long as it is asked to.
type steady struct{ partitions []int32 }

func (s steady) Member(ctx context.Context, m sluice.Membership, fn sluice.SessionFunc) error {
	fn(ctx, sluice.Session{Member: "m", Generation: 1, Claims: map[string][]int32{m.Topics[0]: s.partitions}, Valid: func() bool { return true }})
	return nil
}

func (h *house) steady(tb testing.TB, hook sender, partitions int32) func() {
	tb.Helper()
	log, err := partition.New(partition.Default(), h.source, nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	var numbers []int32
	for n := range partitions {
		numbers = append(numbers, n)
	}
	alive := false
	d, err := New(Default(), Needs{Log: log, Book: h, Registry: h, Groups: steady{numbers}, Offsets: offsetsOf{h, &alive}, Topics: h, Sender: hook, Letters: h},
		slog.New(slog.DiscardHandler), nil)
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(context.Background()) }()
	return func() {
		_ = d.Stop(context.Background())
		<-done
		_ = log.Stop(context.Background())
	}
}

// BenchmarkDeliver is what a delivery costs beside reading and sending it.
func BenchmarkDeliver(b *testing.B) {
	for _, ordering := range []string{subscriptions.OrderNone, subscriptions.OrderKey, subscriptions.OrderPartition} {
		b.Run(ordering, func(b *testing.B) {
			h := newHouse(nil)
			h.topic("t", 1)
			h.subscribe("s", func(s *subscriptions.Subscription) { s.Delivery.Ordering = ordering }, "t")
			value := make([]byte, 1024)
			recs := make([]sluice.NewRecord, 500)
			for i := range recs {
				recs[i] = sluice.NewRecord{Key: fmt.Appendf(nil, "key-%d", i), Value: value, Timestamp: time.Now()}
			}
			hook := &prompt{}
			stop := h.steady(b, hook, 1)
			defer stop()
			b.ReportAllocs()
			b.ResetTimer()
			for sent := 0; sent < b.N; sent += len(recs) {
				h.source.Produce(part("t", 0), recs...)
				for hook.n.Load() < int64(sent-5000) {
					runtime.Gosched()
				}
			}
			for hook.n.Load() < int64(b.N) {
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
}

// BenchmarkIdleLane is the memory of a lane that has nothing to do.
func BenchmarkIdleLane(b *testing.B) {
	const subs, partitions = 2000, 12
	h := newHouse(nil)
	h.topic("t", partitions)
	for i := range subs {
		h.subscribe(fmt.Sprint("s", i), nil, "t")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	hook := &prompt{}
	stop := h.steady(b, hook, partitions)
	defer stop()
	for n := range int32(partitions) {
		h.source.Produce(part("t", n), sluice.NewRecord{Key: []byte("k"), Value: []byte("v")})
	}
	for hook.n.Load() < subs*partitions {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(22 * time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(subs*partitions), "B/lane")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
}

// BenchmarkWire is a delivery with the real sender: 1 KiB, signed, to an endpoint on loopback that answers at once.
func BenchmarkWire(b *testing.B) {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer endpoint.Close()
	guard, err := webhook.NewGuard(webhook.GuardConfig{AnyLoopback: true}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	wire, err := webhook.NewSender(webhook.Config{Guard: webhook.GuardConfig{AnyLoopback: true}, Version: "bench"}, guard, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer wire.Close()
	h := newHouse(nil)
	h.topic("t", 1)
	secret, err := subscriptions.ParseSecret("whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)))
	if err != nil {
		b.Fatal(err)
	}
	h.subscribe("s", func(s *subscriptions.Subscription) {
		s.Signing.Secrets = []subscriptions.SigningSecret{{ID: "1", Secret: secret}}
		s.Endpoint.URL, s.Payload.Format, s.Delivery.Ordering = endpoint.URL, subscriptions.FormatRaw, subscriptions.OrderNone
	}, "t")
	count := &counting{sender: wire}
	stop := h.steady(b, count, 1)
	defer stop()
	recs := make([]sluice.NewRecord, 500)
	for i := range recs {
		recs[i] = sluice.NewRecord{Key: fmt.Appendf(nil, "key-%d", i), Value: make([]byte, 1024), Timestamp: time.Now()}
	}
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += len(recs) {
		h.source.Produce(part("t", 0), recs...)
	}
	for count.n.Load() < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

type counting struct {
	sender
	n atomic.Int64
}

func (c *counting) Send(ctx context.Context, d webhook.Delivery) webhook.Outcome {
	o := c.sender.Send(ctx, d)
	if o.Class == webhook.S {
		c.n.Add(1)
	}
	return o
}
