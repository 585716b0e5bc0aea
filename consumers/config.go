package consumers

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Config is what the classic API's instances can be told. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	ID                string        `name:"id" env:"SLUICE_ID" default:"" help:"Part of the instance ids that Sluice makes up."`
	RequestTimeout    time.Duration `name:"consumer-request-timeout" env:"SLUICE_CONSUMER_REQUEST_TIMEOUT" default:"1s" help:"How long a read without records is held, unless the instance says otherwise; never longer than 55s."`
	RequestMaxBytes   int           `name:"consumer-request-max-bytes" env:"SLUICE_CONSUMER_REQUEST_MAX_BYTES" default:"67108864" help:"Most that one answer holds, in bytes of keys and values; a larger record still comes through, alone."`
	InstanceTimeout   time.Duration `name:"consumer-instance-timeout" env:"SLUICE_CONSUMER_INSTANCE_TIMEOUT" default:"300s" help:"An instance that nobody calls for so long is closed and leaves its group."`
	ReplicaURL        string        `name:"replica-url" env:"SLUICE_REPLICA_URL" default:"" placeholder:"URL" help:"Where the other replicas reach this one. Default: its first address that is not loopback, and its port."`
	ReplicaSecret     string        `name:"replica-secret" env:"SLUICE_REPLICA_SECRET" default:"" help:"What the replicas share, at least 16 bytes. Without it no replica forwards a request to the one that owns the instance, or takes one."`
	ReplicaSecretFile string        `name:"replica-secret-file" env:"SLUICE_REPLICA_SECRET_FILE" default:"" placeholder:"FILE" help:"A file with that secret."`
	ReplicaLease      time.Duration `name:"replica-lease" env:"SLUICE_REPLICA_LEASE" default:"10s" help:"How long after its death a replica still counts as the owner of its instances."`
	FetchMinBytes     int           `name:"consumer-fetch-min-bytes" env:"SLUICE_CONSUMER_FETCH_MIN_BYTES" default:"1" help:"Bytes of keys and values that a read waits for, unless the instance says otherwise; -1 means 1."`
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{RequestTimeout: time.Second, RequestMaxBytes: 64 << 20, InstanceTimeout: 5 * time.Minute, FetchMinBytes: 1, ReplicaLease: 10 * time.Second}
}

// secret is what the replicas share, "" if nobody said.
func (c Config) secret() (string, error) {
	if c.ReplicaSecretFile == "" {
		return c.ReplicaSecret, nil
	}
	raw, err := os.ReadFile(c.ReplicaSecretFile)
	if err != nil {
		return "", fmt.Errorf("replica-secret-file: %w", err)
	}
	secret := strings.TrimSpace(string(raw))
	if len(secret) < minSecretBytes {
		return "", errors.New("replica-secret-file must hold at least 16 bytes")
	}
	return secret, nil
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case len(c.ID) > 200 || !printable(c.ID):
		return errors.New("id must have at most 200 bytes, no control characters and no slash")
	case c.RequestTimeout < time.Millisecond:
		return errors.New("consumer-request-timeout must be at least 1ms")
	case c.RequestMaxBytes < 1:
		return errors.New("consumer-request-max-bytes must be at least 1")
	case c.InstanceTimeout < time.Second:
		return errors.New("consumer-instance-timeout must be at least 1s")
	case c.ReplicaLease < time.Second:
		return errors.New("replica-lease must be at least 1s")
	case c.ReplicaSecret != "" && c.ReplicaSecretFile != "":
		return errors.New("replica-secret and replica-secret-file exclude each other")
	case c.ReplicaSecret != "" && len(c.ReplicaSecret) < minSecretBytes:
		return errors.New("replica-secret must have at least 16 bytes")
	case c.ReplicaURL != "" && !isReplicaURL(c.ReplicaURL):
		return errors.New("replica-url must be an http or https URL of a host and a port, without a path")
	case c.FetchMinBytes < -1 || c.FetchMinBytes > maxMinBytes:
		return errors.New("consumer-fetch-min-bytes must lie between -1 and 10000000")
	}
	return nil
}
