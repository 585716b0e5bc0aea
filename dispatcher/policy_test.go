package dispatcher

import (
	"testing"
	"time"

	"github.com/sluicegate/sluice/webhook"
)

var (
	noon     = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	default4 = retries{
		Schedule:       []time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour},
		ClientAttempts: 4, MaxAge: 96 * time.Hour, RetryAfterCap: time.Hour,
	}
)

func TestPolicyDecidesByClass(t *testing.T) {
	present := func(d time.Duration) webhook.RetryAfter { return webhook.RetryAfter{Present: true, Wait: d} }
	tests := []struct {
		name string
		f    facts
		want decision
	}{
		{"success", facts{Class: webhook.S}, decision{Verb: deliver}},
		{"first R waits schedule[1]", facts{Class: webhook.R},
			decision{Verb: again, At: noon.Add(5 * time.Second), Charged: true}},
		{"third R waits schedule[3]", facts{Class: webhook.R, Attempts: 2, First: noon.Add(-time.Hour)},
			decision{Verb: again, At: noon.Add(30 * time.Minute), Charged: true}},
		{"R obeys a longer Retry-After", facts{Class: webhook.R, RetryAfter: present(10 * time.Minute)},
			decision{Verb: again, At: noon.Add(10 * time.Minute), Charged: true}},
		{"R does not obey a shorter one", facts{Class: webhook.R, RetryAfter: present(time.Second)},
			decision{Verb: again, At: noon.Add(5 * time.Second), Charged: true}},
		{"Retry-After is capped", facts{Class: webhook.R, RetryAfter: present(24 * time.Hour)},
			decision{Verb: again, At: noon.Add(time.Hour), Charged: true}},
		{"the schedule is spent", facts{Class: webhook.R, Attempts: 4, First: noon.Add(-3 * time.Hour)},
			decision{Verb: bury, Reason: "attempts_exhausted", Charged: true}},
		{"the next attempt would be too late", facts{Class: webhook.R, Attempts: 2, First: noon.Add(-96 * time.Hour)},
			decision{Verb: bury, Reason: "max_age", Charged: true}},
		{"C has a short schedule", facts{Class: webhook.C, Reason: "client_error", Attempts: 2, First: noon},
			decision{Verb: again, At: noon.Add(30 * time.Minute), Charged: true}},
		{"C is buried at its fourth attempt", facts{Class: webhook.C, Reason: "redirect", Attempts: 3, First: noon},
			decision{Verb: bury, Reason: "client_error", Charged: true}},
		{"413 says so", facts{Class: webhook.C, Reason: "too_large", Attempts: 3, First: noon},
			decision{Verb: bury, Reason: "too_large", Charged: true}},
		{"P is buried at once", facts{Class: webhook.P, Reason: "encode"},
			decision{Verb: bury, Reason: "encode", Charged: true}},
		{"E holds the lane and charges nobody", facts{Class: webhook.E, Attempts: 4},
			decision{Verb: holdLane, At: noon.Add(5 * time.Second)}},
		{"E doubles", facts{Class: webhook.E, Streak: 3},
			decision{Verb: holdLane, At: noon.Add(40 * time.Second)}},
		{"E doubles to five minutes", facts{Class: webhook.E, Streak: 900},
			decision{Verb: holdLane, At: noon.Add(5 * time.Minute)}},
		{"503 with Retry-After pauses the subscription", facts{Class: webhook.E, Status: 503, RetryAfter: present(90 * time.Second)},
			decision{Verb: holdAll, At: noon.Add(90 * time.Second)}},
		{"401 with Retry-After does not", facts{Class: webhook.E, Status: 401, RetryAfter: present(90 * time.Second)},
			decision{Verb: holdLane, At: noon.Add(5 * time.Second)}},
		{"E amid successes is R", facts{Class: webhook.E, Status: 503, OthersPass: true},
			decision{Verb: again, Class: webhook.R, At: noon.Add(5 * time.Second), Charged: true}},
		{"E amid successes is spent some day", facts{Class: webhook.E, OthersPass: true, Attempts: 4, First: noon},
			decision{Verb: bury, Class: webhook.R, Reason: "attempts_exhausted", Charged: true}},
		{"X counts as E", facts{Class: webhook.X, Reason: "gone"},
			decision{Verb: holdLane, Class: webhook.E, At: noon.Add(5 * time.Second)}},
		{"T pauses the subscription for a minute", facts{Class: webhook.T},
			decision{Verb: holdAll, At: noon.Add(time.Minute)}},
		{"T doubles to ten minutes", facts{Class: webhook.T, Streak: 7},
			decision{Verb: holdAll, At: noon.Add(10 * time.Minute)}},
		{"T obeys Retry-After", facts{Class: webhook.T, Streak: 7, RetryAfter: present(7 * time.Second)},
			decision{Verb: holdAll, At: noon.Add(7 * time.Second)}},
		{"T with Retry-After: 0 is no hot loop", facts{Class: webhook.T, RetryAfter: present(0)},
			decision{Verb: holdAll, At: noon.Add(time.Second)}},
		{"T is T amid successes", facts{Class: webhook.T, OthersPass: true},
			decision{Verb: holdAll, At: noon.Add(time.Minute)}},
		{"G is tried again soon", facts{Class: webhook.G, Attempts: 4},
			decision{Verb: again, At: noon.Add(time.Second)}},
		{"G doubles to half a minute", facts{Class: webhook.G, Faults: 9},
			decision{Verb: again, At: noon.Add(30 * time.Second)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.f
			f.Now, f.Began, f.Jitter = noon, noon, 0.5
			want := tt.want
			if want.Class == 0 {
				want.Class = f.Class
			}
			if got := default4.decide(f); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestJitterStaysWithinTwentyPercentAndNeverBeforeRetryAfter(t *testing.T) {
	for j := 0.0; j < 1; j += 0.01 {
		wait := default4.decide(facts{Class: webhook.R, Attempts: 1, First: noon, Began: noon, Now: noon, Jitter: j}).At.Sub(noon)
		if wait < 4*time.Minute || wait > 6*time.Minute {
			t.Fatalf("jitter %v: %v", j, wait)
		}
		asked := webhook.RetryAfter{Present: true, Wait: 5 * time.Minute}
		wait = default4.decide(facts{Class: webhook.R, Attempts: 1, First: noon, Began: noon, Now: noon, Jitter: j, RetryAfter: asked}).At.Sub(noon)
		if wait < 5*time.Minute {
			t.Fatalf("jitter %v: %v, earlier than asked", j, wait)
		}
		if wait = default4.decide(facts{Class: webhook.G, Now: noon, Jitter: j, Faults: 20}).At.Sub(noon); wait < time.Second || wait > 30*time.Second {
			t.Fatalf("jitter %v: G after %v", j, wait)
		}
	}
}

func TestAParkedRecordOfAPredecessorKeepsItsPlaceInTheSchedule(t *testing.T) {
	first := noon.Add(-10 * time.Minute)
	if got, want := default4.due(3, first, noon, 0.5), first.Add(5*time.Second+5*time.Minute+30*time.Minute); !got.Equal(want) {
		t.Errorf("due %v, want %v", got, want)
	}
	if got := default4.due(1, first, noon, 0.5); !got.Equal(noon.Add(15 * time.Second)) {
		t.Errorf("a past one is due %v", got)
	}
	for now := noon; now.Before(noon.Add(15*time.Second + handOver)); now = now.Add(time.Second) { // whoever takes over meanwhile
		if got := default4.due(1, first, now, 0.5); !got.Equal(noon.Add(15 * time.Second)) {
			t.Errorf("taken over at %v, a past one is due %v", now, got)
		}
	}
	if got := default4.due(0, time.Time{}, noon, 0.5); got.After(noon) {
		t.Errorf("one that was never charged waits until %v", got)
	}
}
