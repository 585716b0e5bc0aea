package stream

import (
	"context"
	"slices"

	"github.com/sluicegate/sluice"
)

// checkTopics sees to what has become of the topics under the stream: partitions were added, a topic was created again,
// or it is gone.
func (st *Stream) checkTopics() (news bool, err error) {
	for i, k := range st.known {
		seen := k.view.Load()
		if st.views[i] == nil || *seen == *st.views[i] {
			continue
		}
		if err := st.accept(i, seen); err != nil {
			return false, err
		}
		news = true
	}
	if news {
		st.follow()
		st.attach()
	}
	return news, nil
}

func (st *Stream) accept(topic int, seen *view) error {
	old := st.views[topic]
	switch {
	case seen.gone:
		return st.dropTopic(topic)
	case seen.log != old.log:
		return st.changeLog(topic, seen)
	}
	st.views[topic] = seen
	for _, p := range st.places {
		if p.topic == topic {
			p.end = p.feed.head.Load() // where a feed of another variant may begin
		}
	}
	st.addPartitions(topic, seen)
	st.buildCursor()
	return nil
}

// addPartitions follows new partitions from their beginning, unless the request chose its own.
func (st *Stream) addPartitions(topic int, seen *view) {
	name := st.req.Topics[topic]
	if _, chosen := st.req.Subset[name]; chosen {
		return
	}
	for n := range seen.count {
		if !slices.ContainsFunc(st.places, func(p *place) bool { return p.topic == topic && p.p.Number == n }) {
			st.places = append(st.places, &place{p: sluice.Partition{Topic: name, Number: n}, topic: topic})
		}
	}
}

// dropTopic ends a stream whose only topic is gone; one of several leaves with a gap.
func (st *Stream) dropTopic(topic int) error {
	if left := slices.IndexFunc(st.places, func(p *place) bool { return p.topic != topic }); left < 0 {
		return refuse(codeUnknownTopic, "Topic not found.")
	}
	b := st.out.scratch()
	for _, p := range st.places {
		if p.topic == topic {
			b = st.tell(b, p, &gap{p: p.p, from: p.slot.Next, to: p.slot.Next, lost: unknown, reason: deleted})
		}
	}
	if err := st.write(st.out.write(b)); err != nil {
		return err
	}
	st.views[topic] = nil
	st.places = slices.DeleteFunc(st.places, func(p *place) bool { return p.topic == topic })
	st.turn = 0
	st.buildCursor()
	return nil
}

// changeLog goes on in the topic that has taken the name: its offsets have nothing to do with the old ones.
func (st *Stream) changeLog(topic int, seen *view) error {
	ctx, cancel := context.WithTimeout(st.ctx, readPatience)
	defer cancel()
	st.places = slices.DeleteFunc(st.places, func(p *place) bool { return p.topic == topic && p.p.Number >= seen.count })
	if len(st.places) == 0 {
		return refuse(codeUnknownPart, "Partition not found.")
	}
	st.turn = 0
	gaps := map[*place]*gap{}
	for _, p := range st.places {
		if p.topic != topic {
			continue
		}
		r, err := st.streams.topics.Range(ctx, p.p)
		if err != nil {
			return &Refusal{Code: codeNoKafka, Msg: "Kafka is not available.", Transient: true, Err: err}
		}
		g, err := st.gapAt(p, otherLog, r)
		if err != nil {
			return err
		}
		gaps[p], p.end, p.suspect = g, r.End, false
	}
	st.views[topic] = seen
	st.addPartitions(topic, seen)
	st.buildCursor()
	for p, g := range gaps {
		p.slot.Next = g.to // the first id under the new tag names new offsets only
	}
	b := st.out.scratch()
	for _, p := range st.places {
		if g := gaps[p]; g != nil {
			b = st.tell(b, p, g)
		}
	}
	return st.write(st.out.write(b))
}
