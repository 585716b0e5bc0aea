package conformance

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// roundTrip is one value of a format: as it is sent, as Kafka holds it, as it is read.
type roundTrip struct {
	name   string
	schema string // its text, where the format has one
	send   string
	holds  string // "null" is Kafka's null
	read   string // what is read, where that is not what was sent
}

const null = "null"

// formatRows is rest-api.md 4.2: key and value, there and back.
func formatRows(t *testing.T, s *server) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	everyByte, err := json.Marshal(every)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name, typ string
		kind      string // of the schema, in the registry's words
		trips     []roundTrip
	}{
		{"binary", binaryV1, "", []roundTrip{
			{name: "text", send: `"Zm9v"`, holds: "foo"}, {name: "empty is not null", send: `""`, holds: ""}, {name: "null", send: null, holds: null},
			{name: "every byte", send: string(everyByte), holds: string(every)}, {name: "escapes", send: `"Zm\u0039v"`, holds: "foo", read: `"Zm9v"`},
			{name: "an escaped slash", send: `"\/\/\/\/"`, holds: "\xff\xff\xff", read: `"////"`},
		}},
		{"json", jsonV1, "", []roundTrip{
			{name: "0", send: `0`, holds: `0`}, {name: "false", send: `false`, holds: `false`}, {name: "empty string", send: `""`, holds: `""`},
			{name: "empty object", send: `{}`, holds: `{}`}, {name: "empty array", send: `[]`, holds: `[]`}, {name: "null", send: null, holds: null},
			{name: "beyond 2^53", send: `9007199254740993`, holds: `9007199254740993`}, {name: "a number of 40 digits", send: `1234567890123456789012345678901234567890`, holds: `1234567890123456789012345678901234567890`},
			{name: "number literals", send: `[1.50,-0,1E400,0.1e-7,100]`, holds: `[1.50,-0,1E400,0.1e-7,100]`},
			{name: "the order of members", send: `{"b":1,"a":{"d":1,"c":2}}`, holds: `{"b":1,"a":{"d":1,"c":2}}`},
			{name: "white space", send: " { \"a\" : [ 1 ,\n\t2 ] , \"b c\" : \" d \" } ", holds: `{"a":[1,2],"b c":" d "}`, read: `{"a":[1,2],"b c":" d "}`},
			{name: "escapes", send: `"\u00e9\u0041\/é\n\ud83d\ude00<&>"`, holds: `"\u00e9\u0041\/é\n\ud83d\ude00<&>"`},
			{name: "null inside", send: `[null,{"a":null}]`, holds: `[null,{"a":null}]`},
		}},
		{"text", textV2, "", []roundTrip{
			{name: "text", send: `"a é 😀"`, holds: "a é 😀"}, {name: "escapes", send: `"a\u00e9\ud83d\ude00\/"`, holds: "aé😀/", read: `"aé😀/"`},
			{name: "empty is not null", send: `""`, holds: ""}, {name: "null", send: null, holds: null},
		}},
		{"avro", avroV2, "AVRO", []roundTrip{
			{name: "null", schema: `"int"`, send: null, holds: null}, {name: "int", schema: `"int"`, send: `-1`, holds: "\x01"}, {name: "long beyond 2^53", schema: `"long"`, send: `9007199254740993`, holds: "\x82\x80\x80\x80\x80\x80\x80\x20"},
			{name: "boolean", schema: `"boolean"`, send: `false`, holds: "\x00"}, {name: "double", schema: `"double"`, send: `1.5`, holds: "\x00\x00\x00\x00\x00\x00\xf8\x3f"}, {name: "float", schema: `"float"`, send: `1.5`, holds: "\x00\x00\xc0\x3f"},
			{name: "string", schema: `"string"`, send: `"é"`, holds: "\x04é"}, {name: "bytes are code points", schema: `"bytes"`, send: `"aÿ"`, holds: "\x04a\xff"},
			{name: "union of null", schema: `["null","string"]`, send: `{"string":"x"}`, holds: "\x02\x02x"},
			{name: "union in a record", schema: `{"type":"record","name":"r.R","fields":[{"name":"a","type":["null","int"]},{"name":"b","type":["null","int"]}]}`, send: `{"a":null,"b":{"int":1}}`, holds: "\x00\x02\x02"},
			{name: "array", schema: `{"type":"array","items":"int"}`, send: `[1,2]`, holds: "\x04\x02\x04\x00"}, {name: "map", schema: `{"type":"map","values":"int"}`, send: `{"a":1}`, holds: "\x02\x02a\x02\x00"},
			{name: "enum", schema: `{"type":"enum","name":"E","symbols":["A","B"]}`, send: `"B"`, holds: "\x02"}, {name: "fixed", schema: `{"type":"fixed","name":"F","size":2}`, send: `"ab"`, holds: "ab"},
		}},
		{"jsonschema", schemaV2, "JSON", []roundTrip{
			{name: "null", schema: `{}`, send: null, holds: null}, {name: "object", schema: `{"type":"object","properties":{"n":{"type":"integer"}}}`, send: `{"n":9007199254740993,"a":1.50}`, holds: `{"n":9007199254740993,"a":1.50}`},
			{name: "0", schema: `{}`, send: `0`, holds: `0`}, {name: "empty string", schema: `{}`, send: `""`, holds: `""`},
		}},
		{"protobuf", protoV2, "PROTOBUF", []roundTrip{
			{name: "null", schema: proto, send: null, holds: null},
			{name: "fields by their names", schema: proto, send: `{"some_text":"x"}`, holds: "\x00\x0a\x01x", read: `{"some_text":"x","n":"0","e":"ZERO"}`},
			{name: "fields in lowerCamelCase", schema: proto, send: `{"someText":"x"}`, holds: "\x00\x0a\x01x", read: `{"some_text":"x","n":"0","e":"ZERO"}`},
			{name: "64 bits as a string, enums by name", schema: proto, send: `{"some_text":"","n":"9007199254740993","e":"ONE"}`, holds: "\x00\x10\x81\x80\x80\x80\x80\x80\x80\x10\x18\x01"},
			{name: "nothing but defaults", schema: proto, send: `{}`, holds: "\x00", read: `{"some_text":"","n":"0","e":"ZERO"}`},
		}},
	} {
		for _, field := range []string{"key", "value"} {
			topic := s.kafka.Topic(t, "c42-"+f.name, 1)
			for _, trip := range f.trips {
				s.row(t, f.name+" "+field+", "+trip.name, func(t *testing.T) { s.roundTrip(t, topic, f.typ, field, trip) })
			}
		}
	}
	schemaNames(t, s)
	embedded(t, s)
}

