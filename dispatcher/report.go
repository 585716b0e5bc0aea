package dispatcher

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// report is where an attempt becomes visible, once: one count, one line, one word for whoever asks how it goes.
func (r *runner) report(j *job, o *webhook.Outcome, d decision) {
	m, label := r.d.metrics, r.share.label
	attempt := j.attempts
	if !d.Charged {
		attempt++
	}
	code := "none"
	if o.Status >= 100 && o.Status <= 599 {
		code = strconv.Itoa(o.Status)
	}
	m.deliveries.WithLabelValues(label, d.Class.String(), code).Inc()
	m.seconds.WithLabelValues(label).Observe(o.Latency.Seconds())
	now := time.Now()
	if d.Class == webhook.S {
		if !j.record.Timestamp.IsZero() {
			m.lag.WithLabelValues(label).Observe(max(now.Sub(j.record.Timestamp), 0).Seconds())
		}
		r.d.seen(r.share, now, nil)
	} else if d.Class != webhook.G {
		r.d.seen(r.share, now, r.lastError(j.offset, attempt, o, d, now))
	}
	level := slog.LevelInfo
	if d.Class == webhook.S {
		level = slog.LevelDebug // the counters tell of success
	}
	log := r.d.log
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, r.who(), slog.Int64("offset", j.offset), slog.Int("attempt", attempt),
		slog.String("class", d.Class.String()), slog.String("reason", o.Reason), slog.Duration("latency", o.Latency))
	if o.Status > 0 {
		attrs = append(attrs, slog.Int("status", o.Status))
	}
	if o.Error != "" {
		attrs = append(attrs, slog.String("error", o.Error))
	}
	if !d.At.IsZero() {
		attrs = append(attrs, slog.Time("next", d.At))
	}
	if o.Resends > 0 {
		attrs = append(attrs, slog.Int("resends", o.Resends))
	}
	log.LogAttrs(context.Background(), level, "attempt", attrs...)
}

func (r *runner) lastError(offset int64, attempt int, o *webhook.Outcome, d decision, now time.Time) *subscriptions.LastError {
	e := &subscriptions.LastError{
		At: subscriptions.Time{Time: now}, Topic: r.claim.p.Topic, Partition: r.claim.p.Number, Offset: offset,
		WebhookID: webhook.EventID(webhook.TopicKey(r.claim.topicID(), r.d.needs.ClusterID, r.claim.p.Topic), r.claim.p.Number, offset),
		Attempt:   attempt, Class: d.Class.String(), Reason: o.Reason, Status: o.Status, Error: o.Error,
	}
	if !d.At.IsZero() {
		e.NextAt = &subscriptions.Time{Time: d.At}
	}
	return e
}

// lost says that a position is another than the committed one: never silently.
func (d *Dispatcher) lost(s *share, p sluice.Partition, l loss, now int64) {
	d.metrics.lost.WithLabelValues(s.label, l.Cause).Add(float64(l.Lost))
	d.log.LogAttrs(context.Background(), slog.LevelError, "position lost",
		slog.String("subscription", s.definition.Load().ID), slog.String("topic", p.Topic), slog.Int("partition", int(p.Number)),
		slog.String("cause", l.Cause), slog.Int64("records", l.Lost), slog.Int64("was", l.From), slog.Int64("continues_at", now))
}
