package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// versions is rest-api.md 2.1: which API version a call speaks, in the order of its rules.
func versions(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c21", 1)
	s.intoKafka(t, topic, kgo.Record{Value: []byte("x"), Timestamp: time.UnixMilli(1)})
	fromV1 := s.create(t, "", `{"format":"binary"}`, bareV1)
	fromV2 := s.create(t, "", `{"format":"binary"}`, bareV2)
	first := "/topics/" + topic + "/partitions/0/"
	shapeV1 := `[{"topic":"` + topic + `","key":null,"value":"eA==","partition":0,"offset":0}]`
	shapeV2 := `[{"topic":"` + topic + `","key":null,"value":"eA==","partition":0,"offset":0,"timestamp":1}]`
	s.rows(t, []row{
		{"rule 1, Accept names v2", request{method: "GET", path: "/topics", accept: bareV2, contentType: bareV1}, want{status: 200, typ: bareV2}},
		{"rule 1, Accept names v1", request{method: "POST", path: "/topics/" + topic, accept: bareV1, contentType: binaryV2, body: oneRecord}, want{status: 200, typ: bareV1}},
		{"rule 1, Accept decides the shape", request{method: "GET", path: first + "messages?offset=0", accept: binaryV2}, want{status: 200, typ: binaryV2, json: shapeV2}},
		{"rule 1, not by a wildcard", request{method: "GET", path: "/topics", accept: "application/*", contentType: bareV2}, want{status: 200, typ: bareV2}},
		{"rule 2, Content-Type names v2", request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: oneRecord}, want{status: 200, typ: bareV2}},
		{"rule 2, Content-Type of a GET", request{method: "GET", path: "/brokers", contentType: jsonV2}, want{status: 200, typ: bareV2}},
		{"rule 2, before the instance", request{method: "POST", path: fromV1.path + "/offsets", contentType: bareV2}, want{status: 200, typ: bareV2, json: `[]`}},
		{"rule 3, an instance of v1", request{method: "POST", path: fromV1.path + "/offsets"}, want{status: 200, typ: bareV1, json: `[]`}},
		{"rule 3, an instance of v2", request{method: "POST", path: fromV2.path + "/offsets"}, want{status: 200, typ: bareV2, json: `[]`}},
		{"rule 3, an error of an instance of v2", request{method: "GET", path: fromV2.path + "/records"}, want{status: 409, code: 40903, message: "Illegal state: Consumer is not subscribed to any topics or assigned any partitions", typ: binaryV2}},
		{"rule 4, a path of v2", request{method: "GET", path: "/consumers/nosuch/instances/nosuch/assignments"}, want{status: 404, code: 40403, message: unknownInstance.message, typ: bareV2}},
		{"rule 4, messages are of v1", request{method: "GET", path: first + "messages?offset=0"}, want{status: 200, typ: binaryV1, json: shapeV1}},
		{"rule 4, records are of v2", request{method: "GET", path: first + "records?offset=0&count=1"}, want{status: 200, typ: binaryV2, json: shapeV2}},
		{"rule 5, v1", request{method: "GET", path: "/topics"}, want{status: 200, typ: bareV1}},
		{"rule 5, no hint in application/json", request{method: "POST", path: "/topics/" + topic, contentType: plainJSON, body: oneRecord}, want{status: 200, typ: bareV1}},
		{"rule 5, no hint in vnd.kafka+json", request{method: "POST", path: "/topics/" + topic, contentType: bare, body: oneRecord}, want{status: 200, typ: bareV1}},
		{"path and version are independent", request{method: "GET", path: first + "messages?offset=0", contentType: bareV2}, want{status: 200, typ: binaryV2, json: shapeV2}},
	})
}

