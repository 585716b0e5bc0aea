package dispatcher

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// refuse answers a status to some records, so many times each.
func refuse(code, times int, values ...string) func(webhook.Delivery) (time.Duration, webhook.Outcome) {
	left := map[string]int{}
	for _, v := range values {
		left[v] = times
	}
	return func(d webhook.Delivery) (time.Duration, webhook.Outcome) {
		if v := string(d.Record.Value); left[v] > 0 {
			left[v]--
			return 0, status(code)
		}
		return 0, status(200)
	}
}

// Ordering "key" promises that a failing record holds back its own key and no other.
func TestFailingRecordHoldsOnlyItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(500, 2, "a1")}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1", "b1", "a2", "b2")
		hook.want(t, "b1", "b2")
		time.Sleep(4 * time.Second) // of the bubble's time: before the first retry can be due
		synctest.Wait()
		if got := hook.attempts(); !slices.Equal(sortedStrings(got), []string{"a1#1", "b1#1", "b2#1"}) {
			t.Fatalf("attempts %v", got)
		}
		time.Sleep(10 * time.Minute)
		hook.want(t, "b1", "b2", "a1", "a2")
		if c := h.committed("s", part("t", 0)); c.Offset != 4 {
			t.Errorf("committed %d, want 4", c.Offset)
		}
	})
}

func sortedStrings(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

func TestOrderingPartitionHoldsEverythingBehindAFailingRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(500, 1, "a1")}
		h, r := one(t, hook, func(s *subscriptions.Subscription) { s.Delivery.Ordering = subscriptions.OrderPartition })
		defer r.close()
		h.produce("t", "a1", "b1", "c1")
		hook.want(t)
		time.Sleep(7 * time.Second)
		hook.want(t, "a1", "b1", "c1")
		if hook.most != 1 {
			t.Errorf("%d in flight at a time", hook.most)
		}
	})
}

func TestOrderingNoneHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(500, 1, "a1")}
		h, r := one(t, hook, func(s *subscriptions.Subscription) { s.Delivery.Ordering = subscriptions.OrderNone })
		defer r.close()
		h.produce("t", "a1", "a2", "a3")
		synctest.Wait()
		if got := sortedStrings(hook.delivered()); !slices.Equal(got, []string{"a2", "a3"}) {
			t.Errorf("delivered %v", got)
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if len(hook.delivered()) != 3 {
			t.Errorf("delivered %v", hook.delivered())
		}
	})
}

func TestADeadEndpointChargesNobodyAndIsProbedByOneRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		hook := &endpoint{}
		hook.answer = func(webhook.Delivery) (time.Duration, webhook.Outcome) {
			if down {
				o := ours(webhook.ConnRefused)
				return 0, o
			}
			return 0, status(200)
		}
		h, r := one(t, hook, nil)
		defer r.close()
		for i := range 100 {
			h.produce("t", fmt.Sprintf("%c%d", 'a'+i%20, i))
		}
		synctest.Wait()
		first := len(hook.attempts())
		if first > 32 {
			t.Fatalf("%d attempts before the lane stopped", first)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		probes := len(hook.attempts()) - first
		if probes < 24*60/6-20 || probes > 24*60/4 {
			t.Errorf("%d probes in a day, want one about every five minutes", probes)
		}
		for _, a := range hook.attempts() {
			if !strings.HasSuffix(a, "#1") {
				t.Fatalf("charged: %s", a)
			}
		}
		lane := r.shareOf("s").runners()[0]
		lane.mu.Lock()
		for _, j := range lane.lane.jobs {
			if j.record != nil {
				t.Error("a lane that waits holds bodies")
			}
		}
		lane.mu.Unlock()
		hook.mu.Lock()
		down = false
		hook.mu.Unlock()
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if len(hook.delivered()) != 100 || len(h.letters) != 0 {
			t.Errorf("%d delivered after the endpoint came back, %d dead letters", len(hook.delivered()), len(h.letters))
		}
	})
}

func (d *Dispatcher) shareOf(id string) *share {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shares[id]
}

