package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice/sandbox/backend"
)

const exclusive = "Illegal state: Subscription to topics, partitions and pattern are mutually exclusive"

// subscribing is rest-api.md 7.1 and 7.2, subscription and assignment.
func subscribing(t *testing.T, s *server) {
	topic, other := s.kafka.Topic(t, "c72", 1), s.kafka.Topic(t, "c72", 1)
	s.fill(t, topic, 0, "a")
	s.fill(t, other, 0, "b")
	done, ok := want{status: 204}, func(body string) want { return want{status: 200, typ: bareV2, json: body} }
	s.row(t, "subscription", func(t *testing.T) {
		i := s.create(t, "", earliest, bareV2)
		i.expect(t, "GET", "/subscription", "", ok(`{"topics":[]}`))
		i.expect(t, "POST", "/subscription", topicList(topic, other), done)
		i.expect(t, "GET", "/subscription", "", ok(topicList(topic, other)))
		i.some(t, "", 2)
		i.expect(t, "GET", "/assignments", "", ok(fmt.Sprintf(`{"partitions":[{"topic":%q,"partition":0},{"topic":%q,"partition":0}]}`, topic, other)))
	})
	s.row(t, "204 comes at once", func(t *testing.T) {
		i := s.create(t, "", earliest, bareV2)
		if a := i.expect(t, "POST", "/subscription", topicList(topic), done); a.took > 3*time.Second {
			s.differ(t, "it took %v", a.took)
		}
	})
	s.row(t, "again replaces", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.texts(t, "", "a")
		i.expect(t, "POST", "/subscription", topicList(other), done)
		i.expect(t, "GET", "/subscription", "", ok(topicList(other)))
		i.texts(t, "", "b")
		i.expect(t, "POST", "/subscription", topicList(other), done) // the same again changes nothing
	})
	s.row(t, "no topics is DELETE", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.expect(t, "POST", "/subscription", `{"topics":[]}`, done)
		i.expect(t, "GET", "/subscription", "", ok(`{"topics":[]}`))
		i.expect(t, "GET", "/records", "", want{status: 409, code: 40903, like: "Illegal state: .+"})
	})
	s.row(t, "DELETE, and once more", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.texts(t, "", "a")
		i.expect(t, "DELETE", "/subscription", "", done)
		i.expect(t, "DELETE", "/subscription", "", done)
		i.expect(t, "GET", "/subscription", "", ok(`{"topics":[]}`))
		i.expect(t, "GET", "/assignments", "", ok(`{"partitions":[]}`))
		i.expect(t, "POST", "/subscription", topicList(topic), done)
		i.texts(t, "", "a") // nothing was committed: it begins again
	})
	s.row(t, "a topic that comes later", func(t *testing.T) {
		t.Parallel()
		name := backend.Unique("c72-later")
		i := s.subscribed(t, "", quick, name)
		i.expect(t, "GET", "/records", "", ok("[]"))
		i.expect(t, "GET", "/subscription", "", ok(topicList(name)))
		s.kafka.Create(t, name, 1, 1)
		s.fill(t, name, 0, "later")
		made := time.Now()
		i.texts(t, "?timeout=100", "later")
		if took := time.Since(made); took > 12*time.Second {
			s.differ(t, "its record came after %v", took)
		}
	})
	patterns(t, s)
	s.row(t, "assignments", func(t *testing.T) {
		i := s.create(t, "", earliest, bareV2)
		i.expect(t, "GET", "/assignments", "", ok(`{"partitions":[]}`))
		i.expect(t, "POST", "/assignments", places(topic, 0), done)
		i.expect(t, "GET", "/assignments", "", ok(places(topic, 0)))
		i.expect(t, "GET", "/subscription", "", ok(`{"topics":[]}`))
		i.texts(t, "", "a")
		i.expect(t, "POST", "/assignments", places(other, 0), done) // replaces
		i.expect(t, "GET", "/assignments", "", ok(places(other, 0)))
		i.texts(t, "", "b")
		i.expect(t, "DELETE", "/subscription", "", done) // drops it as well
		i.expect(t, "GET", "/assignments", "", ok(`{"partitions":[]}`))
	})
	s.row(t, "an assignment is not checked", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		list := places(backend.Unique("c72-unknown"), 17)
		i.expect(t, "POST", "/assignments", list, done)
		i.expect(t, "GET", "/assignments", "", ok(list))
	})
	wrongSubscriptions(t, s, topic)
}

