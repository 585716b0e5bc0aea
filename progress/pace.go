package progress

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	minInterval = time.Second
	maxInterval = 15 * time.Second

	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
	slowRetry  = time.Minute

	requestTimeout = 15 * time.Second
	maxRequest     = 512 << 10 // bytes of metadata; above about 1 MiB every partition answers UNKNOWN_SERVER_ERROR

	maxKeepAlive = 6 * time.Hour
	maxLook      = time.Minute
)

// Config says how progress is committed. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	Retention   time.Duration `name:"offsets-retention" env:"SLUICE_OFFSETS_RETENTION" default:"168h" help:"offsets.retention.minutes of the brokers: lanes that stand still commit again well before it."`
	Completions int64         `kong:"-"` // a subscription with so many completions is committed at once
	Workers     int           `kong:"-"` // requests in flight; kafka.Offsets has as many connections
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config { return Config{Retention: 168 * time.Hour, Completions: 2000, Workers: 16} }

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Retention < time.Minute:
		return errors.New("offsets-retention must be at least 1m")
	case c.Completions < 1 || c.Workers < 1:
		return errors.New("progress: Completions and Workers must be positive")
	}
	return nil
}

// keepAlive is the longest that a lane may go without a commit: Kafka forgets an offset of a group without members a
// while after its last commit (KIP-211).
func (c Config) keepAlive() time.Duration { return min(c.Retention/4, maxKeepAlive) }

// lookEvery is how often the ages of commits are looked at.
func (c Config) lookEvery() time.Duration { return min(c.keepAlive()/16, maxLook) }

// keepFor is the age at which a line is committed again, another for each, so that lanes that began together do not
// commit together for ever. What is left to keepAlive is for the look and for the commit itself.
func (c Config) keepFor(random func(n int64) int64) time.Duration {
	keep := c.keepAlive()
	return keep - keep/8 - time.Duration(random(int64(keep)/4))
}

// pace is how long a commit takes, a moving average: with it the interval grows before the pool is overrun.
type pace struct{ nanos atomic.Int64 }

func (p *pace) took(d time.Duration) {
	old := p.nanos.Load()
	if old == 0 {
		p.nanos.Store(int64(d))
		return
	}
	p.nanos.Store(old + (int64(d)-old)/16) // a lost update is a lost sample
}

// interval is the dirty groups divided by what the pool commits in a second, within bounds.
func (p *pace) interval(dirty, workers int) time.Duration {
	return min(max(time.Duration(dirty)*time.Duration(p.nanos.Load())/time.Duration(workers), minInterval), maxInterval)
}

type metrics struct {
	seconds, metadata prometheus.Histogram
	dirty             prometheus.Gauge
	errors            *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sluice_commit_seconds",
			Help: "How long one commit of a progress group took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
		metadata: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sluice_metadata_bytes",
			Help: "Length of the metadata of one lane's commit.", Buckets: []float64{64, 256, 1024, 2048, 3072, 4096}}),
		dirty: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sluice_commit_dirty_groups",
			Help: "Progress groups that had something to commit at the last look."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_commit_errors_total",
			Help: "Commits of a lane that Kafka did not store, by kind."}, []string{"code"}),
	}
	if reg != nil {
		reg.MustRegister(m.seconds, m.metadata, m.dirty, m.errors)
	}
	return m
}
