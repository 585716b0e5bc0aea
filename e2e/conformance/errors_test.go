package conformance

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/sandbox"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// errorTable is rest-api.md 1.4: every code that v1 and v2 can send, with its status, its exact message and the media
// type of both versions. 50302 and 503 need a Kafka and a Redis that are gone: see 15.2.
func errorTable(t *testing.T, s *server) {
	topic, other := s.kafka.Topic(t, "c14", 1), s.kafka.Topic(t, "c14-other", 1)
	settled := s.assigned(t, "", quick, topic, 0)
	bound := s.create(t, "", `{"format":"binary","consumer.request.timeout.ms":"100"}`, bareV1)
	s.expect(t, request{method: "GET", path: bound.path + "/topics/" + topic}, want{status: 200})
	named := backend.Unique("named")
	group := backend.Unique("group")
	s.create(t, group, `{"id":"`+named+`"}`, bareV2)
	create := func(body string) request {
		return request{method: "POST", path: "/consumers/" + group, contentType: bareV2, body: body}
	}
	produce := func(contentType, body string) request {
		return request{method: "POST", path: "/topics/" + topic, contentType: contentType, body: body}
	}
	for _, e := range []struct {
		name string
		ask  request
		want want
	}{
		{"400", produce(binaryV2, `{`), want{status: 400, code: 400, like: ".+"}},
		{"403 from another site", request{method: "POST", path: "/topics/" + topic, body: oneRecord, header: map[string]string{"Sec-Fetch-Site": "cross-site"}}, want{status: 403, code: 403, message: "HTTP 403 Forbidden"}},
		{"404", request{method: "GET", path: "/nosuch"}, notFound},
		{"405", request{method: "DELETE", path: "/topics"}, want{status: 405, code: 405, message: "HTTP 405 Method Not Allowed", header: map[string]string{"Allow": "*"}}},
		{"406", request{method: "GET", path: "/topics", accept: "text/plain"}, notAcceptable},
		{"415", produce("text/plain", oneRecord), unsupported},
		{"422 of a format", create(`{"format":"xml"}`), want{status: 422, code: 422, message: "Invalid format type."}},
		{"422 of a key", produce(binaryV2, `{"records":[{"key":"?","value":"Zm9v"}]}`), want{status: 422, code: 422, message: "Record key contains invalid base64 encoding"}},
		{"422 of a value", produce(binaryV2, `{"records":[{"value":"?"}]}`), want{status: 422, code: 422, message: "Record value contains invalid base64 encoding"}},
		{"40001", create(`{"fetch.min.bytes":"10000001"}`), want{status: 422, code: 40001, like: `Invalid consumer configuration\. It does not abide by the constraints: .+`}},
		{"40401 of metadata", request{method: "GET", path: "/topics/" + s.unknown(t)}, unknownTopic},
		{"40401 of a produce", request{method: "POST", path: "/topics/" + s.unknown(t), body: oneRecord}, unknownTopic},
		{"40401 of a v1 read", request{method: "GET", path: bound.path + "/topics/" + s.unknown(t)}, unknownTopic},
		{"40402 of metadata", request{method: "GET", path: "/topics/" + topic + "/partitions/1"}, unknownPartition},
		{"40402 of a produce", request{method: "POST", path: "/topics/" + topic + "/partitions/1", body: oneRecord}, unknownPartition},
		{"40402 of a read", request{method: "GET", path: "/topics/" + topic + "/partitions/1/messages"}, unknownPartition},
		{"40403", request{method: "GET", path: "/consumers/nosuch/instances/nosuch/records"}, want{status: 404, code: 40403, message: "Consumer instance not found.", detail: "never existed"}},
		{"40601", request{method: "GET", path: settled.path + "/records", accept: jsonV2}, want{status: 406, code: 40601, message: "The requested embedded data format does not match the deserializer for this consumer instance"}},
		{"40901", request{method: "GET", path: bound.path + "/topics/" + other}, want{status: 409, code: 40901, message: "Consumer cannot subscribe the the specified target because it has already subscribed to other topics."}},
		{"40902", create(`{"id":"` + named + `"}`), want{status: 409, code: 40902, message: "Consumer with specified consumer ID already exists in the specified consumer group."}},
		{"40903", request{method: "POST", path: settled.path + "/subscription", contentType: bareV2, body: topicList(topic)}, want{status: 409, code: 40903, message: "Illegal state: Subscription to topics, partitions and pattern are mutually exclusive"}},
		{"42204", create(`{"auto.offset.reset":"middle"}`), want{status: 422, code: 42204, message: "Invalid consumer configuration: Invalid value middle for configuration auto.offset.reset: String must be one of: latest, earliest, none"}},
		{"50002 of a read", request{method: "GET", path: "/topics/" + topic + "/partitions/0/messages?offset=99"}, want{status: 500, code: 50002, message: "Kafka error: Fetch response contains an error code: 1"}},
	} {
		for _, accept := range []string{bareV1, bareV2} {
			ask, expected := e.ask, e.want
			if ask.accept == "" {
				ask.accept, expected.typ = accept, accept
			} else if accept == bareV2 {
				continue // what is wrong is the Accept
			}
			version := ""
			if ask.accept == accept {
				version = " in v" + string(accept[len("application/vnd.kafka.v")])
			}
			s.row(t, e.name+version, func(t *testing.T) { s.expect(t, ask, expected) })
		}
	}
	s.row(t, "error bodies are exactly that", func(t *testing.T) {
		s.expect(t, request{method: "GET", path: "/nosuch"}, want{status: 404, typ: bareV1, body: `{"error_code":404,"message":"HTTP 404 Not Found"}`})
	})
	schemaErrors(t, s)
	brokerErrors(t, s)
	leaderless(t, s)
	overload(t, s)
}

