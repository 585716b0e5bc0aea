package consumers

import (
	"errors"
	"time"
)

// Config is what the classic API's instances can be told. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	ID              string        `name:"id" env:"SLUICE_ID" default:"" help:"Part of the instance ids that Sluice makes up."`
	RequestTimeout  time.Duration `name:"consumer-request-timeout" env:"SLUICE_CONSUMER_REQUEST_TIMEOUT" default:"1s" help:"How long a read without records is held, unless the instance says otherwise; never longer than 55s."`
	RequestMaxBytes int           `name:"consumer-request-max-bytes" env:"SLUICE_CONSUMER_REQUEST_MAX_BYTES" default:"67108864" help:"Most that one answer holds, in bytes of keys and values; a larger record still comes through, alone."`
	InstanceTimeout time.Duration `name:"consumer-instance-timeout" env:"SLUICE_CONSUMER_INSTANCE_TIMEOUT" default:"300s" help:"An instance that nobody calls for so long is closed and leaves its group."`
	FetchMinBytes   int           `name:"consumer-fetch-min-bytes" env:"SLUICE_CONSUMER_FETCH_MIN_BYTES" default:"1" help:"Bytes of keys and values that a read waits for, unless the instance says otherwise; -1 means 1."`
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{RequestTimeout: time.Second, RequestMaxBytes: 64 << 20, InstanceTimeout: 5 * time.Minute, FetchMinBytes: 1}
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
	case c.FetchMinBytes < -1 || c.FetchMinBytes > maxMinBytes:
		return errors.New("consumer-fetch-min-bytes must lie between -1 and 10000000")
	}
	return nil
}
