package httpapi

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Config is what the HTTP side can be told. The tags are kong's; gateway composes, cmd/sluice loads. Sizes are bytes.
type Config struct {
	Listen        string        `name:"listen" env:"SLUICE_LISTEN" default:":8082" help:"Address to serve HTTP on."`
	MaxBodyBytes  int           `name:"max-body-bytes" env:"SLUICE_MAX_BODY_BYTES" default:"25165824" help:"Largest request body, as received and after decompression."`
	InflightBytes int64         `name:"inflight-bytes" env:"SLUICE_INFLIGHT_BYTES" default:"268435456" help:"Memory for request bodies of the whole process; at least twice the largest. Beyond it requests are answered with 503 and Retry-After."`
	ProduceStatus string        `name:"produce-status" env:"SLUICE_PRODUCE_STATUS" default:"classic" enum:"classic,strict" help:"Status of a produce whose records all failed: classic answers 200, strict says what went wrong."`
	Gzip          bool          `name:"gzip" env:"SLUICE_GZIP" default:"true" negatable:"" help:"Compress answers of 1 KiB and more for clients that accept gzip."`
	BasePath      string        `name:"base-path" env:"SLUICE_BASE_PATH" default:"" placeholder:"/PATH" help:"Serve everything under this path as well, e.g. /__kafka-rest-proxy-msk, for a router that does not strip it."`
	IdleTimeout   time.Duration `name:"idle-timeout" env:"SLUICE_IDLE_TIMEOUT" default:"180s" help:"How long a connection without a request stays open; clients close theirs at 120s, and the server must not be first."`
	MaxHeader     int           `name:"max-header-bytes" env:"SLUICE_MAX_HEADER_BYTES" default:"16384" help:"Most that all headers of a request take together."`
	GTGKafkaGrace time.Duration `name:"gtg-kafka-grace" env:"SLUICE_GTG_KAFKA_GRACE" default:"30s" help:"How long Kafka may be out of reach before /__gtg says so."`
	AppName       string        `name:"app-name" env:"APP_NAME" default:"UPP - MSK Kafka REST Proxy (Sluice)" help:"Name in /__health."`
	SystemCode    string        `name:"app-system-code" env:"APP_SYSTEM_CODE" default:"msk-kafka-proxy" help:"System code in /__health and its runbook link."`
	PanicGuideURL string        `name:"panic-guide-url" env:"PANIC_GUIDE_URL" default:"https://runbooks.ftops.tech" help:"Where the runbooks linked from /__health live."`

	Pull PullConfig `embed:""`
	CORS CORSConfig `embed:""`
	API  APIConfig  `embed:""`

	Build Build `kong:"-"`
}

const minIdle = 180 * time.Second

// Build is what the linker was told about this binary (operations-and-security.md 2.2).
type Build struct {
	Version    string // semantic version
	Repository string
	Revision   string // commit, hexadecimal
	Builder    string // "go version …"
	DateTime   string // yyyymmddhhmmss, UTC
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{
		Listen: ":8082", MaxBodyBytes: 24 << 20, InflightBytes: 256 << 20, ProduceStatus: "classic", Gzip: true,
		GTGKafkaGrace: 30 * time.Second, AppName: "UPP - MSK Kafka REST Proxy (Sluice)", SystemCode: "msk-kafka-proxy",
		PanicGuideURL: "https://runbooks.ftops.tech", IdleTimeout: minIdle, MaxHeader: 16 << 10, Pull: defaultPull(), API: APIConfig{V2: true},
	}
}

// inflight is the budget for request bodies: as set, but by default never more than half of GOMEMLIMIT, the other half
// being what the rest of the process needs.
func (c Config) inflight() int64 {
	limit := debug.SetMemoryLimit(-1) // a negative one only asks
	if half := limit / 2; c.InflightBytes == Default().InflightBytes && half < c.InflightBytes {
		return max(half, c.leastInflight())
	}
	return c.InflightBytes
}

// leastInflight is what the largest body of unknown length needs: the pieces that it is gathered in, the last of them
// half empty, and the whole that they become (payload.join).
func (c Config) leastInflight() int64 { return 2*int64(c.MaxBodyBytes) + 512<<10 }

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Listen == "":
		return errors.New("no address to listen on: set --listen or SLUICE_LISTEN, e.g. :8082")
	case c.MaxBodyBytes < 1<<10 || c.MaxBodyBytes > 256<<20:
		return errors.New("max-body-bytes must lie between 1024 and 268435456")
	case c.InflightBytes < c.leastInflight():
		return fmt.Errorf("inflight-bytes must be at least twice max-body-bytes and 524288, in all %d: a body of unknown length is there twice for a moment, and the largest could never be taken", c.leastInflight())
	case c.ProduceStatus != "classic" && c.ProduceStatus != "strict":
		return errors.New("produce-status must be classic or strict")
	case c.IdleTimeout < minIdle:
		return errors.New("idle-timeout must be at least 180s: clients close their idle connections at 120s, and a server that is first makes requests fail")
	case c.MaxHeader < 4<<10 || c.MaxHeader > 1<<20:
		return errors.New("max-header-bytes must lie between 4096 and 1048576")
	case c.GTGKafkaGrace < 0:
		return errors.New("gtg-kafka-grace must not be negative")
	}
	for _, err := range []error{c.validateBasePath(), c.Pull.validate(), c.CORS.validate(), c.API.validate()} {
		if err != nil {
			return err
		}
	}
	return nil
}
