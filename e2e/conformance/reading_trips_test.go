package conformance

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// literals are JSON values that other proxies have turned into something else on the way.
var literals = []string{
	`null`, `0`, `false`, `true`, `""`, `{}`, `[]`, `-0`, `1.0`, `1e3`, `9007199254740993`, `123456789012345678901234567890`, `0.1000000000000000055511151231257827`,
	`"\u00e9\/\ud834\udd1e<&>"`, `"é𝄞\u0000"`, `{"b":1,"a":{"c":[1,2,{}]},"":null}`, `[0,false,"",null]`,
}

// trip produces records of a format, one request each, and reads them in the same format.
func (s *server) trip(t *testing.T, format, produced string, records ...string) (topic string, read answer) {
	t.Helper()
	topic = s.kafka.Topic(t, "c153", 1, "max.message.bytes=25165824")
	for _, r := range records {
		a := s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: "application/vnd.kafka." + format + ".v2+json", body: strings.Replace(produced, "%", r, 1)}, want{status: 200})
		if !strings.Contains(string(a.body), `"error_code":null`) {
			t.Fatalf("%s was not written: %s", short([]byte(r)), a.body)
		}
	}
	i := s.assigned(t, "", `{"format":"`+format+`","auto.offset.reset":"earliest","consumer.request.timeout.ms":"10000","fetch.min.bytes":"1"}`, topic, 0)
	return topic, i.must(t, "GET", "/records", "", want{status: 200, typ: bareV2})
}

// shown is an answer of v2 with records that carry a fixed time.
func shown(topic string, keysAndValues ...string) string {
	var all []string
	for n := 0; n+1 < len(keysAndValues); n += 2 {
		all = append(all, fmt.Sprintf(`{"topic":%q,"key":%s,"value":%s,"partition":0,"offset":%d,"timestamp":1612554562000}`, topic, keysAndValues[n], keysAndValues[n+1], n/2))
	}
	return "[" + strings.Join(all, ",") + "]"
}

