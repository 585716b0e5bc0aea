package kafka

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

// produceMetrics is shared by the producers of a process. The topic label is bounded by the topics that exist, the
// result by the Kinds.
type produceMetrics struct {
	records    *prometheus.CounterVec
	batchBytes prometheus.Histogram
}

func newProduceMetrics(reg prometheus.Registerer) (*produceMetrics, error) {
	m := &produceMetrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_produce_records_total",
			Help: "Records by what became of them: ok, or the kind of the error.",
		}, []string{"topic", "result"}),
		batchBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_produce_batch_bytes",
			Help:    "Size of the batches sent to Kafka, one partition each.",
			Buckets: prometheus.ExponentialBuckets(256, 4, 9),
		}),
	}
	if reg == nil {
		return m, nil
	}
	var taken prometheus.AlreadyRegisteredError
	if err := reg.Register(m.records); errors.As(err, &taken) {
		m.records = taken.ExistingCollector.(*prometheus.CounterVec)
	} else if err != nil {
		return nil, err
	}
	if err := reg.Register(m.batchBytes); errors.As(err, &taken) {
		m.batchBytes = taken.ExistingCollector.(prometheus.Histogram)
	} else if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *produceMetrics) count(topic string, receipts []sluice.Receipt) {
	counts := map[sluice.Kind]int{}
	for _, r := range receipts {
		counts[sluice.KindOf(r.Err)]++
	}
	for kind, n := range counts {
		result := string(kind)
		if kind == "" {
			result = "ok"
		}
		m.records.WithLabelValues(topic, result).Add(float64(n))
	}
}
