package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// The rows of webhooks.md 7.5 that only another replica can write, by commits that are written by hand under a live
// owner: a seek, what was said before it, a zombie, a rival of the same term, and a successor.
func TestCommitsByHandFindTheirRow(t *testing.T) {
	t.Parallel()
	f := lookedAt(t, backend.Kafka(t))
	s, produce := f.subscribe(nil), f.producer()
	produce(0, 10, 5)
	a := f.launch("a")
	sent := 10
	// row writes a commit and waits until the lane has seen it as what it is, stands at the end again and said so.
	row := func(want finding, offset int64, metadata string, again int) progress.Mark {
		t.Helper()
		outcomes := a.metrics.readBacks.WithLabelValues(string(want))
		before := counter(t, outcomes)
		f.write(s, offset, metadata)
		sent += again
		await(t, 20*time.Second, fmt.Sprintf("%s, %d once more", want, again), func() bool {
			return counter(t, outcomes) > before && f.sent() == sent && f.committed(s).Metadata != metadata && f.settled(s)
		})
		m, _, err := progress.Decode(10, f.committed(s).Metadata)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		return m
	}
	at := func(m progress.Mark, offset int64, change func(*progress.Mark)) (int64, string) {
		change(&m)
		return offset, m.Encode(progress.NewLedger(offset), progress.MaxMetadata)
	}
	await(t, 30*time.Second, "the deliveries", func() bool { return f.sent() == sent && f.settled(s) })
	before := f.committed(s)
	first, _, err := progress.Decode(10, before.Metadata)
	if err != nil {
		t.Fatal(err)
	}

	offset, text := at(first, 4, func(m *progress.Mark) { m.SeekEpoch, m.Writer = 5, 77 })
	now := row(sought, offset, text, 6)
	if now.SeekEpoch != 5 || now.Term != first.Term+1 || now.Writer == 77 {
		t.Errorf("after a seek: %+v, before it %+v", now, first)
	}
	if m := row(stale, before.Offset, before.Metadata, 0); m.SeekEpoch != 5 {
		t.Errorf("after what was said before the seek: %+v", m)
	}
	offset, text = at(now, 2, func(m *progress.Mark) { m.Term, m.Writer = m.Term-1, 77 })
	if m := row(stale, offset, text, 0); m.Term != now.Term || m.Writer != now.Writer {
		t.Errorf("after a zombie: %+v, before it %+v", m, now)
	}
	offset, text = at(now, 2, func(m *progress.Mark) { m.Writer = 77 })
	if m := row(rival, offset, text, 0); m.Term != now.Term+1 || m.Writer == 77 {
		t.Errorf("after a rival: %+v, before it %+v", m, now)
	}
	// Its session lives on, so that there is no successor in truth: it takes over from where that one is said to have been.
	offset, text = at(now, 7, func(m *progress.Mark) { m.Term, m.Writer = m.Term+8, 77 })
	if m := row(superseded, offset, text, 3); m.Term != now.Term+9 || m.Writer == 77 {
		t.Errorf("after a successor: %+v, before it %+v", m, now)
	}
}

// Whatever is written as metadata, a replica starts, and every lane begins at its offset and comes to the end.
func TestNoMetadataKeepsALaneFromItsStart(t *testing.T) {
	t.Parallel()
	const records, lanes = 20, 40
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	f := lookedAt(t, backend.Kafka(t))
	f.producer()(0, records, 5)
	topic, err := f.control.admin.Topic(f.within(10*time.Second), f.topic)
	if err != nil {
		t.Fatal(err)
	}
	m, l := full(topic.ID)
	whole := m.Encode(l, progress.MaxMetadata)
	var subs []*subscriptions.Subscription
	want := map[string]int{}
	for n := range lanes {
		s := f.subscribe(nil)
		turned := []byte(whole)
		turned[rnd.IntN(len(turned))] ^= 1 << rnd.IntN(7) // stays ASCII: Kafka's strings are UTF-8
		text := []string{
			string(turned), whole[:rnd.IntN(len(whole))], whole[:1+rnd.IntN(20)], strings.Repeat(string(rune('a'+n%26)), 1+rnd.IntN(4096)),
			"1:", fmt.Sprintf("consumer-%d, \x00é", n),
		}[n%6]
		offset := rnd.Int64N(records)
		f.write(s, offset, text)
		subs, want[s.ID] = append(subs, s), records-int(offset)
	}
	f.launch("a")
	await(t, 60*time.Second, "every lane is at the end", func() bool {
		for id, n := range want {
			if f.count(id) < n {
				return false
			}
		}
		return f.settled(subs...)
	})
	for id, n := range want {
		if got := f.count(id); got != n {
			t.Errorf("%s: %d records, want %d", id, got, n)
		}
	}
}

// A record that waits for its next attempt is taken by compaction meanwhile: it is done, and counted.
func TestAParkedRecordThatCompactionTakesIsPassed(t *testing.T) {
	t.Parallel() // it waits for the cleaner
	f := lookedAt(t, backend.Kafka(t))
	f.topic = f.kafka.Topic(t, "compacted", 1, "cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.001", "min.compaction.lag.ms=0", "max.compaction.lag.ms=100")
	f.refuse = func(d webhook.Delivery) int {
		if d.Record.Offset == 1 {
			return 500
		}
		return 200
	}
	s := f.subscribe(func(s *subscriptions.Subscription) {
		s.Retry.Schedule = []subscriptions.Duration{0, subscriptions.Duration(time.Hour)}
	})
	produce := f.producer()
	produce(0, 5, 5)
	a := f.launch("a")
	await(t, 30*time.Second, "4 of 5", func() bool {
		_, l, err := progress.Decode(f.committed(s).Offset, f.committed(s).Metadata)
		return f.sent() == 4 && err == nil && l.Next() == 5 && l.Len() == 1
	})
	a.leave()
	produce(6, 4, 5)                     // all keys but the first: the log begins where it did
	<-time.After(200 * time.Millisecond) // past segment.ms by the broker's clock; the next record rolls the segment
	produce(10, 1, 11)
	if !f.kafka.Real() {
		f.kafka.Fake().Compact()
	}
	look := kafka.NewFetcher(f.control.clients)
	await(t, 90*time.Second, "the cleaner takes the record", func() bool {
		c, err := look.Fetch(f.within(10*time.Second), part(f.topic, 0), 1, 64<<10)
		return err == nil && (len(c.Records) == 0 || c.Records[0].Offset > 1)
	})
	b := f.launch("b")
	await(t, 30*time.Second, "what is left", func() bool { return f.sent() == 9 && f.settled(s) })
	if got := counter(t, b.metrics.compacted.WithLabelValues(s.ID)); got != 1 {
		t.Errorf("%v counted as taken by compaction", got)
	}
}