func TestARecordThatAlwaysGets503AmidSuccessesIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(503, 1000, "x1")}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "x1", "a1", "x2", "b1")
		for i := range 80 {
			time.Sleep(time.Minute)
			h.produce("t", fmt.Sprintf("c%d", i))
		}
		synctest.Wait()
		if len(h.letters) != 1 || h.letters[0].Reason != "attempts_exhausted" || h.letters[0].Class != "R" || h.letters[0].Status != 503 {
			t.Fatalf("letters %+v, attempts %v", h.letters, hook.attempts())
		}
		if h.letters[0].Attempts != 4 || len(hook.delivered()) != 83 {
			t.Errorf("buried after %d attempts; %d others delivered", h.letters[0].Attempts, len(hook.delivered()))
		}
	})
}

func TestThrottlingPausesTheWholeSubscriptionUntilRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		hook := &endpoint{}
		hook.answer = func(webhook.Delivery) (time.Duration, webhook.Outcome) {
			if first {
				first = false
				o := status(429)
				o.RetryAfter = webhook.RetryAfter{Present: true, Wait: 90 * time.Second}
				return 0, o
			}
			return 0, status(200)
		}
		h := newHouse(t)
		h.topic("t", 2)
		h.subscribe("s", nil, "t")
		r := h.replica(hook)
		defer r.close()
		r.seats.seat("t").begin(1, 0, 1)
		h.produce("t", "a1")
		synctest.Wait()
		h.source.Produce(part("t", 1), sluice.NewRecord{Key: []byte("b"), Value: []byte("b1")})
		time.Sleep(80 * time.Second)
		synctest.Wait()
		if got := hook.attempts(); len(got) != 1 {
			t.Fatalf("attempts %v: another lane did not wait", got)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if len(hook.delivered()) != 2 {
			t.Errorf("delivered %v", hook.delivered())
		}
	})
}

func TestAClientErrorIsBuriedAfterFourAttemptsAndItsKeyGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(422, 1000, "a1")}
		h, r := one(t, hook, func(s *subscriptions.Subscription) {
			s.Retry.Schedule = append(s.Retry.Schedule, subscriptions.Duration(time.Hour), subscriptions.Duration(time.Hour))
		})
		defer r.close()
		h.produce("t", "a1", "a2")
		time.Sleep(time.Hour)
		hook.want(t, "a2")
		l := h.letters[0]
		if len(h.letters) != 1 || l.Reason != "client_error" || l.Attempts != 4 || l.Record.Offset != 0 || l.FirstAttempt.IsZero() || l.LastAttempt.IsZero() {
			t.Errorf("letters %+v", h.letters)
		}
		if want := webhook.EventID(h.ids["t"], 0, 0); l.WebhookID != want {
			t.Errorf("webhook id %s, want %s", l.WebhookID, want)
		}
	})
}

func TestADeadLetterThatCannotBeWrittenBlocksTheLaneAndDropsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{}
		hook.answer = func(d webhook.Delivery) (time.Duration, webhook.Outcome) {
			if string(d.Record.Value) == "a1" {
				return 0, ours(webhook.Encode)
			}
			return 0, status(200)
		}
		h, r := one(t, hook, nil)
		defer r.close()
		h.deaf = &sluice.Error{Kind: sluice.Unavailable, Msg: "no"}
		h.produce("t", "a1")
		time.Sleep(time.Minute)
		h.produce("t", "b1")
		time.Sleep(10 * time.Minute)
		hook.want(t)
		if c := h.committed("s", part("t", 0)); c.Offset != 0 {
			t.Fatalf("committed %d past a record that is nowhere", c.Offset)
		}
		h.mu.Lock()
		h.deaf = nil
		h.mu.Unlock()
		time.Sleep(2 * time.Minute)
		hook.want(t, "b1")
		if len(h.letters) != 1 || h.letters[0].Reason != "encode" {
			t.Errorf("letters %+v", h.letters)
		}
	})
}

