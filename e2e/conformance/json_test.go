package conformance

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// strictJSON is rest-api.md 1.3.
func strictJSON(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c13", 1)
	produce := func(contentType, body string) request {
		return request{method: "POST", path: "/topics/" + topic, contentType: contentType, body: body}
	}
	notJSON := want{status: 400, code: 400, like: ".*byte [0-9]+.*"}
	wrongType := want{status: 400, code: 400, like: ".+"}
	invalid := func(message string) want { return want{status: 422, code: 422, message: message} }
	written := want{status: 200, json: okSlots}

	for _, f := range []struct {
		name, body string
		want       want
	}{
		{"cut off", `{"records":[{"value":"Zm9v"}`, notJSON},
		{"words", `records`, notJSON},
		{"a byte-order mark", "\xef\xbb\xbf" + oneRecord, notJSON},
		{"data after the document", oneRecord + `{}`, notJSON},
		{"single quotes", `{'records':[{'value':'Zm9v'}]}`, notJSON},
		{"a comma at the end", `{"records":[{"value":"Zm9v"},]}`, notJSON},
		{"a comment", `{"records":[{"value":"Zm9v"}] /* x */}`, notJSON},
		{"a number that JSON has not", `{"records":[{"partition":0x0}]}`, notJSON},
		{"a leading zero", `{"records":[{"partition":00}]}`, notJSON},
		{"a control character in a string", "{\"records\":[{\"value\":\"Zm9v\n\"}]}", notJSON},
		{"an unknown escape", `{"records":[{"value":"\x41"}]}`, notJSON},

		{"the document an array", `[]`, wrongType},
		{"the document a string", `"records"`, wrongType},
		{"records a string", `{"records":"x"}`, wrongType},
		{"records an object", `{"records":{}}`, wrongType},
		{"a record that is a string", `{"records":["Zm9v"]}`, wrongType},
		{"a record that is null", `{"records":[null]}`, wrongType},
		{"partition a word", `{"records":[{"value":"Zm9v","partition":"x"}]}`, wrongType},
		{"partition a fraction", `{"records":[{"value":"Zm9v","partition":1.5}]}`, wrongType},
		{"partition a boolean", `{"records":[{"value":"Zm9v","partition":true}]}`, wrongType},
		{"headers an object", `{"records":[{"value":"Zm9v","headers":{}}]}`, wrongType},
		{"a schema id a word", `{"records":[{"value":"Zm9v"}],"value_schema_id":"x"}`, wrongType},

		{"invalid UTF-8 in a value", "{\"records\":[{\"value\":\"\xff\"}]}", want{status: 422, code: 422}},
		{"invalid UTF-8 in a name", "{\"rec\xc3\":[{\"value\":\"Zm9v\"}]}", want{status: 422, code: 422}},
		{"an overlong UTF-8 sequence", "{\"records\":[{\"value\":\"\xc0\xaf\"}]}", want{status: 422, code: 422}},
		{"a surrogate in UTF-8", "{\"records\":[{\"value\":\"\xed\xa0\x80\"}]}", want{status: 422, code: 422}},

		{"a field twice", `{"records":[{"value":"Zm9v"}],"records":[]}`, invalid("Duplicate field: records")},
		{"a record's field twice", `{"records":[{"value":"Zm9v","value":"Zm9v"}]}`, invalid("Duplicate field: value")},
		{"twice by an escape", `{"records":[{"value":"Zm9v","v\u0061lue":"Zm9v"}]}`, invalid("Duplicate field: value")},
		{"a header's field twice", `{"records":[{"value":"Zm9v","headers":[{"key":"h","key":"h","value":""}]}]}`, invalid("Duplicate field: key")},
		{"an unknown field", `{"records":[{"value":"Zm9v"}],"x":1}`, invalid("Unrecognized field: x")},
		{"a record's unknown field", `{"records":[{"value":"Zm9v","x":1}]}`, invalid("Unrecognized field: x")},
		{"a header's unknown field", `{"records":[{"value":"Zm9v","headers":[{"key":"h","x":1}]}]}`, invalid("Unrecognized field: x")},
		{"another letter case", `{"Records":[{"value":"Zm9v"}]}`, invalid("Unrecognized field: Records")},
		{"a record's other letter case", `{"records":[{"Value":"Zm9v"}]}`, invalid("Unrecognized field: Value")},
		{"a name that HTML would escape", `{"records":[{"value":"Zm9v"}],"<&>":1}`, invalid("Unrecognized field: <&>")},

		{"no records", `{}`, invalid("records may not be empty (was null)")},
		{"records null", `{"records":null}`, invalid("records may not be empty (was null)")},
		{"the document null", `null`, invalid("records may not be empty (was null)")},
		{"no document", ``, invalid("records may not be empty (was null)")},
		{"records empty", `{"records":[]}`, invalid("records may not be empty (was [])")},
		{"partition negative", `{"records":[{"value":"Zm9v","partition":-1}]}`, invalid("partition must be greater than or equal to 0 (was -1)")},

		{"white space everywhere", " \t\r\n{ \"records\" : [ { \"value\" : \"Zm9v\" } ] }\n", written},
		{"escapes", `{"\u0072ecords":[{"value":"\u005am9v"}]}`, written},
		{"partition in digits", `{"records":[{"value":"Zm9v","partition":"0"}]}`, written},
		{"timestamp in digits", `{"records":[{"value":"Zm9v","timestamp":"1612554562000"}]}`, written},
		{"optional fields null", `{"records":[{"key":null,"value":"Zm9v","partition":null,"timestamp":null,"headers":null}],"key_schema":null,"key_schema_id":null,"value_schema":null,"value_schema_id":null}`, written},
	} {
		s.row(t, f.name, func(t *testing.T) { s.expect(t, produce(binaryV2, f.body), f.want) })
	}
	s.row(t, "nothing of a refused document is written", func(t *testing.T) {
		quiet := s.kafka.Topic(t, "c13-quiet", 1)
		for _, body := range []string{`{"records":[{"value":"Zm9v"},{"value":"Zm9v","x":1}]}`, `{"records":[{"value":"Zm9v"}]} x`, "{\"records\":[{\"value\":\"Zm9v\"},{\"value\":\"\xff\"}]}"} {
			a := s.ask(t, request{method: "POST", path: "/topics/" + quiet, contentType: binaryV2, body: body})
			if a.status == 200 {
				s.differ(t, "%v was taken: %v", a.asked, a)
			}
		}
		s.expect(t, request{method: "GET", path: "/topics/" + quiet + "/partitions/0/offsets"}, want{status: 200, json: `{"beginning_offset":0,"end_offset":0}`})
	})

	// The same rules hold for the bodies of consumers.
	i := s.create(t, "", "", bareV2).path
	for _, f := range []struct {
		name, path, body string
		want             want
	}{
		{"create, not JSON", "/consumers/g", `{"format":`, notJSON},
		{"create, the document an array", "/consumers/g", `[]`, wrongType},
		{"create, invalid UTF-8", "/consumers/g", "{\"id\":\"\xff\"}", want{status: 422, code: 422}},
		{"create, a field twice", "/consumers/g", `{"format":"json","format":"json"}`, invalid("Duplicate field: format")},
		{"create, an unknown field", "/consumers/g", `{"x":1}`, invalid("Unrecognized field: x")},
		{"create, another letter case", "/consumers/g", `{"Format":"json"}`, invalid("Unrecognized field: Format")},
		{"subscribe, not JSON", i + "/subscription", `{"topics":["a"}`, notJSON},
		{"subscribe, a field twice", i + "/subscription", `{"topics":["a"],"topics":["a"]}`, invalid("Duplicate field: topics")},
		{"subscribe, an unknown field", i + "/subscription", `{"topic":["a"]}`, invalid("Unrecognized field: topic")},
		{"subscribe, topics a string", i + "/subscription", `{"topics":"a"}`, wrongType},
		{"assign, an unknown field", i + "/assignments", `{"partitions":[{"topic":"a","partition":0,"offset":0}]}`, invalid("Unrecognized field: offset")},
		{"assign, partition a word", i + "/assignments", `{"partitions":[{"topic":"a","partition":"x"}]}`, wrongType},
		{"assign, partition in digits", i + "/assignments", `{"partitions":[{"topic":"a","partition":"0"}]}`, want{status: 204}},
		{"commit, offset in digits", i + "/offsets", `{"offsets":[{"topic":"` + topic + `","partition":"0","offset":"0"}]}`, want{status: 200, json: `[]`}},
		{"commit, offset negative", i + "/offsets", `{"offsets":[{"topic":"a","partition":0,"offset":-1}]}`, want{status: 422, code: 422, like: `.*offset must be greater than or equal to 0 \(was -1\)`}},
	} {
		s.row(t, f.name, func(t *testing.T) {
			s.expect(t, request{method: "POST", path: f.path, contentType: bareV2, body: f.body}, f.want)
		})
	}
	base64Rows(t, s, topic)
	outputRows(t, s)
}

