package partition

import (
	"errors"
	"runtime/debug"
)

// Config holds the memory budgets of a Log. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	RingBytes   int `name:"ring-bytes" env:"SLUICE_RING_BYTES" default:"4194304" help:"Newest records kept in memory for each followed partition, in bytes."`
	RingRecords int `name:"ring-records" env:"SLUICE_RING_RECORDS" default:"10000" help:"Newest records kept in memory for each followed partition, in number."`
	RingsBytes  int `name:"rings-bytes" env:"SLUICE_RINGS_BYTES" default:"0" help:"Newest records of all followed partitions together, in bytes: above it busy partitions keep fewer of them. 0 is 256 MiB, or a quarter of GOMEMLIMIT if that is less."`
	CacheBytes  int `name:"cache-bytes" env:"SLUICE_CACHE_BYTES" default:"67108864" help:"Older records kept in memory for readers that catch up, in bytes, over all partitions."`
}

// Default is what the tags say.
func Default() Config {
	return Config{RingBytes: 4 << 20, RingRecords: 10_000, CacheBytes: 64 << 20}
}

// Validate names the first setting that cannot work.
func (c Config) Validate() error {
	switch {
	case c.RingBytes < 64<<10:
		return errors.New("ring-bytes must be at least 65536")
	case c.RingRecords < 16:
		return errors.New("ring-records must be at least 16")
	case c.RingsBytes < 0:
		return errors.New("rings-bytes must not be negative")
	case c.CacheBytes < 1<<20:
		return errors.New("cache-bytes must be at least 1048576")
	}
	return nil
}

// leastRing is what a busy partition keeps, however many there are: a reader that is a moment late must find its place.
const leastRing = 64 << 10

// rings is the budget of all rings together.
func (c Config) rings() int {
	if c.RingsBytes > 0 {
		return c.RingsBytes
	}
	return int(min(256<<20, debug.SetMemoryLimit(-1)/4)) // a negative limit only asks
}