func patterns(t *testing.T, s *server) {
	s.row(t, "a pattern matches whole names, and new topics", func(t *testing.T) {
		t.Parallel()
		prefix := backend.Unique("c72p")
		for _, name := range []string{prefix + ".a", prefix + ".ab", "x" + prefix + ".a", "__" + prefix + ".a"} {
			s.kafka.Create(t, name, 1, 1)
			s.fill(t, name, 0, name)
		}
		i := s.create(t, "", quick, bareV2)
		pattern := fmt.Sprintf(`(__)?%s\.[a-c]`, prefix)
		i.expect(t, "POST", "/subscription", fmt.Sprintf(`{"topic_pattern":%q}`, pattern), want{status: 204})
		i.texts(t, "", prefix+".a")
		i.expect(t, "GET", "/subscription", "", want{status: 200, json: topicList(prefix + ".a")})
		s.kafka.Create(t, prefix+".c", 1, 1)
		s.fill(t, prefix+".c", 0, "new")
		made := time.Now()
		i.texts(t, "", "new")
		if took := time.Since(made); took > 12*time.Second {
			s.differ(t, "the new topic's record came after %v", took)
		}
		i.expect(t, "POST", "/subscription", fmt.Sprintf(`{"topic_pattern":"%s\\.ab"}`, prefix), want{status: 204}) // another replaces it
		i.texts(t, "", prefix+".ab")
	})
}

func wrongSubscriptions(t *testing.T, s *server, topic string) {
	both := `{"topics":["` + topic + `"],"topic_pattern":"a"}`
	pattern := `{"topic_pattern":"c72-none"}`
	refused := want{status: 409, typ: bareV2, code: 40903, message: exclusive}
	for _, c := range []struct {
		name, method, path, body string
		want                     want
	}{
		{"no body", "POST", "/subscription", "", want{status: 422, code: 422, like: ".+"}},
		{"null", "POST", "/subscription", "null", want{status: 422, code: 422, like: ".+"}},
		{"empty object", "POST", "/subscription", "{}", want{status: 422, code: 422, like: ".+"}},
		{"topics null", "POST", "/subscription", `{"topics":null}`, want{status: 422, code: 422, like: ".+"}},
		{"topics a string", "POST", "/subscription", `{"topics":"a"}`, want{status: 400, code: 400, like: ".+"}},
		{"a topic that is a number", "POST", "/subscription", `{"topics":[1]}`, want{status: 400, code: 400, like: ".+"}},
		{"unknown field", "POST", "/subscription", `{"topics":["a"],"color":1}`, want{status: 422, code: 422, message: "Unrecognized field: color"}},
		{"both", "POST", "/subscription", both, refused},
		{"pattern that does not compile", "POST", "/subscription", `{"topic_pattern":"("}`, want{status: 422, code: 422, like: ".+"}},
		{"pattern that RE2 has not", "POST", "/subscription", `{"topic_pattern":"a(?!b)"}`, want{status: 422, code: 422, like: ".+"}},
		{"assignments: no body", "POST", "/assignments", "", want{status: 422, code: 422, like: ".+"}},
		{"assignments: null", "POST", "/assignments", "null", want{status: 422, code: 422, like: ".+"}},
		{"assignments: partition negative", "POST", "/assignments", places("a", -1), want{status: 422, code: 422, like: `.*must be greater than or equal to 0 \(was -1\)`}},
		{"assignments: partition a string of digits", "POST", "/assignments", `{"partitions":[{"topic":"a","partition":"0"}]}`, want{status: 204}},
		{"assignments: partition no number", "POST", "/assignments", `{"partitions":[{"topic":"a","partition":"x"}]}`, want{status: 400, code: 400, like: ".+"}},
		{"assignments: no topic", "POST", "/assignments", `{"partitions":[{"partition":0}]}`, want{status: 422, code: 422, like: ".+"}},
		{"wrong media type", "POST", "/subscription", topicList(topic), want{status: 204}},
	} {
		s.row(t, c.name, func(t *testing.T) {
			i := s.create(t, "", quick, bareV2)
			if c.name == "wrong media type" {
				s.expect(t, request{method: c.method, path: i.path + c.path, contentType: "text/plain", body: c.body}, want{status: 415, code: 415, message: "HTTP 415 Unsupported Media Type"})
			}
			i.expect(t, c.method, c.path, c.body, c.want)
		})
	}
	for _, c := range []struct{ name, firstPath, first, thenPath, then string }{
		{"pattern after topics", "/subscription", topicList(topic), "/subscription", pattern},
		{"topics after pattern", "/subscription", pattern, "/subscription", topicList(topic)},
		{"assignment after topics", "/subscription", topicList(topic), "/assignments", places(topic, 0)},
		{"assignment after pattern", "/subscription", pattern, "/assignments", places(topic, 0)},
		{"topics after assignment", "/assignments", places(topic, 0), "/subscription", topicList(topic)},
		{"pattern after assignment", "/assignments", places(topic, 0), "/subscription", pattern},
	} {
		s.row(t, c.name, func(t *testing.T) {
			i := s.create(t, "", quick, bareV2)
			i.expect(t, "POST", c.firstPath, c.first, want{status: 204})
			i.expect(t, "POST", c.thenPath, c.then, refused)
			i.expect(t, "DELETE", "/subscription", "", want{status: 204})
			i.expect(t, "POST", c.thenPath, c.then, want{status: 204})
		})
	}
}

