package consumers

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

func TestCreateOptions(t *testing.T) {
	on, off := true, false
	base := Settings{Format: "binary", Reset: ResetLatest, Isolation: sluice.ReadUncommitted}
	with := func(change func(*Settings)) *Settings {
		s := base
		change(&s)
		return &s
	}
	for body, want := range map[string]any{
		`{}`: &base,
		`{"auto.offset.reset":"largest","auto.commit.enable":"false"}`:   with(func(s *Settings) { s.AutoCommit = &off }),
		`{"auto.offset.reset":"smallest","enable.auto.commit":true}`:     with(func(s *Settings) { s.Reset, s.AutoCommit = ResetEarliest, &on }),
		`{"auto.offset.reset":"none","format":"JSON","id":7,"name":"x"}`: with(func(s *Settings) { s.Reset, s.Format, s.ID = ResetNone, "json", "7" }),
		`{"fetch.min.bytes":-1,"requestWaitMs":2147483647,"isolation.level":"read_committed"}`: with(func(s *Settings) {
			s.MinBytes, s.Timeout, s.Isolation = 1, 2147483647*time.Millisecond, sluice.ReadCommitted
		}),
		`{"responseMinBytes":"10000000","consumer.request.timeout.ms":"1","isolation.level":null}`: with(func(s *Settings) { s.MinBytes, s.Timeout = 10000000, time.Millisecond }),
		`{"topic.metadata.refresh.interval.ms":"whatever","name":"n"}`:                             with(func(s *Settings) { s.ID = "n" }),
		`{"format":"xml"}`:                           "invalid: Invalid format type.",
		`{"colour":"red"}`:                           "invalid: Unrecognized field: colour",
		`{"format":["json"]}`:                        "malformed: format must be a string, a number or a boolean",
		`{"auto.offset.reset":"yesterday"}`:          "bad_setting: Invalid value yesterday for configuration auto.offset.reset: String must be one of: latest, earliest, none",
		`{"auto.commit.enable":1}`:                   "bad_setting: Invalid value 1 for configuration auto.commit.enable: Expected value to be either true or false",
		`{"isolation.level":"x"}`:                    "bad_setting: Invalid value x for configuration isolation.level: String must be one of: read_committed, read_uncommitted",
		`{"fetch.min.bytes":-2}`:                     "out_of_bounds: fetch.min.bytes must be an integer from -1 to 10000000 (was -2)",
		`{"fetch.min.bytes":"10000001"}`:             "out_of_bounds: fetch.min.bytes must be an integer from -1 to 10000000 (was 10000001)",
		`{"consumer.request.timeout.ms":0}`:          "out_of_bounds: consumer.request.timeout.ms must be an integer from 1 to 2147483647 (was 0)",
		`{"consumer.request.timeout.ms":2147483648}`: "out_of_bounds: consumer.request.timeout.ms must be an integer from 1 to 2147483647 (was 2147483648)",
		`{"id":"a/b"}`:                               "bad_setting: The instance id must have 1 to 255 bytes, no control characters and no slash",
	} {
		var options map[string]any
		d := json.NewDecoder(strings.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&options); err != nil {
			t.Fatal(err)
		}
		got, err := ParseSettings(options, func(f string) bool { return f == "binary" || f == "json" })
		switch want := want.(type) {
		case string:
			if err == nil || err.Error() != want {
				t.Errorf("%s: %v, want %s", body, err, want)
			}
		case *Settings:
			if err != nil || !reflect.DeepEqual(got, *want) {
				t.Errorf("%s: %+v, %v, want %+v", body, got, err, *want)
			}
		}
	}
}

// An auto.commit.enable that was left unset follows the API, which may show only at the first call.
func TestAutoCommitFollowsTheVersion(t *testing.T) {
	inRoom(t, func(t *testing.T, r *room) {
		for _, c := range []struct {
			made Version
			v2   bool
			want bool
		}{{V1, false, false}, {V1, true, false}, {V2, false, true}, {Provisional, false, false}, {Provisional, true, true}} {
			i, err := r.Create(t.Context(), "g", Settings{Reset: ResetLatest}, c.made)
			if err != nil {
				t.Fatal(err)
			}
			if c.v2 {
				i.SpeakV2()
			}
			if got := i.autoCommits(); got != c.want {
				t.Errorf("%+v: auto-commit %v", c, got)
			}
		}
	})
}

func TestConfigDefaultsAreValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []func(*Config){
		func(c *Config) { c.RequestTimeout = 0 }, func(c *Config) { c.RequestMaxBytes = 0 },
		func(c *Config) { c.InstanceTimeout = 0 }, func(c *Config) { c.FetchMinBytes = -2 }, func(c *Config) { c.ID = "a/b" },
	} {
		c := Default()
		bad(&c)
		if c.Validate() == nil {
			t.Errorf("%+v passes", c)
		}
	}
}
