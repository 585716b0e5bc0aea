package webhook

import (
	"net/http"
	"strings"
	"time"
)

// RetryAfterMax bounds what is believed of any endpoint; a subscription's own cap is lower.
const RetryAfterMax = 24 * time.Hour

// ParseRetryAfter reads the header (RFC 9110, 10.2.3): whole seconds or any of the three forms of an HTTP date. A date in
// the past is 0; what is negative or does not parse is as if it were absent; all the rest is clamped to RetryAfterMax,
// numbers that fit no integer included.
func ParseRetryAfter(value string, now time.Time) RetryAfter {
	value = strings.Trim(value, " \t")
	if value == "" {
		return RetryAfter{}
	}
	if digits(value) {
		return RetryAfter{true, clampSeconds(value)}
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return RetryAfter{}
	}
	return RetryAfter{true, min(max(at.Sub(now), 0), RetryAfterMax)} // Sub saturates
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func clampSeconds(s string) time.Duration {
	var n time.Duration
	for i := range len(s) {
		n = n*10 + time.Duration(s[i]-'0')
		if n > RetryAfterMax/time.Second {
			return RetryAfterMax
		}
	}
	return n * time.Second
}
