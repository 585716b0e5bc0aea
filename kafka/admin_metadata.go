package kafka

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// lookTime bounds one look-up, however many brokers it asks.
const lookTime = 5 * time.Second

// legal is what Kafka allows as a topic's name. An illegal one is not asked for: Kafka would answer with an error of
// its own, and the embedded one would create it.
var legal = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func legalTopic(name string) bool { return legal.MatchString(name) && name != "." && name != ".." }

var errUnknownTopic = &sluice.Error{Kind: sluice.UnknownTopic, Msg: "Topic not found."}

// metadata is what Kafka says about brokers, topics and leaders. It answers from memory as long as that is young enough
// for the caller; else all who wait for the same thing share one look-up. What could not be looked up is an error,
// never an old answer.
type metadata struct {
	brokers *brokers

	mu       sync.Mutex
	flights  map[string]*flight // by topic; "" reads all of them
	topics   map[string]dated
	listed   time.Time // when all topics were read
	addrs    map[int32]string
	control  int32
	cluster  string
	stopping bool
	looks    sync.WaitGroup
}

// dated is a topic as it was no earlier than at.
type dated struct {
	sluice.Topic
	at time.Time
}

// flight is one look-up under way.
type flight struct {
	done chan struct{}
	err  error
}

// metadata is the process's one.
func (c *Clients) metadata() *metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meta == nil {
		m := &metadata{
			brokers: newBrokers(c.config(roleAdmin), c.dial, c.cfg.Brokers),
			flights: map[string]*flight{},
			topics:  map[string]dated{},
		}
		c.meta = m
		c.bare = append(c.bare, m.close)
	}
	return c.meta
}

func (m *metadata) close() {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	m.brokers.close()
	m.looks.Wait()
}

// topic is the topic as it was after since. Kind UnknownTopic, NoLeader (it is being made), Unavailable.
func (m *metadata) topic(ctx context.Context, name string, since time.Time) (sluice.Topic, error) {
	if !legalTopic(name) {
		return sluice.Topic{}, errUnknownTopic
	}
	fresh := func() bool { return m.topics[name].at.After(since) }
	if err := m.look(ctx, name, fresh); err != nil {
		return sluice.Topic{}, kafkaError("look up topic "+name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if found, ok := m.topics[name]; ok {
		return found.Topic, nil
	}
	return sluice.Topic{}, errUnknownTopic
}

// names is every topic that there was after since, sorted.
func (m *metadata) names(ctx context.Context, since time.Time) ([]string, error) {
	if err := m.look(ctx, "", func() bool { return m.listed.After(since) }); err != nil {
		return nil, kafkaError("list topics", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]string, 0, len(m.topics))
	for name := range m.topics {
		list = append(list, name)
	}
	slices.Sort(list)
	return list, nil
}

// address is where a broker was when metadata last named it, "" if it never did.
func (m *metadata) address(broker int32) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addrs[broker]
}

// brokerCount is how many brokers metadata named last, 1 before it named any.
func (m *metadata) brokerCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(1, len(m.addrs))
}

// look returns once fresh, which runs under the lock, is satisfied or one look-up has been waited for.
func (m *metadata) look(ctx context.Context, name string, fresh func() bool) error {
	m.mu.Lock()
	if m.stopping {
		m.mu.Unlock()
		return sarama.ErrClosedClient
	}
	if fresh() {
		m.mu.Unlock()
		return nil
	}
	f, ok := m.flights[name]
	if !ok {
		f = &flight{done: make(chan struct{})}
		m.flights[name] = f
		m.looks.Go(func() { m.fly(f, name) })
	}
	m.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fly is one look-up. Its context is its own: those who wait come and go.
func (m *metadata) fly(f *flight, name string) {
	ctx, cancel := context.WithTimeout(m.brokers.ctx, lookTime)
	defer cancel()
	at := time.Now()
	answer, err := askAny(ctx, m.brokers, (*sarama.Broker).GetMetadata, func() *sarama.MetadataRequest {
		if name == "" {
			return sarama.NewMetadataRequest(sarama.MaxVersion, nil)
		}
		return sarama.NewMetadataRequest(sarama.MaxVersion, []string{name}) // never asks for the topic to be created
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(f.done)
	delete(m.flights, name)
	if err != nil {
		f.err = err
		return
	}
	f.err = m.take(answer, name, at)
}

// take keeps an answer. The caller holds the lock.
func (m *metadata) take(answer *sarama.MetadataResponse, name string, at time.Time) error {
	if len(answer.Brokers) == 0 { // a broker that is just starting (KAFKA-7924)
		return sarama.ErrBrokerNotAvailable
	}
	m.addrs = make(map[int32]string, len(answer.Brokers))
	list := make([]string, 0, len(answer.Brokers))
	for _, b := range answer.Brokers {
		m.addrs[b.ID()] = b.Addr()
		list = append(list, b.Addr())
	}
	m.brokers.learn(list)
	m.control = answer.ControllerID
	if answer.ClusterID != nil {
		m.cluster = *answer.ClusterID
	}
	older := func(_ string, known dated) bool { return !known.at.After(at) } // a slow answer removes nothing newer
	if name == "" {
		maps.DeleteFunc(m.topics, older)
		m.listed = at
	}
	for _, t := range answer.Topics {
		if !older(t.Name, m.topics[t.Name]) {
			continue
		}
		delete(m.topics, t.Name)
		switch t.Err {
		case sarama.ErrNoError:
			m.topics[t.Name] = dated{Topic: describe(t), at: at}
		case sarama.ErrUnknownTopicOrPartition, sarama.ErrInvalidTopic:
		default:
			if name != "" {
				return t.Err
			}
		}
	}
	return nil
}

func describe(t *sarama.TopicMetadata) sluice.Topic {
	topic := sluice.Topic{Name: t.Name, ID: sluice.TopicID(t.Uuid), Internal: t.IsInternal}
	for _, p := range t.Partitions {
		topic.Partitions = append(topic.Partitions, sluice.PartitionState{Number: p.ID, Leader: p.Leader, Replicas: p.Replicas, InSync: p.Isr})
	}
	slices.SortFunc(topic.Partitions, func(a, b sluice.PartitionState) int { return cmp.Compare(a.Number, b.Number) })
	return topic
}
