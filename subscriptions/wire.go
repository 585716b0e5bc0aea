package subscriptions

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that reads and writes as "1h30m": ^([0-9]+(ms|s|m|h|d))+$. It writes no unit above h.
type Duration time.Duration

// Std is the duration in the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// ParseDuration reads the form of the API. Parts may repeat and come in any order; sums that overflow are refused.
func ParseDuration(text string) (Duration, error) {
	bad := errors.New(`must be a duration such as "30s", "5m" or "1h30m"`)
	var sum time.Duration
	rest := text
	for rest != "" {
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		number, err := strconv.ParseInt(rest[:n], 10, 64)
		if err != nil {
			return 0, bad
		}
		rest = rest[n:]
		unit, size := unitOf(rest)
		if size == 0 || number > int64((math.MaxInt64-sum)/unit) {
			return 0, bad
		}
		sum += time.Duration(number) * unit
		rest = rest[size:]
	}
	if text == "" {
		return 0, bad
	}
	return Duration(sum), nil
}

func unitOf(s string) (unit time.Duration, size int) {
	switch {
	case strings.HasPrefix(s, "ms"):
		return time.Millisecond, 2
	case strings.HasPrefix(s, "s"):
		return time.Second, 1
	case strings.HasPrefix(s, "m"):
		return time.Minute, 1
	case strings.HasPrefix(s, "h"):
		return time.Hour, 1
	case strings.HasPrefix(s, "d"):
		return 24 * time.Hour, 1
	}
	return 0, 0
}

// String leaves out the parts that are zero; a zero duration is "0s".
func (d Duration) String() string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	rest := time.Duration(d)
	for _, u := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := rest / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			rest -= n * u.size
		}
	}
	return b.String()
}

// MarshalJSON writes what String gives.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON takes what ParseDuration takes.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(`must be a duration such as "30s"`)
	}
	v, err := ParseDuration(s)
	*d = v
	return err
}

// Time is a time.Time that writes as RFC 3339 in UTC with milliseconds, always three digits.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z"

// MarshalJSON writes what String gives.
func (t Time) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON takes any time of RFC 3339.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New("must be a time in RFC 3339")
	}
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("must be a time in RFC 3339")
	}
	t.Time = v.UTC()
	return nil
}

// String is the time in the layout of the API, 2026-11-23T04:47:12.118Z.
func (t Time) String() string { return t.UTC().Format(timeLayout) }