// seeking is rest-api.md 7.2, positions.
func seeking(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c72", 2)
	at := func(ms int64, value string) kgo.Record {
		return kgo.Record{Value: []byte(value), Timestamp: time.UnixMilli(ms)}
	}
	const t0 = 1612552482000 // 2021-02-05T19:14:42Z
	s.intoKafka(t, topic, at(t0, "0"), at(t0+1000, "1"), at(t0+2000, "2"), at(t0+3000, "3"))
	timestamps := func(partition int, when string) string {
		return fmt.Sprintf(`{"timestamps":[{"topic":%q,"partition":%d,"timestamp":%s,"metadata":"m"}]}`, topic, partition, when)
	}
	edge := places(topic, 0)
	for _, c := range []struct {
		name, path, body string
		want             []string
	}{
		{"offset", "/positions", offsetsOf(topic, 0, 2, "m"), []string{"2", "3"}},
		{"offset 0", "/positions", offsetsOf(topic, 0, 0, ""), []string{"0", "1", "2", "3"}},
		{"offset without metadata", "/positions", fmt.Sprintf(`{"offsets":[{"topic":%q,"partition":0,"offset":3}]}`, topic), []string{"3"}},
		{"offset a string of digits", "/positions", fmt.Sprintf(`{"offsets":[{"topic":%q,"partition":"0","offset":"3"}]}`, topic), []string{"3"}},
		{"beginning", "/positions/beginning", edge, []string{"0", "1", "2", "3"}},
		{"time of a record", "/positions", timestamps(0, `"2021-02-05T19:14:43Z"`), []string{"1", "2", "3"}},
		{"time between records", "/positions", timestamps(0, `"2021-02-05T19:14:43.500Z"`), []string{"2", "3"}},
		{"time with another zone", "/positions", timestamps(0, `"2021-02-05T20:14:44+01:00"`), []string{"2", "3"}},
		{"time in milliseconds", "/positions", timestamps(0, fmt.Sprint(t0+2000)), []string{"2", "3"}},
		{"a path with two slashes", "/positions//beginning", edge, []string{"0", "1", "2", "3"}},
	} {
		s.row(t, c.name, func(t *testing.T) {
			i := s.assigned(t, "", quick, topic, 0)
			i.some(t, "", 4)
			i.expect(t, "POST", c.path, c.body, want{status: 204})
			i.texts(t, "", c.want...)
		})
	}
	for name, c := range map[string][2]string{"end": {"/positions/end", edge}, "time later than every record": {"/positions", timestamps(0, `"2099-01-01T00:00:00Z"`)}} {
		s.row(t, name, func(t *testing.T) {
			mine := s.kafka.Topic(t, "c72", 1)
			s.fill(t, mine, 0, "before")
			i := s.assigned(t, "", quick, mine, 0)
			i.expect(t, "POST", c[0], strings.ReplaceAll(c[1], topic, mine), want{status: 204})
			i.expect(t, "GET", "/records", "", want{status: 200, body: "[]"})
			s.fill(t, mine, 0, "after")
			i.texts(t, "", "after")
		})
	}
	s.row(t, "several at once", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c72", 2)
		s.fill(t, mine, 0, "a", "b")
		s.intoKafka(t, mine, kgo.Record{Partition: 1, Value: []byte("c"), Timestamp: time.UnixMilli(t0)}, kgo.Record{Partition: 1, Value: []byte("d"), Timestamp: time.UnixMilli(t0 + 1000)})
		i := s.assigned(t, "", quick, mine, 0, 1)
		i.expect(t, "POST", "/positions", fmt.Sprintf(`{"offsets":[{"topic":%q,"partition":0,"offset":1}],"timestamps":[{"topic":%[1]q,"partition":1,"timestamp":"2021-02-05T19:14:43Z"}]}`, mine), want{status: 204})
		all := i.some(t, "", 2)
		if len(all) != 2 || all[0].Offset != 1 || all[1].Offset != 1 {
			s.differ(t, "read %v", all)
		}
	})
	s.row(t, "right after subscribing", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.expect(t, "POST", "/positions", offsetsOf(topic, 0, 3, ""), want{status: 204})
		i.texts(t, "", "3")
	})
	notAssigned := want{status: 409, code: 40903, message: "Illegal state: No current assignment for partition " + topic + "-1"}
	s.row(t, "not assigned, and nothing changes", func(t *testing.T) {
		i := s.assigned(t, "", quick, topic, 0)
		i.some(t, "", 4)
		two := strings.Replace(offsetsOf(topic, 0, 0, ""), "]", fmt.Sprintf(`,{"topic":%q,"partition":1,"offset":0}]`, topic), 1)
		i.expect(t, "POST", "/positions", two, notAssigned)
		i.expect(t, "POST", "/positions/beginning", places(topic, 0, 1), notAssigned)
		i.expect(t, "POST", "/positions/end", places(topic, 0, 1), notAssigned)
		i.expect(t, "GET", "/records", "", want{status: 200, body: "[]"})
	})
	s.row(t, "not subscribed", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		i.expect(t, "POST", "/positions", offsetsOf(topic, 1, 0, ""), notAssigned)
	})
	s.row(t, "subscribed to what is not there", func(t *testing.T) {
		none := backend.Unique("c72-none")
		i := s.subscribed(t, "", `{"consumer.request.timeout.ms":"800"}`, none)
		a := i.expect(t, "POST", "/positions", offsetsOf(none, 0, 0, ""), want{status: 409, code: 40903, message: "Illegal state: No current assignment for partition " + none + "-0"})
		if a.took > 4*time.Second {
			s.differ(t, "the answer took %v", a.took)
		}
	})
	i := s.assigned(t, "", quick, topic, 0)
	for _, c := range []struct {
		name, path, body string
		want             want
	}{
		{"offset negative", "/positions", offsetsOf(topic, 0, -1, ""), want{status: 422, code: 422, like: `.*must be greater than or equal to 0 \(was -1\)`}},
		{"offset missing", "/positions", places(topic, 0), want{status: 422, code: 422, like: ".+"}},
		{"no body", "/positions", "", want{status: 422, code: 422, like: ".+"}},
		{"time that is none", "/positions", timestamps(0, `"yesterday"`), want{status: 422, code: 422, like: ".*yesterday.*"}},
		{"beginning without a body", "/positions/beginning", "", want{status: 422, code: 422, like: ".+"}},
		{"end without partitions", "/positions/end", "{}", want{status: 422, code: 422, like: ".+"}},
	} {
		s.row(t, c.name, func(t *testing.T) { i.expect(t, "POST", c.path, c.body, c.want) })
	}
}

