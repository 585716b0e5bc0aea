package dispatcher

import (
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

func TestANewOwnerGoesOnWhereTheCommitSays(t *testing.T) {
	topic, other := sluice.TopicID{1}, sluice.TopicID{2}
	commit := func(change func(m *progress.Mark, l *progress.Ledger)) sluice.Commit {
		m := progress.Mark{Tag: progress.TopicTag(topic), Term: 7, Writer: 1, SeekEpoch: 3, Unclean: 1, Suspect: sluice.NoOffset, At: noon}
		l := progress.NewLedger(100)
		l.Offer(100) // a hole with two attempts, then 50 done
		l.Charge(100, 2, noon.Add(-time.Minute))
		l.Pass(151)
		change(&m, l)
		return sluice.Commit{Offset: l.Low(), Metadata: m.Encode(l, progress.MaxMetadata)}
	}
	plain := commit(func(*progress.Mark, *progress.Ledger) {})
	resolved := subscriptions.Resolved{ID: topic, Offsets: map[int32]int64{0: 40}}
	inside := sluice.Range{Start: 10, End: 1000}
	tests := []struct {
		name              string
		f                 found
		low, next         int64
		holes             int
		term, epoch       uint64
		unclean           uint64
		abrupt            bool
		lost              int64
		cause             string
		attemptsOfTheHole int
	}{
		{"as it was", found{Commit: plain, Topic: topic, Range: inside, Resolved: resolved},
			100, 151, 1, 8, 3, 2, true, 0, "", 2},
		{"after a clean hand-over", found{Commit: commit(func(m *progress.Mark, _ *progress.Ledger) { m.Clean = true }), Topic: topic, Range: inside},
			100, 151, 1, 8, 3, 0, false, 0, "", 2},
		{"the first owner of a new subscription", found{Commit: sluice.Commit{Offset: 40}, Topic: topic, Range: inside, Resolved: resolved},
			40, 40, 0, 1, 0, 0, false, 0, "", 0},
		{"reset with Kafka's own tools", found{Commit: sluice.Commit{Offset: 500}, Topic: topic, Range: inside, Resolved: resolved},
			500, 500, 0, 1, 0, 0, false, 0, "", 0},
		{"damaged metadata", found{Commit: sluice.Commit{Offset: 100, Metadata: plain.Metadata[:len(plain.Metadata)-1] + "-"}, Topic: topic, Range: inside},
			100, 100, 0, 1, 0, 0, true, 0, "", 0},
		{"retention passed the hole and half of what is done", found{Commit: plain, Topic: topic, Range: sluice.Range{Start: 120, End: 1000}},
			151, 151, 0, 8, 3, 2, true, 1, lostRetention, 0},
		{"retention passed everything known", found{Commit: plain, Topic: topic, Range: sluice.Range{Start: 200, End: 1000}},
			200, 200, 0, 8, 3, 2, true, 50, lostRetention, 0},
		{"the log ends below", found{Commit: plain, Topic: topic, Range: sluice.Range{Start: 0, End: 60}},
			60, 60, 0, 8, 3, 2, true, 0, lostTruncated, 0},
		{"the log ends within what is done", found{Commit: plain, Topic: topic, Range: sluice.Range{Start: 0, End: 120}},
			100, 100, 0, 8, 3, 2, true, 0, lostTruncated, 0},
		{"another topic of the same name", found{Commit: plain, Topic: other, Range: sluice.Range{Start: 0, End: 1000}},
			0, 0, 0, 8, 3, 2, true, 0, lostRecreated, 0},
		{"offsets went with the topic", found{Commit: sluice.Commit{Offset: sluice.NoOffset}, Topic: other, Range: sluice.Range{Start: 0, End: 9}, Resolved: resolved},
			0, 0, 0, 1, 0, 0, false, 0, lostRecreated, 0},
		{"offsets vanished", found{Commit: sluice.Commit{Offset: sluice.NoOffset}, Topic: topic, Range: inside, Resolved: resolved},
			40, 40, 0, 1, 0, 0, false, 0, lostAbsent, 0},
		{"a partition that came later", found{Commit: sluice.Commit{Offset: sluice.NoOffset}, Topic: topic, Range: sluice.Range{Start: 0, End: 9}, Resolved: resolved, Number: 5},
			0, 0, 0, 1, 0, 0, false, 0, "", 0},
		{"brokers without topic ids", found{Commit: plain, Range: inside},
			100, 151, 1, 8, 3, 2, true, 0, "", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := inherit(tt.f)
			l := in.Ledger
			if l.Low() != tt.low || l.Next() != tt.next || l.Len() != tt.holes {
				t.Errorf("goes on at %d, %d with %d holes; want %d, %d, %d", l.Low(), l.Next(), l.Len(), tt.low, tt.next, tt.holes)
			}
			if in.Mark.Term != tt.term || in.Mark.SeekEpoch != tt.epoch || in.Mark.Unclean != tt.unclean || in.Mark.Tag != progress.TopicTag(tt.f.Topic) || in.Mark.Clean {
				t.Errorf("mark %+v", in.Mark)
			}
			if in.Abrupt != tt.abrupt || in.Lost != tt.lost || in.Cause != tt.cause {
				t.Errorf("abrupt %v, lost %d by %q; want %v, %d by %q", in.Abrupt, in.Lost, in.Cause, tt.abrupt, tt.lost, tt.cause)
			}
			if h, _ := l.Hole(100); h.Attempts != tt.attemptsOfTheHole {
				t.Errorf("the hole has %d attempts, want %d", h.Attempts, tt.attemptsOfTheHole)
			}
		})
	}
}
