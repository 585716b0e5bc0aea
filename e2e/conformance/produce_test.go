package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// Slots of an answer, by what became of the record.
func good(partition int, offset any) string {
	return fmt.Sprintf(`{"partition":%d,"offset":%v,"error_code":null,"error":null}`, partition, offset)
}

func bad(code int, text string) string {
	return fmt.Sprintf(`{"partition":null,"offset":null,"error_code":%d,"error":%q}`, code, text)
}

func slots(all ...string) string {
	out := `{"offsets":[`
	for i, slot := range all {
		if i > 0 {
			out += ","
		}
		out += slot
	}
	return out + `],"key_schema_id":null,"value_schema_id":null}`
}

// produceRequests is rest-api.md 4.1: each field of a record.
func produceRequests(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c41", 3)
	at := "/topics/" + topic
	post := func(path, body string) request {
		return request{method: "POST", path: path, contentType: binaryV2, body: body}
	}
	s.rows(t, []row{
		{"partition of the record", post(at, `{"records":[{"value":"YQ==","partition":2}]}`), want{status: 200, json: slots(good(2, 0))}},
		{"partition of the path", post(at+"/partitions/1", `{"records":[{"value":"YQ=="},{"value":"Yg=="}]}`), want{status: 200, json: slots(good(1, 0), good(1, 1))}},
		{"the record's partition wins over the path's", post(at+"/partitions/1", `{"records":[{"value":"YQ==","partition":2},{"value":"Yg==","partition":null},{"value":"Yw=="}]}`), want{status: 200, json: slots(good(2, 1), good(1, 2), good(1, 3))}},
		{"no fields", post(at+"/partitions/0", `{"records":[{}]}`), want{status: 200, json: slots(good(0, 0))}},
		{"unknown topic", post("/topics/"+s.unknown(t), oneRecord), unknownTopic},
		{"unknown topic and partition", post("/topics/"+s.unknown(t)+"/partitions/0", oneRecord), unknownTopic},
		{"unknown partition of the path", post(at+"/partitions/3", oneRecord), unknownPartition},
		{"negative partition of the path", post(at+"/partitions/-1", oneRecord), unknownPartition},
	})
	tombstone := func(t *testing.T, r *kgo.Record) bool { return r.Key == nil && r.Value == nil }
	for _, f := range []struct {
		name, record string
		holds        func(*testing.T, *kgo.Record) bool
	}{
		{"nothing is a tombstone without a key", `{}`, tombstone},
		{"null is absent", `{"key":null,"value":null}`, tombstone},
		{"a tombstone", `{"key":"YQ==","value":null}`, func(_ *testing.T, r *kgo.Record) bool { return string(r.Key) == "a" && r.Value == nil }},
		{"empty is not null", `{"key":"","value":""}`, func(_ *testing.T, r *kgo.Record) bool {
			return r.Key != nil && len(r.Key) == 0 && r.Value != nil && len(r.Value) == 0
		}},
		{"timestamp in milliseconds", `{"timestamp":1612554562000}`, func(_ *testing.T, r *kgo.Record) bool { return r.Timestamp.UnixMilli() == 1612554562000 }},
		{"timestamp 0", `{"timestamp":0}`, func(_ *testing.T, r *kgo.Record) bool { return r.Timestamp.UnixMilli() == 0 }},
		{"timestamp in RFC 3339", `{"timestamp":"2021-02-05T19:49:22Z"}`, func(_ *testing.T, r *kgo.Record) bool { return r.Timestamp.UnixMilli() == 1612554562000 }},
		{"timestamp with an offset and a fraction", `{"timestamp":"2021-02-05T20:49:22.25+01:00"}`, func(_ *testing.T, r *kgo.Record) bool { return r.Timestamp.UnixMilli() == 1612554562250 }},
		{"no timestamp is the time of receipt", `{"value":"YQ=="}`, func(_ *testing.T, r *kgo.Record) bool { return time.Since(r.Timestamp).Abs() < time.Minute }},
		{"headers keep order, repetition, null and nothing", `{"headers":[{"key":"b","value":"Yg=="},{"key":"a","value":null},{"key":"b","value":""},{"key":"","value":"YQ=="},{"key":"c"}]}`, func(t *testing.T, r *kgo.Record) bool {
			t.Logf("%+v", r.Headers)
			h := r.Headers
			return len(h) == 5 && h[0].Key == "b" && string(h[0].Value) == "b" && h[1].Key == "a" && h[1].Value == nil &&
				h[2].Key == "b" && h[2].Value != nil && len(h[2].Value) == 0 && h[3].Key == "" && string(h[3].Value) == "a" && h[4].Key == "c" && h[4].Value == nil
		}},
		{"headers empty", `{"headers":[]}`, func(_ *testing.T, r *kgo.Record) bool { return len(r.Headers) == 0 }},
	} {
		s.row(t, f.name, func(t *testing.T) {
			a := s.expect(t, post(at+"/partitions/0", `{"records":[`+f.record+`]}`), want{status: 200, json: slots(good(0, `"<any>"`))})
			if r := s.written(t, topic, a); !f.holds(t, r) {
				s.differ(t, "%v: Kafka holds key %q, value %q, timestamp %s, headers %v", a.asked, r.Key, r.Value, r.Timestamp, r.Headers)
			}
		})
	}
}