const proto = "syntax = \"proto3\";\nmessage M {\n  string some_text = 1;\n  int64 n = 2;\n  E e = 3;\n  enum E {\n    ZERO = 0;\n    ONE = 1;\n  }\n}\n"

// roundTrip writes one record and looks at it in Kafka and through a read.
func (s *server) roundTrip(t *testing.T, topic, typ, field string, trip roundTrip) {
	t.Helper()
	schema := ""
	if trip.schema != "" {
		s.needRegistry(t)
		text, err := json.Marshal(trip.schema)
		if err != nil {
			t.Fatal(err)
		}
		schema = `"` + field + `_schema":` + string(text) + `,`
	}
	a := s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: typ, body: `{` + schema + `"records":[{"` + field + `":` + trip.send + `}]}`}, want{status: 200})
	if a.status != 200 {
		return
	}
	r := s.written(t, topic, a)
	held, other := r.Value, r.Key
	if field == "key" {
		held, other = r.Key, r.Value
	}
	if other != nil {
		s.differ(t, "%v: the other half of the record is %q, want null", a.asked, other)
	}
	if trip.schema != "" {
		s.framed(t, a, field, held)
	}
	switch {
	case trip.holds == null && held != nil, trip.holds != null && held == nil:
		s.differ(t, "%v: Kafka holds %q (null: %t), want %q", a.asked, held, held == nil, trip.holds)
	case held != nil && trip.schema != "" && len(held) >= 5:
		held = held[5:]
	}
	if held != nil && string(held) != trip.holds {
		s.differ(t, "%v: Kafka holds %q, want %q", a.asked, held, trip.holds)
	}
	back := s.expect(t, request{method: "GET", path: fmt.Sprintf("/topics/%s/partitions/0/messages?offset=%d", topic, r.Offset), accept: typ}, want{status: 200, typ: typ})
	var got []map[string]json.RawMessage
	back.into(t, &got)
	wanted := trip.read
	if wanted == "" {
		wanted = trip.send
	}
	if len(got) != 1 || !sameText(typ, string(got[0][field]), wanted) {
		s.differ(t, "%v: %v has not the %s %s", back.asked, back, field, wanted)
	}
}