// Park one record, deliver 200 above it, crash without a final commit: the 200 are not sent again beyond one commit
// interval, and the parked record's attempt number goes on.
func TestACrashRepeatsNoMoreThanOneCommitIntervalAndForgetsNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(500, 2, "x1")}
		h, r := one(t, hook, nil)
		h.produce("t", "x1")
		for i := range 200 {
			h.produce("t", fmt.Sprintf("%c%d", 'a'+i%20, i))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(10 * time.Second) // the second attempt of x1 fails too; the next is due in five minutes
		synctest.Wait()
		before := len(hook.attempts())
		for i := range 10 {
			h.produce("t", fmt.Sprintf("y%d", i))
		}
		synctest.Wait() // delivered, and not committed yet
		r.crash()

		again := h.replica(hook)
		defer again.close()
		again.seats.seat("t").begin(1, 0)
		time.Sleep(16 * time.Second) // the unclean predecessor may have a flight for as long as the endpoint's timeout
		synctest.Wait()
		sent := hook.attempts()[before+10:]
		if len(sent) > 10 {
			t.Errorf("%d sent again: %v", len(sent), sent)
		}
		for _, a := range sent {
			if !strings.HasPrefix(a, "y") {
				t.Errorf("%s was committed and is sent again", a)
			}
		}
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		all := hook.attempts()
		if last := all[len(all)-1]; last != "x1#3" {
			t.Errorf("the parked record's last attempt is %s, want its third", last)
		}
		if c := h.committed("s", part("t", 0)); c.Offset != 211 {
			t.Errorf("committed %d, want 211", c.Offset)
		}
	})
}

func TestATakeoverWaitsForAPredecessorThatWasCutOffAndForNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{}
		h, r := one(t, hook, nil)
		h.produce("t", "a1")
		time.Sleep(2 * time.Second)
		hook.want(t, "a1")
		mark, _, _ := progress.Decode(1, h.committed("s", part("t", 0)).Metadata)
		if mark.Clean || mark.Term != 1 || mark.Tag != progress.TopicTag(h.ids["t"]) {
			t.Errorf("mark of a working lane: %+v", mark)
		}
		r.close()
		mark, _, _ = progress.Decode(1, h.committed("s", part("t", 0)).Metadata)
		if !mark.Clean {
			t.Errorf("mark of an ordered hand-over: %+v", mark)
		}

		second := h.replica(hook)
		second.seats.seat("t").begin(1, 0)
		h.produce("t", "a2")
		hook.want(t, "a1", "a2") // at once
		time.Sleep(2 * time.Second)
		synctest.Wait()
		second.crash()

		third := h.replica(hook)
		defer third.close()
		third.seats.seat("t").begin(1, 0)
		h.produce("t", "a3")
		time.Sleep(14 * time.Second)
		hook.want(t, "a1", "a2")
		time.Sleep(2 * time.Second)
		hook.want(t, "a1", "a2", "a3")
		mark, _, _ = progress.Decode(3, h.committed("s", part("t", 0)).Metadata)
		if mark.Term != 3 {
			t.Errorf("term %d after two takeovers", mark.Term)
		}
	})
}

func TestAPartitionThatComesBackKeepsItsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(webhook.Delivery) (time.Duration, webhook.Outcome) { return 3 * time.Second, status(200) }}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1", "b1")
		synctest.Wait()
		seat := r.seats.seat("t")
		seat.finish()
		if seat.released > 4*time.Second || seat.released < landWithin {
			t.Errorf("the release took %v", seat.released)
		}
		seat.begin(2, 0)
		h.produce("t", "a2")
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if got := sortedStrings(hook.attempts()); !slices.Equal(got, []string{"a1#1", "a2#1", "b1#1"}) {
			t.Errorf("attempts %v: flights were cancelled or repeated", got)
		}
		if c := h.committed("s", part("t", 0)); c.Offset != 3 {
			t.Errorf("committed %d", c.Offset)
		}
		mark, _, _ := progress.Decode(3, h.committed("s", part("t", 0)).Metadata)
		if mark.Clean || mark.Term != 1 {
			t.Errorf("mark %+v: want the same term, and not clean while the lane works", mark)
		}
	})
}

