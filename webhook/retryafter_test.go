package webhook

import (
	"testing"
	"time"
)

func TestRetryAfterCorpus(t *testing.T) {
	absent := RetryAfter{}
	in := func(d time.Duration) RetryAfter { return RetryAfter{true, d} }
	for value, want := range map[string]RetryAfter{
		"":                               absent,
		"0":                              in(0),
		"120":                            in(2 * time.Minute),
		" 120\t":                         in(2 * time.Minute),
		"007":                            in(7 * time.Second),
		"-1":                             absent,
		"+1":                             absent,
		"1.5":                            absent,
		"1e3":                            absent,
		"0x10":                           absent,
		"soon":                           absent,
		"120, 60":                        absent,
		"86400":                          in(24 * time.Hour),
		"86401":                          in(24 * time.Hour),
		"4611686018427387904":            in(24 * time.Hour), // 2^62: seconds times 1e9 overflow
		"9223372036854775807":            in(24 * time.Hour),
		"99999999999999999999999999":     in(24 * time.Hour),
		"Mon, 23 Nov 2026 04:48:12 GMT":  in(time.Minute),
		"Monday, 23-Nov-26 04:48:12 GMT": in(time.Minute),
		"Mon Nov 23 04:48:12 2026":       in(time.Minute),
		"Mon, 23 Nov 2026 04:47:12 GMT":  in(0),
		"Fri, 31 Dec 1999 23:59:59 GMT":  in(0),
		"Fri, 31 Dec 9999 23:59:59 GMT":  in(24 * time.Hour),
		"Mon, 01 Jan 0001 00:00:00 GMT":  in(0),
		"Mon, 23 Nov 2026 04:48:12":      absent,
		"2026-11-23T04:48:12Z":           absent,
		"\x00":                           absent,
		"١٢٠":                            absent, // digits, but not of HTTP
	} {
		if got := ParseRetryAfter(value, now); got != want {
			t.Errorf("%q: %+v, want %+v", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"0", "120", "-1", "99999999999999999999", "Mon, 23 Nov 2026 04:48:12 GMT", "Monday, 23-Nov-26 04:48:12 GMT", "x"} {
		f.Add(s, int64(1795409232))
	}
	f.Fuzz(func(t *testing.T, value string, seconds int64) {
		got := ParseRetryAfter(value, time.Unix(seconds, 0))
		if got.Wait < 0 || got.Wait > RetryAfterMax || !got.Present && got.Wait != 0 {
			t.Errorf("%q at %d: %+v", value, seconds, got)
		}
	})
}
