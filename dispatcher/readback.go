package dispatcher

import (
	"hash/maphash"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
)

// finding is what a look at a lane's committed offset says, and the outcome label of sluice_readback_total.
type finding string

const (
	equal      finding = "equal"
	recreated  finding = "recreated"  // the topic is another of the same name
	vanished   finding = "absent"     // the offset is gone, the topic is the same
	external   finding = "external"   // a tool wrote it: kafka-consumer-groups --reset-offsets leaves no metadata
	sought     finding = "seek"       // our own seek, on any replica
	stale      finding = "stale"      // a zombie wrote late, or an owner that had not heard of a seek
	superseded finding = "superseded" // we are the zombie
	rival      finding = "rival"      // two owners of one term
	late       finding = "late"       // ours, but older than what was acknowledged since
	trespassed finding = "hijacked"   // written by a consumer that is, or was, a member of the group
	remade     finding = "remade"     // the group had a member, and was made anew
)

// remedy is what is done about a finding.
type remedy byte

const (
	leave   remedy = iota
	repeat         // commit ours again
	adopt          // go to the offset, drop the holes
	renew          // look for the position as a new owner does
	standBy        // stop the lane, commit nothing
	outbid         // take the next term and commit
)

// String is for the log.
func (r remedy) String() string {
	switch r {
	case repeat:
		return "committed again"
	case adopt:
		return "adopted as a seek"
	case renew:
		return "begun anew"
	case standBy:
		return "lane stops"
	case outbid:
		return "committed with the next term"
	}
	return "left"
}

// claimed is what a lane last said of itself.
type claimed struct {
	Said []saying // what Kafka acknowledged last, or what the lane began with; and all that was said since
	Mark progress.Mark
}

// saying stands for one commit: its offset, and a hash of the metadata, which are long and many.
type saying struct {
	version uint64 // of the ledger
	offset  int64
	sum     uint64
}

var sayingSeed = maphash.MakeSeed()

func sayingOf(version uint64, c sluice.Commit) saying {
	return saying{version, c.Offset, maphash.String(sayingSeed, c.Metadata)}
}

// judge is the table of the read-back (webhooks.md 7.5): the first row that fits. The topic comes before all else: an
// offset that is equal is nothing worth on another topic.
func judge(found sluice.Commit, topic sluice.TopicID, ours claimed) (finding, remedy) {
	if otherTopic(ours.Mark.Tag, topic) {
		return recreated, renew
	}
	it := sayingOf(0, found)
	for _, s := range ours.Said {
		if s.offset == it.offset && s.sum == it.sum {
			return equal, leave
		}
	}
	if found.Offset == sluice.NoOffset {
		return vanished, repeat
	}
	mark, _, err := progress.Decode(found.Offset, found.Metadata)
	switch {
	case err != nil:
		return external, adopt
	case mark.SeekEpoch > ours.Mark.SeekEpoch:
		return sought, adopt
	case mark.SeekEpoch < ours.Mark.SeekEpoch, mark.Term < ours.Mark.Term:
		return stale, repeat
	case mark.Term > ours.Mark.Term:
		return superseded, standBy
	case mark.Writer != ours.Mark.Writer:
		return rival, outbid
	}
	return late, repeat
}

// otherTopic is whether a tag was made of another topic than this one. Brokers that give no ids, now or when the tag was
// made, leave that unknown: then no.
func otherTopic(tag uint32, now sluice.TopicID) bool {
	return now != (sluice.TopicID{}) && tag != progress.TopicTag(now) && tag != progress.TopicTag(sluice.TopicID{})
}

// ownWork is whether a commit was written by a lane of ours, whichever.
func ownWork(c sluice.Commit) bool {
	_, _, err := progress.Decode(c.Offset, c.Metadata)
	return c.Offset != sluice.NoOffset && err == nil
}

// adopted is where a lane goes on that was moved from outside: f.Commit says where to. Its holes are forgotten; the
// epoch tells every late commit of before.
func adopted(f found, ours progress.Mark) inheritance {
	moved, _, err := progress.Decode(f.Commit.Offset, f.Commit.Metadata)
	it := f.Commit
	f.Commit.Metadata = ""
	in := inherit(f)
	in.Found = it
	in.Mark.SeekEpoch = ours.SeekEpoch + 1
	if err == nil {
		in.Mark.SeekEpoch = moved.SeekEpoch
	}
	in.Mark.Term = max(ours.Term, moved.Term) + 1
	return in
}