// recordsV2 is rest-api.md 7.3.
func recordsV2(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c73", 1)
	s.intoKafka(t, topic,
		kgo.Record{Value: []byte("foo"), Timestamp: time.UnixMilli(1612554562000), Headers: []kgo.RecordHeader{
			{Key: "h", Value: []byte("foobar")}, {Key: "a", Value: []byte{}}, {Key: "h", Value: nil}}},
		kgo.Record{Key: []byte{}, Value: nil, Timestamp: time.UnixMilli(1612554562001)})
	s.row(t, "timestamp and headers", func(t *testing.T) {
		i := s.assigned(t, "", earliest, topic, 0)
		i.expect(t, "GET", "/records", "", want{status: 200, typ: bareV2, header: map[string]string{"Cache-Control": "no-store"}, json: fmt.Sprintf(
			`[{"topic":%q,"key":null,"value":"Zm9v","partition":0,"offset":0,"timestamp":1612554562000,"headers":[{"key":"h","value":"Zm9vYmFy"},{"key":"a","value":""},{"key":"h","value":null}]},`+
				`{"topic":%[1]q,"key":"","value":null,"partition":0,"offset":1,"timestamp":1612554562001}]`, topic)})
	})
	s.row(t, "without them", func(t *testing.T) {
		own := s.own(t, "SLUICE_RECORD_EXTRAS=false")
		i := own.assigned(t, "", earliest, topic, 0)
		i.expect(t, "GET", "/records", "", want{status: 200, json: fmt.Sprintf(
			`[{"topic":%q,"key":null,"value":"Zm9v","partition":0,"offset":0},{"topic":%[1]q,"key":"","value":null,"partition":0,"offset":1}]`, topic)})
	})
	s.row(t, "neither subscribed nor assigned", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		i.expect(t, "GET", "/records", "", want{status: 409, typ: bareV2, code: 40903, message: "Illegal state: Consumer is not subscribed to any topics or assigned any partitions"})
	})
	for _, c := range []struct{ accept, typ string }{
		{"", binaryV2}, {"*/*", binaryV2}, {binaryV2, binaryV2}, {bareV2, bareV2}, {bare, bare}, {plainJSON, plainJSON}, {jsonV2 + ", application/json;q=0.5", plainJSON},
	} {
		s.row(t, "Accept "+c.accept, func(t *testing.T) {
			i := s.assigned(t, "", earliest, topic, 0)
			s.expect(t, request{method: "GET", path: i.path + "/records", accept: c.accept}, want{status: 200, typ: c.typ})
		})
	}
	s.row(t, "Accept of another format", func(t *testing.T) {
		i := s.assigned(t, "", earliest, topic, 0)
		for _, accept := range []string{jsonV2, jsonV1, textV2} {
			s.expect(t, request{method: "GET", path: i.path + "/records", accept: accept}, want{status: 406, code: 40601,
				message: "The requested embedded data format does not match the deserializer for this consumer instance"})
		}
		i.some(t, "", 2) // they took nothing
	})
	s.row(t, "Content-Type on the GET", func(t *testing.T) {
		i := s.assigned(t, "", earliest, topic, 0)
		s.expect(t, request{method: "GET", path: i.path + "/records", contentType: bareV2}, want{status: 200, typ: binaryV2})
	})
}

