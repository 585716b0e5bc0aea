// Package sandbox is Kafka and Redis inside one process, for `sluice dev` and for the tests' fast inner loop. The
// brokers speak the real protocol on real sockets, so kcat and every other client works against them; they keep nothing
// on disk and prove nothing about durability or speed. No setting of `sluice serve` reaches this room.
package sandbox

import (
	"fmt"
	"maps"
	"net"

	"github.com/twmb/franz-go/pkg/kfake"
)

// ClusterID is the id of every embedded cluster.
const ClusterID = "sluice-dev"

// KafkaConfig describes an embedded Kafka.
type KafkaConfig struct {
	Host    string            // loopback when empty
	Ports   []int             // one broker each; empty: one broker on a free port
	Topics  map[string]int32  // partitions by name, made at the start
	Configs map[string]string // broker settings on top of the defaults
}

// Kafka is an embedded Kafka. Fake is there for tests that steer it: faults, leaders, retention.
type Kafka struct {
	Brokers []string
	Fake    *kfake.Cluster
}

// StartKafka listens and serves until Close. A taken port is an error that names it.
func StartKafka(c KafkaConfig) (*Kafka, error) {
	ports := c.Ports
	if len(ports) == 0 {
		ports = []int{0}
	}
	configs := map[string]string{
		"group.initial.rebalance.delay.ms": "0",        // nobody waits three seconds for a second member that never comes
		"message.max.bytes":                "25165824", // a record of 16 MiB passes, as on the clusters Sluice is made for
	}
	maps.Copy(configs, c.Configs)
	host := c.Host
	if host == "" {
		host = "127.0.0.1"
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(len(ports)),
		kfake.Ports(ports...),
		kfake.ClusterID(ClusterID),
		kfake.BrokerConfigs(configs),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, fmt.Errorf("embedded Kafka address %q: %w", address, err)
			}
			return net.Listen(network, net.JoinHostPort(host, port))
		}),
	}
	for topic, partitions := range c.Topics {
		opts = append(opts, kfake.SeedTopics(partitions, topic))
	}
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start the embedded Kafka: %w", err)
	}
	return &Kafka{Brokers: fake.ListenAddrs(), Fake: fake}, nil
}

// Close ends the brokers and with them everything they held.
func (k *Kafka) Close() { k.Fake.Close() }