// written is the record that the only slot of an answer names.
func (s *server) written(t *testing.T, topic string, a answer) *kgo.Record {
	t.Helper()
	var got struct {
		Offsets []struct {
			Partition *int32
			Offset    *int64
		}
	}
	a.into(t, &got)
	if len(got.Offsets) != 1 || got.Offsets[0].Offset == nil || got.Offsets[0].Partition == nil {
		t.Fatalf("%v\ngot %v: no record was written", a.asked, a)
	}
	return s.inKafka(t, topic, *got.Offsets[0].Partition, *got.Offsets[0].Offset, 1)[0]
}

// faults is rest-api.md 4.3 and 4.4: what a fault costs.
func faults(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c44", 2)
	at := "/topics/" + topic + "/partitions/0"
	s.row(t, "the answer is exactly this", func(t *testing.T) {
		s.expect(t, request{method: "POST", path: at, contentType: binaryV1, body: `{"records":[{"value":"YQ=="},{"value":"?"}]}`}, want{status: 200, typ: bareV1,
			body: `{"offsets":[{"partition":0,"offset":0,"error_code":null,"error":null},{"partition":null,"offset":null,"error_code":422,"error":"Record value contains invalid base64 encoding"}],"key_schema_id":null,"value_schema_id":null}`})
	})
	const badValue, badKey = "Record value contains invalid base64 encoding", "Record key contains invalid base64 encoding"
	const negative, badTime = "partition must be greater than or equal to 0 (was -1)", "timestamp must be milliseconds since 1970 or an RFC 3339 time"
	any0 := good(0, `"<any>"`)
	for _, f := range []struct{ name, typ, fault, text string }{
		{"bad base64 of a value", binaryV2, `{"value":"?"}`, badValue},
		{"bad base64 of a key", binaryV2, `{"key":"?","value":"YQ=="}`, badKey},
		{"the first fault of a record counts", binaryV2, `{"value":"?","key":"?"}`, badValue},
		{"a number where base64 is wanted", binaryV2, `{"value":1}`, badValue},
		{"an object where base64 is wanted", binaryV2, `{"value":{"a":[1]}}`, badValue},
		{"negative partition", binaryV2, `{"value":"YQ==","partition":-1}`, negative},
		{"a timestamp that is a word", binaryV2, `{"value":"YQ==","timestamp":"yesterday"}`, badTime},
		{"a negative timestamp", binaryV2, `{"value":"YQ==","timestamp":-1}`, badTime},
		{"a fraction of a timestamp", binaryV2, `{"value":"YQ==","timestamp":1.5}`, badTime},
		{"a bad header value", binaryV2, `{"value":"YQ==","headers":[{"key":"h","value":"?"}]}`, "Record header value contains invalid base64 encoding"},
		{"duplicate key inside a json value", jsonV2, `{"value":{"a":1,"b":{"c":1,"c":2}}}`, "Duplicate field: c"},
		{"duplicate key inside a json key", jsonV2, `{"key":{"a":1,"\u0061":2}}`, "Duplicate field: a"},
		{"a number where text is wanted", textV2, `{"value":1}`, ""},
	} {
		s.row(t, f.name+" costs its slot", func(t *testing.T) {
			fine := `{"value":"YQ=="}`
			w := want{status: 200, json: slots(any0, bad(422, f.text), any0)}
			if f.text == "" {
				w.json = slots(any0, `{"partition":null,"offset":null,"error_code":422,"error":"<any>"}`, any0)
			}
			s.expect(t, request{method: "POST", path: at, contentType: f.typ, body: `{"records":[` + fine + `,` + f.fault + `,` + fine + `]}`}, w)
		})
		s.row(t, f.name+" alone refuses the request", func(t *testing.T) {
			w := want{status: 422, code: 422, message: f.text, detail: `records\[0\]`}
			if f.text == "" {
				w.like = ".+"
			}
			s.expect(t, request{method: "POST", path: at, contentType: f.typ, body: `{"records":[` + f.fault + `]}`}, w)
		})
	}
	s.rows(t, []row{
		{"the first of many faults refuses the request", request{method: "POST", path: at, contentType: binaryV2, body: `{"records":[{"value":"YQ==","partition":-1},{"value":"?"}]}`}, want{status: 422, code: 422, message: negative, detail: `records\[0\]\.partition`}},
		{"an unknown partition costs its slot", request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: `{"records":[{"value":"YQ==","partition":1},{"value":"YQ==","partition":7}]}`},
			want{status: 200, json: slots(good(1, `"<any>"`), bad(40402, "Partition not found."))}},
		{"200 though every slot failed", request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: `{"records":[{"value":"YQ==","partition":7},{"value":"YQ==","partition":8}]}`},
			want{status: 200, json: slots(bad(40402, "Partition not found."), bad(40402, "Partition not found."))}},
		{"faults of content and of the result side by side", request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: `{"records":[{"value":"?"},{"value":"YQ==","partition":7}]}`},
			want{status: 200, json: slots(bad(422, badValue), bad(40402, "Partition not found."))}},
		{"an unknown topic comes before faults of content", request{method: "POST", path: "/topics/" + s.unknown(t), contentType: binaryV2, body: `{"records":[{"value":"?"}]}`}, unknownTopic},
	})
	s.row(t, "what stands between faults is written in order", func(t *testing.T) {
		quiet := s.kafka.Topic(t, "c44-order", 1)
		s.expect(t, request{method: "POST", path: "/topics/" + quiet, contentType: jsonV2, body: `{"records":[{"value":1},{"value":{"a":1,"a":2}},{"value":2},{"value":3,"partition":-1},{"value":4}]}`},
			want{status: 200, json: slots(good(0, 0), bad(422, "Duplicate field: a"), good(0, 1), bad(422, negative), good(0, 2))})
		in := s.inKafka(t, quiet, 0, 0, 3)
		if held := string(in[0].Value) + string(in[1].Value) + string(in[2].Value); held != "124" {
			s.differ(t, "Kafka holds %q, want 124", held)
		}
	})
	strictMode(t, s)
}

