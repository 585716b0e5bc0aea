package stream

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of the room. Labels come from closed sets, topics from the first 200 that were streamed: never a
// client, a key or a URL.
type metrics struct {
	connections *prometheus.GaugeVec
	connects    *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	closed      *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	events      *prometheus.CounterVec
	bytes       prometheus.Counter
	writes      prometheus.Counter
	encoded     prometheus.Counter
	delivery    prometheus.Histogram
	duration    prometheus.Histogram
	lag         prometheus.Gauge
	catchUp     prometheus.Gauge
	gaps        *prometheus.CounterVec
	lost        *prometheus.CounterVec
	buffer      prometheus.Gauge
	panics      prometheus.Counter

	mu     sync.Mutex
	labels map[string]bool
}

const maxTopicLabels = 200

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &metrics{labels: map[string]bool{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Subsystem: "sse", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "sluice", Subsystem: "sse", Name: name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "sluice", Subsystem: "sse", Name: name, Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m.connections = gauge("connections", "Open streams.", "topic", "mode", "state")
	m.connects = counter("connects_total", "Requests for a stream by result.", "result")
	m.refusals = counter("refusals_total", "Requests for a stream that were refused, and streams ended by an error.", "error_code")
	m.closed = counter("closed_total", "Streams that ended, by reason.", "reason")
	m.dropped = counter("dropped_total", "Streams that were cut because their client or we failed.", "reason")
	m.events = counter("events_total", "Records delivered.", "topic")
	m.bytes = counter("bytes_total", "Bytes written.").WithLabelValues()
	m.writes = counter("writes_total", "Writes.").WithLabelValues()
	m.encoded = counter("encoded_total", "Records encoded; events_total over this shows the sharing.", "mode").WithLabelValues(modeEnvelope)
	m.delivery = histogram("delivery_seconds", "From a record in the frame log to the end of its write, once per write.", prometheus.ExponentialBuckets(0.0005, 2, 16))
	m.duration = histogram("stream_seconds", "How long streams lived.", []float64{1, 5, 15, 60, 300, 600, 1800, 3600})
	m.lag = gauge("lag_seconds", "How far the worst live stream is behind.").WithLabelValues()
	m.catchUp = gauge("catchup_streams", "Streams that read history.").WithLabelValues()
	m.gaps = counter("gaps_total", "Gaps announced.", "topic", "reason")
	m.lost = counter("gap_records_total", "Records that gaps announced as lost, at most.", "topic")
	m.buffer = gauge("segment_bytes", "Memory of encoded frames.").WithLabelValues()
	m.panics = counter("panics_total", "Panics that ended a stream or a feed.").WithLabelValues()
	return m
}

const modeEnvelope = "envelope"

// topicLabel is the topic, or "other" once enough topics have a label.
func (m *metrics) topicLabel(topic string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.labels[topic] {
		if len(m.labels) >= maxTopicLabels {
			return "other"
		}
		m.labels[topic] = true
	}
	return topic
}
