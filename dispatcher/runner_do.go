package dispatcher

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/deadletters"
	"github.com/sluicegate/sluice/webhook"
)

// do carries out one command. Nothing here waits.
func (r *runner) do(c *command) {
	switch c.kind {
	case cmdLoad:
		r.wants[0], r.wanted[0] = want{c.kind, c.from, c.bytes}, true
	case cmdRead:
		r.wants[1], r.wanted[1] = want{c.kind, c.from, c.bytes}, true
	case cmdAsk:
		r.ask(c)
	case cmdUnask:
		if r.slot != nil {
			r.d.slots.cancel(r.slot) // if it was granted already the lane gives it back
			r.slot = nil
		}
	case cmdReturn:
		r.d.slots.release(r.granted)
	case cmdSend:
		r.claim.flights.start()
		f := flight{r: r, slot: r.granted, record: c.job.record, attempt: c.job.attempts + 1,
			first: c.job.first, began: c.job.began, before: c.job.before}
		r.d.work.Go(f.run)
	case cmdLetter:
		r.claim.flights.start()
		l, again := r.letter(c.job), c.job.letter.failed != 0
		r.d.work.Go(func() { r.bury(l, again) })
	case cmdHoldAll:
		r.share.pause(r, c.until)
	case cmdReport:
		r.report(c.job, c.outcome, c.decision)
	case cmdGone:
		r.d.metrics.compacted.WithLabelValues(r.share.label).Inc()
	case cmdLost:
		r.d.lost(r.share, r.claim.p, loss{lostRetention, c.count, c.was}, c.from)
	}
}

func (r *runner) ask(c *command) {
	w := &slot{account: &r.share.account, bytes: int64(c.bytes), alone: r.lane.flying == 0}
	w.granted = func() {
		if !r.post(event{kind: evGranted, slot: w}) {
			r.d.slots.release(w)
		}
	}
	r.slot = nil
	if r.d.slots.ask(w) {
		r.handed = w
		return
	}
	r.slot = w
}

// read asks the partition log. False: nothing came of it for now, and the lane will be told when to ask again.
func (r *runner) read(c want) (event, bool) {
	seen := r.claim.moves()
	ctx, cancel := r.readContext()
	defer cancel()
	records, next, err := r.d.needs.Log.Read(ctx, r.claim.p, c.from, c.bytes)
	failed := event{kind: evReadFailed}
	if c.kind == cmdLoad {
		failed.kind = evLoadFailed
	}
	switch {
	case err == nil && (c.kind == cmdRead || next > c.from):
		r.recovered()
		if c.kind == cmdLoad {
			return event{kind: evLoaded, from: c.from, next: next, records: records}, true
		}
		if len(records) == 0 && next == c.from {
			r.claim.await(r, seen)
		}
		return event{kind: evRecords, from: c.from, next: next, records: records}, true
	case r.claim.context().Err() != nil:
		r.later(lastWordWait, failed) // the session is over; the lane is about to be suspended
		return event{}, false
	case sluice.KindOf(err) == sluice.OutOfRange:
		if e, ok := r.outside(ctx, c.from); ok {
			return e, true
		}
	case sluice.KindOf(err) == sluice.UnknownTopic, sluice.KindOf(err) == sluice.UnknownPart:
		r.failing(err)
		r.claim.restart(r) // if it comes back it may be another topic: what is committed must be looked at again
		return event{}, false
	}
	r.failing(err)
	r.later(doubled(firstPause, lastPause, r.troubles-1), failed)
	return event{}, false
}

// lastWordWait is a pause in which a session that is over has surely told its lanes.
const lastWordWait = 100 * time.Millisecond

func (r *runner) later(d time.Duration, e event) {
	time.AfterFunc(d, func() { r.post(e) })
}

// outside finds out on which side of the log an offset lies. Below: what retention took is lost, and said to be.
func (r *runner) outside(ctx context.Context, from int64) (event, bool) {
	now, err := r.d.needs.Topics.Range(ctx, r.claim.p)
	switch {
	case err != nil:
		return event{}, false
	case from < now.Start:
		return event{kind: evLost, from: now.Start}, true
	case from > now.End:
		if r.above++; r.above >= beyondLimit {
			r.claim.restart(r)
		}
	}
	return event{}, false
}