func TestAPartitionThatMayHaveBeenAnothersIsTakenOverAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(webhook.Delivery) (time.Duration, webhook.Outcome) { return 3 * time.Second, status(200) }}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1")
		synctest.Wait()
		seat := r.seats.seat("t")
		seat.finish()
		seat.begin(3, 0) // one generation was missed
		synctest.Wait()
		if len(hook.delivered()) != 0 {
			t.Errorf("delivered %v by a flight that should have been cancelled", hook.delivered())
		}
		time.Sleep(30 * time.Second)
		hook.want(t, "a1")
		if got := hook.attempts(); !slices.Equal(got, []string{"a1#1", "a1#1"}) {
			t.Errorf("attempts %v", got)
		}
	})
}

func TestNothingIsSentOrCommittedAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{}
		h, r := one(t, hook, nil)
		defer r.close()
		time.Sleep(2 * time.Second)
		seat := r.seats.seat("t")
		seat.mu.Lock()
		seat.valid = false
		seat.mu.Unlock()
		before := h.committed("s", part("t", 0))
		h.produce("t", "a1")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		seat.finish()
		if got := hook.attempts(); len(got) != 0 {
			t.Errorf("sent %v", got)
		}
		if after := h.committed("s", part("t", 0)); after != before {
			t.Errorf("committed %+v after the lease", after)
		}
	})
}

func TestAnOrderedStopRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(webhook.Delivery) (time.Duration, webhook.Outcome) { return 12 * time.Second, status(200) }}
		h, r := one(t, hook, func(s *subscriptions.Subscription) { s.Delivery.MaxInFlight = 4 })
		for i := range 50 {
			h.produce("t", fmt.Sprintf("%c%d", 'a'+i%25, i))
		}
		synctest.Wait()
		began := time.Now()
		r.close()
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if got := len(hook.attempts()); got != 4 {
			t.Errorf("%d attempts: the lane went on sending while it stopped", got)
		}
		if c := h.committed("s", part("t", 0)); c.Offset != 4 {
			t.Errorf("committed %d", c.Offset)
		}
	})
}

func TestRetentionThatPassesAPositionIsCountedAndStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(500, 1, "a0")}
		h := newHouse(t)
		h.topic("t", 1)
		h.subscribe("s", nil, "t")
		for i := range 10 {
			h.produce("t", fmt.Sprintf("a%d", i))
		}
		h.source.DeleteBefore(part("t", 0), 4)
		r := h.replica(hook)
		defer r.close()
		r.seats.seat("t").begin(1, 0)
		hook.want(t, "a4", "a5", "a6", "a7", "a8", "a9")
		if got := counter(t, r.metrics.lost.WithLabelValues("s", lostRetention)); got != 4 {
			t.Errorf("%v records counted as lost, want 4", got)
		}
	})
}

func TestAParkedRecordThatRetentionTakesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: refuse(500, 1, "a0")}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a0")
		h.produce("t", "a1")
		for range 40 { // more than the log keeps in memory
			h.produce("t", "b"+strings.Repeat("x", 64<<10))
		}
		synctest.Wait()
		if len(hook.delivered()) != 40 {
			t.Fatalf("delivered %d", len(hook.delivered()))
		}
		h.source.DeleteBefore(part("t", 0), 2)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := counter(t, r.metrics.lost.WithLabelValues("s", lostRetention)); got != 2 {
			t.Errorf("%v records counted as lost, want 2", got)
		}
		h.produce("t", "a2")
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := h.committed("s", part("t", 0)); c.Offset != 43 {
			t.Errorf("committed %d", c.Offset)
		}
	})
}

func TestADeletedSubscriptionStopsAtOnceAndTakesItsGroupWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1")
		hook.want(t, "a1")
		gone := *h.subs["s"]
		gone.State, gone.Revision = subscriptions.Deleting, 2
		h.put(&gone)
		synctest.Wait()
		h.produce("t", "a2")
		time.Sleep(2 * time.Minute)
		hook.want(t, "a1")
		if len(h.subs) != 0 || len(h.deleted) != 2 || h.commits["sluice.sub.s"] != nil {
			t.Errorf("left: %d definitions; groups deleted %v", len(h.subs), h.deleted)
		}
		if r.shareOf("s") != nil {
			t.Error("its share is still there")
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.owners) != 0 {
			t.Error("the topic's group was not left")
		}
	})
}

