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
	"strings"
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
	crowdSuffix         = "-crowd"           // of the two above where very many partitions are followed
	roleCatchUp         = "catch-up"         // one-shot fetches; a pool, never long-polls
	roleCommit          = "commit"           // standalone commits; a pool
	roleOwn             = "own"              // group membership, on bare connections
)

// Clients opens sarama clients as they are needed and closes them together. Safe for concurrent use.
type Clients struct {
	cfg  Config
	as   access
	log  *slog.Logger
	dial dialer // of bare connections

	mu     sync.Mutex
	open   map[string]*opening
	meta   *metadata // one for admin and producers; made by metadata, in admin_metadata.go
	finder *finder   // of groups' coordinators; made by coordinators, in finder.go
	bare   []func()  // closes connections that no sarama.Client owns
	closed bool
}

// opening is a client on its way: whoever asks for it meanwhile waits for done, and nobody else does.
type opening struct {
	done   chan struct{}
	client sarama.Client
	err    error
}

// Connect reaches Kafka once, within ctx, so that a wrong address shows at the start: Kind Unavailable. A nil logger
// discards.
func Connect(ctx context.Context, cfg Config, log *slog.Logger) (*Clients, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	quiet()
	c := newClients(cfg, log)
	var err error
	if c.as, err = cfg.Security.read(); err != nil {
		return nil, err
	}
	if err := NewAdmin(c).Reachable(ctx); err != nil {
		_ = c.Close()
		if errors.Is(err, sarama.ErrSASLAuthenticationFailed) {
			return nil, &sluice.Error{Kind: sluice.Unauthorized, Msg: fmt.Sprintf("Kafka at %v refuses the login of %q.", cfg.Brokers, cfg.Security.User), Err: err}
		}
		return nil, &sluice.Error{Kind: sluice.Unavailable, Msg: fmt.Sprintf("Kafka did not answer at %v.", cfg.Brokers), Err: err}
	}
	return c, nil
}

func newClients(cfg Config, log *slog.Logger) *Clients {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Clients{cfg: cfg, log: log, dial: dialTCP, open: map[string]*opening{}}
}

// client is the n-th client of a role. It is dialed outside the lock: a broker that hangs holds up those who want this
// very client and nobody else.
func (c *Clients) client(role string, n int) (sarama.Client, error) {
	key := fmt.Sprintf("%s/%d", role, n)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, sarama.ErrClosedClient
	}
	if o, ok := c.open[key]; ok {
		c.mu.Unlock()
		<-o.done
		return o.client, o.err
	}
	o := &opening{done: make(chan struct{})}
	c.open[key] = o
	c.mu.Unlock()
	defer close(o.done)

	client, err := sarama.NewClient(c.cfg.Brokers, c.config(role))

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		o.err = fmt.Errorf("open Kafka client %s: %w", role, err)
		delete(c.open, key) // the next call tries again
	case c.closed:
		o.err = sarama.ErrClosedClient
		_ = client.Close() // nobody has seen it
	default:
		o.client = client
	}
	return o.client, o.err
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

	cfg.Consumer.Return.Errors = true // whoever consumes must drain them, or all deadlocks
	cfg.Consumer.Offsets.AutoCommit.Enable = false
	cfg.Consumer.Fetch.Default = 1 << 20
	cfg.Consumer.Fetch.MaxBytes = int32(c.cfg.FetchMaxBytes)
	cfg.Consumer.Retry.Max = 20 // then it closes, and who follows opens it anew: a consumer may fall silent
	cfg.Consumer.MaxWaitTime = 250 * time.Millisecond
	cfg.Consumer.Retry.Backoff = 250 * time.Millisecond
	cfg.Consumer.IsolationLevel = sarama.ReadCommitted
	live, crowded := strings.CutSuffix(role, crowdSuffix)
	if live == roleLiveUncommitted {
		cfg.Consumer.IsolationLevel = sarama.ReadUncommitted
	}
	if crowded {
		cfg.Consumer.Fetch.Min, cfg.Consumer.MaxWaitTime = crowdBytes, crowdWait
	}

	c.as.apply(cfg)
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Idempotent = true
	cfg.Producer.MaxMessageBytes = c.cfg.MaxRecordBytes + 1<<20
	return cfg
}

// Close closes every client and every bare connection. Calls under way fail with sarama.ErrClosedClient or the like.
func (c *Clients) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, closeBare := range c.bare {
		closeBare()
	}
	c.bare = nil
	var errs []error
	for key, o := range c.open {
		if o.client == nil {
			continue // still being dialed: client closes it
		}
		if err := o.client.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
			errs = append(errs, fmt.Errorf("close Kafka client %s: %w", key, err))
		}
	}
	clear(c.open)
	return errors.Join(errs...)
}

// quiet turns sarama's metrics off: its registry doubles the heap, and ours is Prometheus. Once, because it is a global.
var quiet = sync.OnceFunc(func() { metrics.UseNilMetrics = true })
