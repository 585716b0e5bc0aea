package subscriptions

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sluicegate/sluice"
)

// Store is the Redis that holds the definitions.
type Store struct {
	rdb   redis.UniversalClient
	addrs []string
}

// OpenStore dials nobody: Ping does.
func OpenStore(c Config) (*Store, error) {
	options, err := parseURL(c.RedisURL)
	if err != nil {
		return nil, err
	}
	silence()
	return &Store{rdb: redis.NewUniversalClient(options), addrs: options.Addrs}, nil
}

// Client is the connection itself, for the migrations: they own the keys of all rooms.
func (s *Store) Client() redis.UniversalClient { return s.rdb }

// Addrs are the host:port of the servers, without any credentials.
func (s *Store) Addrs() []string { return s.addrs }

// Close ends the connections. Whoever uses the store must have stopped before.
func (s *Store) Close() error { return s.rdb.Close() }

// Ping reaches Redis within a second, or the Kind is StoreDown.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return storeError("ping", s.rdb.Ping(ctx).Err())
}

// Eviction is Redis's maxmemory-policy, "" where it does not say (managed ones often refuse CONFIG). Any other than
// "noeviction" lets Redis throw definitions away: warn at start.
func (s *Store) Eviction(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.rdb.ConfigGet(ctx, "maxmemory-policy").Val()["maxmemory-policy"]
}

// parseURL reads one address, or with further addr= in the query those of a cluster, or with master_name= those of the
// Sentinels. Errors leave the text out: it may hold a password.
func parseURL(text string) (*redis.UniversalOptions, error) {
	bad := errors.New("redis-url must look like redis://[user:password@]host:port/0 (or rediss://)")
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "redis" && u.Scheme != "rediss") {
		return nil, bad
	}
	o := &redis.UniversalOptions{
		DialTimeout:  time.Second,
		ReadTimeout:  500 * time.Millisecond,
		WriteTimeout: 500 * time.Millisecond,
		PoolTimeout:  500 * time.Millisecond,
		MaxRetries:   1,

		ContextTimeoutEnabled:    true, // without it a context does not bound a command
		DisableIdentity:          true, // one command less per connection, and old servers log it as an error
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch query := u.Query(); {
	case query.Has("master_name"):
		f, err := redis.ParseFailoverURL(text)
		if err != nil {
			return nil, bad
		}
		o.MasterName, o.Addrs, o.DB, o.TLSConfig = f.MasterName, f.SentinelAddrs, f.DB, f.TLSConfig
		o.Username, o.Password = f.Username, f.Password
		o.SentinelUsername, o.SentinelPassword = f.SentinelUsername, f.SentinelPassword
	case query.Has("addr"):
		c, err := redis.ParseClusterURL(text)
		if err != nil {
			return nil, bad
		}
		o.Addrs, o.Username, o.Password, o.TLSConfig, o.IsClusterMode = c.Addrs, c.Username, c.Password, c.TLSConfig, true
	default:
		one, err := redis.ParseURL(text)
		if err != nil {
			return nil, bad
		}
		o.Addrs, o.DB, o.Username, o.Password, o.TLSConfig = []string{one.Addr}, one.DB, one.Username, one.Password, one.TLSConfig
	}
	return o, nil
}

// storeError gives every failure of Redis its kind. redis.Nil is an answer, not a failure: callers look at it first.
func storeError(doing string, err error) error {
	if err == nil {
		return nil
	}
	return &sluice.Error{Kind: sluice.StoreDown, Msg: "The subscription store is not available; nothing was changed.", Err: fmt.Errorf("%s: %w", doing, err)}
}

// silence keeps go-redis from writing plain lines to stderr between our JSON: what fails comes back as an error. The
// logger is a global of the library.
var silence = sync.OnceFunc(func() { redis.SetLogger(quiet{}) })

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// Keys and the channel. {subs} makes them one slot.
const (
	keyDoc  = "sluice:{subs}:doc"
	keyRev  = "sluice:{subs}:rev"
	keyGone = "sluice:{subs}:gone:"
	bell    = "sluice:bell"
)

func keyHealth(id string) string { return "sluice:health:" + id }

// Scripts answer "ok", "gone", or the revision that stands there ("" for none).
var (
	// swap KEYS doc rev gone ARGV id expected revision document. Finding what it was to write already there is "ok": the
	// answer to an earlier try was lost.
	swap = redis.NewScript(strings.TrimSpace(`
local rev = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
if rev == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
  return 'ok'
end
if rev == ARGV[3] and redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[4] then return 'ok' end
return rev`))

	// bury KEYS doc rev gone ARGV id expected seconds.
	bury = redis.NewScript(strings.TrimSpace(`
local rev = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if rev == '' and redis.call('EXISTS', KEYS[3]) == 1 then return 'ok' end
if rev ~= ARGV[2] then return rev end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[3])
return 'ok'`))
)
