package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice/sandbox/backend"
)

const otherTopics = "Consumer cannot subscribe the the specified target because it has already subscribed to other topics."

// readV1 is one read of v1, whose answer is given as it came.
func (i instance) readV1(t *testing.T, topic, query string) answer {
	t.Helper()
	return i.s.expect(t, request{method: "GET", path: i.path + "/topics/" + topic + query}, want{status: 200, header: map[string]string{"Cache-Control": "no-store"}})
}

// untilV1 reads until an answer is not empty.
func (i instance) untilV1(t *testing.T, topic, query string) (a answer) {
	t.Helper()
	eventually(t, 20*time.Second, "a record of "+topic, func() bool {
		a = i.readV1(t, topic, query)
		return string(a.body) != "[]"
	})
	return a
}

// readingV1 is rest-api.md 6.
func readingV1(t *testing.T, s *server) {
	topic, other := s.kafka.Topic(t, "c61", 1), s.kafka.Topic(t, "c61", 1)
	s.intoKafka(t, topic, kgo.Record{Key: []byte("key"), Value: []byte("confluent"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}, kgo.Record{Value: []byte("b")})
	first := fmt.Sprintf(`{"topic":%q,"key":"a2V5","value":"Y29uZmx1ZW50","partition":0,"offset":0}`, topic)
	second := fmt.Sprintf(`{"topic":%q,"key":null,"value":"Yg==","partition":0,"offset":1}`, topic)
	s.row(t, "6.1 the record", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		s.compare(t, i.untilV1(t, topic, ""), want{status: 200, typ: binaryV1, json: "[" + first + "," + second + "]"})
	})
	s.row(t, "6.1 the record, asked for in v2", func(t *testing.T) {
		i := s.create(t, "", earliest, bareV1)
		a := s.expect(t, request{method: "GET", path: i.path + "/topics/" + topic, accept: bareV2}, want{status: 200, typ: bareV2})
		if !strings.Contains(string(a.body), `"timestamp":`) || !strings.Contains(string(a.body), `"headers":[{"key":"h","value":"dg=="}]`) {
			s.differ(t, "no timestamp or no headers: %s", a.body)
		}
	})
	s.row(t, "6.1 max_bytes", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		for _, w := range []string{first, second} {
			s.compare(t, i.untilV1(t, topic, "?max_bytes=1"), want{status: 200, json: "[" + w + "]"})
		}
	})
	refusals(t, s, topic, other)
	s.row(t, "6.1 largest is the end as the first read finds it", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c61", 1)
		s.fill(t, mine, 0, "before")
		i := s.create(t, "", `{"auto.offset.reset":"largest","consumer.request.timeout.ms":"500"}`, bareV1)
		s.compare(t, i.readV1(t, mine, ""), want{status: 200, body: "[]"})
		var all []got
		eventually(t, 20*time.Second, "a record from behind the end", func() bool { // which is found some time after the join
			s.fill(t, mine, 0, "after")
			i.readV1(t, mine, "").into(t, &all)
			return len(all) > 0
		})
		if all[0].Offset == 0 || all[0].text(t) != "after" {
			s.differ(t, "it began with %v", all[0])
		}
	})
	commitV1(t, s, topic)
	s.row(t, "6.2 DELETE", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		s.expect(t, request{method: "DELETE", path: i.path}, want{status: 204})
		s.expect(t, request{method: "DELETE", path: i.path}, want{status: 404, typ: bareV1, code: 40403, message: "Consumer instance not found."})
	})
}