// roundTrips is rest-api.md 15.3, for R3 and R12 of its section 14.
func roundTrips(t *testing.T, s *server) {
	const both = `{"records":[{%,"timestamp":1612554562000}]}`
	pairs := func(values []string) (records, wanted []string) {
		for _, v := range values {
			records = append(records, `"key":`+v+`,"value":`+v)
			wanted = append(wanted, v, v)
		}
		return records, wanted
	}
	s.row(t, "json, to the byte", func(t *testing.T) {
		records, wanted := pairs(literals)
		topic, a := s.trip(t, "json", both, records...)
		s.compare(t, a, want{status: 200, body: shown(topic, wanted...)})
	})
	s.row(t, "json, white space goes", func(t *testing.T) {
		topic, a := s.trip(t, "json", both, "\"key\" : [ 1 ,\n2 ] , \"value\":\t{ \"a b\" : \" c \" }")
		s.compare(t, a, want{status: 200, body: shown(topic, `[1,2]`, `{"a b":" c "}`)})
	})
	s.row(t, "binary", func(t *testing.T) {
		records, wanted := pairs([]string{`null`, `""`, `"AA=="`, `"/+8="`, `"bnVsbA=="`})
		topic, a := s.trip(t, "binary", both, records...)
		s.compare(t, a, want{status: 200, body: shown(topic, wanted...)})
	})
	s.row(t, "binary, key or value left out", func(t *testing.T) {
		topic, a := s.trip(t, "binary", both, `"key":"YQ=="`, `"value":"YQ=="`, `"partition":0`)
		s.compare(t, a, want{status: 200, body: shown(topic, `"YQ=="`, `null`, `null`, `"YQ=="`, `null`, `null`)})
	})
	s.row(t, "text", func(t *testing.T) {
		records, wanted := pairs([]string{`null`, `""`, `"text"`, `"é𝄞<&>"`, `"null"`})
		topic, a := s.trip(t, "text", both, records...)
		s.compare(t, a, want{status: 200, json: shown(topic, wanted...)})
	})
	for _, c := range []struct {
		format, key, value string
		values             []string
	}{
		{"avro", `"long"`, `{"type":"record","name":"R","fields":[{"name":"id","type":"long"},{"name":"name","type":["null","string"]},{"name":"raw","type":"bytes"},{"name":"tags","type":{"type":"array","items":"string"}}]}`,
			[]string{`{"id":0,"name":null,"raw":"","tags":[]}`, `{"id":9007199254740993,"name":{"string":""},"raw":"\u0000ÿ","tags":["","é"]}`}},
		{"jsonschema", `{"type":"integer"}`, `{}`, []string{`0`, `false`, `""`, `{}`, `[]`, `9007199254740993`, `{"b":1,"a":2}`}},
		{"protobuf", `syntax = "proto3"; message K { int64 id = 1; }`, `syntax = "proto3"; message V { int64 id = 1; string some_name = 2; bool on = 3; repeated int32 all = 4; enum E { A = 0; B = 1; } E e = 5; bytes raw = 6; }`,
			[]string{`{"id":"0","some_name":"","on":false,"all":[],"e":"A","raw":""}`, `{"id":"9007199254740993","some_name":"é","on":true,"all":[1,-1],"e":"B","raw":"AP8="}`}},
	} {
		s.row(t, c.format, func(t *testing.T) {
			if s.registry == "" {
				s.notRun(t, "needs a schema registry")
			}
			quoted := func(schema string) string { return fmt.Sprintf("%q", schema) }
			key := map[string]string{"avro": `7`, "jsonschema": `7`, "protobuf": `{"id":"7"}`}[c.format]
			var records, wanted []string
			for _, v := range append([]string{`null`}, c.values...) {
				records, wanted = append(records, `"key":`+key+`,"value":`+v), append(wanted, key, v)
			}
			topic, a := s.trip(t, c.format, `{"key_schema":`+quoted(c.key)+`,"value_schema":`+quoted(c.value)+`,"records":[{%,"timestamp":1612554562000}]}`, records...)
			s.compare(t, a, want{status: 200, json: shown(topic, wanted...)})
		})
	}
	s.row(t, "headers and timestamps", func(t *testing.T) {
		headers := []string{
			`"headers":[{"key":"h","value":"djE="},{"key":"h","value":"djI="},{"key":"","value":""},{"key":"é","value":null}],"timestamp":0`,
			`"headers":[],"timestamp":"2021-02-05T19:49:22.123Z"`,
		}
		topic, a := s.trip(t, "binary", `{"records":[{%}]}`, headers...)
		s.compare(t, a, want{status: 200, body: fmt.Sprintf(`[{"topic":%q,"key":null,"value":null,"partition":0,"offset":0,"timestamp":0,`+
			`"headers":[{"key":"h","value":"djE="},{"key":"h","value":"djI="},{"key":"","value":""},{"key":"é","value":null}]},`+
			`{"topic":%[1]q,"key":null,"value":null,"partition":0,"offset":1,"timestamp":1612554562123}]`, topic)})
	})
	s.row(t, "16 MiB", func(t *testing.T) {
		value := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xFF, 0, '"', '\n'}, 4<<20))
		topic, a := s.trip(t, "binary", both, `"value":"`+value+`"`)
		s.compare(t, a, want{status: 200, body: shown(topic, `null`, `"`+value+`"`)})
	})
	s.row(t, "max_bytes=1 with records of 1 KiB", func(t *testing.T) {
		topic := s.kafka.Topic(t, "c153", 1)
		var values []string
		for n := range 60 {
			values = append(values, fmt.Sprintf("%d %s", n, strings.Repeat("x", 1020)))
		}
		s.fill(t, topic, 0, values...)
		i, one := s.subscribed(t, "", earliest, topic), s.create(t, "", quick, bareV1)
		for n := range values {
			i.texts(t, "?max_bytes=1", values[n])
			var all []got
			one.untilV1(t, topic, "?max_bytes=1").into(t, &all)
			s.same(t, all, values[n])
		}
		i.expect(t, "GET", "/records?timeout=100&max_bytes=1", "", want{status: 200, body: "[]"})
	})
}

// goingOn is rest-api.md 15.4: a commit of N, then a new instance in the group starts at N+1.
func goingOn(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c154", 1)
	s.fill(t, topic, 0, "a", "b", "c", "d")
	commits := map[string]func(t *testing.T, i instance){
		"v1": func(t *testing.T, i instance) {
			var all []got
			for range 2 {
				i.untilV1(t, topic, "?max_bytes=1").into(t, &all)
			}
			s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, json: fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":1,"committed":1}]`, topic)})
		},
		"v2 with a body": func(t *testing.T, i instance) {
			i.subscribe(t, topic)
			i.some(t, "", 4)
			i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 1, ""), want{status: 200, body: "[]"})
		},
		"v2 without": func(t *testing.T, i instance) {
			i.subscribe(t, topic)
			i.texts(t, "?max_bytes=2", "a", "b")
			i.expect(t, "POST", "/offsets", "", want{status: 200, body: "[]"})
		},
	}
	for name, commit := range commits {
		s.row(t, name, func(t *testing.T) {
			version := bareV2
			if name == "v1" {
				version = bareV1
			}
			group := backend.Unique("c154")
			i := s.create(t, group, quick, version)
			commit(t, i)
			i.expect(t, "DELETE", "", "", want{status: 204})
			i = s.subscribed(t, group, earliest, topic)
			i.texts(t, "", "c", "d")
			i.expect(t, "DELETE", "", "", want{status: 204}) // without a commit
			var all []got                                    // and in v1
			one := s.create(t, group, quick, bareV1)
			one.untilV1(t, topic, "").into(t, &all)
			s.same(t, all, "c", "d")
			s.wantCommitted(t, group, topic, 0, 2)
		})
	}
}
