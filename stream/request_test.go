package stream

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluicegate/sluice"
)

func parameters(pairs ...string) (ps []Parameter) {
	for i := 0; i < len(pairs); i += 2 {
		ps = append(ps, Parameter{pairs[i], pairs[i+1]})
	}
	return ps
}

func TestParameters(t *testing.T) {
	now := time.UnixMilli(1795409232118)
	for name, c := range map[string]struct {
		topic string
		ps    []Parameter
		want  Request
	}{
		"none":               {"orders", nil, Request{Topics: []string{"orders"}}},
		"what polyfills add": {"orders", parameters("_", "1", "r", "2", "padding", "3", "stream", "orders"), Request{Topics: []string{"orders"}}},
		"several topics":     {"", parameters("topic", "a", "topic", "b", "topic", "a", "stream", "c"), Request{Topics: []string{"a", "b", "c"}}},
		"partitions":         {"orders", parameters("partitions", "0,2,5-7"), Request{Topics: []string{"orders"}, Subset: map[string][]span{"orders": {{0, 0}, {2, 2}, {5, 7}}}}},
		"of topics":          {"", parameters("topic", "orders", "topic", "payments", "partitions", "orders/0-3,payments/1"), Request{Topics: []string{"orders", "payments"}, Subset: map[string][]span{"orders": {{0, 3}}, "payments": {{1, 1}}}}},
		"earliest":           {"orders", parameters("from", "earliest"), Request{Topics: []string{"orders"}, From: fromEarliest}},
		"epoch":              {"orders", parameters("since", "1795409232118"), Request{Topics: []string{"orders"}, From: fromTimestamp, Since: now}},
		"ago":                {"orders", parameters("from", "timestamp", "since", "-90s"), Request{Topics: []string{"orders"}, From: fromTimestamp, Since: now.Add(-90 * time.Second)}},
		"RFC 3339":           {"orders", parameters("since", "2026-11-23T05:00:00 01:00"), Request{Topics: []string{"orders"}, From: fromTimestamp, Since: time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)}},
		"offsets":            {"orders", parameters("offsets", "3:104857,5:88"), Request{Topics: []string{"orders"}, From: fromOffsets, Offsets: []sluice.Position{{Topic: "orders", Partition: 3, Offset: 104857}, {Topic: "orders", Partition: 5, Offset: 88}}}},
		"offsets, topics":    {"", parameters("topic", "a", "topic", "b", "offsets", "b/3:1", "from", "offsets"), Request{Topics: []string{"a", "b"}, From: fromOffsets, Offsets: []sluice.Position{{Topic: "b", Partition: 3, Offset: 1}}}},
		"last id":            {"orders", parameters("lastEventId", "x"), Request{Topics: []string{"orders"}, LastEventID: "x"}},
		"formats":            {"orders", parameters("format", "base64", "key_format", "text"), Request{Topics: []string{"orders"}, Key: Text, Value: Base64}},
		"the rest":           {"orders", parameters("on_gap", "latest", "heartbeat", "5s", "mode", "envelope", "resume", "offset", "strict", "1"), Request{Topics: []string{"orders"}, OnGap: gapLatest, Heartbeat: 5 * time.Second, Strict: true}},
	} {
		got, err := Parse(Query{Topic: c.topic, Parameters: c.ps}, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d := cmp.Diff(c.want, got, cmp.AllowUnexported(span{}), cmpopts.EquateEmpty(), cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	got, err := Parse(Query{Topic: "orders", Parameters: parameters("last_event_id", "query"), LastEventID: "header"}, now)
	if err != nil || got.LastEventID != "header" {
		t.Errorf("the header must win: %+v %v", got, err)
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	many := []string{}
	for i := range 17 {
		many = append(many, "topic", string(rune('a'+i)))
	}
	for want, ps := range map[string][]string{
		`Unknown parameter "form".`: {"form", "earliest"}, `Unknown parameter "filter".`: {"filter", "x"}, `Unknown parameter "key".`: {"key", "x"}, `Unknown parameter "header".`: {"header", "x"},
		`Unknown parameter "limit".`: {"limit", "1"}, `Unknown parameter "until".`: {"until", "latest"}, `Unknown parameter "ticket".`: {"ticket", "x"}, `Unknown parameter "ids".`: {"ids", "1"},
		`Unknown parameter "0123456789012345678901234567890123456789012345678901234567890123".`:               {"0123456789012345678901234567890123456789012345678901234567890123456789", ""},
		`Invalid parameter "from": must be latest, earliest, timestamp or offsets.`:                           {"from", ""},
		`Invalid parameter "from": must be timestamp where since is given.`:                                   {"from", "latest", "since", "-1s"},
		`Invalid parameter "from": must be offsets where offsets are given.`:                                  {"from", "latest", "offsets", "0:1"},
		`Invalid parameter "since": must be given with from=timestamp.`:                                       {"from", "timestamp"},
		`Invalid parameter "offsets": must be given with from=offsets.`:                                       {"from", "offsets"},
		`Invalid parameter "offsets": must not be given with since.`:                                          {"since", "1", "offsets", "0:1"},
		`Invalid parameter "offsets": must name each partition once.`:                                         {"offsets", "0:1,0:2"},
		`Invalid parameter "offsets": must be of the topics and partitions of the request.`:                   {"offsets", "payments/0:1"},
		`Invalid parameter "offsets": must be a list such as 3:104857,5:88 or orders/3:104857.`:               {"offsets", "0:-1"},
		`Invalid parameter "since": must be epoch milliseconds, an RFC 3339 time or a duration such as -90s.`: {"since", "90s"},
		`Invalid parameter "partitions": must be a list such as 0,2,5-7 or orders/0-3,payments/1.`:            {"partitions", "3-1"},
		`Invalid parameter "partitions": must be of the topics of the request.`:                               {"partitions", "payments/1"},
		`Invalid parameter "lastEventId": must be given once.`:                                                {"last_event_id", "", "lastEventId", ""},
		`Invalid parameter "format": must be auto, json, text or base64.`:                                     {"format", "decoded"},
		`Invalid parameter "mode": must be envelope.`:                                                         {"mode", "raw"},
		`Invalid parameter "resume": must be offset.`:                                                         {"resume", "time"},
		`Invalid parameter "heartbeat": must lie between 5s and 60s.`:                                         {"heartbeat", "4s"},
		`Invalid parameter "on_gap": must be earliest, latest or error.`:                                      {"on_gap", "x"},
		`Invalid parameter "strict": must be 1.`:                                                              {"strict", "true"},
		`Invalid parameter "stream": must be the topic of the path.`:                                          {"stream", "payments"},
		`Unknown parameter "topic".`:                                                                          {"topic", "orders"},
	} {
		_, err := Parse(Query{Topic: "orders", Parameters: parameters(ps...)}, time.Now())
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != 40021 || r.Status() != 400 || r.Transient || r.Msg != want {
			t.Errorf("%v: got %v, want %s", ps, err, want)
		}
	}
	for want, ps := range map[string][]string{
		`Invalid parameter "topic": must be given.`:                  nil,
		`Invalid parameter "topic": must be given at most 16 times.`: many,
		`Invalid parameter "topic": must be the name of a topic.`:    {"topic", ""},
		`Invalid parameter "partitions": must name the topics.`:      {"topic", "a", "topic", "b", "partitions", "1"},
		`Invalid parameter "offsets": must name the topics.`:         {"topic", "a", "topic", "b", "offsets", "1:1"},
	} {
		_, err := Parse(Query{Parameters: parameters(ps...)}, time.Now())
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Msg != want {
			t.Errorf("%v: got %v, want %s", ps, err, want)
		}
	}
}
