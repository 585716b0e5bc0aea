package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// topic is what the producer knows of a topic it writes to. Producer.mu guards it.
type topic struct {
	name   string
	id     sluice.TopicID
	queues []*queue // by partition
	sticky sticky

	limit      int       // max.message.bytes, of a batch; 0 where Kafka does not say
	at         time.Time // as of when the leaders are known
	used       time.Time
	locating   bool // a look-up is under way that will release the parked queues
	unanswered bool // no broker answered the last one
	limitStale bool // Kafka refused what the limit allows: it is read again
}

// tooLarge names the limit, where it is known to be the reason.
func (t *topic) tooLarge() string {
	if t.limit == 0 || t.limitStale {
		return "The record is larger than the topic allows (max.message.bytes)."
	}
	return fmt.Sprintf("The record is larger than the topic allows: max.message.bytes is %d bytes.", t.limit)
}

// know looks a topic up that is not known (t is nil), or again. All who ask for a new one meanwhile share the answer.
func (p *Producer) know(ctx context.Context, t *topic, name string) error {
	if t != nil {
		at := time.Now()
		found, err := p.admin.meta.topic(ctx, name, fresh())
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.apply(t, found, at)
		return nil
	}
	p.mu.Lock()
	if p.stopping {
		p.mu.Unlock()
		return errStopping
	}
	l, ok := p.loads[name]
	if !ok {
		l = &load{done: make(chan struct{})}
		p.loads[name] = l
		p.tasks.Go(func() { p.load(l, name) })
	}
	p.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return kafkaError("look up topic "+name, ctx.Err())
	}
}

// load is the first look-up of a topic.
type load struct {
	done chan struct{}
	err  error
}

func (p *Producer) load(l *load, name string) {
	ctx, cancel := context.WithTimeout(p.ctx, lookTime)
	defer cancel()
	at := time.Now()
	found, err := p.admin.meta.topic(ctx, name, fresh())
	if p.cfg.AutoCreate && sluice.KindOf(err) == sluice.UnknownTopic && legalTopic(name) {
		found, err = p.create(ctx, name)
	}
	limit := 0
	if err == nil {
		limit = p.limit(ctx, name)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.loads, name)
	defer close(l.done)
	if err != nil {
		l.err = err
		return
	}
	t := &topic{name: name, id: found.ID, limit: limit}
	p.apply(t, found, at)
	p.topics[name] = t
}

// create makes the topic with the broker's defaults, and waits until it has leaders.
func (p *Producer) create(ctx context.Context, name string) (sluice.Topic, error) {
	if err := p.admin.CreateTopic(ctx, sluice.TopicSpec{Name: name}); err != nil {
		return sluice.Topic{}, err
	}
	p.log.Info("topic created for a produce", "topic", name)
	for {
		found, err := p.admin.meta.topic(ctx, name, time.Now())
		if err == nil && len(found.Partitions) > 0 && found.Partitions[0].Leader >= 0 {
			return found, nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return found, kafkaError("await topic "+name, ctx.Err())
		}
	}
}

// limit is the topic's max.message.bytes, 0 if Kafka does not tell: then the broker's refusal is all there is.
func (p *Producer) limit(ctx context.Context, name string) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	configs, err := p.admin.configs(ctx, sarama.ConfigResource{Type: sarama.TopicResource, Name: name, ConfigNames: []string{"max.message.bytes"}})
	if err != nil {
		p.log.Warn("the topic's size limit is not known", "topic", name, "error", err)
		return 0
	}
	n, _ := strconv.Atoi(configs["max.message.bytes"])
	return max(n, 0)
}

// apply brings the queues of a topic to their leaders. The caller holds the lock.
func (p *Producer) apply(t *topic, found sluice.Topic, at time.Time) {
	t.at = at
	if t.id != found.ID {
		// Another topic of the same name: its log has never heard of our sequences.
		t.id = found.ID
		for _, q := range t.queues {
			if q.flight == nil {
				q.raiseEpoch()
			}
		}
	}
	for len(t.queues) < len(found.Partitions) {
		t.queues = append(t.queues, &queue{topic: t, number: int32(len(t.queues))})
	}
	for _, q := range t.queues[len(found.Partitions):] {
		p.lead(q, nil)
		q.fail(errUnknownPart)
	}
	t.queues = t.queues[:len(found.Partitions)]
	for i, q := range t.queues {
		if leader := found.Partitions[i].Leader; leader >= 0 {
			p.lead(q, p.sender(leader))
		} else {
			p.lead(q, nil)
		}
	}
}

// locate looks a topic up until every partition that has records has a leader, then lets the parked queues go. The
// caller holds the lock.
func (p *Producer) locate(t *topic) {
	if t.locating || p.ctx.Err() != nil {
		return
	}
	t.locating = true
	p.tasks.Go(func() {
		for try := 1; p.locateOnce(t, try); try++ {
			if !pause(p.ctx, backoff(try)) {
				return
			}
		}
	})
}

// locateOnce reports whether there is more to look for.
func (p *Producer) locateOnce(t *topic, try int) (more bool) {
	at := time.Now()
	found, err := p.admin.meta.topic(p.ctx, t.name, at)
	p.mu.Lock()
	relimit := t.limitStale
	p.mu.Unlock()
	limit := 0
	if relimit && err == nil {
		limit = p.limit(p.ctx, t.name)
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	kind := sluice.KindOf(err)
	t.unanswered = kind == sluice.Unavailable
	switch {
	case err == nil:
		p.down = time.Time{}
		if relimit {
			t.limit, t.limitStale = limit, false
		}
		p.apply(t, found, at)
		more = p.release(t)
	case kind == sluice.UnknownTopic && try > 1: // twice: a broker may lag behind a topic that was just made
		p.drop(t)
		return false
	default:
		if t.unanswered {
			p.down = time.Now().Add(downTime)
		}
		for _, q := range t.queues {
			if q.cause == nil || t.unanswered {
				q.cause = err
			}
			more = more || q.open > 0
		}
		more = more || kind == sluice.UnknownTopic
		if !more {
			p.release(t)
		}
	}
	t.locating = more
	return more
}

// release lets the parked queues go that have a leader. It reports whether records are left without one.
func (p *Producer) release(t *topic) (leaderless bool) {
	for _, q := range t.queues {
		switch {
		case q.state != parked:
		case q.open == 0:
			q.state = idle
		case q.leader == nil:
			leaderless = true
		default:
			p.later(q)
		}
	}
	return leaderless
}

// drop forgets a topic that is gone. Its name may come back with the same producer id at sequence 0, which Kafka could
// take for a batch it has already: so whatever begins anew begins with a new id.
func (p *Producer) drop(t *topic) {
	t.locating = false
	p.current = identity{}
	if p.topics[t.name] == t {
		delete(p.topics, t.name)
	}
	for _, q := range t.queues {
		q.fail(errUnknownTopic)
		if q.state == parked {
			q.state = idle
		}
	}
}
