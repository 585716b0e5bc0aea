package gateway

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/dispatcher"
	"github.com/sluicegate/sluice/formats"
	"github.com/sluicegate/sluice/httpapi"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/stream"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// Build is what the binary was built from.
type Build = httpapi.Build

// Stores are the two that hold everything: Kafka and Redis.
type Stores struct {
	Kafka        kafka.Config         `embed:"" group:"Kafka and Redis"`
	Redis        subscriptions.Config `embed:"" group:"Kafka and Redis"`
	StartTimeout time.Duration        `name:"start-timeout" env:"SLUICE_START_TIMEOUT" default:"15s" help:"How long the start waits for Kafka and for Redis before it gives up."`
}

// Config is every setting of a gateway. The rooms own their parts; here they are put together.
type Config struct {
	Stores    `embed:""`
	HTTP      httpapi.Config    `embed:""`
	Log       partition.Config  `embed:""`
	Consumers consumers.Config  `embed:""`
	Formats   formats.Config    `embed:""`
	Stream    stream.Config     `embed:""`
	Webhook   webhook.Config    `embed:""`
	Deliver   dispatcher.Config `embed:""`

	Auth          string        `name:"auth" env:"SLUICE_AUTH" default:"basic" help:"Who may call: only none exists so far, and it wants allow-no-auth beside it."`
	AllowNoAuth   bool          `name:"allow-no-auth" env:"SLUICE_ALLOW_NO_AUTH" help:"Say that you know that everybody who reaches the port may do everything."`
	Migrate       bool          `name:"migrate" env:"SLUICE_MIGRATE" default:"true" negatable:"" help:"Run pending migrations at the start."`
	DrainDelay    time.Duration `name:"drain-delay" env:"SLUICE_DRAIN_DELAY" default:"0s" help:"After SIGTERM go on serving so long while /__gtg already says 503, for load balancers that are slow to notice."`
	ShutdownGrace time.Duration `name:"shutdown-grace" env:"SLUICE_SHUTDOWN_GRACE" default:"20s" help:"How long requests in flight may take at the stop."`
	LogLevel      string        `name:"log-level" env:"LOG_LEVEL" default:"info" enum:"debug,info,warn,warning,error" help:"Least level that is logged."`

	Page bool `kong:"-"` // the root page of sluice dev
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{
		Stores: Stores{Kafka: kafka.Default(), Redis: subscriptions.Default(), StartTimeout: 15 * time.Second},
		HTTP:   httpapi.Default(), Log: partition.Default(), Consumers: consumers.Default(), Formats: formats.Default(), Stream: stream.Default(),
		Webhook: webhook.Default(), Deliver: dispatcher.Default(),
		Auth: "basic", Migrate: true, ShutdownGrace: 20 * time.Second, LogLevel: "info",
	}
}

// Validate names the first setting that cannot work.
func (c Stores) Validate() error {
	if c.StartTimeout < time.Second {
		return errors.New("start-timeout must be at least 1s")
	}
	if err := c.Kafka.Validate(); err != nil {
		return err
	}
	return c.Redis.Validate()
}

// Validate names the first setting, or unsafe combination of settings, that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Auth != "none":
		return fmt.Errorf("auth %q is not there yet: the only mode is SLUICE_AUTH=none, and it needs SLUICE_ALLOW_NO_AUTH=true beside it", c.Auth)
	case !c.AllowNoAuth:
		return errors.New("SLUICE_AUTH=none lets everybody who reaches the port do everything; say SLUICE_ALLOW_NO_AUTH=true to run so")
	case c.DrainDelay < 0 || c.ShutdownGrace < 0:
		return errors.New("drain-delay and shutdown-grace must not be negative")
	}
	for _, part := range []interface{ Validate() error }{c.Stores, c.HTTP, c.Log, c.Consumers, c.Formats, c.Stream, c.Webhook, c.Deliver} {
		if err := part.Validate(); err != nil {
			return err
		}
	}
	return nil
}