// schemaErrors are the codes that only formats with schemas send.
func schemaErrors(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c14-schemas", 1)
	produce := func(contentType, body string) request {
		return request{method: "POST", path: "/topics/" + topic, contentType: contentType, body: body}
	}
	const integers = `"value_schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"n\",\"type\":\"int\"}]}"`
	for _, r := range []row{
		{"42201", produce(avroV2, `{`+integers+`,"records":[{"key":1,"value":{"n":1}}]}`), want{status: 422, code: 42201, message: "Request includes keys but does not include key schema"}},
		{"42202", produce(avroV2, `{"records":[{"value":{"n":1}}]}`), want{status: 422, code: 42202, message: "Request includes values but does not include value schema"}},
		{"42203 in v1", produce(avroV1, `{`+integers+`,"records":[{"value":{"n":"x"}}]}`), want{status: 422, code: 42203, like: `Conversion of JSON to Avro failed: .+`, typ: bareV1}},
		{"42203 in v2", produce(avroV2, `{`+integers+`,"records":[{"value":{"n":"x"}}]}`), want{status: 422, code: 42203, like: `Conversion of JSON to Object failed: .+`, typ: bareV2}},
		{"42205 of a text", produce(avroV2, `{"value_schema":"{","records":[{"value":1}]}`), want{status: 422, code: 42205, like: `Invalid schema: .+`}},
		{"42205 of an id", produce(avroV2, `{"value_schema_id":999999,"records":[{"value":1}]}`), want{status: 422, code: 42205, like: `Invalid schema: .+`}},
	} {
		s.row(t, r.name, func(t *testing.T) {
			s.needRegistry(t)
			s.expect(t, r.ask, r.want)
		})
	}
	s.row(t, "42205 of another subject's id", func(t *testing.T) {
		id := s.registerSchema(t, backend.Unique("other")+"-value", "AVRO", `"int"`)
		s.expect(t, produce(avroV2, fmt.Sprintf(`{"value_schema_id":%d,"records":[{"value":1}]}`, id)), want{status: 422, code: 42205, like: `Invalid schema: .+`})
	})
	s.row(t, "40801", func(t *testing.T) {
		if s.sandbox == nil {
			s.notRun(t, "needs a schema registry that can be made to fail")
		}
		s.sandbox.Trouble(func(r *http.Request) (int, time.Duration) {
			if strings.Contains(r.URL.Path, topic+"-key") {
				return 500, 0
			}
			return 0, 0
		})
		defer s.sandbox.Trouble(nil)
		s.expect(t, produce(avroV2, `{"key_schema":"\"int\"","records":[{"key":1}]}`), want{status: 408, code: 40801, message: "Schema registration or lookup failed", detail: ".+"})
	})
}

// needRegistry skips rows about schemas beside a server that has no registry.
func (s *server) needRegistry(t *testing.T) {
	t.Helper()
	if s.registry == "" {
		s.notRun(t, "needs the server's schema registry, TEST_REST_REGISTRY")
	}
}

// registerSchema puts a schema under a subject, past the server under test.
func (s *server) registerSchema(t *testing.T, subject, kind, text string) (id int) {
	t.Helper()
	s.needRegistry(t)
	body, err := json.Marshal(map[string]string{"schemaType": kind, "schema": text})
	if err != nil {
		t.Fatal(err)
	}
	registry := &server{url: s.registry, report: s.report}
	a := registry.ask(t, request{method: "POST", path: "/subjects/" + subject + "/versions", contentType: "application/vnd.schemaregistry.v1+json", body: string(body)})
	var made struct{ ID int }
	a.into(t, &made)
	if a.status != 200 || made.ID == 0 {
		t.Fatalf("%v\ngot %v", a.asked, a)
	}
	return made.ID
}

