// Package sandbox is Kafka and Redis inside one process, for `sluice dev` and for the tests' fast inner loop. The
// brokers speak the real protocol on real sockets, so kcat and every other client works against them. They live in
// memory, or in the folder of a Data, and prove nothing about a real cluster's durability or speed. No setting of
// `sluice serve` reaches this room.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
)

// ClusterID is the id of every embedded cluster.
const ClusterID = "sluice-dev"

// KafkaConfig describes an embedded Kafka.
type KafkaConfig struct {
	Host    string            // loopback when empty
	Ports   []int             // one broker each; empty: one broker on a free port
	Topics  map[string]int32  // partitions by name, made at the start where they do not exist
	Configs map[string]string // broker settings on top of the defaults
	Dir     string            // keeps everything over restarts; empty: memory
	Log     *slog.Logger      // what the brokers complain of, e.g. a full disk; nil discards
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
	if c.Dir != "" {
		if err := checkLog(c.Dir); err != nil {
			return nil, err
		}
		maps.Copy(configs, keepAll)
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
	if c.Dir != "" {
		// No fsync for each batch: a write is in the page cache when it is acknowledged, and that outlives the process.
		opts = append(opts, kfake.DataDir(c.Dir))
	}
	if c.Log != nil {
		opts = append(opts, kfake.WithLogger(complaints{c.Log}))
	}
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("start the embedded Kafka: %w", err)
	}
	k := &Kafka{Brokers: fake.ListenAddrs(), Fake: fake}
	for topic, partitions := range c.Topics { // not as seeds: kfake passes over those when it finds a log
		if err := fake.CreateTopic(topic, partitions, nil); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			k.Close()
			return nil, fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	return k, nil
}

// keepAll turns the cleaner off, and the expiry of offsets. kfake forgets where a partition ended when it loads one that
// retention emptied, and begins again at offset 0; and it compacts by removing files before it writes their heirs. The
// values are a hundred years: a greater one overflows where kfake makes nanoseconds of it.
var keepAll = map[string]string{
	"log.cleaner.backoff.ms":    strconv.FormatInt((100 * 365 * 24 * time.Hour).Milliseconds(), 10),
	"offsets.retention.minutes": strconv.Itoa(100 * 365 * 24 * 60),
}

// checkLog refuses a folder that kfake would take for an empty one and write over.
func checkLog(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("embedded Kafka: %w", err)
	}
	lost := ""
	for _, e := range entries {
		if e.Name() == "meta.json" {
			return nil
		}
		if !strings.HasSuffix(e.Name(), ".tmp") {
			lost = e.Name()
		}
	}
	if lost != "" {
		return fmt.Errorf("%s is damaged: it holds %s and no meta.json", dir, lost)
	}
	return nil
}

// Partitions is how many the topic has, 0 if it does not exist.
func (k *Kafka) Partitions(topic string) int { return len(k.Fake.PartitionInfos(topic)) }

// Close ends the brokers. Everything they held goes with them, unless there is a Dir.
func (k *Kafka) Close() { k.Fake.Close() }

// complaints passes warnings and errors on.
type complaints struct{ log *slog.Logger }

func (c complaints) Logf(level kfake.LogLevel, format string, args ...any) {
	at := slog.LevelError
	switch level {
	case kfake.LogLevelError:
	case kfake.LogLevelWarn:
		at = slog.LevelWarn
	default:
		return
	}
	c.log.LogAttrs(context.Background(), at, "embedded Kafka", slog.String("says", fmt.Sprintf(format, args...)))
}