// sameText compares to the byte, but for formats that decode: their JSON may have white space, escapes and any order.
func sameText(typ, got, want string) bool {
	if typ != protoV2 && typ != avroV2 {
		return got == want
	}
	a, err1 := decode([]byte(got))
	b, err2 := decode([]byte(want))
	return err1 == nil && err2 == nil && alike(b, a)
}

// framed looks at what stands before a payload with a schema: byte 0 and the id that the answer names.
func (s *server) framed(t *testing.T, a answer, field string, held []byte) {
	t.Helper()
	var ids map[string]any
	a.into(t, &ids)
	id, _ := ids[field+"_schema_id"].(float64)
	if id < 1 {
		s.differ(t, "%v: %v names no schema of the %s", a.asked, a, field)
	}
	if held != nil && (len(held) < 5 || held[0] != 0 || binary.BigEndian.Uint32(held[1:5]) != uint32(id)) {
		s.differ(t, "%v: Kafka holds %q, not framed with schema %v", a.asked, held, id)
	}
}

// schemaNames: a schema by its id, and how key and value have each their own.
func schemaNames(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c42-schemas", 1)
	produce := func(typ, body string) request {
		return request{method: "POST", path: "/topics/" + topic, contentType: typ, body: body}
	}
	s.row(t, "schemas by id", func(t *testing.T) {
		key, value := s.registerSchema(t, topic+"-key", "AVRO", `"string"`), s.registerSchema(t, topic+"-value", "AVRO", `"int"`)
		for _, id := range []string{fmt.Sprint(value), fmt.Sprintf("%q", fmt.Sprint(value))} { // digits in a string are an integer
			s.expect(t, produce(avroV2, fmt.Sprintf(`{"records":[{"key":"k","value":1}],"key_schema_id":%d,"value_schema_id":%s}`, key, id)),
				want{status: 200, json: fmt.Sprintf(`{"offsets":[{"partition":0,"offset":"<any>","error_code":null,"error":null}],"key_schema_id":%d,"value_schema_id":%d}`, key, value)})
		}
		if r := s.inKafka(t, topic, 0, 0, 1)[0]; string(r.Key[5:]) != "\x02k" || string(r.Value[5:]) != "\x02" {
			s.differ(t, "Kafka holds %q and %q", r.Key, r.Value)
		}
	})
	s.row(t, "the same text has the same id", func(t *testing.T) {
		id := s.registerSchema(t, topic+"-value", "AVRO", `"int"`)
		s.expect(t, produce(avroV1, `{"value_schema":"\"int\"","records":[{"value":1}]}`),
			want{status: 200, typ: bareV1, json: fmt.Sprintf(`{"offsets":[{"partition":0,"offset":"<any>","error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":%d}`, id)})
	})
	s.row(t, "a value that does not fit costs its slot", func(t *testing.T) {
		s.needRegistry(t)
		s.expect(t, produce(avroV2, `{"value_schema":"\"int\"","records":[{"value":1},{"value":"x"},{"value":2}]}`),
			want{status: 200, json: `{"offsets":[{"partition":0,"offset":"<any>","error_code":null,"error":null},{"partition":null,"offset":null,"error_code":42203,"error":"<any>"},{"partition":0,"offset":"<any>","error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":"<any>"}`})
	})
	s.row(t, "null keys need no key schema", func(t *testing.T) {
		s.needRegistry(t)
		s.expect(t, produce(avroV2, `{"value_schema":"\"int\"","records":[{"key":null,"value":1},{"value":null}]}`), want{status: 200})
	})
}

// embedded is the way back for bytes that no produce of the format wrote.
func embedded(t *testing.T, s *server) {
	for _, e := range []struct{ name, typ, held, read string }{
		{"json keeps white space that Kafka holds", jsonV1, `{ "a" : 1 }`, `{ "a" : 1 }`},
		{"json of no bytes is null", jsonV1, ``, null},
		{"binary of no bytes is empty", binaryV1, ``, `""`},
		{"text of no bytes is empty", textV2, ``, `""`},
		{"text is escaped where JSON asks for it", textV2, "a\"\\\n\x00", `"a\"\\\n\u0000"`},
	} {
		s.row(t, e.name, func(t *testing.T) {
			topic := s.kafka.Topic(t, "c42-held", 1)
			s.fill(t, topic, 0, e.held)
			a := s.expect(t, request{method: "GET", path: "/topics/" + topic + "/partitions/0/messages", accept: e.typ}, want{status: 200, typ: e.typ})
			if !strings.Contains(string(a.body), `"value":`+e.read) {
				s.differ(t, "%v: %v has not the value %s", a.asked, a, e.read)
			}
		})
	}
}
