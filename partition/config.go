package partition

import "errors"

// Config holds the memory budgets of a Log. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	RingBytes   int `name:"ring-bytes" env:"SLUICE_RING_BYTES" default:"4194304" help:"Newest records kept in memory for each followed partition, in bytes."`
	RingRecords int `name:"ring-records" env:"SLUICE_RING_RECORDS" default:"10000" help:"Newest records kept in memory for each followed partition, in number."`
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
	case c.CacheBytes < 1<<20:
		return errors.New("cache-bytes must be at least 1048576")
	}
	return nil
}
