package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/deadletters"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// Config bounds what one replica has in flight. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	Slots         int           `name:"webhook-slots" env:"SLUICE_WEBHOOK_SLOTS" default:"2048" help:"Most webhook requests in flight on this replica; one subscription gets a quarter."`
	InFlightBytes int64         `name:"webhook-inflight-bytes" env:"SLUICE_WEBHOOK_INFLIGHT_BYTES" default:"268435456" help:"Most bytes of records in flight to webhooks on this replica; one subscription gets a quarter."`
	MaxTopics     int           `name:"max-push-topics" env:"SLUICE_MAX_PUSH_TOPICS" default:"512" help:"Most topics with webhook subscriptions: each costs a connection per replica, and brokers may allow only 3,000."`
	LabelledUpTo  int           `name:"subscription-labels" env:"SLUICE_SUBSCRIPTION_LABELS" default:"1000" help:"Up to so many subscriptions have metrics of their own; above, they share the label _all."`
	Replica       string        `kong:"-"` // name of this replica in health reports
	ReadBack      time.Duration `kong:"-"` // how often what is committed is compared with what was committed

	Progress progress.Config `embed:""`
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{Slots: 2048, InFlightBytes: 256 << 20, MaxTopics: 512, LabelledUpTo: 1000, ReadBack: 30 * time.Second, Progress: progress.Default()}
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Slots < 4:
		return errors.New("webhook-slots must be at least 4")
	case c.InFlightBytes < 1<<20:
		return errors.New("webhook-inflight-bytes must be at least 1048576")
	case c.MaxTopics < 1:
		return errors.New("max-push-topics must be at least 1")
	case c.ReadBack < time.Millisecond:
		return errors.New("dispatcher: ReadBack must be positive")
	case c.LabelledUpTo < 0:
		return errors.New("subscription-labels must not be negative")
	}
	return c.Progress.Validate()
}

// What stays the same for every subscription until it may be configured.
const (
	clientErrorAttempts = 4
	maxAge              = 96 * time.Hour
	retryAfterCap       = time.Hour
)

// Needs is what a Dispatcher works with. All but Health are required.
type Needs struct {
	Log      *partition.Log
	Book     book
	Registry registry
	Groups   groups
	Offsets  offsets
	Topics   topics
	Sender   sender
	Letters  letters
	Health   health

	ClusterID     string // {cluster} of ce-source
	MetadataBytes int    // the brokers' offset.metadata.max.bytes; 0 means Kafka's default
}

// book is subscriptions.Book.
type book interface {
	All() []*subscriptions.Subscription
	Changed() <-chan struct{}
	Ready(ctx context.Context) error
}

// registry is subscriptions.Registry: Remove ends a deletion that the API began.
type registry interface {
	Remove(ctx context.Context, id string) error
}

// groups is kafka.Groups.
type groups interface {
	Member(ctx context.Context, m sluice.Membership, fn sluice.SessionFunc) error
}

// offsets is kafka.Offsets.
type offsets interface {
	progressGroups
	Commit(ctx context.Context, c sluice.GroupCommit) []error
	Group(ctx context.Context, group string, parts []sluice.Partition) ([]sluice.Commit, error)
	Groups(ctx context.Context, p sluice.Partition, groups []string) (map[string]sluice.Commit, error)
}

type progressGroups interface {
	Describe(ctx context.Context, groups []string) (map[string]sluice.GroupState, error)
	DeleteGroup(ctx context.Context, group string) error
}

// topics is kafka.Admin.
type topics interface {
	Topic(ctx context.Context, name string) (sluice.Topic, error)
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
}

// sender is webhook.Sender.
type sender interface {
	Send(ctx context.Context, d webhook.Delivery) webhook.Outcome
}

// letters is deadletters.Writer.
type letters interface {
	Write(ctx context.Context, l deadletters.Letter) error
}

// health is subscriptions.Health.
type health interface {
	Report(ctx context.Context, id, replica string, now subscriptions.LaneHealth)
}

func (n Needs) validate() error {
	switch {
	case n.Log == nil:
		return errors.New("dispatcher: no partition log")
	case n.Book == nil, n.Registry == nil:
		return errors.New("dispatcher: no subscriptions")
	case n.Groups == nil, n.Offsets == nil, n.Topics == nil:
		return errors.New("dispatcher: no Kafka")
	case n.Sender == nil, n.Letters == nil:
		return errors.New("dispatcher: no sender, or nothing that writes dead letters")
	}
	return nil
}
