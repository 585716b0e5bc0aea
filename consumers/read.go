package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicegate/sluice"
)

// Want is what one read asks for.
type Want struct {
	Timeout  time.Duration // shortens the instance's own; 0: does not
	MaxBytes int           // of keys and values; 0: no limit but the server's
	// Decodes reports why a record cannot be shown in the instance's format; nil shows everything. An error of Kind
	// SchemaLookup or Overloaded says nothing about the record: the read fails with it and the record stays the next.
	Decodes func(*sluice.Record) error
}

// probePatience is how long a Kafka that is asked whether it is there has to say so: a busy one takes a second or two.
const probePatience = 3 * time.Second

// Read waits for records and returns as soon as there are some (rest-api.md 5.7): those at hand, or none at the
// timeout. It begins behind what was delivered before, and only when the answer before has been settled. When ctx ends
// because the client has gone, nothing is taken.
//
// Kinds: NotFound; IllegalState without a subscription; Rejected where auto.offset.reset is none; Unavailable if no
// broker was reached in time; Forbidden, Unauthorized.
func (i *Instance) Read(ctx context.Context, w Want) (*Answer, error) {
	if err := i.enter(); err != nil {
		return nil, err
	}
	a, err := i.read(ctx, w)
	if err != nil {
		i.leave()
		return nil, err
	}
	return a, nil // the instance is left when the answer is settled or lost
}

// ErrOtherTopics says that an instance reads something else than the topic of a v1 read.
var ErrOtherTopics = errors.New("the instance is subscribed to other topics")

// ReadTopic is the read of v1: Read by an instance that is subscribed to that topic and no other. The first one
// subscribes. Fails with ErrOtherTopics where it reads something else.
func (i *Instance) ReadTopic(ctx context.Context, topic string, w Want) (*Answer, error) {
	wish := Wish{Topics: []string{topic}}
	err := i.change(ctx, func(old *membership) error {
		switch {
		case old == nil:
			i.join(wish)
		case !old.wish.equal(&wish):
			return ErrOtherTopics
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return i.Read(ctx, w)
}

func (i *Instance) read(ctx context.Context, w Want) (*Answer, error) {
	if _, _, err := i.current(); errors.Is(err, errNotSubscribed) {
		return nil, err
	}
	// A context rather than a timer: it stays over once it is.
	patience, cancel := context.WithTimeout(context.Background(), i.patience(w))
	defer cancel()
	select {
	case i.reading <- struct{}{}:
	case <-patience.Done():
		return &Answer{i: i}, nil // another read had its turn all the time
	case <-i.ended:
		return &Answer{i: i}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	i.room.metrics.reading.Inc()
	h := &held{i: i, want: w, limit: i.limit(w), over: patience.Done()}
	a, err := h.wait(ctx)
	if err != nil || a.moves == nil {
		i.doneReading()
	}
	return a, err
}

// doneReading gives the next read its turn.
func (i *Instance) doneReading() {
	i.room.metrics.reading.Dec()
	i.reading.free()
}

func (i *Instance) patience(w Want) time.Duration {
	own := i.settings.Timeout
	if own == 0 {
		own = i.room.cfg.RequestTimeout
	}
	if w.Timeout > 0 {
		own = min(own, w.Timeout)
	}
	return min(own, maxHold)
}

func (i *Instance) limit(w Want) int {
	if w.MaxBytes > 0 {
		return min(w.MaxBytes, i.room.cfg.RequestMaxBytes)
	}
	return i.room.cfg.RequestMaxBytes
}

func (i *Instance) minBytes() int {
	if i.settings.MinBytes > 0 {
		return i.settings.MinBytes
	}
	return max(i.room.cfg.FetchMinBytes, 1)
}

// held is a read that waits. It takes records from a session in a gathering; when the session changes, what was
// gathered is left where it was and the read begins again.
type held struct {
	i     *Instance
	want  Want
	limit int
	over  <-chan struct{}

	joined  bool  // there was a session
	reached bool  // some partition was read: Kafka is there
	trouble error // the last thing that went wrong
}

func (h *held) wait(ctx context.Context) (*Answer, error) {
	for {
		s, bell, err := h.i.current()
		switch {
		case errors.Is(err, errEnded), errors.Is(err, errNotSubscribed): // meanwhile
			return h.nothing(), nil
		case err != nil:
			return nil, err
		}
		if s != nil {
			h.joined = true
			a, err := h.gather(ctx, s, bell)
			if a != nil || err != nil {
				return a, err
			}
			continue
		}
		select {
		case <-bell:
		case <-h.i.ended:
			return h.nothing(), nil
		case <-h.over:
			return h.empty(ctx)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (h *held) nothing() *Answer { return &Answer{i: h.i} }

// empty is the end of a read that found nothing: an error if no broker was there to say so. What the log has in memory
// does not need one, so Kafka is asked for something; the answer is shared and may be three seconds old.
func (h *held) empty(ctx context.Context) (*Answer, error) {
	if h.trouble != nil && !h.reached {
		return nil, h.trouble
	}
	probe, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	if err := h.i.unreachable(probe); err != nil && ctx.Err() == nil {
		return nil, err
	}
	if topic := h.i.someTopic(); !h.joined && topic != "" {
		// The membership tries on when it is denied; this tells the client.
		_, err := h.i.room.needs.Offsets.Group(probe, h.i.name.group, []sluice.Partition{{Topic: topic}})
		if k := sluice.KindOf(err); k == sluice.Forbidden || k == sluice.Unauthorized {
			return nil, err
		}
	}
	return h.nothing(), nil
}

// unreachable is the error of a Kafka that does not answer. What did not come about may have had that reason.
func (i *Instance) unreachable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	if _, err := i.room.needs.Topics.Topics(ctx); err != nil {
		return &sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached.", Err: err}
	}
	return nil
}

// take makes the answer of a gathering, if the session still lends what it holds.
func (h *held) take(s *session, g *gathering) (*Answer, bool) {
	i := h.i
	a := &Answer{Records: g.records, Err: g.undecodable, moves: g.moves(), i: i}
	if a.moves == nil {
		return a, true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.session != s || !s.Valid() {
		return nil, false
	}
	i.writing = make(chan struct{})
	i.turn, i.owed = g.turn, g.owed
	return a, true
}

// unjudged says that nothing is known against a record: nobody could say whether it decodes.
func unjudged(err error) bool {
	k := sluice.KindOf(err)
	return k == sluice.SchemaLookup || k == sluice.Overloaded
}

func undecodable(r *sluice.Record, err error) error {
	if unjudged(err) {
		return err
	}
	return &sluice.Error{Kind: sluice.Rejected, Err: err,
		Msg: fmt.Sprintf("the record at partition %s-%d, offset %d cannot be decoded in the format of this instance", r.Topic, r.Partition, r.Offset)}
}
