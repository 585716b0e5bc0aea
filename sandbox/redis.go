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

// StartRedis serves on a free loopback port until Close.
func StartRedis() (*Redis, error) {
	mini := miniredis.NewMiniRedis()
	if err := mini.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	return &Redis{URL: "redis://" + mini.Addr() + "/0", Mini: mini}, nil
}

// Close ends the server and with it everything it held.
func (r *Redis) Close() { r.Mini.Close() }
