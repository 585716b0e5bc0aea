package kafka

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// The memory of the records is the caller's again when Produce returns, however it returns: callers with little patience
// overwrite it at once, and the log holds only what was there before. With -race it also proves that nobody reads it.
func TestMemoryIsTheCallersAgain(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, w := wiredProducer(t, k)
	topic := k.Topic(t, "memory", 3)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("first")})
	const overwritten = 0xee
	var wait sync.WaitGroup
	var mu sync.Mutex
	kinds := map[sluice.Kind]int{}
	for caller := range 16 {
		wait.Go(func() {
			value := make([]byte, 20_000)
			for range 60 {
				for i := range value {
					value[i] = byte(caller)
				}
				ctx, cancel := context.WithTimeout(context.Background(), rand.N(12*time.Millisecond))
				receipts, err := p.Produce(ctx, topic, []sluice.NewRecord{{Partition: int32(caller % 3), Key: value[:4], Value: value, Headers: []sluice.Header{{Name: "h", Value: value[:9]}}}})
				cancel()
				for i := range value {
					value[i] = overwritten
				}
				mu.Lock()
				if err == nil {
					kinds[sluice.KindOf(receipts[0].Err)]++
				}
				if rand.N(200) == 0 {
					w.lose.Store(1)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	t.Logf("receipts: %v", kinds)
	written := 0
	for number := range int32(3) {
		for _, r := range readAll(t, clients, topic, number) {
			if len(r.Value) < 100 {
				continue
			}
			written++
			want := bytes.Repeat(r.Value[:1], len(r.Value))
			if r.Value[0] == overwritten || !bytes.Equal(r.Value, want) || !bytes.Equal(r.Key, want[:4]) || !bytes.Equal(r.Headers[0].Value, want[:9]) {
				t.Fatalf("record %d/%d was changed on its way", number, r.Offset)
			}
		}
	}
	if written < kinds[""] || written > kinds[""]+kinds[sluice.OutcomeUnknown] {
		t.Errorf("%d records in the log; receipts %v", written, kinds)
	}
}

// A partition that is added takes records once the topic is looked up again, which Run does, and at the latest three
// seconds after somebody names it.
func TestNewPartitionIsFound(t *testing.T) {
	k := backend.Kafka(t)
	p, _, _ := wiredProducer(t, k)
	topic := k.Topic(t, "grown", 1)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("v")})
	conf := sarama.NewConfig()
	conf.Version = sarama.MaxVersion
	admin, err := sarama.NewClusterAdmin(k.Brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	if err := admin.CreatePartitions(topic, 3, nil, false); err != nil {
		t.Fatal(err)
	}
	made := time.Now()
	eventually(t, "written to the new partition", func() bool {
		receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Partition: 2, Value: []byte("v")}})
		if err != nil || receipts[0].Err != nil && sluice.KindOf(receipts[0].Err) != sluice.UnknownPart {
			t.Fatal(err, receipts)
		}
		return receipts[0].Err == nil
	})
	if took := time.Since(made); took > 5*time.Second {
		t.Errorf("found after %v", took)
	}
	seen := map[int32]bool{}
	for range 40 {
		seen[mustProduce(t, p, topic, sluice.NewRecord{Partition: sluice.AnyPartition, Value: make([]byte, 9000)})[0].Partition] = true
	}
	if len(seen) != 3 {
		t.Errorf("keyless records went to %v", seen)
	}

	if err := admin.CreatePartitions(topic, 5, nil, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "refreshed", func() bool {
		p.refresh(time.Now().Add(refreshAge))
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.topics[topic].queues) == 5
	})
}

// Who may not write idempotently, or not see the topic, hears so at once and by its kind.
func TestDeniedIsForbidden(t *testing.T) {
	k := faulty(t, 1)
	for name, fault := range map[string]kfake.Fault{
		"producer id": {Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.ClusterAuthorizationFailed, Count: -1},
		"describe":    {Keys: []kmsg.Key{kmsg.Metadata}, Err: kerr.TopicAuthorizationFailed, Count: -1},
		"write":       {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, _ := wiredProducer(t, k)
			topic := k.Topic(t, "denied", 1)
			if name != "producer id" {
				fault.Topic = topic
			}
			defer k.Fake().Fault(fault).Remove()
			for range 5 {
				begin := time.Now()
				receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("v")}})
				if err == nil {
					err = receipts[0].Err
				}
				if sluice.KindOf(err) != sluice.Forbidden || time.Since(begin) > time.Second {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
			}
		})
	}
}

// A size limit that may not be read costs nothing but the early answer: the broker's refusal is the same to the caller.
func TestUnknownLimitIsTheBrokers(t *testing.T) {
	k := faulty(t, 1)
	p, clients, _ := wiredProducer(t, k)
	topic := k.Topic(t, "secret", 1, "max.message.bytes=5000")
	defer k.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1}).Remove()
	var recs []sluice.NewRecord
	for i := range 40 {
		size := 1000
		if i%13 == 5 {
			size = 6000
		}
		recs = append(recs, sluice.NewRecord{Value: make([]byte, size)})
	}
	receipts, err := p.Produce(testContext(t), topic, recs)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range receipts {
		if want := i%13 == 5; (sluice.KindOf(r.Err) == sluice.TooLarge) != want || !want && r.Err != nil {
			t.Errorf("record %d: %v", i, r.Err)
		}
	}
	if got := readAll(t, clients, topic, 0); len(got) != 37 {
		t.Errorf("%d records in the log", len(got))
	}
}