// base64Rows: the standard alphabet with padding and nothing else. A fault of the only record refuses the request.
func base64Rows(t *testing.T, s *server, topic string) {
	for _, b := range []struct{ name, text string }{
		{"a line break", `Zm9v\nZm9v`}, {"a carriage return", `Zm9v\r\n`}, {"a space", `Zm9v `}, {"the alphabet of URLs", `_-_-`},
		{"no padding", `Zg`}, {"too much padding", `Zm9v====`}, {"trailing bits", `Zh==`}, {"padding in the middle", `Zg==Zg==`}, {"no base64", `{}`},
	} {
		s.row(t, "base64 with "+b.name, func(t *testing.T) {
			for _, field := range []string{"key", "value"} {
				s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: binaryV1, body: `{"records":[{"` + field + `":"` + b.text + `"}]}`},
					want{status: 422, code: 422, message: "Record " + field + " contains invalid base64 encoding", detail: `records\[0\]`})
			}
		})
	}
}

// outputRows: what Sluice writes is not escaped for HTML, and valid UTF-8.
func outputRows(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c13-out", 1)
	s.intoKafka(t, topic, kgo.Record{Value: []byte(`{"a":"<&> \u003c é"}`), Timestamp: time.UnixMilli(1)})
	s.row(t, "answers are not escaped for HTML", func(t *testing.T) {
		a := s.expect(t, request{method: "GET", path: "/topics/" + topic + "/partitions/0/messages", accept: jsonV1}, want{status: 200, typ: jsonV1})
		if !strings.Contains(string(a.body), `{"a":"<&> \u003c é"}`) {
			s.differ(t, "%v does not hold the value as it is", a)
		}
		a = s.ask(t, request{method: "POST", path: "/topics/" + topic, contentType: jsonV1, body: `{"records":[{}],"<&>":1}`})
		if !strings.Contains(string(a.body), `<&>`) {
			s.differ(t, "%v does not hold the name as it is", a)
		}
	})
}