// contentTypes is rest-api.md 2.2. Each type is shown to mean a format by what Kafka holds afterwards.
func contentTypes(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c22", 1)
	var next int64
	for _, f := range []struct {
		typ, value, holds string
		schema            string
	}{
		{binaryV1, `"Zm9v"`, "foo", ""}, {binaryV2, `"Zm9v"`, "foo", ""},
		{jsonV1, `{"a": 1}`, `{"a":1}`, ""}, {jsonV2, `"Zm9v"`, `"Zm9v"`, ""},
		{textV2, `"Zm9v é"`, "Zm9v é", ""},
		{bareV1, `"Zm9v"`, "foo", ""}, {bareV2, `"Zm9v"`, "foo", ""}, {bare, `"Zm9v"`, "foo", ""},
		{plainJSON, `"Zm9v"`, "foo", ""}, {"application/octet-stream", `"Zm9v"`, "foo", ""}, {"", `"Zm9v"`, "foo", ""},
		{"application/vnd.kafka.binary+json", `"Zm9v"`, "foo", ""}, {"application/vnd.kafka.json+json", `"Zm9v"`, `"Zm9v"`, ""}, {"application/vnd.kafka.text+json", `"Zm9v"`, "Zm9v", ""},
		{"application/vnd.kafka.binary.v2+json; charset=utf-8", `"Zm9v"`, "foo", ""},
		{"application/vnd.kafka.json.v2+json;charset=US-ASCII", `"Zm9v"`, `"Zm9v"`, ""},
		{`application/vnd.kafka.json.v2+json; charset="UTF-8"; x=y`, `"Zm9v"`, `"Zm9v"`, ""},
		{"Application/VND.Kafka.JSON.v2+json", `1`, `1`, ""},
		{avroV1, `1`, "\x02", `"value_schema":"\"int\"",`}, {avroV2, `1`, "\x02", `"value_schema":"\"int\"",`}, {"application/vnd.kafka.avro+json", `1`, "\x02", `"value_schema":"\"int\"",`},
		{schemaV2, `1`, "1", `"value_schema":"{}",`}, {"application/vnd.kafka.jsonschema+json", `1`, "1", `"value_schema":"{}",`},
		{protoV2, `{"n":1}`, "\x00\x08\x01", `"value_schema":"syntax=\"proto3\"; message M { int32 n = 1; }",`},
		{"application/vnd.kafka.protobuf+json", `{"n":1}`, "\x00\x08\x01", `"value_schema":"syntax=\"proto3\"; message M { int32 n = 1; }",`},
	} {
		name := f.typ
		if name == "" {
			name = "none"
		}
		s.row(t, name, func(t *testing.T) {
			if f.schema != "" {
				s.needRegistry(t)
			}
			a := s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: f.typ, body: `{` + f.schema + `"records":[{"value":` + f.value + `}]}`}, want{status: 200})
			if a.status != 200 {
				return
			}
			held := s.inKafka(t, topic, 0, next, 1)[0].Value
			next++
			if f.schema != "" {
				if len(held) < 5 || held[0] != 0 {
					s.differ(t, "%v: Kafka holds %q, which is not framed", a.asked, held)
					return
				}
				held = held[5:] // byte 0 and the schema's id
			}
			if string(held) != f.holds {
				s.differ(t, "%v: Kafka holds %q, want %q", a.asked, held, f.holds)
			}
		})
	}
	group := backend.Unique("group")
	for _, typ := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/vnd.kafka.binary.v0+json", "application/vnd.kafka.binary.v3+json", "application/vnd.kafka.v3+json",
		"application/vnd.kafka.xml.v2+json", "application/vnd.kafka.text.v1+json", "application/vnd.kafka.jsonschema.v1+json", "json", "application/json; charset=latin1", "application/json, text/plain", "*/*", "application/json; charset"} {
		s.row(t, "415 "+typ, func(t *testing.T) {
			s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: typ, body: oneRecord}, unsupported)
			s.expect(t, request{method: "POST", path: "/consumers/" + group, contentType: typ, body: `{}`}, unsupported)
			i := s.expect(t, request{method: "POST", path: "/consumers/" + group, contentType: typ}, want{status: 200}) // no body, nothing to misread
			var made struct {
				ID string `json:"instance_id"`
			}
			i.into(t, &made)
			s.expect(t, request{method: "DELETE", path: "/consumers/" + group + "/instances/" + made.ID, contentType: typ}, want{status: 204})
		})
	}
	s.row(t, "consumers take embedded types", func(t *testing.T) {
		for _, typ := range []string{binaryV2, jsonV2, textV2} {
			i := s.create(t, "", `{}`, typ)
			s.expect(t, request{method: "POST", path: i.path + "/subscription", contentType: typ, body: topicList(topic)}, want{status: 204})
		}
	})
	s.row(t, "schema formats without a registry", func(t *testing.T) {
		poor := s.own(t)
		for _, typ := range []string{avroV1, avroV2, schemaV2, protoV2, "application/vnd.kafka.avro+json"} {
			poor.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: typ, body: `{"value_schema":"\"int\"","records":[{"value":1}]}`}, unsupported)
			poor.expect(t, request{method: "GET", path: "/topics", accept: typ}, notAcceptable)
		}
		poor.expect(t, request{method: "POST", path: "/consumers/g", contentType: bareV2, body: `{"format":"avro"}`}, want{status: 422, code: 422, message: "Invalid format type."})
	})
}

