package partition

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	fromRing, fromCache, fromFetch prometheus.Counter
	fetchSeconds                   prometheus.Histogram
	ringBytes, cacheBytes, waiting atomic.Int64
}

// newMetrics registers with reg, unless it is nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{}
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_log_reads_total", Help: "Reads of the partition log by what answered.",
	}, []string{"source"})
	m.fromRing, m.fromCache, m.fromFetch = reads.WithLabelValues("ring"), reads.WithLabelValues("cache"), reads.WithLabelValues("fetch")
	m.fetchSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_fetch_seconds", Help: "Time of a one-shot fetch, the wait for a connection included.",
		Buckets:                        []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 15},
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 100,
	})
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		reads, m.fetchSeconds,
		gauge("sluice_ring_bytes", "Memory of the newest records of followed partitions.", &m.ringBytes),
		gauge("sluice_cache_bytes", "Memory of the chunk cache.", &m.cacheBytes),
		gauge("sluice_fetch_waiting", "Reads that wait for a one-shot fetch.", &m.waiting),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func gauge(name, help string, v *atomic.Int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(v.Load()) })
}
