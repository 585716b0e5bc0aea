package stream

import (
	"errors"
	"time"
)

// Config is what streams can be told. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	Heartbeat      time.Duration `name:"sse-heartbeat" env:"SLUICE_SSE_HEARTBEAT" default:"15s" help:"Longest silence on a stream; a request may ask for 5s to 60s."`
	Retry          time.Duration `name:"sse-retry" env:"SLUICE_SSE_RETRY" default:"3s" help:"How long clients are told to wait before they reconnect; up to two seconds at random are added."`
	Coalesce       time.Duration `name:"sse-coalesce" env:"SLUICE_SSE_COALESCE" default:"20ms" help:"Streams are woken at most so often. The first record after a quiet spell goes out at once."`
	WriteDeadline  time.Duration `name:"sse-write-deadline" env:"SLUICE_SSE_WRITE_DEADLINE" default:"10s" help:"How long one write to a client may block before its stream is closed."`
	MaxLag         time.Duration `name:"sse-max-lag" env:"SLUICE_SSE_MAX_LAG" default:"60s" help:"A live stream that is further behind is closed; it resumes by its id."`
	MaxLagBytes    int64         `name:"sse-max-lag-bytes" env:"SLUICE_SSE_MAX_LAG_BYTES" default:"8388608" help:"The same in bytes."`
	BufferBytes    int64         `name:"sse-buffer-bytes" env:"SLUICE_SSE_BUFFER_BYTES" default:"134217728" help:"Memory for encoded frames of the whole process; above it the streams that are furthest behind are closed."`
	Lifetime       time.Duration `name:"sse-lifetime" env:"SLUICE_SSE_LIFETIME" default:"10m" help:"A stream is told to reconnect after 80 to 100 % of it, so that a deploy looks like ordinary rotation."`
	Drain          time.Duration `name:"sse-drain" env:"SLUICE_SSE_DRAIN" default:"20s" help:"Time over which streams are told to reconnect at shutdown."`
	MaxStreams     int           `name:"sse-max-streams" env:"SLUICE_SSE_MAX_STREAMS" default:"10000" help:"Streams of this replica. Needs as many open files."`
	MaxPerAddress  int           `name:"sse-max-per-address" env:"SLUICE_SSE_MAX_PER_ADDRESS" default:"64" help:"Streams of one client address on this replica."`
	ConnectRate    int           `name:"sse-connect-rate" env:"SLUICE_SSE_CONNECT_RATE" default:"500" help:"New streams per second; twice as many at once."`
	MaxCatchUp     int           `name:"sse-max-catchup" env:"SLUICE_SSE_MAX_CATCHUP" default:"512" help:"Streams that read history at one time."`
	MaxPartitions  int           `name:"sse-max-partitions" env:"SLUICE_SSE_MAX_PARTITIONS" default:"500" help:"Partitions of one stream."`
	MaxRecordBytes int           `name:"sse-max-record" env:"SLUICE_SSE_MAX_RECORD" default:"16777216" help:"Largest record that is streamed; a larger one is passed over with a gap event."`
}

// Default is what the tags say, for those who do not come through the command line.
func Default() Config {
	return Config{
		Heartbeat: 15 * time.Second, Retry: 3 * time.Second, Coalesce: 20 * time.Millisecond, WriteDeadline: 10 * time.Second,
		MaxLag: time.Minute, MaxLagBytes: 8 << 20, BufferBytes: 128 << 20, Lifetime: 10 * time.Minute, Drain: 20 * time.Second,
		MaxStreams: 10000, MaxPerAddress: 64, ConnectRate: 500, MaxCatchUp: 512, MaxPartitions: 500, MaxRecordBytes: 16 << 20,
	}
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Heartbeat < time.Second || c.Heartbeat > time.Minute:
		return errors.New("sse-heartbeat must lie between 1s and 60s")
	case c.Retry < 0 || c.Retry > 10*time.Minute:
		return errors.New("sse-retry must lie between 0s and 10m")
	case c.Coalesce < 0 || c.Coalesce > time.Second:
		return errors.New("sse-coalesce must lie between 0s and 1s")
	case c.WriteDeadline < 100*time.Millisecond:
		return errors.New("sse-write-deadline must be at least 100ms")
	case c.MaxLag < time.Second || c.MaxLag > time.Hour:
		return errors.New("sse-max-lag must lie between 1s and 1h")
	case c.MaxLagBytes < 256<<10 || c.BufferBytes < c.MaxLagBytes:
		return errors.New("sse-max-lag-bytes must be at least 262144, and sse-buffer-bytes not below it")
	case c.Lifetime < time.Second:
		return errors.New("sse-lifetime must be at least 1s")
	case c.Drain < 0:
		return errors.New("sse-drain must not be negative")
	case c.MaxStreams < 1 || c.MaxPerAddress < 1 || c.ConnectRate < 1 || c.MaxCatchUp < 1 || c.MaxPartitions < 1:
		return errors.New("sse-max-streams, -max-per-address, -connect-rate, -max-catchup and -max-partitions must be at least 1")
	case c.MaxRecordBytes < 1<<10 || c.MaxRecordBytes > 64<<20:
		return errors.New("sse-max-record must lie between 1024 and 67108864")
	}
	return nil
}