func TestASubscriptionThatComesLaterStartsWhereItWasCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1", "a2")
		hook.want(t, "a1", "a2")
		h.subscribe("later", nil, "t")
		time.Sleep(time.Second)
		hook.want(t, "a1", "a2", "a1", "a2")
		h.topic("u", 1)
		h.subscribe("other", nil, "u")
		time.Sleep(3 * time.Second)
		if r.seats.seat("u") == nil {
			t.Fatal("the group of the new topic was not joined")
		}
	})
}

func TestAHungEndpointDelaysNoOtherSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(d webhook.Delivery) (time.Duration, webhook.Outcome) {
			if d.Subscription.ID == "hung" {
				return time.Hour, status(200)
			}
			return 0, status(200)
		}}
		h := newHouse(t)
		h.topic("t", 1)
		h.subscribe("hung", func(s *subscriptions.Subscription) { s.Delivery.MaxInFlight = 1024 }, "t")
		h.subscribe("well", nil, "t")
		r := h.replica(hook)
		defer r.close()
		r.seats.seat("t").begin(1, 0)
		for i := range 300 {
			h.produce("t", fmt.Sprintf("%c%d", 'a'+i%26, i))
		}
		synctest.Wait()
		if len(hook.delivered()) != 300 {
			t.Errorf("%d of 300 delivered beside a hung endpoint", len(hook.delivered()))
		}
		r.ground()
	})
}

func TestARecordThatPanicsIsBuriedAtTheThirdTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(d webhook.Delivery) (time.Duration, webhook.Outcome) {
			if string(d.Record.Value) == "a1" {
				return 0, ours(webhook.Panic)
			}
			return 0, status(200)
		}}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1", "a2")
		time.Sleep(time.Minute)
		hook.want(t, "a2")
		if len(h.letters) != 1 || h.letters[0].Reason != "crash_suspect" {
			t.Errorf("letters %+v", h.letters)
		}
	})
}

func TestAForeignMemberInTheGroupStopsSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{}
		h, r := one(t, hook, nil)
		defer r.close()
		h.produce("t", "a1")
		hook.want(t, "a1")
		h.mu.Lock()
		h.refuse = &sluice.Error{Kind: sluice.StaleSession}
		h.mu.Unlock()
		time.Sleep(3 * time.Second)
		h.produce("t", "a2")
		time.Sleep(30 * time.Minute)
		hook.want(t, "a1")
		h.mu.Lock()
		h.refuse = nil
		h.mu.Unlock()
		time.Sleep(3 * time.Minute)
		hook.want(t, "a1", "a2")
	})
}

func TestFiftySubscriptionsReadAPartitionOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(webhook.Delivery) (time.Duration, webhook.Outcome) { return 20 * time.Millisecond, status(200) }}
		h := newHouse(t)
		h.topic("t", 1)
		for i := range 50 {
			h.subscribe(fmt.Sprint("s", i), nil, "t")
		}
		r := h.replica(hook)
		defer r.close()
		r.seats.seat("t").begin(1, 0)
		bytes := 0
		for i := range 500 {
			v := fmt.Sprintf("%c%s", 'a'+i%26, strings.Repeat("x", 100))
			bytes += 1 + len(v)
			h.produce("t", v)
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(hook.delivered()); n != 50*500 {
			t.Fatalf("%d delivered", n)
		}
		if _, _, read := h.source.Counts(); float64(read) > 1.05*float64(bytes) {
			t.Errorf("%d bytes read of a partition of %d", read, bytes)
		}
	})
}

