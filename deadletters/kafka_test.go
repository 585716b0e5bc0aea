package deadletters

import (
	"bytes"
	"context"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Over a Kafka: a letter is in the log when Write returns, and reads back as it was given. One that the topic does not
// take loses what the endpoint said; one that is still too large is refused.
func TestLettersStandInKafka(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "letters", 3, "max.message.bytes=8192")
	cfg := kafka.Default()
	cfg.Brokers = k.Brokers
	clients, err := kafka.Connect(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clients.Close() })
	producer, err := kafka.NewProducer(clients, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- producer.Run(ctx) }()
	defer func() {
		if err := producer.Stop(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	}()
	w := NewWriter(producer, kafka.NewAdmin(clients), topic, "replica-1 1.0.0")

	whole, keyless, tombstone, large := letter(), letter(), letter(), letter()
	keyless.Record.Key, keyless.Record.Offset = nil, 1
	tombstone.Record.Value, tombstone.Record.Offset = nil, 2
	large.Record.Value, large.Record.Offset = bytes.Repeat([]byte("x"), 6400), 3
	large.Response = bytes.Repeat([]byte{0xff}, maxResponse) // 1,368 characters more
	want := map[int64]Letter{}
	for _, l := range []Letter{whole, keyless, tombstone, large} {
		if err := w.Write(ctx, l); err != nil {
			t.Fatalf("offset %d: %v", l.Record.Offset, err)
		}
		want[l.Record.Offset] = l
	}
	short := want[3]
	short.Response, short.Error = nil, ""
	want[3] = short
	tooLarge := letter()
	tooLarge.Record.Value = make([]byte, 9000)
	if err := w.Write(ctx, tooLarge); sluice.KindOf(err) != sluice.TooLarge {
		t.Errorf("a letter that cannot fit: %v", err)
	}

	fetcher := kafka.NewFetcher(clients)
	for number := range int32(3) {
		p := sluice.Partition{Topic: topic, Number: number}
		for from := int64(0); ; {
			chunk, err := fetcher.Fetch(ctx, p, from, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range chunk.Records {
				got, err := Parse(r)
				if err != nil {
					t.Fatal(err)
				}
				if time.Since(got.At).Abs() > time.Minute {
					t.Errorf("offset %d: the letter carries the time %v, which retention would act on", got.Record.Offset, got.At)
				}
				w := want[got.Record.Offset]
				delete(want, got.Record.Offset)
				w.Endpoint, w.Instance, w.At = "https://api.example.com/hook", got.Instance, got.At
				if !reflect.DeepEqual(got, w) {
					t.Errorf("read\n%+v %+v\nwrote\n%+v %+v", got, got.Record, w, w.Record)
				}
			}
			if from = chunk.Next; from >= chunk.End {
				break
			}
		}
	}
	if len(want) != 0 {
		t.Errorf("%d letters are not in the log", len(want))
	}
}
