package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	checkEvery = 10 * time.Second
	eagerEvery = time.Second // while something is wrong, or nothing is known yet
)

// checks looks at what Sluice depends on in the background and keeps the results (operations-and-security.md 2.1, 3).
type checks struct {
	cfg   Config
	log   *slog.Logger
	probe []check

	mu       sync.Mutex
	results  []checkBody
	kafkaBad time.Time // since when Kafka has been out of reach; zero: it is not
}

// check is one row of the table of section 3. Its id never changes.
type check struct {
	body    checkBody
	patient time.Duration
	ask     func(ctx context.Context) error
}

type checkBody struct {
	ID               string `json:"id"`
	Name             string `json:"name"`
	OK               bool   `json:"ok"`
	Severity         int    `json:"severity"`
	BusinessImpact   string `json:"businessImpact"`
	TechnicalSummary string `json:"technicalSummary"`
	PanicGuide       string `json:"panicGuide"`
	CheckOutput      string `json:"checkOutput"`
	LastUpdated      string `json:"lastUpdated"`
}

type reportBody struct {
	SchemaVersion int         `json:"schemaVersion"`
	SystemCode    string      `json:"systemCode"`
	Name          string      `json:"name"`
	Description   string      `json:"description"`
	Checks        []checkBody `json:"checks"`
	OK            bool        `json:"ok"`
	Severity      int         `json:"severity,omitempty"`

	Runbook string `json:"-"`
}

const kafkaCheck = "kafka-reachable"

func newChecks(c Config, needs Needs, log *slog.Logger) *checks {
	k := &checks{cfg: c, log: log}
	guide := c.PanicGuideURL + "/" + c.SystemCode
	if needs.Kafka != nil {
		k.probe = append(k.probe, check{checkBody{ID: kafkaCheck, Name: "Kafka brokers are reachable", Severity: 1,
			BusinessImpact:   "Publishing services cannot send or receive messages; content will not be published.",
			TechnicalSummary: "Sluice cannot fetch metadata from Kafka. Check the brokers, the security groups and the setting SLUICE_KAFKA_BROKERS.",
			PanicGuide:       guide}, 3 * time.Second, needs.Kafka.Reachable})
	}
	if needs.Store != nil {
		k.probe = append(k.probe, check{checkBody{ID: "redis-reachable", Name: "Redis is reachable", Severity: 2,
			BusinessImpact:   "Subscriptions cannot be created or changed. Deliveries go on.",
			TechnicalSummary: "Redis does not answer within 1 s. Check the server and the setting SLUICE_REDIS_URL.",
			PanicGuide:       guide}, time.Second, needs.Store.Ping})
	}
	for _, p := range k.probe {
		p.body.CheckOutput = "not checked yet"
		k.results = append(k.results, p.body)
	}
	return k
}

func (k *checks) run(ctx context.Context) {
	for {
		wait := checkEvery
		if !k.look(ctx) {
			wait = eagerEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look runs all checks at once and reports whether all are good.
func (k *checks) look(ctx context.Context) bool {
	errs := make([]error, len(k.probe))
	var wg sync.WaitGroup
	for i, p := range k.probe {
		wg.Go(func() { errs[i] = p.run(ctx) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return false
	}
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	good := true
	for i, p := range k.probe {
		r := p.body
		r.OK, r.CheckOutput, r.LastUpdated = errs[i] == nil, "OK", now.UTC().Format(time.RFC3339Nano)
		if errs[i] != nil {
			r.CheckOutput, good = outputOf(p, errs[i]), false
		}
		if r.OK != k.results[i].OK && (k.results[i].LastUpdated != "" || !r.OK) { // one line for each change
			k.log.Warn("health check changed", slog.String("check", r.ID), slog.Bool("ok", r.OK), slog.Any("error", errs[i]))
		}
		k.results[i] = r
		if p.body.ID == kafkaCheck {
			switch {
			case r.OK:
				k.kafkaBad = time.Time{}
			case k.kafkaBad.IsZero():
				k.kafkaBad = now
			}
		}
	}
	return good
}

func (p check) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, p.patient)
	defer cancel()
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("panic: %v", broken)
		}
	}()
	done := make(chan error, 1)
	go func() { done <- p.ask(ctx) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return err
}

// outputOf is what a failed check shows. The cause may name hosts, so it goes to the log alone.
func outputOf(p check, err error) string {
	f := failureOf(classic, err)
	if f.code == errInternal.code {
		return fmt.Sprintf("%s: no answer within %s", p.body.ID, p.patient)
	}
	return f.message
}

// kafkaTrouble is why Kafka makes this replica unfit, or "".
func (k *checks) kafkaTrouble() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.kafkaBad.IsZero() && time.Since(k.kafkaBad) > k.cfg.GTGKafkaGrace {
		return fmt.Sprintf("Kafka has been out of reach for more than %s", k.cfg.GTGKafkaGrace)
	}
	return ""
}

func (k *checks) report() reportBody {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := reportBody{SchemaVersion: 1, SystemCode: k.cfg.SystemCode, Name: k.cfg.AppName,
		Description: "REST, webhook and SSE access to Kafka", Checks: append([]checkBody{}, k.results...), OK: true,
		Runbook: "https://runbooks.ftops.tech/" + k.cfg.SystemCode}
	severity := 3
	for _, c := range r.Checks {
		if !c.OK {
			r.OK, severity = false, min(severity, c.Severity)
		}
	}
	if !r.OK {
		r.Severity = severity
	}
	return r
}