// offsetsV2 is rest-api.md 7.4.
func offsetsV2(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c74", 2)
	s.fill(t, topic, 0, "a", "b", "c")
	done := want{status: 200, typ: bareV2, body: "[]"}
	fresh := func(t *testing.T) instance { t.Helper(); return s.assigned(t, "", quick, topic, 0) }
	s.row(t, "before any read and after an empty one", func(t *testing.T) {
		i := s.assigned(t, "", quick, topic, 1)
		i.expect(t, "POST", "/offsets", "", done)
		i.expect(t, "GET", "/records", "", want{status: 200, body: "[]"})
		i.expect(t, "POST", "/offsets", "", done)
		s.wantCommitted(t, i.group, topic, 1, -1)
	})
	for name, body := range map[string]string{"no body": "", "empty object": "{}"} {
		s.row(t, name, func(t *testing.T) {
			i := fresh(t)
			i.texts(t, "?max_bytes=2", "a", "b")
			i.expect(t, "POST", "/offsets", body, done)
			s.wantCommitted(t, i.group, topic, 0, 2)
		})
	}
	s.row(t, "an empty list", func(t *testing.T) {
		i := fresh(t)
		i.texts(t, "?max_bytes=2", "a", "b")
		i.expect(t, "POST", "/offsets", `{"offsets":[]}`, done)
		s.wantCommitted(t, i.group, topic, 0, -1)
	})
	s.row(t, "an offset is the last record", func(t *testing.T) {
		i := fresh(t)
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 1, "m"), done)
		s.wantCommitted(t, i.group, topic, 0, 2)
		i.expect(t, "GET", "/offsets", places(topic, 0), want{status: 200, typ: bareV2, json: offsetsOf(topic, 0, 2, "m")})
	})
	s.row(t, "an offset is the next one, where so set", func(t *testing.T) {
		own := s.own(t, "SLUICE_COMMIT_OFFSETS=next")
		i := own.assigned(t, "", quick, topic, 0)
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 1, ""), done)
		s.wantCommitted(t, i.group, topic, 0, 1)
	})
	s.row(t, "before a subscription", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 1, ""), done)
		s.wantCommitted(t, i.group, topic, 0, 2)
	})
	for _, query := range []string{"?async=true", "?async"} {
		s.row(t, query, func(t *testing.T) {
			i := fresh(t)
			i.texts(t, "?max_bytes=2", "a", "b")
			i.expect(t, "POST", "/offsets"+query, "", done)
			eventually(t, 10*time.Second, "the commit", func() bool { return s.committed(t, i.group, topic, 0) == 2 })
			i.expect(t, "POST", "/offsets"+query, offsetsOf(topic, 0, 2, ""), done)
			eventually(t, 10*time.Second, "the commit", func() bool { return s.committed(t, i.group, topic, 0) == 3 })
		})
	}
	s.row(t, "a commit that Kafka refuses is an error", func(t *testing.T) {
		i := fresh(t)
		if s.kafka.Real() { // kfake takes any metadata
			i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 1, strings.Repeat("m", 5000)), want{status: 500, code: 50002, like: "Kafka error: .+"})
		}
		i.expect(t, "POST", "/offsets", offsetsOf(backend.Unique("c74-unknown"), 0, 1, ""), want{status: 404, code: 40401, message: "Topic not found."})
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 17, 1, ""), want{status: 404, code: 40402, message: "Partition not found."})
		s.wantCommitted(t, i.group, topic, 0, -1)
	})
	i := fresh(t)
	for _, c := range []struct {
		name, path, body string
		want             want
	}{
		{"negative", "/offsets", offsetsOf(topic, 0, -1, ""), want{status: 422, code: 422, like: `.*must be greater than or equal to 0 \(was -1\)`}},
		{"no offset", "/offsets", fmt.Sprintf(`{"offsets":[{"topic":%q,"partition":0}]}`, topic), want{status: 422, code: 422, like: ".+"}},
		{"unknown field", "/offsets", `{"color":1}`, want{status: 422, code: 422, message: "Unrecognized field: color"}},
		{"async that is neither", "/offsets?async=maybe", "", want{status: 400, code: 400, like: ".*async.*"}},
	} {
		s.row(t, c.name, func(t *testing.T) { i.expect(t, "POST", c.path, c.body, c.want) })
	}
	s.row(t, "GET without a body", func(t *testing.T) {
		i := fresh(t)
		i.expect(t, "GET", "/offsets", "", want{status: 200, json: `{"offsets":[]}`})
		i.texts(t, "?max_bytes=2", "a", "b")
		i.expect(t, "POST", "/offsets", "", done)
		i.expect(t, "GET", "/offsets", "", want{status: 200, typ: bareV2, json: offsetsOf(topic, 0, 2, "")})
	})
	s.row(t, "GET of partitions without a commit", func(t *testing.T) {
		i := fresh(t)
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 0, ""), done)
		i.expect(t, "GET", "/offsets", places(topic, 0, 1, 17), want{status: 200, json: offsetsOf(topic, 0, 1, "")})
	})
	s.row(t, "GET with a body and no Content-Type", func(t *testing.T) {
		i := fresh(t)
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 0, ""), done)
		s.expect(t, request{method: "GET", path: i.path + "/offsets", body: places(topic, 0)}, want{status: 200, typ: bareV2, json: offsetsOf(topic, 0, 1, "")})
	})
	s.row(t, "without headers it is the instance's version", func(t *testing.T) {
		i := fresh(t)
		i.texts(t, "", "a", "b", "c")
		s.expect(t, request{method: "POST", path: i.path + "/offsets"}, done)
		s.expect(t, request{method: "POST", path: i.path + "/offsets", accept: bareV1}, want{status: 200, typ: bareV1,
			json: fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":2,"committed":2}]`, topic)})
	})
}
