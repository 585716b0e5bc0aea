package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// cacheTime is how old an answer about topics may be. Clients poll GET /topics as a probe, and a topic made elsewhere
// must show within this time.
const cacheTime = 3 * time.Second

// Admin answers questions about the cluster and makes topics. Safe for concurrent use.
type Admin struct {
	meta *metadata
}

// NewAdmin asks nobody yet.
func NewAdmin(c *Clients) *Admin { return &Admin{meta: c.metadata()} }

func fresh() time.Time { return time.Now().Add(-cacheTime) }

// Reachable reports whether Kafka answers: nil, or Kind Unavailable. An answer of the last three seconds counts.
func (a *Admin) Reachable(ctx context.Context) error {
	_, err := a.meta.names(ctx, fresh())
	return err
}

// ClusterID is the cluster's own name for itself; "" if it has none.
func (a *Admin) ClusterID(ctx context.Context) (string, error) {
	if _, err := a.meta.names(ctx, fresh()); err != nil {
		return "", err
	}
	a.meta.mu.Lock()
	defer a.meta.mu.Unlock()
	return a.meta.cluster, nil
}

// Brokers is the ids of the brokers that are alive, ascending.
func (a *Admin) Brokers(ctx context.Context) ([]int32, error) {
	if _, err := a.meta.names(ctx, fresh()); err != nil {
		return nil, err
	}
	a.meta.mu.Lock()
	defer a.meta.mu.Unlock()
	ids := make([]int32, 0, len(a.meta.addrs))
	for id := range a.meta.addrs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Topics is the names of all topics, internal ones included, sorted, as they were at most three seconds ago.
func (a *Admin) Topics(ctx context.Context) ([]string, error) { return a.meta.names(ctx, fresh()) }

// Topic describes a topic as it was at most three seconds ago. Kind UnknownTopic only after Kafka was asked.
func (a *Admin) Topic(ctx context.Context, name string) (sluice.Topic, error) {
	return a.meta.topic(ctx, name, fresh())
}

// CreateTopic makes a topic. It is no error if the topic exists already, whatever its settings.
func (a *Admin) CreateTopic(ctx context.Context, spec sluice.TopicSpec) error {
	if !legalTopic(spec.Name) {
		return &sluice.Error{Kind: sluice.Invalid, Msg: fmt.Sprintf("%q is no legal topic name.", spec.Name)}
	}
	detail := &sarama.TopicDetail{NumPartitions: spec.Partitions, ReplicationFactor: spec.Replication, ConfigEntries: map[string]*string{}}
	if spec.Partitions == 0 {
		detail.NumPartitions = -1 // the broker's default (KIP-464)
	}
	if spec.Replication == 0 {
		detail.ReplicationFactor = -1
	}
	for name, value := range spec.Configs {
		detail.ConfigEntries[name] = &value
	}
	const tries = 5 // a controller that has just moved is looked up again
	for try := 1; ; try++ {
		err := a.create(ctx, spec.Name, detail)
		switch {
		case err == nil || errors.Is(err, sarama.ErrTopicAlreadyExists):
			return nil
		case errors.Is(err, sarama.ErrInvalidTopic):
			return &sluice.Error{Kind: sluice.Invalid, Msg: brokerText(sarama.ErrInvalidTopic), Err: err}
		case try == tries || !retriable(err):
			return kafkaError("create topic "+spec.Name, err)
		}
		if !pause(ctx, backoff(try)) {
			return kafkaError("create topic "+spec.Name, ctx.Err())
		}
	}
}

func (a *Admin) create(ctx context.Context, name string, detail *sarama.TopicDetail) error {
	if _, err := a.meta.names(ctx, time.Now().Add(-time.Second)); err != nil { // who the controller is
		return err
	}
	a.meta.mu.Lock()
	addr := a.meta.addrs[a.meta.control]
	a.meta.mu.Unlock()
	if addr == "" {
		return sarama.ErrControllerNotAvailable
	}
	answer, err := askAt(ctx, a.meta.brokers, addr, (*sarama.Broker).CreateTopics, func() *sarama.CreateTopicsRequest {
		return sarama.NewCreateTopicsRequest(sarama.MaxVersion, map[string]*sarama.TopicDetail{name: detail}, questionTime, false)
	})
	if err != nil {
		return err
	}
	result, ok := answer.TopicErrors[name]
	switch {
	case !ok:
		return sarama.ErrIncompleteResponse
	case result.Err == sarama.ErrNoError:
		return nil
	}
	return result
}

// TopicConfigs is every effective setting of a topic. Sensitive settings and those without a value are left out.
func (a *Admin) TopicConfigs(ctx context.Context, name string) (map[string]string, error) {
	if _, err := a.Topic(ctx, name); err != nil {
		return nil, err
	}
	return a.configs(ctx, sarama.ConfigResource{Type: sarama.TopicResource, Name: name})
}

// MetadataMaxBytes is the longest commit metadata that Kafka takes, offset.metadata.max.bytes: Kafka's default of 4,096
// where the brokers do not say.
func (a *Admin) MetadataMaxBytes(ctx context.Context) (int, error) {
	const setting, usual = "offset.metadata.max.bytes", 4096
	ids, err := a.Brokers(ctx)
	if err != nil {
		return usual, err
	}
	broker := strconv.Itoa(int(ids[0]))
	configs, err := a.configs(ctx, sarama.ConfigResource{Type: sarama.BrokerResource, Name: broker, ConfigNames: []string{setting}})
	switch sluice.KindOf(err) {
	case "":
	case sluice.Forbidden, sluice.Rejected:
		return usual, nil // the question is not allowed, or this Kafka does not know it
	default:
		return usual, err
	}
	if n, err := strconv.Atoi(configs[setting]); err == nil && n > 0 {
		return n, nil
	}
	return usual, nil
}

// configs asks about one resource: a broker about itself, whoever answers about a topic.
func (a *Admin) configs(ctx context.Context, resource sarama.ConfigResource) (map[string]string, error) {
	doing := "read the settings of " + resource.Name
	question := func() *sarama.DescribeConfigsRequest {
		return &sarama.DescribeConfigsRequest{Version: 4, Resources: []*sarama.ConfigResource{&resource}}
	}
	ask := (*sarama.Broker).DescribeConfigs
	var answer *sarama.DescribeConfigsResponse
	var err error
	if resource.Type == sarama.BrokerResource {
		id, _ := strconv.Atoi(resource.Name)
		answer, err = askAt(ctx, a.meta.brokers, a.meta.address(int32(id)), ask, question)
	} else {
		answer, err = askAny(ctx, a.meta.brokers, ask, question)
	}
	if err == nil && len(answer.Resources) != 1 {
		err = sarama.ErrIncompleteResponse
	}
	if err != nil {
		return nil, kafkaError(doing, err)
	}
	found := answer.Resources[0]
	if code := sarama.KError(found.ErrorCode); code != sarama.ErrNoError {
		return nil, kafkaError(doing, code)
	}
	configs := make(map[string]string, len(found.Configs))
	for _, c := range found.Configs {
		// sarama reads null as "". Kafka's null settings are sensitive ones and broker defaults that nobody set; the
		// settings of a topic that are really empty are lists of throttled replicas.
		if !c.Sensitive && (c.Value != "" || c.Type == sarama.ListConfigType) {
			configs[c.Name] = c.Value
		}
	}
	return configs, nil
}

// backoff is the wait before the n-th repetition, from 1: 100 ms doubling to a second.
func backoff(n int) time.Duration {
	return min(100*time.Millisecond<<min(n-1, 10), time.Second)
}
