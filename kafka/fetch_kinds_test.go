package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A record as large as the product allows comes through, whatever a fetch asks for, and neighbours with it.
func TestARecordOf16MiBComesThrough(t *testing.T) {
	k := backend.Kafka(t)
	f := newFetcher(t, k)
	p := sluice.Partition{Topic: k.Topic(t, "large", 1, "max.message.bytes=25165824")}
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	followed := collect(t, f, p, 0)
	produce(t, k, p, sluice.NewRecord{Value: []byte("before")})
	produce(t, k, p, sluice.NewRecord{Key: []byte("k"), Value: large})
	produce(t, k, p, sluice.NewRecord{Value: []byte("after")})
	recs := followed(3)
	for from, next := int64(0), int64(0); from < 3; from = next {
		c, err := f.Fetch(t.Context(), p, from, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		next = c.Next
		recs = append(recs, c.Records...)
	}
	if len(recs) != 6 {
		t.Fatalf("%d records", len(recs))
	}
	for i, want := range [][]byte{[]byte("before"), large, []byte("after")} {
		for _, r := range []*sluice.Record{recs[i], recs[3+i]} {
			if !bytes.Equal(r.Value, want) {
				t.Errorf("record %d has %d B", i, len(r.Value))
			}
		}
	}
}

func TestEveryCompressionIsRead(t *testing.T) {
	k := backend.Kafka(t)
	f := newFetcher(t, k)
	for name, codec := range map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			p := sluice.Partition{Topic: k.Topic(t, name, 1)}
			client := writer(t, k, kgo.ProducerBatchCompression(codec))
			defer client.Close()
			var in []sluice.NewRecord
			for i := range 200 {
				in = append(in, sluice.NewRecord{Key: []byte("key"), Value: fmt.Append(nil, "value ", i)})
			}
			followed := collect(t, f, p, 0)
			if err := client.ProduceSync(t.Context(), records(p, in)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			c, err := f.Fetch(t.Context(), p, 100, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range followed(200) {
				if string(r.Value) != fmt.Sprint("value ", i) || (i >= 100 && string(c.Records[i-100].Value) != string(r.Value)) {
					t.Fatalf("record %d is %q", i, r.Value)
				}
			}
		})
	}
}

// LogAppendTime replaces the producer's timestamps; who reads must be told so.
func TestTheBrokersTimestampsAreTold(t *testing.T) {
	k := backend.Kafka(t)
	f := newFetcher(t, k)
	for _, kind := range []string{"CreateTime", "LogAppendTime"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "LogAppendTime" && !k.Real() {
				backend.NotRun(t, "kfake keeps the producer's timestamps")
			}
			p := sluice.Partition{Topic: k.Topic(t, "stamps", 1, "message.timestamp.type="+kind)}
			then := time.UnixMilli(1_600_000_000_000)
			followed := collect(t, f, p, 0)
			produce(t, k, p, sluice.NewRecord{Value: []byte("a"), Timestamp: then}, sluice.NewRecord{Value: []byte("b"), Timestamp: then.Add(time.Second)})
			c, err := f.Fetch(t.Context(), p, 0, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range append(followed(2), c.Records...) {
				appended := kind == "LogAppendTime"
				if r.Appended != appended {
					t.Errorf("offset %d: appended %v", r.Offset, r.Appended)
				}
				if !appended && !r.Timestamp.Equal(then.Add(time.Duration(r.Offset)*time.Second)) || appended && time.Since(r.Timestamp) > time.Hour {
					t.Errorf("offset %d: %v", r.Offset, r.Timestamp)
				}
			}
		})
	}
}

// Topics of old clusters keep message sets of the formats before Kafka 0.11.
func TestOldMessageSetsAreRead(t *testing.T) {
	k := backend.Kafka(t)
	if k.Name != backend.Kafka28 {
		backend.NotRun(t, "only Kafka before 4.0 can store the old formats; runs on kafka28")
	}
	f := newFetcher(t, k)
	for _, version := range []string{"0.9.0", "0.10.2"} {
		for name, codec := range map[string]kgo.CompressionCodec{"plain": kgo.NoCompression(), "gzip": kgo.GzipCompression()} {
			t.Run(version+"/"+name, func(t *testing.T) {
				p := sluice.Partition{Topic: k.Topic(t, "old", 1, "message.format.version="+version)}
				client := writer(t, k, kgo.ProducerBatchCompression(codec), kgo.DisableIdempotentWrite())
				defer client.Close()
				followed := collect(t, f, p, 0)
				for i := 0; i < 60; i += 20 {
					var in []sluice.NewRecord
					for j := range 20 {
						in = append(in, sluice.NewRecord{Key: []byte("k"), Value: fmt.Append(nil, i+j), Timestamp: time.UnixMilli(1_600_000_000_000)})
					}
					if err := client.ProduceSync(t.Context(), records(p, in)...).FirstErr(); err != nil {
						t.Fatal(err)
					}
				}
				live := followed(60)
				for from := range int64(60) {
					c, err := f.Fetch(t.Context(), p, from, 1<<20)
					if err != nil {
						t.Fatal(err)
					}
					if len(c.Records) == 0 || c.Records[0].Offset != from || c.Next <= from {
						t.Fatalf("from %d: %d records, next %d", from, len(c.Records), c.Next)
					}
					for _, r := range append(c.Records, live[from]) {
						if string(r.Value) != fmt.Sprint(r.Offset) || (version != "0.9.0" && r.Timestamp.UnixMilli() != 1_600_000_000_000) {
							t.Fatalf("offset %d is %q at %v", r.Offset, r.Value, r.Timestamp)
						}
					}
				}
			})
		}
	}
}

// collect follows until the test ends; what it returns waits for so many records.
func collect(t *testing.T, f *kafka.Fetcher, p sluice.Partition, from int64) func(n int) []*sluice.Record {
	t.Helper()
	chunks, ended := make(chan sluice.Chunk, 10_000), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- f.Follow(ctx, p, from, func(c sluice.Chunk) { chunks <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("follow: %v", err)
		}
	})
	<-chunks // it has begun
	return func(n int) (recs []*sluice.Record) {
		timeout := time.After(30 * time.Second)
		for len(recs) < n {
			select {
			case c := <-chunks:
				recs = append(recs, c.Records...)
			case <-timeout:
				t.Fatalf("%d records of %d", len(recs), n)
			}
		}
		return recs
	}
}
