package sandbox

import (
	"fmt"

	"github.com/alicebob/miniredis/v2"
)

// Redis is an embedded Redis. Mini is there for tests that steer it.
type Redis struct {
	URL  string
	Mini *miniredis.Miniredis
}

// StartRedis serves on a free loopback port until Close, from memory alone.
func StartRedis() (*Redis, error) {
	mini := miniredis.NewMiniRedis()
	mini.ClockTTL(true) // keys expire by the clock, as leases must
	return serveRedis(mini, nil)
}

// OpenRedis is StartRedis with a snapshot in that file: what it holds is there from the start, and a write is answered
// when the file holds it too. Keys with one of the passing prefixes are not kept. Only database 0 is.
func OpenRedis(file string, passing ...string) (*Redis, error) {
	mini := miniredis.NewMiniRedis()
	mini.ClockTTL(true) // the age of a key counts over restarts
	s := &snapshots{file: file, passing: passing, mini: mini}
	if err := s.load(); err != nil {
		return nil, err
	}
	return serveRedis(mini, s)
}

func serveRedis(mini *miniredis.Miniredis, s *snapshots) (*Redis, error) {
	if err := mini.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	if s != nil {
		mini.Server().SetPreHook(s.around) // nobody has been told the port yet
	}
	return &Redis{URL: "redis://" + mini.Addr() + "/0", Mini: mini}, nil
}

// Close ends the server and with it everything it held in memory.
func (r *Redis) Close() { r.Mini.Close() }