// strictMode is the second half of 4.4: a status that says that nothing was written.
func strictMode(t *testing.T, s *server) {
	if !s.ours {
		s.row(t, "strict", func(t *testing.T) { s.own(t, "SLUICE_PRODUCE_STATUS=strict") })
		return
	}
	strict := s.own(t, "SLUICE_PRODUCE_STATUS=strict", "SLUICE_PRODUCE_TIMEOUT=2s")
	topic := s.kafka.Topic(t, "c44-strict", 2, "max.message.bytes=2000")
	post := func(body string) request {
		return request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: body}
	}
	with := func(code int, message string, all ...string) string {
		s := slots(all...)
		return fmt.Sprintf(`%s,"error_code":%d,"message":%q}`, s[:len(s)-1], code, message)
	}
	none := bad(40402, "Partition not found.")
	long := `{"value":"` + fmt.Sprintf("%05000d", 0) + `"}` // of zeros in base64: 3,750 bytes, and more than the topic takes
	strict.rows(t, []row{
		{"strict, one was written", post(`{"records":[{"value":"YQ==","partition":0},{"value":"YQ==","partition":7}]}`), want{status: 200, json: slots(good(0, 0), none)}},
		{"strict, none has its partition", post(`{"records":[{"value":"YQ==","partition":7},{"value":"YQ==","partition":8}]}`), want{status: 404, json: with(40402, "Partition not found.", none, none)}},
		{"strict, content faults alone", post(`{"records":[{"value":"?"},{"value":"?"}]}`), want{status: 422, code: 422, message: "Record value contains invalid base64 encoding"}},
		{"strict, content and result", post(`{"records":[{"value":"?"},{"value":"YQ==","partition":7}]}`), want{status: 500, json: with(422, "Record value contains invalid base64 encoding", bad(422, "Record value contains invalid base64 encoding"), none)}},
	})
	s.row(t, "strict, too large for the topic", func(t *testing.T) {
		strict.expect(t, post(`{"records":[`+long+`]}`), want{status: 500, json: `{"offsets":[{"partition":null,"offset":null,"error_code":50002,"error":"<any>"}],"key_schema_id":null,"value_schema_id":null,"error_code":50002,"message":"<any>"}`})
	})
	s.row(t, "strict, Kafka cannot write now", func(t *testing.T) {
		if s.kafka.Name != backend.Kafka28 { // since KIP-966 no more replicas are asked for than there are
			s.notRun(t, "needs a Kafka that lacks replicas; runs on kafka28")
		}
		short := s.kafka.Topic(t, "c44-replicas", 1, "min.insync.replicas=2")
		strict.expect(t, request{method: "POST", path: "/topics/" + short, contentType: binaryV2, body: oneRecord},
			want{status: 503, header: map[string]string{"Retry-After": "*"}, json: `{"offsets":[{"partition":null,"offset":null,"error_code":50003,"error":"<any>"}],"key_schema_id":null,"value_schema_id":null,"error_code":50003,"message":"<any>"}`})
	})
}
