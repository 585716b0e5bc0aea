package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// browsing is rest-api.md 8.
func browsing(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c8", 2)
	const t0 = 1612552482000 // 2021-02-05T19:14:42Z
	s.intoKafka(t, topic,
		kgo.Record{Key: []byte("key"), Value: []byte("0"), Timestamp: time.UnixMilli(t0)},
		kgo.Record{Value: []byte("1"), Timestamp: time.UnixMilli(t0 + 1000), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}},
		kgo.Record{Value: []byte(`{"a":2}`), Timestamp: time.UnixMilli(t0 + 2000)})
	shapes := map[string][]string{
		"messages": {
			fmt.Sprintf(`{"topic":%q,"key":"a2V5","value":"MA==","partition":0,"offset":0}`, topic),
			fmt.Sprintf(`{"topic":%q,"key":null,"value":"MQ==","partition":0,"offset":1}`, topic),
			fmt.Sprintf(`{"topic":%q,"key":null,"value":"eyJhIjoyfQ==","partition":0,"offset":2}`, topic),
		},
		"records": {
			fmt.Sprintf(`{"topic":%q,"key":"a2V5","value":"MA==","partition":0,"offset":0,"timestamp":%d}`, topic, t0),
			fmt.Sprintf(`{"topic":%q,"key":null,"value":"MQ==","partition":0,"offset":1,"timestamp":%d,"headers":[{"key":"h","value":"dg=="}]}`, topic, t0+1000),
			fmt.Sprintf(`{"topic":%q,"key":null,"value":"eyJhIjoyfQ==","partition":0,"offset":2,"timestamp":%d}`, topic, t0+2000),
		},
	}
	path := func(what, query string) string { return "/topics/" + topic + "/partitions/0/" + what + query }
	for _, what := range []string{"messages", "records"} {
		typ, rest := binaryV1, 1 // of the records, how many come where nobody says
		if what == "records" {
			typ, rest = binaryV2, 3
		}
		some := func(from, to int) want {
			return want{status: 200, typ: typ, json: "[" + strings.Join(shapes[what][from:max(from, min(to, 3))], ",") + "]"}
		}
		for _, c := range []struct {
			query    string
			from, to int
		}{
			{"", 0, rest}, {"?offset=0", 0, rest}, {"?offset=1", 1, 1 + rest}, {"?offset=0&count=2", 0, 2}, {"?offset=1&count=1", 1, 2}, {"?count=3", 0, 3},
			{"?offset=0&count=3&max_bytes=4", 0, 1}, {"?offset=0&count=3&max_bytes=5", 0, 2}, {"?offset=0&count=3&max_bytes=1", 0, 1},
			{"?timestamp=2021-02-05T19:14:43Z&count=2", 1, 3}, {"?timestamp=2021-02-05T19:14:43.5Z&count=1", 2, 3}, {"?timestamp=2099-01-01T00:00:00Z", 0, 0},
		} {
			s.row(t, what+c.query, func(t *testing.T) { s.expect(t, request{method: "GET", path: path(what, c.query)}, some(c.from, c.to)) })
		}
		s.row(t, what+", fewer than asked for", func(t *testing.T) {
			a := s.expect(t, request{method: "GET", path: path(what, "?offset=1&count=10&timeout=600")}, some(1, 3))
			if low := map[string]time.Duration{"messages": 0, "records": 500 * time.Millisecond}[what]; a.took < low || a.took > low+4*time.Second {
				s.differ(t, "it took %v", a.took)
			}
		})
		s.row(t, what+", at the end", func(t *testing.T) {
			a := s.expect(t, request{method: "GET", path: path(what, "?offset=3&timeout=600")}, some(3, 3))
			if low := map[string]time.Duration{"messages": 0, "records": 500 * time.Millisecond}[what]; a.took < low || a.took > low+4*time.Second {
				s.differ(t, "it took %v", a.took)
			}
		})
		s.rows(t, []row{
			{what + ", offset and timestamp", request{method: "GET", path: path(what, "?offset=0&timestamp=2021-02-05T19:14:43Z")},
				want{status: 400, code: 400, message: "Either `offset` or `timestamp` query parameters must be set."}},
			{what + ", offset out of range", request{method: "GET", path: path(what, "?offset=1000")}, want{status: 500, code: 50002, message: "Kafka error: Fetch response contains an error code: 1"}},
			{what + ", offset no number", request{method: "GET", path: path(what, "?offset=abc")}, want{status: 400, code: 400, like: ".*offset.*"}},
			{what + ", count no number", request{method: "GET", path: path(what, "?count=abc")}, want{status: 400, code: 400, like: ".*count.*"}},
			{what + ", timestamp none", request{method: "GET", path: path(what, "?timestamp=yesterday")}, want{status: 400, code: 400, like: ".*timestamp.*"}},
			{what + ", unknown partition", request{method: "GET", path: "/topics/" + topic + "/partitions/2/" + what}, want{status: 404, code: 40402, message: "Partition not found."}},
			{what + ", negative partition", request{method: "GET", path: "/topics/" + topic + "/partitions/-1/" + what}, want{status: 404, code: 40402, message: "Partition not found."}},
			{what + ", partition no number", request{method: "GET", path: "/topics/" + topic + "/partitions/foo/" + what}, want{status: 404, code: 404, message: "HTTP 404 Not Found"}},
			{what + ", Accept of nothing", request{method: "GET", path: path(what, ""), accept: "text/plain"}, want{status: 406, code: 406, message: "HTTP 406 Not Acceptable"}},
			{what + ", in v1", request{method: "GET", path: path(what, "?count=1"), accept: binaryV1}, want{status: 200, typ: binaryV1, json: "[" + shapes["messages"][0] + "]"}},
			{what + ", in v2", request{method: "GET", path: path(what, "?count=1"), accept: binaryV2}, want{status: 200, typ: binaryV2, json: "[" + shapes["records"][0] + "]"}},
			{what + ", bare type is binary", request{method: "GET", path: path(what, "?count=1"), accept: bareV1}, want{status: 200, typ: bareV1, json: "[" + shapes["messages"][0] + "]"}},
			{what + ", plain JSON is binary", request{method: "GET", path: path(what, "?count=1"), accept: plainJSON}, want{status: 200, typ: plainJSON, json: "[" + shapes[what][0] + "]"}},
			{what + ", json", request{method: "GET", path: path(what, "?offset=2&count=1"), accept: jsonV1},
				want{status: 200, typ: jsonV1, json: strings.Replace("["+shapes["messages"][2]+"]", `"eyJhIjoyfQ=="`, `{"a":2}`, 1)}},
			{what + ", text", request{method: "GET", path: path(what, "?offset=0&count=1"), accept: textV2},
				want{status: 200, typ: textV2, json: strings.NewReplacer(`"a2V5"`, `"key"`, `"MA=="`, `"0"`).Replace("[" + shapes["records"][0] + "]")}},
		})
		s.row(t, what+", unknown topic", func(t *testing.T) {
			a := s.expect(t, request{method: "GET", path: "/topics/" + backend.Unique("c8") + "/partitions/0/" + what}, want{status: 404, code: 40401, message: "Topic not found."})
			if a.took > 3*time.Second {
				s.differ(t, "it took %v", a.took)
			}
		})
	}
	s.row(t, "records come at once", func(t *testing.T) {
		if a := s.expect(t, request{method: "GET", path: path("records", "?offset=2&timeout=10000")}, want{status: 200}); a.took > 6*time.Second {
			s.differ(t, "it took %v", a.took)
		}
	})
	s.row(t, "records wait for the first", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c8", 1)
		done := make(chan answer, 1)
		go func() {
			a, err := s.try(t.Context(), request{method: "GET", path: "/topics/" + mine + "/partitions/0/records?timeout=10000"})
			if err != nil {
				t.Error(err)
			}
			done <- a
		}()
		s.fill(t, mine, 0, "late")
		if a := <-done; !strings.Contains(string(a.body), `"bGF0ZQ=="`) || a.took > 8*time.Second {
			s.differ(t, "%v after %v", a, a.took)
		}
	})
}
