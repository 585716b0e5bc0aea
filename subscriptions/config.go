package subscriptions

import (
	"errors"
	"time"
)

// Config says where the definitions are. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	RedisURL string `name:"redis-url" env:"SLUICE_REDIS_URL" placeholder:"URL" help:"Redis: redis://host:6379/0, rediss:// for TLS; further &addr=host:port make a cluster, with &master_name= a Sentinel deployment. A password in it is never printed."`
}

// Default has no address: there is no Redis that is right for everybody.
func Default() Config { return Config{} }

// Validate names the first setting that cannot work, without repeating what may hold a password.
func (c Config) Validate() error {
	if c.RedisURL == "" {
		return errors.New("no Redis: set --redis-url or SLUICE_REDIS_URL to redis://host:port/0")
	}
	_, err := parseURL(c.RedisURL)
	return err
}

const (
	callTimeout   = time.Second      // one call on behalf of somebody who waits
	resyncTimeout = 10 * time.Second // a whole resync, in calls of 500 ids
	resyncEvery   = 30 * time.Second // what a lost bell costs at most
	goneFor       = 7 * 24 * time.Hour
)