// accepts is rest-api.md 2.3.
func accepts(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c23", 1)
	s.intoKafka(t, topic, kgo.Record{Value: []byte("x"), Timestamp: time.UnixMilli(1)})
	produce := func(contentType, accept string) request {
		return request{method: "POST", path: "/topics/" + topic, contentType: contentType, accept: accept, body: oneRecord}
	}
	for _, a := range []struct{ accept, want string }{
		{"application/vnd.kafka.v1+json;q=0.8, application/vnd.kafka+json;q=0.9", bare},
		{"application/vnd.kafka.v1+json, application/vnd.kafka+json; q=0.9, application/json; q=0.8", bareV1},
		{"application/json", plainJSON},
		{"application/vnd.kafka.v2+json, application/json, */*", bareV2},
		{"", bareV1}, {"*/*", bareV1}, {"application/*", bareV1}, {"*/json", plainJSON},
		{"*/*;q=0.1, application/json;q=0.1", plainJSON},                        // an exact match beats a wildcard
		{"application/*;q=0.5, application/json;q=0.4", bareV1},                 // the most specific range gives the q
		{"application/vnd.kafka.v1+json;q=0, application/*", bareV2},            // 0 excludes
		{"application/json;q=0.5, application/vnd.kafka.v2+json;q=0.5", bareV2}, // a tie goes by the server's order
		{"nonsense, application/json", plainJSON},                               // what does not parse is skipped
		{"*/baz, application/json;q=0.2", plainJSON},
		{"application/json;q=x, application/vnd.kafka.v2+json", bareV2},
		{"application/json; charset=utf-8", plainJSON}, {"APPLICATION/JSON", plainJSON},
		{"text/html, application/xhtml+xml, */*;q=0.8", bareV1},
		{binaryV1, binaryV1}, {jsonV2, jsonV2}, {"application/vnd.kafka.json+json", "application/vnd.kafka.json+json"},
	} {
		name := a.accept
		if name == "" {
			name = "none"
		}
		s.row(t, name, func(t *testing.T) {
			s.expect(t, request{method: "GET", path: "/topics", accept: a.accept}, want{status: 200, typ: a.want})
		})
	}
	for _, accept := range []string{"text/plain", "application/octet-stream", "*/baz", "nonsense", "application/json;q=0", "application/vnd.kafka.v3+json", ",", "text/*"} {
		s.row(t, "406 "+accept, func(t *testing.T) {
			w := notAcceptable
			w.typ = bareV1
			s.expect(t, request{method: "GET", path: "/topics", accept: accept}, w)
			w.typ = bareV2
			s.expect(t, produce(binaryV2, accept), w)
		})
	}
	s.rows(t, []row{
		{"several Accept lines count as one", request{method: "GET", path: "/topics", header: map[string]string{"Accept": "application/json;q=0.5\x00application/vnd.kafka.v2+json"}}, want{status: 200, typ: bareV2}},
		{"produce of json v2 without Accept", request{method: "POST", path: "/topics/" + topic, contentType: jsonV2, body: `{"records":[{"value":1}]}`}, want{status: 200, typ: bareV2}},
		{"produce of binary v1 without Accept", produce(binaryV1, ""), want{status: 200, typ: bareV1}},
		{"produce with anything", produce(binaryV2, "*/*"), want{status: 200, typ: bareV2}},
		{"errors have the chosen type", request{method: "GET", path: "/topics/" + s.unknown(t), accept: plainJSON}, want{status: 404, code: 40401, message: unknownTopic.message, typ: plainJSON}},
		{"415 in what Accept allows", produce("text/plain", plainJSON), want{status: 415, code: 415, message: unsupported.message, typ: plainJSON}},
		{"415 without Accept", produce("text/plain", ""), want{status: 415, code: 415, message: unsupported.message, typ: bareV1}},
		{"an unknown path has the chosen type", request{method: "GET", path: "/nosuch", accept: bareV2}, want{status: 404, code: 404, message: notFound.message, typ: bareV2}},
	})
	readTypes(t, s, topic)
}