func TestMetricsHaveBoundedLabelsAndDieWithTheirSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		hook := &endpoint{answer: refuse(500, 1, "a1")}
		h := newHouse(t)
		h.registry = reg
		h.topic("t", 1)
		h.subscribe("s", nil, "t")
		r := h.replica(hook)
		defer r.close()
		r.seats.seat("t").begin(1, 0)
		h.produce("t", "a1", "b1")
		time.Sleep(time.Minute)
		synctest.Wait()
		want := map[string]bool{"sluice_deliveries_total": true, "sluice_delivery_seconds": true, "sluice_e2e_lag_seconds": true,
			"sluice_inflight": true, "sluice_holes": true, "sluice_owned_partitions": true, "sluice_rebalances_total": true,
			"sluice_commit_seconds": true, "sluice_metadata_bytes": true, "sluice_sender_slots_used": true}
		of := func() (series int) {
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				delete(want, f.GetName())
				for _, m := range f.GetMetric() {
					for _, l := range m.GetLabel() {
						if l.GetName() == "subscription" {
							series++
						}
					}
				}
			}
			return series
		}
		if n := of(); n == 0 || len(want) > 0 {
			t.Errorf("%d series of the subscription; missing %v", n, want)
		}
		gone := *h.subs["s"]
		gone.State, gone.Revision = subscriptions.Deleting, 2
		h.put(&gone)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := of(); n != 0 {
			t.Errorf("%d series outlive their subscription", n)
		}
	})
}

func TestMaxInFlightIsSharedByTheOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &endpoint{answer: func(webhook.Delivery) (time.Duration, webhook.Outcome) { return time.Second, status(200) }}
		h := newHouse(t)
		h.topic("t", 4)
		h.subscribe("s", func(s *subscriptions.Subscription) { s.Delivery.MaxInFlight = 20 }, "t")
		r := h.replica(hook)
		defer r.close()
		r.seats.seat("t").begin(1, 1) // one of four partitions
		for i := range 100 {
			h.source.Produce(part("t", 1), sluice.NewRecord{Key: fmt.Appendf(nil, "k%d", i), Value: []byte("v")})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if hook.most != 5 {
			t.Errorf("%d in flight, want a quarter of 20", hook.most)
		}
	})
}

func TestTheCleanFlagOfAHandOverDoesNotOutliveTheLanesSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, r := one(t, &endpoint{}, nil)
		defer r.close()
		clean := func() bool {
			mark, _, err := progress.Decode(0, h.committed("s", part("t", 0)).Metadata)
			if err != nil {
				t.Fatal(err)
			}
			return mark.Clean
		}
		seat := r.seats.seat("t")
		seat.finish()
		if !clean() {
			t.Error("a lane at rest was not handed over clean")
		}
		seat.begin(2, 0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if clean() {
			t.Error("the lane works again, and its commit still says that nothing is in flight")
		}
	})
}

// An overdue retry is spread over half a minute once, however often the partition changes hands meanwhile.
func TestTakeoversInARowDoNotPutARetryOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const records = 20
		hook := &endpoint{answer: func(d webhook.Delivery) (time.Duration, webhook.Outcome) {
			if d.Attempt == 1 {
				return 0, status(500)
			}
			return 0, status(200)
		}}
		h, r := one(t, hook, func(s *subscriptions.Subscription) { s.Delivery.Ordering = subscriptions.OrderNone })
		defer func() { r.close() }()
		for n := range records {
			h.produce("t", fmt.Sprint(string(rune('a'+n)), 1))
		}
		time.Sleep(2 * time.Second) // all have failed, and that is committed
		r.crash()
		time.Sleep(10 * time.Second) // they are overdue when the next owner comes
		r = h.replica(hook)
		seat, took := r.seats.seat("t"), time.Now()
		for gen := int32(5); time.Since(took) < spreadOver; gen += 2 { // neither the same nor the next: every lane begins anew
			seat.begin(gen, 0)
			time.Sleep(2 * time.Second)
			seat.finish()
		}
		if n := len(hook.attempts()); n != 2*records {
			t.Errorf("half a minute after the first takeover there were %d attempts of %d records", n, records)
		}
		if passed := len(hook.delivered()); passed != records {
			t.Errorf("%d of %d were delivered", passed, records)
		}
	})
}
