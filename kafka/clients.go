// Package kafka is the only room that knows sarama. It gives the others what they ask for over the types of the root
// package: a Producer that batches across requests, a Fetcher that feeds the partition log, Groups (membership and
// nothing else), Offsets (commits without membership) and an Admin.
//
// A sarama client has one connection per broker and serves it one call at a time, the long poll included: measured on
// Kafka 4.1, behind a 500 ms poll a produce takes 1.0 s instead of 1 ms. So each job has clients of its own, opened at
// their first use; Clients owns them.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"

	"github.com/sluicegate/sluice"
)

// The roles: each is one client, with a ClientID of its own. Brokers build member ids from the ClientID and the
// rendezvous hash uses those, so it is the same on every replica.
const (
	roleAdmin           = "admin"
	roleProduce         = "produce"          // records of the REST API
	roleLetters         = "letters"          // dead letters and what Sluice writes about itself
	roleLive            = "live"             // long polls, read committed; does nothing else
	roleLiveUncommitted = "live-uncommitted" // the same for classic pull consumers
	roleCatchUp         = "catch-up"         // one-shot fetches; a pool, never long-polls
	roleCommit          = "commit"           // standalone commits; a pool
	roleOwn             = "own"              // group membership, on bare connections
)

// Clients opens sarama clients as they are needed and closes them together.
type Clients struct {
	cfg  Config
	log  *slog.Logger
	dial dialer // of bare connections

	mu     sync.Mutex
	open   map[string]sarama.Client
	finder *finder  // of groups' coordinators; made by coordinators, in finder.go
	bare   []func() // closes connections that no sarama.Client owns
	closed bool
}

// Connect reaches Kafka once, within ctx, so that a wrong address shows at the start: Kind Unavailable.
func Connect(ctx context.Context, cfg Config, log *slog.Logger) (*Clients, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	quiet()
	c := &Clients{cfg: cfg, log: log, dial: dialTCP, open: map[string]sarama.Client{}}
	reached := make(chan error, 1)
	go func() {
		_, err := c.client(roleAdmin, 0)
		reached <- err
	}()
	select {
	case err := <-reached:
		if err != nil {
			return nil, &sluice.Error{Kind: sluice.Unavailable, Msg: fmt.Sprintf("No Kafka broker could be reached at %v.", cfg.Brokers), Err: err}
		}
		return c, nil
	case <-ctx.Done():
		go func() { <-reached; _ = c.Close() }() // sarama's dial has no context; it ends with its own timeouts
		return nil, &sluice.Error{Kind: sluice.Unavailable, Msg: fmt.Sprintf("Kafka did not answer in time at %v.", cfg.Brokers), Err: ctx.Err()}
	}
}

// client is the n-th client of a role.
func (c *Clients) client(role string, n int) (sarama.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, sarama.ErrClosedClient
	}
	key := fmt.Sprintf("%s/%d", role, n)
	if open, ok := c.open[key]; ok {
		return open, nil
	}
	client, err := sarama.NewClient(c.cfg.Brokers, c.config(role))
	if err != nil {
		return nil, fmt.Errorf("open Kafka client %s: %w", role, err)
	}
	c.open[key] = client
	return client, nil
}

// config is the sarama configuration common to all, with the role's own on top.
func (c *Clients) config(role string) *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.ClientID = "sluice-" + role
	cfg.Version = sarama.MaxVersion // requests are clamped to what the broker offers
	cfg.ApiVersionsRequest = true
	cfg.MetricRegistry = metrics.NewRegistry()
	cfg.ChannelBufferSize = 16

	cfg.Net.DialTimeout = 3 * time.Second
	cfg.Net.ReadTimeout = 10 * time.Second
	cfg.Net.WriteTimeout = 10 * time.Second
	cfg.Net.KeepAlive = 30 * time.Second
	cfg.Net.MaxOpenRequests = 1

	cfg.Metadata.AllowAutoTopicCreation = false
	cfg.Metadata.Full = role == roleAdmin
	cfg.Metadata.RefreshFrequency = 30 * time.Second
	cfg.Metadata.Timeout = 5 * time.Second
	cfg.Metadata.Retry.Max = 2

	cfg.Consumer.Return.Errors = false // an undrained channel deadlocks
	cfg.Consumer.Offsets.AutoCommit.Enable = false
	cfg.Consumer.Fetch.Default = 1 << 20
	cfg.Consumer.MaxWaitTime = 250 * time.Millisecond
	cfg.Consumer.Retry.Backoff = 250 * time.Millisecond
	cfg.Consumer.IsolationLevel = sarama.ReadCommitted
	if role == roleLiveUncommitted {
		cfg.Consumer.IsolationLevel = sarama.ReadUncommitted
	}

	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Idempotent = true
	cfg.Producer.MaxMessageBytes = c.cfg.MaxRecordBytes + 1<<20
	return cfg
}

// Close closes every client. Calls under way fail with sarama.ErrClosedClient.
func (c *Clients) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, closeBare := range c.bare {
		closeBare()
	}
	c.bare = nil
	var errs []error
	for key, client := range c.open {
		if err := client.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
			errs = append(errs, fmt.Errorf("close Kafka client %s: %w", key, err))
		}
	}
	clear(c.open)
	return errors.Join(errs...)
}

// quiet turns sarama's metrics off: its registry doubles the heap, and ours is Prometheus. Once, because it is a global.
var quiet = sync.OnceFunc(func() { metrics.UseNilMetrics = true })