// readTypes are the rows about reads: the instance has a format.
func readTypes(t *testing.T, s *server, topic string) {
	document := s.kafka.Topic(t, "c23-json", 1)
	s.intoKafka(t, document, kgo.Record{Value: []byte(`{"a":1}`), Timestamp: time.UnixMilli(1)})
	values := map[string]string{"binary": `"eA=="`, "json": `{"a":1}`, "text": `"x"`}
	for _, r := range []struct{ format, created, path, accept, want string }{
		{"binary", bareV1, "topics", "", binaryV1},
		{"binary", bareV2, "records", "", binaryV2},
		{"json", bareV1, "topics", "", jsonV1},
		{"json", bareV2, "records", "", jsonV2},
		{"text", bareV2, "records", "", textV2},
		{"binary", bareV2, "records", "application/vnd.kafka.v2+json", bareV2},
		{"binary", bareV1, "topics", "application/vnd.kafka.v1+json", bareV1},
		{"binary", bareV2, "records", "application/vnd.kafka.json.v2+json, application/json;q=0.5", plainJSON},
		{"binary", bareV1, "topics", plainJSON, plainJSON},
		{"binary", bareV1, "topics", bare, bare},
		{"binary", bareV1, "topics", "*/*", binaryV1},
		{"binary", bareV1, "topics", binaryV2, binaryV2},
		{"json", bareV2, "records", plainJSON, plainJSON},
		{"json", bareV2, "records", jsonV2, jsonV2},
		{"text", bareV1, "topics", "", textV2}, // v1 never had it
	} {
		s.row(t, fmt.Sprintf("read of a %s instance of %s with %q", r.format, strings.TrimPrefix(r.created, "application/vnd.kafka."), r.accept), func(t *testing.T) {
			from := topic
			if r.format == "json" {
				from = document
			}
			i := s.create(t, "", `{"format":"`+r.format+`","auto.offset.reset":"earliest","consumer.request.timeout.ms":"10000"}`, r.created)
			path := i.path + "/topics/" + from
			if r.path == "records" {
				i.subscribe(t, from)
				path = i.path + "/records"
			}
			a := s.expect(t, request{method: "GET", path: path, accept: r.accept}, want{status: 200, typ: r.want})
			if !strings.Contains(string(a.body), `"value":`+values[r.format]) {
				s.differ(t, "%v: %v does not hold the value in the instance's format", a.asked, a)
			}
		})
	}
	mismatch := want{status: 406, code: 40601, message: "The requested embedded data format does not match the deserializer for this consumer instance"}
	for _, m := range []struct{ format, accept string }{
		{"binary", jsonV1}, {"binary", jsonV2}, {"json", binaryV1}, {"json", binaryV2}, {"text", binaryV2}, {"binary", textV2}, {"binary", "application/vnd.kafka.json+json"},
		{"avro", binaryV1}, {"avro", jsonV2}, {"avro", schemaV2}, {"jsonschema", protoV2}, {"protobuf", avroV2}, {"binary", avroV1},
	} {
		s.row(t, "40601 "+m.format+" with "+m.accept, func(t *testing.T) {
			for _, formatOf := range []string{m.format, m.accept} {
				if strings.Contains(formatOf, "avro") || strings.Contains(formatOf, "schema") || strings.Contains(formatOf, "proto") {
					s.needRegistry(t)
				}
			}
			i := s.create(t, "", `{"format":"`+m.format+`"}`, bareV2)
			i.subscribe(t, topic)
			w := mismatch
			w.typ = "application/vnd.kafka." + m.format + ".v2+json"
			s.expect(t, request{method: "GET", path: i.path + "/records", accept: m.accept}, w)
		})
	}
	first := "/topics/" + topic + "/partitions/0/messages?offset=0"
	s.rows(t, []row{
		{"read without an instance, no format", request{method: "GET", path: first, accept: bareV1}, want{status: 200, typ: bareV1, json: `[{"topic":"` + topic + `","key":null,"value":"eA==","partition":0,"offset":0}]`}},
		{"read without an instance, text", request{method: "GET", path: first, accept: textV2}, want{status: 200, typ: textV2, json: `[{"topic":"` + topic + `","key":null,"value":"x","partition":0,"offset":0,"timestamp":1}]`}},
		{"read, nothing acceptable", request{method: "GET", path: first, accept: "text/plain"}, want{status: 406, code: 406, message: notAcceptable.message, typ: binaryV1}},
	})
}
