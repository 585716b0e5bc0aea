package kafka

import (
	"errors"
	"time"
)

// Config says how to reach Kafka. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	Brokers        []string      `name:"kafka-brokers" env:"SLUICE_KAFKA_BROKERS" placeholder:"HOST:PORT,..." help:"Kafka brokers to begin with; several, so that one may be down."`
	ProduceTimeout time.Duration `name:"produce-timeout" env:"SLUICE_PRODUCE_TIMEOUT" default:"30s" help:"How long a produce request waits for Kafka before its records are reported as failed or unknown."`
	MaxRecordBytes int           `name:"max-record-bytes" env:"SLUICE_MAX_RECORD_BYTES" default:"16777216" help:"Largest record, raw key and value."`
	FetchMaxBytes  int           `name:"kafka-fetch-max-bytes" env:"SLUICE_KAFKA_FETCH_MAX_BYTES" default:"16777216" help:"Most that one fetch asks a broker for; a larger record still comes through."`
	ProduceAcks    string        `name:"produce-acks" env:"SLUICE_PRODUCE_ACKS" default:"all" enum:"all,-1" help:"Which replicas must have a record before it counts as written: all, the only choice. A 200 means that nothing can be lost."`
	AutoCreate     bool          `name:"auto-create-topics" env:"SLUICE_AUTO_CREATE_TOPICS" default:"false" help:"Create an unknown topic when a record is produced to it."`

	Security Security `embed:""`
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{ProduceTimeout: 30 * time.Second, MaxRecordBytes: 16 << 20, FetchMaxBytes: 16 << 20, ProduceAcks: "all", Security: Security{Protocol: "PLAINTEXT", VerifyHost: true}}
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case len(c.Brokers) == 0:
		return errors.New("no Kafka brokers: set --kafka-brokers or SLUICE_KAFKA_BROKERS to host:port, several separated by commas")
	case c.ProduceTimeout < time.Second || c.ProduceTimeout > 10*time.Minute:
		return errors.New("produce-timeout must lie between 1s and 10m")
	case c.MaxRecordBytes < 1<<10 || c.MaxRecordBytes > 64<<20:
		return errors.New("max-record-bytes must lie between 1024 and 67108864")
	case c.FetchMaxBytes < 64<<10 || c.FetchMaxBytes > 1<<30:
		return errors.New("kafka-fetch-max-bytes must lie between 65536 and 1073741824")
	case c.ProduceAcks != "all" && c.ProduceAcks != "-1":
		return errors.New("produce-acks must be all: a 200 means that a record is on every in-sync replica")
	}
	return c.Security.validate()
}
