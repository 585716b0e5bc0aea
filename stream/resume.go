package stream

import (
	"errors"
	"slices"
	"time"

	"github.com/sluicegate/sluice"
)

// resume is where a request says that it goes on: by a cursor, or by positions that people wrote, or not at all.
type resume struct {
	req       Request
	cursor    *sluice.Cursor
	positions []sluice.Position
}

// beginning is where one partition begins. how is fromOffsets for a concrete offset.
type beginning struct {
	how      start
	offset   int64
	time     time.Time
	otherLog bool
}

func parseResume(req Request) (*resume, error) {
	r := &resume{req: req}
	if req.LastEventID == "" {
		return r, nil
	}
	positions, written, err := sluice.ParsePositions(req.LastEventID)
	if written {
		r.positions = positions
	} else {
		c, parseErr := sluice.ParseCursor(req.LastEventID)
		r.cursor, err = &c, parseErr
	}
	switch {
	case errors.Is(err, sluice.ErrNewerCursor):
		return nil, refuseForNow(codeNewerID, msgNewerID)
	case err != nil:
		return nil, refuse(codeMalformedID, "Malformed Last-Event-ID.")
	case r.cursor != nil && r.cursor.Ended:
		return nil, &Refusal{} // 204 stops an EventSource for good
	case r.cursor != nil && (r.cursor.Bounded || r.cursor.Limited):
		return nil, refuseForNow(codeNewerID, msgNewerID) // this release would read on past its end
	}
	return r, nil
}

const msgNewerID = "Last-Event-ID was issued by a newer release."

// concerns refuses the id of other topics: that of A presented to B must not silently start B at the end.
func (r *resume) concerns(st *Stream) error {
	for _, p := range r.positions {
		i := st.topicIndex(p.Topic)
		if i < 0 {
			return refuse(codeOtherTopics, msgOtherTopics)
		}
		if p.Partition >= st.views[i].count {
			return refuse(codeUnknownPart, "Partition not found.")
		}
	}
	if r.cursor == nil {
		return nil
	}
	for _, t := range r.cursor.Topics {
		i := slices.IndexFunc(st.req.Topics, func(name string) bool { return sluice.NameTagOf(name) == t.Name })
		if i < 0 {
			return refuse(codeOtherTopics, msgOtherTopics)
		}
		if t.Log != st.views[i].log && !r.cursor.Time.IsZero() {
			return refuseForNow(codeNewerID, msgNewerID) // going on by time on another log comes with a later release
		}
	}
	return nil
}

const msgOtherTopics = "Last-Event-ID belongs to other topics."

// position is where a partition begins, by what the request and its id say.
func (r *resume) position(st *Stream, p *place) beginning {
	for _, at := range r.positions {
		if at.Topic == p.p.Topic && at.Partition == p.p.Number {
			return written(at)
		}
	}
	if r.cursor != nil {
		name := sluice.NameTagOf(p.p.Topic)
		for _, t := range r.cursor.Topics {
			if t.Name == name {
				return r.inTopic(st, p, t)
			}
		}
	}
	return r.start(p)
}

func written(at sluice.Position) beginning {
	switch {
	case !at.Time.IsZero():
		return beginning{how: fromTimestamp, time: at.Time}
	case at.Offset == sluice.NoOffset:
		return beginning{how: fromLatest}
	}
	return beginning{how: fromOffsets, offset: at.Offset}
}

// inTopic is a partition of a topic that the cursor has. One it lacks was not followed if it existed then; else it is
// new, and nothing of it was seen.
func (r *resume) inTopic(st *Stream, p *place, t sluice.TopicCursor) beginning {
	for _, listed := range t.Partitions {
		if listed.Number == p.p.Number {
			return beginning{how: fromOffsets, offset: listed.Next, otherLog: t.Log != st.views[p.topic].log}
		}
	}
	if p.p.Number < t.Count {
		return r.start(p)
	}
	return beginning{how: fromOffsets}
}

// start is where a partition begins that no id covers.
func (r *resume) start(p *place) beginning {
	switch r.req.From {
	case fromTimestamp:
		return beginning{how: fromTimestamp, time: r.req.Since}
	case fromOffsets:
		for _, at := range r.req.Offsets {
			if at.Topic == p.p.Topic && at.Partition == p.p.Number {
				return written(at)
			}
		}
		return beginning{how: fromLatest}
	}
	return beginning{how: r.req.From}
}
