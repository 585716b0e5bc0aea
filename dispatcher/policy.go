package dispatcher

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/sluicegate/sluice/webhook"
)

// The waits of the policy, webhooks.md 4.1 to 4.3.
const (
	endpointFirst, endpointLast = 5 * time.Second, 5 * time.Minute // class E: doubling
	throttleFirst, throttleLast = time.Minute, 10 * time.Minute    // class T without Retry-After: doubling
	gatewayFirst, gatewayLast   = time.Second, 30 * time.Second    // class G: ours, doubling
	leastHold                   = time.Second                      // a Retry-After of 0 on a refusal is no invitation to a hot loop
	spreadOver                  = 30 * time.Second                 // what is overdue at a takeover
	handOver                    = 3 * time.Second                  // that a partition may be nobody's while it changes hands in order
)

// retries is what a subscription says about trying again.
type retries struct {
	Schedule       []time.Duration // wait before attempt 1, 2, …
	ClientAttempts int             // for class C
	MaxAge         time.Duration   // since the first charged attempt
	RetryAfterCap  time.Duration
}

// facts is all that a decision rests on.
type facts struct {
	Class      webhook.Class
	Reason     string
	Status     int
	RetryAfter webhook.RetryAfter
	Attempts   int       // charged before this one
	First      time.Time // when the first charged one began; zero if none was
	Began      time.Time // when this one began
	Now        time.Time // when it ended
	OthersPass bool      // another record of the subscription succeeded since this record's previous attempt
	Streak     int       // E or T outcomes of the lane in a row before this one
	Faults     int       // G outcomes of this record in a row before this one
	Jitter     float64   // in [0, 1)
}

type verb byte

const (
	deliver  verb = iota // done
	again                // the record waits, what is not behind its key goes on
	bury                 // dead letter, then done
	holdLane             // the record and its lane wait
	holdAll              // the record and the whole subscription wait
)

// decision is what becomes of a record.
type decision struct {
	Verb    verb
	Class   webhook.Class // as it counts: E may have become R
	At      time.Time     // again, holdLane, holdAll: not before
	Reason  string        // bury: of the dead letter
	Charged bool          // the attempt counts
}

// decide is the retry policy: pure, the whole of it. Until subscriptions have states and a breaker, X (stop the
// subscription) is held like E, and one 404 is R.
func (r retries) decide(f facts) decision {
	class := f.Class
	if class == webhook.X {
		class = webhook.E
	}
	if class == webhook.E && f.OthersPass {
		class = webhook.R // the endpoint is evidently up: this record is the trouble
	}
	d := decision{Class: class}
	switch class {
	case webhook.S:
		d.Verb = deliver
	case webhook.P:
		d.Verb, d.Reason, d.Charged = bury, f.Reason, true
	case webhook.R, webhook.C:
		return r.charge(f, d)
	case webhook.T:
		d.Verb, d.At = holdAll, f.Now.Add(spread(doubled(throttleFirst, throttleLast, f.Streak), f.Jitter))
		if f.RetryAfter.Present {
			d.At = f.Now.Add(r.asked(f))
		}
	case webhook.E:
		d.Verb, d.At = holdLane, f.Now.Add(spread(doubled(endpointFirst, endpointLast, f.Streak), f.Jitter))
		if f.RetryAfter.Present && f.Status >= 502 && f.Status <= 504 {
			d.Verb, d.At = holdAll, f.Now.Add(r.asked(f))
		}
	default: // G, and what nobody knows: better tried again than held against anybody
		d.Verb = again
		wait := spread(doubled(gatewayFirst, gatewayLast, f.Faults), f.Jitter)
		d.At = f.Now.Add(min(max(wait, gatewayFirst), gatewayLast))
	}
	return d
}

// charge is what becomes of a record whose attempt counts.
func (r retries) charge(f facts, d decision) decision {
	d.Charged = true
	attempts := f.Attempts + 1
	if d.Class == webhook.C && attempts >= min(r.ClientAttempts, len(r.Schedule)) {
		d.Verb, d.Reason = bury, "client_error"
		if f.Reason == "too_large" {
			d.Reason = f.Reason
		}
		return d
	}
	if attempts >= len(r.Schedule) {
		d.Verb, d.Reason = bury, "attempts_exhausted"
		return d
	}
	wait := spread(r.Schedule[attempts], f.Jitter)
	if f.RetryAfter.Present {
		wait = max(wait, min(f.RetryAfter.Wait, r.RetryAfterCap))
	}
	d.Verb, d.At = again, f.Now.Add(wait)
	first := f.First
	if first.IsZero() {
		first = f.Began
	}
	if d.At.Sub(first) > r.MaxAge {
		d.Verb, d.Reason, d.At = bury, "max_age", time.Time{}
	}
	return d
}

// asked is the wait that a Retry-After demands of the whole subscription.
func (r retries) asked(f facts) time.Duration {
	return max(min(f.RetryAfter.Wait, r.RetryAfterCap), leastHold)
}

// due is when a record parked by a predecessor may be sent: the first attempt and the schedule elapsed since then. What
// is past is spread over half a minute, so that a takeover is no burst: each record has a turn of its own, in [0, 1), in
// every half minute of the clock. Whoever takes over before that moment finds the same one, so that takeovers in a row do
// not put a retry off again and again.
func (r retries) due(attempts int, first, now time.Time, turn float64) time.Time {
	if attempts == 0 {
		return time.Time{}
	}
	at := first
	for n := 1; n <= attempts && n < len(r.Schedule); n++ {
		at = at.Add(r.Schedule[n])
	}
	if at.After(now) {
		return at
	}
	since := now.Add(-handOver) // a moment that came while nobody could send is now
	at = since.Truncate(spreadOver).Add(time.Duration(turn * float64(spreadOver)))
	if at.Before(since) {
		at = at.Add(spreadOver)
	}
	return at
}

// turnOf is when in each half minute an overdue record of a subscription may be sent, the same on every replica.
func turnOf(subscription uint64, offset int64) float64 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], subscription)
	binary.BigEndian.PutUint64(b[8:], uint64(offset))
	sum := sha256.Sum256(b[:]) // only of what is overdue; FNV would give neighbours neighbouring turns
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}

// spread is d ±20 %.
func spread(d time.Duration, jitter float64) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*jitter))
}

// doubled is first, doubled n times, at most last.
func doubled(first, last time.Duration, n int) time.Duration {
	return min(first<<min(n, 20), last)
}
