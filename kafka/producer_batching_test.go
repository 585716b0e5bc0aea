package kafka

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Group commit: 64 callers with one record each cause at most 32 requests, and the one that is too large fails alone.
func TestConcurrentCallersShareRequests(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, w := wiredProducer(t, k)
	topic := k.Topic(t, "shared", 4)
	const callers, large = 64, 17
	var wait sync.WaitGroup
	errs := make([]error, callers)
	for i := range callers {
		wait.Go(func() {
			rec := sluice.NewRecord{Partition: sluice.AnyPartition, Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}
			if i == large {
				rec.Value = make([]byte, 1<<20+100_000) // above Kafka's own default limit
				if !k.Real() {
					rec.Value = make([]byte, 16<<20+1)
				}
				if k.Name == backend.Kafka28 {
					rec.Value = make([]byte, 16<<20)
				}
			}
			receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{rec})
			if err != nil {
				t.Error(err)
				return
			}
			errs[i] = receipts[0].Err
		})
	}
	wait.Wait()
	for i, err := range errs {
		if i == large && sluice.KindOf(err) != sluice.TooLarge || i != large && err != nil {
			t.Errorf("caller %d: %v", i, err)
		}
	}
	if n := w.produced.Load(); n > 32 {
		t.Errorf("%d produce requests", n)
	} else {
		t.Logf("%d callers, %d produce requests", callers, n)
	}
	if got := values(t, clients, topic, 4); len(got) != callers-1 {
		t.Errorf("%d values in the log", len(got))
	}
}

// A limit of 5,000 bytes that came after Kafka was asked: the broker refuses whole batches, and yet every small record
// of 320 concurrent ones is written, once, and only the large ones fail, with the new limit named from then on.
func TestBatchAboveTheLimitIsSplit(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, _ := wiredProducer(t, k)
	topic := k.Topic(t, "shrunk", 2)
	mustProduce(t, p, topic, sluice.NewRecord{Value: []byte("first")})
	setLimit(t, k, topic, "5000")

	const callers = 320
	var wait sync.WaitGroup
	for i := range callers {
		wait.Go(func() {
			value := fmt.Appendf(nil, "%0*d", 1000, i)
			if i%40 == 0 {
				value = bytes.Repeat(value, 6)
			}
			receipts, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Partition: int32(i % 2), Value: value}})
			if err != nil {
				t.Error(err)
				return
			}
			if got := sluice.KindOf(receipts[0].Err); (got == sluice.TooLarge) != (i%40 == 0) || got != sluice.TooLarge && got != "" {
				t.Errorf("caller %d: %v", i, receipts[0].Err)
			}
		})
	}
	wait.Wait()
	got := values(t, clients, topic, 2)
	if len(got) != 1+callers-callers/40 {
		t.Errorf("%d values in the log", len(got))
	}
	for v, n := range got {
		if n != 1 {
			t.Errorf("value %.10s… %d times", v, n)
		}
	}
	eventually(t, "the new limit is known", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.topics[topic].limit == 5000
	})
}

func setLimit(t testing.TB, k *backend.Broker, topic, limit string) {
	t.Helper()
	conf := sarama.NewConfig()
	conf.Version = sarama.MaxVersion
	admin, err := sarama.NewClusterAdmin(k.Brokers, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	entry := map[string]sarama.IncrementalAlterConfigsEntry{"max.message.bytes": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &limit}}
	if err := admin.IncrementalAlterConfig(sarama.TopicResource, topic, entry, false); err != nil {
		t.Fatal(err)
	}
	ours := NewAdmin(testClients(t, k))
	eventually(t, "the limit holds", func() bool {
		configs, err := ours.TopicConfigs(testContext(t), topic)
		return err == nil && configs["max.message.bytes"] == limit
	})
}

// What a batch is thought to take is what it takes on the wire, to the byte, whatever is in its records.
func TestBatchBytesAreThoseOfTheWire(t *testing.T) {
	k := faulty(t, 1)
	p, _, _ := wiredProducer(t, k)
	topic := k.Topic(t, "bytes", 1)
	var wire atomic.Int64
	k.Fake().ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		wire.Add(int64(len(q.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records)))
		return nil, nil, false
	})
	random := func(most int) []byte {
		n := rand.N(most)
		if n == 0 {
			return nil
		}
		return make([]byte, n-1)
	}
	for range 30 {
		var recs []sluice.NewRecord
		for range 1 + rand.N(200) {
			rec := sluice.NewRecord{Key: random(200), Value: random(9000), Timestamp: time.UnixMilli(rand.N(time.Now().UnixMilli()))}
			for range rand.N(4) {
				rec.Headers = append(rec.Headers, sluice.Header{Name: string(random(90)), Value: random(300)})
			}
			recs = append(recs, rec)
		}
		mustProduce(t, p, topic, recs...)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(p.metrics.batchBytes)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if got := int64(families[0].Metric[0].GetHistogram().GetSampleSum()); got != wire.Load() || got == 0 {
		t.Errorf("%d bytes counted, %d on the wire", got, wire.Load())
	}
}

// With AutoCreate an unknown topic is made with the broker's defaults, once for all who ask; an illegal name is not.
func TestAutoCreate(t *testing.T) {
	k := backend.Kafka(t)
	p, clients, _ := wiredProducer(t, k, func(c *Config) { c.AutoCreate = true })
	name := backend.Unique("auto")
	t.Cleanup(func() { k.Delete(t, name) })
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() { mustProduce(t, p, name, sluice.NewRecord{Partition: sluice.AnyPartition, Value: []byte("v")}) })
	}
	wait.Wait()
	topic, err := NewAdmin(clients).Topic(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	if got := values(t, clients, name, int32(len(topic.Partitions))); got["v"] != 20 {
		t.Errorf("log: %v", got)
	}
	if _, err := p.Produce(testContext(t), "no/name", []sluice.NewRecord{{}}); sluice.KindOf(err) != sluice.UnknownTopic {
		t.Errorf("illegal name: %v", err)
	}
}

// Both producers of a process count into the same metrics.
func TestProducersShareMetrics(t *testing.T) {
	k := backend.Kafka(t)
	clients := testClients(t, k)
	topic := k.Topic(t, "counted", 1, "max.message.bytes=5000")
	reg := prometheus.NewRegistry()
	for _, letters := range []bool{false, true} {
		p, err := NewProducer(clients, letters, reg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Produce(testContext(t), topic, []sluice.NewRecord{{Value: []byte("v")}, {Value: make([]byte, 6000)}}); err != nil {
			t.Error(err)
		}
		if err := p.Stop(testContext(t)); err != nil {
			t.Error(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			for _, l := range m.Label {
				if l.GetName() == "result" {
					key += " " + l.GetValue()
				}
			}
			got[key] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{"sluice_produce_records_total ok": 2, "sluice_produce_records_total too_large": 2, "sluice_produce_batch_bytes": 2}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("metrics %v", got)
	}
}