// failing says once that a lane cannot read.
func (r *runner) failing(err error) {
	r.troubles++
	if kind := string(sluice.KindOf(err)); kind != r.trouble {
		r.trouble = kind
		r.d.log.LogAttrs(context.Background(), slog.LevelWarn, "lane cannot read", r.who(), slog.Any("error", err))
	}
}

func (r *runner) recovered() {
	if r.troubles > 0 {
		r.d.log.LogAttrs(context.Background(), slog.LevelInfo, "lane reads again", r.who())
	}
	r.troubles, r.above, r.trouble = 0, 0, ""
}

func (r *runner) who() slog.Attr {
	return slog.Group("lane", slog.String("subscription", r.share.definition.Load().ID),
		slog.String("topic", r.claim.p.Topic), slog.Int("partition", int(r.claim.p.Number)))
}

// flight is one attempt under way.
type flight struct {
	r       *runner
	slot    *slot
	record  *sluice.Record
	attempt int
	first   time.Time
	began   time.Time
	before  time.Time
}

func (f flight) run() {
	o := f.send()
	f.r.d.slots.release(f.slot)
	if o.Class == webhook.S {
		f.r.share.pass(time.Now())
	}
	e := event{kind: evResult, from: f.record.Offset, outcome: &o, othersPass: f.r.share.passedSince(f.before)}
	if !f.r.post(e) {
		f.r.claim.flights.land()
	}
}

// send makes the attempt, if the session still holds. A panic costs this attempt and nothing else.
func (f flight) send() (o webhook.Outcome) {
	d := f.r.d
	defer func() {
		if p := recover(); p != nil {
			d.metrics.panics.Inc()
			d.log.LogAttrs(context.Background(), slog.LevelError, "an attempt panicked", f.r.who(),
				slog.Int64("offset", f.record.Offset), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			o = ours(webhook.Panic)
		}
	}()
	if !f.r.claim.valid() {
		return ours(webhook.Shutdown)
	}
	return d.needs.Sender.Send(f.r.claim.flying, webhook.Delivery{
		Subscription: f.r.share.definition.Load(), Record: f.record, TopicID: f.r.claim.topicID(), ClusterID: d.needs.ClusterID,
		Attempt: f.attempt, FirstAttempt: f.first, Now: f.began,
	})
}

// ours is the outcome of an attempt that never left the house.
func ours(fault webhook.Fault) webhook.Outcome {
	f := webhook.Facts{Fault: fault}
	class, reason := webhook.Classify(f)
	return webhook.Outcome{Class: class, Reason: reason, Facts: f}
}

func (r *runner) letter(j *job) deadletters.Letter {
	def, o := r.share.definition.Load(), j.letter.outcome
	return deadletters.Letter{
		Record: j.record, TopicID: r.claim.topicID(),
		Subscription: def.ID, Owner: def.Owner, Endpoint: def.Endpoint.URL,
		WebhookID: webhook.EventID(webhook.TopicKey(r.claim.topicID(), r.d.needs.ClusterID, j.record.Topic), j.record.Partition, j.record.Offset),
		Reason:    j.letter.reason, Class: j.letter.class.String(), Status: o.Status, Error: o.Error, Response: o.Response,
		Attempts: j.attempts, FirstAttempt: j.first, LastAttempt: j.began,
	}
}

// letterTimeout is longer than the producer needs to give up, and shorter than the lane's patience.
const letterTimeout = 45 * time.Second

// bury writes a dead letter, not for the first time if again. Only what Kafka acknowledged is done.
func (r *runner) bury(l deadletters.Letter, again bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.claim.flying), letterTimeout)
	defer cancel()
	err := r.d.needs.Letters.Write(ctx, l)
	if err == nil {
		r.d.metrics.letters.WithLabelValues(r.share.label, l.Reason).Inc()
	}
	attrs := []slog.Attr{r.who(), slog.Int64("offset", l.Record.Offset), slog.String("webhook_id", l.WebhookID),
		slog.String("reason", l.Reason), slog.Int("attempts", l.Attempts)}
	switch {
	case err != nil && !again:
		r.d.log.LogAttrs(ctx, slog.LevelError, "dead letter cannot be written, the lane waits", append(attrs, slog.Any("error", err))...)
	case err == nil:
		r.d.log.LogAttrs(ctx, slog.LevelWarn, "dead letter", attrs...)
	}
	if !r.post(event{kind: evLettered, from: l.Record.Offset, failed: err != nil}) {
		r.claim.flights.land()
	}
}