// refusals is what a read of v1 refuses, in the order of the contract, and what it takes.
func refusals(t *testing.T, s *server, topic, other string) {
	unknown := backend.Unique("c61-unknown")
	s.row(t, "6.1 the instance comes first", func(t *testing.T) {
		s.expect(t, request{method: "GET", path: "/consumers/c61/instances/none/topics/" + unknown, accept: jsonV1}, want{status: 404, code: 40403, message: "Consumer instance not found."})
	})
	s.row(t, "6.1 then the format", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		for _, accept := range []string{jsonV1, jsonV2, textV2} {
			s.expect(t, request{method: "GET", path: i.path + "/topics/" + unknown, accept: accept}, want{status: 406, code: 40601,
				message: "The requested embedded data format does not match the deserializer for this consumer instance"})
		}
	})
	s.row(t, "6.1 then the topic, soon", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		a := s.expect(t, request{method: "GET", path: i.path + "/topics/" + unknown, accept: binaryV1}, want{status: 404, code: 40401, message: "Topic not found."})
		if a.took > 3*time.Second { // well under a second is the promise; a busy machine gets more
			s.differ(t, "it took %v", a.took)
		}
		i.readV1(t, topic, "") // and it has subscribed to nothing
	})
	refused := want{status: 409, code: 40901, message: otherTopics}
	read := func(i instance, topic string) request {
		return request{method: "GET", path: i.path + "/topics/" + topic}
	}
	s.row(t, "6.1 then the subscription: another topic", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		i.readV1(t, topic, "")
		s.expect(t, read(i, other), refused)
		s.expect(t, read(i, unknown), want{status: 404, code: 40401, message: "Topic not found."})
		i.readV1(t, topic, "")
	})
	s.row(t, "6.1 subscribed to more", func(t *testing.T) { s.expect(t, read(s.subscribed(t, "", quick, topic, other), topic), refused) })
	s.row(t, "6.1 subscribed to another", func(t *testing.T) { s.expect(t, read(s.subscribed(t, "", quick, other), topic), refused) })
	s.row(t, "6.1 assigned", func(t *testing.T) { s.expect(t, read(s.assigned(t, "", quick, topic, 0), topic), refused) })
	s.row(t, "6.1 subscribed to exactly that", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		s.expect(t, read(i, topic), want{status: 200, typ: binaryV2})
	})
	s.row(t, "6.1 subscribes as v2 would", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		i.readV1(t, topic, "")
		i.expect(t, "GET", "/subscription", "", want{status: 200, json: topicList(topic)})
	})
}

// commitV1 is rest-api.md 6.2.
func commitV1(t *testing.T, s *server, topic string) {
	s.row(t, "6.2 nothing yet", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, typ: bareV1, body: "[]"})
	})
	s.row(t, "6.2 the last record, and one more in Kafka", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		i.untilV1(t, topic, "?max_bytes=1")
		one := want{status: 200, typ: bareV1, json: fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":0,"committed":0}]`, topic)}
		s.expect(t, request{method: "POST", path: i.path + "/offsets"}, one)
		s.wantCommitted(t, i.group, topic, 0, 1)
		s.expect(t, request{method: "POST", path: i.path + "/offsets", contentType: bareV1}, one)
		s.expect(t, request{method: "POST", path: i.path + "/offsets", contentType: bareV1, body: `not even JSON`}, one) // ignored
		s.expect(t, request{method: "POST", path: i.path + "/offsets", accept: bareV1, contentType: bareV2, body: offsetsOf(topic, 0, 0, "")}, one)
		s.wantCommitted(t, i.group, topic, 0, 1)
	})
	s.row(t, "6.2 only partitions that gave records, in order", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c62", 12)
		for _, p := range []int32{11, 2, 10} {
			s.fill(t, mine, p, "a")
		}
		i := s.create(t, "", quick, bareV1)
		n := 0
		eventually(t, 20*time.Second, "three records", func() bool {
			n += strings.Count(string(i.readV1(t, mine, "").body), `"offset"`)
			return n == 3
		})
		var all []string
		for _, p := range []int{2, 10, 11} {
			all = append(all, fmt.Sprintf(`{"topic":%q,"partition":%d,"consumed":0,"committed":0}`, mine, p))
		}
		s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, json: "[" + strings.Join(all, ",") + "]"})
	})
	s.row(t, "6.2 v1 does not commit by itself", func(t *testing.T) {
		i := s.create(t, "", `{"auto.offset.reset":"smallest","consumer.request.timeout.ms":"200"}`, bareV1)
		i.untilV1(t, topic, "")
		s.expect(t, request{method: "DELETE", path: i.path}, want{status: 204})
		s.wantCommitted(t, i.group, topic, 0, -1)
	})
}
