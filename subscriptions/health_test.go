package subscriptions

import (
	"testing"
	"time"
)

// A replica that says why it sends nothing says so again; one that is gone does not speak for ever.
func TestTroubleCountsWhileItIsRenewed(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	at := func(ago time.Duration, reason string) LaneHealth {
		return LaneHealth{At: Time{Time: now.Add(-ago)}, Reason: reason}
	}
	tests := map[string]struct {
		all  map[string]LaneHealth
		want string
	}{
		"nobody":           {nil, ""},
		"well":             {map[string]LaneHealth{"a": at(0, "")}, ""},
		"one of two":       {map[string]LaneHealth{"a": at(0, ""), "b": at(time.Minute, GroupHijacked)}, GroupHijacked},
		"the latest":       {map[string]LaneHealth{"a": at(2*time.Minute, GroupHijacked), "b": at(time.Minute, Forbidden)}, Forbidden},
		"a replica of old": {map[string]LaneHealth{"a": at(10*time.Minute, GroupHijacked)}, ""},
	}
	for name, tt := range tests {
		if got := Trouble(tt.all, now); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
