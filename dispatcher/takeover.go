package dispatcher

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

// found is what a new owner finds of a lane.
type found struct {
	Commit   sluice.Commit // of the progress group
	Topic    sluice.TopicID
	Range    sluice.Range
	Resolved subscriptions.Resolved // where the lane began; the zero value if the topic is not in it
	Number   int32                  // of the partition
	Finder   process
	Flying   bool    // the finder itself has something in flight for the partition
	Company  company // of the finder's generation

	Trespassed bool // a consumer that is, or was, a member of the group wrote the commit
}

// process tells the commits of one run of this program from all others, its own earlier runs included. Zero is nobody.
type process uint64

// writer is what stands in the commits of a takeover: another word for every term, which only this process can tell.
func (p process) writer(term uint64) uint32 {
	if p == 0 {
		return rand.Uint32()
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(p))
	binary.BigEndian.PutUint64(b[8:], term)
	return crc32.ChecksumIEEE(b[:])
}

// inheritance is where the new owner goes on.
type inheritance struct {
	Mark   progress.Mark // for the commits to come: the next term, a writer of its own
	Ledger *progress.Ledger
	Abrupt bool          // the predecessor may still have something in flight
	Silent bool          // while it waits for that, the lane commits nothing: the predecessor's word stands, for a next owner
	Heir   progress.Mark // the predecessor's word, as far as it could be read
	Moved  bool          // by another tool since the subscription began
	Found  sluice.Commit
	loss
}

// loss is what a position that was lost costs.
type loss struct {
	Cause string // why the position is another than the committed one; "" if it is not
	Lost  int64  // offsets that were never done and cannot be read any more
	From  int64  // the committed one, sluice.NoOffset if there was none
}

// Causes of a lost position.
const (
	lostAbsent    = "absent"    // nothing is committed though the subscription has history
	lostRetention = "retention" // the log begins above the position
	lostTruncated = "truncated" // the log ends below it: an unclean election
	lostRecreated = "recreated" // another topic of the same name
	lostHijacked  = "hijacked"  // a consumer in the group wrote over it
)

// inherit decides where a lane goes on (webhooks.md 6.3 step 4 and 7.4). A position that was lost is never a reason to
// stand still, and never passes silently: Cause says what happened, Lost how much is missing.
func inherit(f found) inheritance {
	in := inheritance{Mark: progress.Mark{Term: 1, Suspect: sluice.NoOffset}, Found: f.Commit, loss: loss{From: f.Commit.Offset}}
	tag := progress.TopicTag(f.Topic)
	known := f.Topic != (sluice.TopicID{})
	switch {
	case f.Commit.Offset == sluice.NoOffset, f.Trespassed:
		// Kafka deletes offsets together with their topic, also when it is made again at once (measured).
		at, history := f.Resolved.Offsets[f.Number]
		switch {
		case known && f.Resolved.ID != (sluice.TopicID{}) && f.Resolved.ID != f.Topic:
			at, in.Cause = 0, lostRecreated
		case f.Trespassed:
			in.Cause, in.Abrupt = lostHijacked, true
		case history:
			in.Cause = lostAbsent
		}
		if history || in.Cause != "" {
			at = min(max(at, f.Range.Start), max(f.Range.End, f.Range.Start))
		}
		in.Ledger = progress.NewLedger(at) // of a partition that came later everything is wanted
	default:
		mark, ledger, err := progress.Decode(f.Commit.Offset, f.Commit.Metadata)
		in.Ledger = ledger
		in.Abrupt = err != nil && !errors.Is(err, progress.ErrForeign) // damaged: nobody knows
		in.Moved = f.moved()
		if err == nil {
			in.Mark.Term, in.Mark.SeekEpoch = mark.Term+1, mark.SeekEpoch
			switch {
			case mark.Clean:
			case f.Finder != 0 && mark.Writer == f.Finder.writer(mark.Term) && !f.Flying && !f.Company.restless[f.Number]:
				// Kafka was out of reach for longer than a session, and nobody has committed since we did: we are our own
				// predecessor, and what we had in flight was cancelled when the partition was let go.
				in.Mark.Unclean = mark.Unclean
			case f.Company.landed(f.Number, mark.Writer, mark.Term):
				in.Mark.Unclean = mark.Unclean // the same, of another replica that is back
			default:
				in.Abrupt, in.Mark.Unclean, in.Heir = true, mark.Unclean+1, mark
			}
			if otherTopic(mark.Tag, f.Topic) {
				in.Ledger, in.Cause = progress.NewLedger(f.Range.Start), lostRecreated
			}
		}
	}
	if l := in.Ledger; l.Next() > f.Range.End { // what was done above is other records now, or none
		in.Ledger, in.Cause = progress.NewLedger(min(l.Low(), f.Range.End)), lostTruncated
	}
	if in.Ledger.Low() < f.Range.Start {
		in.Lost, in.Cause = in.Ledger.Skip(f.Range.Start), lostRetention
	}
	in.Mark.Tag, in.Mark.Writer = tag, f.Finder.writer(in.Mark.Term)
	return in
}

// moved is whether somebody else than a lane wrote the commit since the subscription began.
func (f found) moved() bool {
	began, resolved := f.Resolved.Offsets[f.Number]
	return f.Commit.Offset != sluice.NoOffset && !ownWork(f.Commit) && !(resolved && began == f.Commit.Offset)
}

// beyond is whether the log ends below the position. A leader that was elected this moment may not know its end yet, so
// a caller looks twice before it believes that.
func (f found) beyond() bool {
	if f.Commit.Offset == sluice.NoOffset || f.Trespassed {
		return false
	}
	mark, l, err := progress.Decode(f.Commit.Offset, f.Commit.Metadata)
	if err == nil && otherTopic(mark.Tag, f.Topic) {
		return false
	}
	return l.Next() > f.Range.End
}
