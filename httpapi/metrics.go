package httpapi

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	panics   prometheus.Counter
	failed   *prometheus.CounterVec

	mu    sync.RWMutex
	known map[outcome]tallies
}

func newMetrics(reg prometheus.Registerer) *metrics {
	labels := []string{"route", "method", "code"} // route is a row of the table, method a known one
	m := &metrics{
		known:    map[outcome]tallies{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_http_requests_total", Help: "Requests answered."}, labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_http_request_duration_seconds", Help: "From the headers to the end of the handler.",
			Buckets:                     []float64{.001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		}, labels),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_http_panics_total", Help: "Handlers that panicked; the process went on."}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_produce_slots_failed_total", Help: "Records of produce requests that were refused or failed, by the error_code of their slot."}, []string{"code"}),
	}
	reg.MustRegister(m.requests, m.seconds, m.panics, m.failed)
	return m
}