// brokerErrors are codes that Kafka itself has to be in the mood for.
func brokerErrors(t *testing.T, s *server) {
	s.row(t, "50003 in a slot", func(t *testing.T) {
		if s.kafka.Name != backend.Kafka28 { // since KIP-966 no more replicas are asked for than there are
			s.notRun(t, "needs a Kafka that lacks replicas; runs on kafka28")
		}
		topic := s.kafka.Topic(t, "c14-replicas", 1, "min.insync.replicas=2") // of one: no write is enough
		hasty := s.own(t, "SLUICE_PRODUCE_TIMEOUT=2s")
		hasty.expect(t, request{method: "POST", path: "/topics/" + topic, body: oneRecord},
			want{status: 200, json: `{"offsets":[{"partition":null,"offset":null,"error_code":50003,"error":"<any>"}],"key_schema_id":null,"value_schema_id":null}`})
	})
}

// leaderless are the codes of a partition whose broker is gone. The Kafka that says so is an embedded one of the row's own.
func leaderless(t *testing.T, s *server) {
	if !s.ours || s.kafka.Real() {
		s.row(t, "40404", func(t *testing.T) { s.notRun(t, "needs a Kafka that can be told what to answer; runs on kfake") })
		return
	}
	const topic = "leaderless"
	kafka, err := sandbox.StartKafka(sandbox.KafkaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	host, port, err := net.SplitHostPort(kafka.Brokers[0])
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	kafka.Fake.ControlKey(int16(kmsg.Metadata), func(asked kmsg.Request) (kmsg.Response, error, bool) {
		kafka.Fake.KeepControl()
		ask := asked.(*kmsg.MetadataRequest)
		if len(ask.Topics) != 1 || ask.Topics[0].Topic == nil || *ask.Topics[0].Topic != topic {
			return nil, nil, false
		}
		answer := ask.ResponseKind().(*kmsg.MetadataResponse)
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port = kafka.Fake.CurrentNode(), host, int32(number)
		partition := kmsg.NewMetadataResponseTopicPartition()
		partition.ErrorCode, partition.Leader, partition.Replicas = kerr.LeaderNotAvailable.Code, -1, []int32{9}
		about := kmsg.NewMetadataResponseTopic()
		about.Topic, about.Partitions = ask.Topics[0].Topic, append(about.Partitions, partition)
		answer.Brokers, answer.Topics = append(answer.Brokers, broker), append(answer.Topics, about)
		return answer, nil, true
	})
	g := &server{url: start(t, kafka.Brokers, "SLUICE_PRODUCE_TIMEOUT=2s").URL, kafka: s.kafka, ours: true, report: s.report}
	g.rows(t, []row{
		{"no leader in metadata", request{method: "GET", path: "/topics/" + topic + "/partitions/0"}, want{status: 200, json: `{"partition":0,"leader":-1,"replicas":[{"broker":9,"leader":false,"in_sync":false}]}`}},
		{"40404 of a read", request{method: "GET", path: "/topics/" + topic + "/partitions/0/messages"}, want{status: 404, code: 40404, message: "Leader not available."}},
		{"50003 of a produce without a leader", request{method: "POST", path: "/topics/" + topic, body: oneRecord}, want{status: 200, json: slots(`{"partition":null,"offset":null,"error_code":50003,"error":"<any>"}`)}},
	})
}

// overload is 503 of Sluice itself: its budget for bodies.
func overload(t *testing.T, s *server) {
	s.row(t, "503 when the memory budget is used up", func(t *testing.T) {
		small := s.own(t, "SLUICE_MAX_BODY_BYTES=1048576", "SLUICE_INFLIGHT_BYTES=2621440")
		topic := s.kafka.Topic(t, "c14-budget", 1)
		produce := request{method: "POST", path: "/topics/" + topic, body: oneRecord + spaces(1<<19)}
		refused := want{status: 503, code: 503, message: "The memory budget for request bodies is used up.", header: map[string]string{"Retry-After": "*"}, typ: bareV1}
		var held []*wire
		var a answer
		eventually(t, 20*time.Second, "the budget is used up", func() bool {
			one := small.dial(t) // two fill it; a third is refused itself
			one.send(t, "POST", "/topics/"+topic, []string{"Content-Length: 1048576"}, oneRecord+spaces(64<<10))
			held = append(held, one)
			a = small.ask(t, produce)
			return a.status != http.StatusOK
		})
		small.compare(t, a, refused)
		for _, one := range held {
			if err := one.conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, 20*time.Second, "the budget is given back", func() bool { return small.ask(t, produce).status == http.StatusOK })
	})
}
