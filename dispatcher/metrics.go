package dispatcher

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	deliveries  *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	lag         *prometheus.HistogramVec
	letters     *prometheus.CounterVec
	compacted   *prometheus.CounterVec
	lost        *prometheus.CounterVec
	readBacks   *prometheus.CounterVec
	panics      prometheus.Counter
	owned       *prometheus.GaugeVec
	sessions    *prometheus.GaugeVec
	rebalances  *prometheus.CounterVec
	gap         *prometheus.HistogramVec
	refused     prometheus.Gauge
	perLabelled []interface {
		DeletePartialMatch(prometheus.Labels) int
	}
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, label string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help,
			Buckets: []float64{.005, .025, .1, .5, 2.5, 15, 60}, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100}, []string{label})
	}
	m := &metrics{
		deliveries: counter("sluice_deliveries_total", "Attempts, by class of their outcome and HTTP status.", "subscription", "class", "code"),
		seconds:    histogram("sluice_delivery_seconds", "How long an attempt took.", "subscription"),
		lag:        histogram("sluice_e2e_lag_seconds", "From a record's timestamp to its 2xx.", "subscription"),
		letters:    counter("sluice_dlq_total", "Dead letters written.", "subscription", "reason"),
		compacted:  counter("sluice_compacted_away_total", "Undelivered records that compaction removed.", "subscription"),
		lost:       counter("sluice_position_lost_records_total", "Records that were never delivered and cannot be read any more.", "subscription", "cause"),
		readBacks:  counter("sluice_readback_total", "Committed offsets of lanes that were read back, by what was found.", "outcome"),
		panics:     prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_delivery_panics_total", Help: "Attempts that ended in a panic of ours."}),
		owned:      prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sluice_owned_partitions", Help: "Partitions of a topic whose lanes this replica runs."}, []string{"topic"}),
		sessions:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sluice_sessions", Help: "1 while this replica has a session of the topic's ownership group."}, []string{"topic"}),
		rebalances: counter("sluice_rebalances_total", "Sessions begun.", "topic"),
		gap:        histogram("sluice_rebalance_gap_seconds", "From the end of a session to the begin of the next.", "topic"),
		refused:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_push_topics_refused", Help: "Topics with subscriptions that are not delivered because there are more than max-push-topics."}),
	}
	m.perLabelled = append(m.perLabelled, m.deliveries, m.seconds, m.lag, m.letters, m.compacted, m.lost)
	if reg != nil {
		reg.MustRegister(m.deliveries, m.seconds, m.lag, m.letters, m.compacted, m.lost, m.readBacks, m.panics,
			m.owned, m.sessions, m.rebalances, m.gap, m.refused)
	}
	return m
}

// forget drops the series of a subscription.
func (m *metrics) forget(id string) {
	for _, vec := range m.perLabelled {
		vec.DeletePartialMatch(prometheus.Labels{"subscription": id})
	}
}

// forgetTopic drops the series of a topic.
func (m *metrics) forgetTopic(topic string) {
	m.owned.DeleteLabelValues(topic)
	m.sessions.DeleteLabelValues(topic)
	m.rebalances.DeleteLabelValues(topic)
	m.gap.DeleteLabelValues(topic)
}

// gauges are counted when somebody looks.
type gauges struct {
	d                                *Dispatcher
	inFlight, holes, window, blocked *prometheus.Desc
	slots, bytes                     *prometheus.Desc
}

func newGauges(d *Dispatcher) *gauges {
	per := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"subscription"}, nil)
	}
	return &gauges{
		d:        d,
		inFlight: per("sluice_inflight", "Attempts under way."),
		holes:    per("sluice_holes", "Records above the low watermark that are not done, of the fullest lane."),
		window:   per("sluice_window", "Attempts that may be under way on this replica."),
		blocked:  per("sluice_blocked_keys", "Keys with a record under way or waiting, of the lane with most."),
		slots:    prometheus.NewDesc("sluice_sender_slots_used", "Sender slots in use.", nil, nil),
		bytes:    prometheus.NewDesc("sluice_delivery_inflight_bytes", "Bytes of records in flight to webhooks.", nil, nil),
	}
}

func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.inFlight, g.holes, g.window, g.blocked, g.slots, g.bytes} {
		ch <- d
	}
}

func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	used, bytes := g.d.slots.inUse()
	ch <- prometheus.MustNewConstMetric(g.slots, prometheus.GaugeValue, float64(used))
	ch <- prometheus.MustNewConstMetric(g.bytes, prometheus.GaugeValue, float64(bytes))
	type sums struct{ inFlight, holes, window, blocked int }
	byLabel := map[string]sums{}
	for _, s := range g.d.allShares() {
		sum := byLabel[s.label]
		g.d.slots.mu.Lock()
		sum.inFlight += s.used
		sum.window += s.account.limit
		g.d.slots.mu.Unlock()
		for _, r := range s.runners() {
			holes, keys := r.fill()
			sum.holes, sum.blocked = max(sum.holes, holes), max(sum.blocked, keys)
		}
		byLabel[s.label] = sum
	}
	for label, sum := range byLabel {
		for desc, v := range map[*prometheus.Desc]int{g.inFlight: sum.inFlight, g.holes: sum.holes, g.window: sum.window, g.blocked: sum.blocked} {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(v), label)
		}
	}
}
