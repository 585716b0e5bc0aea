package consumers

import "github.com/prometheus/client_golang/prometheus"

// metrics of the room. Every label has a closed set of values.
type metrics struct {
	instances prometheus.Gauge
	reading   prometheus.Gauge
	ended     *prometheus.CounterVec // reason: deleted, expired, shutdown, moved
	records   prometheus.Counter
	lost      prometheus.Counter
	commits   *prometheus.CounterVec // kind: request, auto; result: ok or a Kind
	resets    *prometheus.CounterVec // policy: latest, earliest, none
	adopted   prometheus.Counter
	unsaved   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		instances: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_consumer_instances", Help: "Instances of the classic consumer API that live on this replica."}),
		reading: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_consumer_reads", Help: "Reads that are held, or whose answer is on its way."}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_consumer_ended_total", Help: "Instances that ended, by reason."}, []string{"reason"}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_consumer_records_total", Help: "Records whose whole answer reached the client's connection."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_consumer_answers_lost_total", Help: "Answers with records that did not reach the client; the records come again."}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_consumer_commits_total", Help: "Commits of instances, by who asked and what became of them."}, []string{"kind", "result"}),
		resets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_consumer_offset_resets_total", Help: "Positions that lay outside the log, by the policy that applied."}, []string{"policy"}),
	}
	m.adopted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_consumer_adoptions_total", Help: "Instances of other replicas that went on here."})
	m.unsaved = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_consumer_store_failures_total", Help: "Writes of an instance to Redis that failed; they are tried again."})
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.instances, m.reading, m.ended, m.records, m.lost, m.commits, m.resets, m.adopted, m.unsaved} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
