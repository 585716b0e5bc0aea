package httpapi

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
)

// root answers {} to programs, as the classic API does, and the page to browsers if there is one.
func (s *Server) root(c *fiber.Ctx) error {
	if s.needs.RootPage != nil && c.Method() != fiber.MethodPost && wantsHTML(c) {
		s.send(c, fiber.StatusOK, fiber.MIMETextHTMLCharsetUTF8, s.needs.RootPage)
		return nil
	}
	s.send(c, fiber.StatusOK, of(c).answer.name, []byte("{}"))
	return nil
}

func (s *Server) listBrokers(c *fiber.Ctx) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	ids, err := s.needs.Topics.Brokers(ctx)
	if err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusOK, map[string][]int32{"brokers": sorted(ids)})
}

// listTopics is what everyone polls as a probe: kafka.Admin keeps the list for at most 3 s and shares the look-up.
func (s *Server) listTopics(c *fiber.Ctx) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	names, err := s.needs.Topics.Topics(ctx)
	if err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusOK, sorted(names))
}

// showTopic answers 200 with empty configs where the settings may not be read: clients use it as a health check.
func (s *Server) showTopic(c *fiber.Ctx) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	topic, err := s.topic(ctx, c)
	if err != nil {
		return err
	}
	configs, err := s.needs.Topics.TopicConfigs(ctx, topic.Name)
	if err != nil || configs == nil {
		configs = map[string]string{}
	}
	return s.sendJSON(c, fiber.StatusOK, struct {
		Name       string            `json:"name"`
		Configs    map[string]string `json:"configs"`
		Partitions []partitionBody   `json:"partitions"`
	}{topic.Name, configs, partitionBodies(topic)})
}

func (s *Server) listPartitions(c *fiber.Ctx) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	topic, err := s.topic(ctx, c)
	if err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusOK, partitionBodies(topic))
}

func (s *Server) showPartition(c *fiber.Ctx) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	topic, number, err := s.partition(ctx, c)
	if err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusOK, bodyOf(topic.Partitions[number]))
}

// showOffsets tells what can be read: the end is the high watermark, as a classic consumer sees it.
func (s *Server) showOffsets(c *fiber.Ctx) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	topic, number, err := s.partition(ctx, c)
	if err != nil {
		return err
	}
	r, err := s.needs.Topics.Range(ctx, sluice.Partition{Topic: topic.Name, Number: number, Isolation: sluice.ReadUncommitted})
	if err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusOK, struct {
		Beginning int64 `json:"beginning_offset"`
		End       int64 `json:"end_offset"`
	}{r.Start, r.End})
}

// topic is the topic of the path.
func (s *Server) topic(ctx context.Context, c *fiber.Ctx) (sluice.Topic, error) {
	name, err := topicName(c)
	if err != nil {
		return sluice.Topic{}, err
	}
	return s.needs.Topics.Topic(ctx, name)
}

// partition is the topic and the partition of the path, which exists.
func (s *Server) partition(ctx context.Context, c *fiber.Ctx) (sluice.Topic, int32, error) {
	number, wrong := partitionNumber(c)
	if errors.Is(wrong, errNotFound) { // no such path, whatever the topic
		return sluice.Topic{}, 0, wrong
	}
	topic, err := s.topic(ctx, c)
	if err != nil {
		return sluice.Topic{}, 0, err
	}
	if wrong != nil || int(number) >= len(topic.Partitions) {
		return sluice.Topic{}, 0, errUnknownPartition.because("Topic %s has %s.", topic.Name, plural(len(topic.Partitions), "partition"))
	}
	return topic, number, nil
}

// sorted is a sorted copy, never nil: an empty list is [] in JSON. What was handed over may be shared.
func sorted[T cmp.Ordered](list []T) []T {
	out := append(make([]T, 0, len(list)), list...)
	slices.Sort(out)
	return out
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

type partitionBody struct {
	Partition int32         `json:"partition"`
	Leader    int32         `json:"leader"`
	Replicas  []replicaBody `json:"replicas"`
}

type replicaBody struct {
	Broker int32 `json:"broker"`
	Leader bool  `json:"leader"`
	InSync bool  `json:"in_sync"`
}

func partitionBodies(t sluice.Topic) []partitionBody {
	all := make([]partitionBody, len(t.Partitions))
	for i, p := range t.Partitions {
		all[i] = bodyOf(p)
	}
	return all
}

func bodyOf(p sluice.PartitionState) partitionBody {
	replicas := make([]replicaBody, len(p.Replicas))
	for i, broker := range p.Replicas {
		replicas[i] = replicaBody{broker, broker == p.Leader, p.InSyncReplica(broker)}
	}
	return partitionBody{p.Number, p.Leader, replicas}
}
