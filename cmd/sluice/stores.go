package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/sluicegate/sluice/gateway"
	"github.com/sluicegate/sluice/sandbox"
)

// stores are the Kafka, the Redis and the schema registry of a dev gateway, and the folder that keeps them, if there is
// one.
type stores struct {
	data    *sandbox.Data
	kafka   *sandbox.Kafka
	redis   *sandbox.Redis
	schemas *sandbox.Registry
}

// passing are the keys that a folder does not keep: reports on the health of subscriptions, up to one a second each.
const passing = "sluice:health:"

// openStores starts all, in memory or in the folder of --data.
func (d dev) openStores(topics map[string]int32) (*stores, error) {
	s := &stores{}
	if err := s.open(d, topics); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *stores) open(d dev, topics map[string]int32) (err error) {
	config := sandbox.KafkaConfig{Ports: []int{d.KafkaPort}, Topics: topics}
	if d.Data != "" {
		if s.data, err = sandbox.OpenData(d.Data); err != nil {
			return err
		}
		config.Dir, config.Log = s.data.KafkaDir(), gateway.NewLogger(os.Stderr, "warn")
	}
	if s.kafka, err = sandbox.StartKafka(config); err != nil {
		return taken(err, fmt.Sprintf("127.0.0.1:%d", d.KafkaPort), "--kafka-port")
	}
	for _, name := range slices.Sorted(maps.Keys(topics)) { // a seed may have grown since; what --topic says must be true
		if got, want := s.kafka.Partitions(name), int(topics[name]); got != want && d.named(name) {
			return fmt.Errorf("--topic %s:%d: %s has this topic with %d partitions; leave the flag out", name, want, d.Data, got)
		}
	}
	if s.data == nil {
		if s.redis, err = sandbox.StartRedis(); err == nil {
			s.schemas, err = sandbox.StartRegistry()
		}
		return err
	}
	if s.redis, err = sandbox.OpenRedis(s.data.RedisFile(), passing); err == nil {
		s.schemas, err = sandbox.OpenRegistry(s.data.SchemaFile())
	}
	return err
}

// named reports whether --topic asked for the topic, as opposed to a seed.
func (d dev) named(topic string) bool {
	return slices.ContainsFunc(d.Topic, func(text string) bool { return strings.HasPrefix(text, topic+":") })
}

// Close ends what was opened. The folder is let go last: Kafka writes to it until it has ended.
func (s *stores) Close() (err error) {
	if s.schemas != nil {
		err = s.schemas.Close()
	}
	if s.redis != nil {
		s.redis.Close()
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	if s.data != nil {
		err = errors.Join(err, s.data.Close())
	}
	return err
}
