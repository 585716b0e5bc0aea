package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/formats"
	"github.com/sluicegate/sluice/sandbox"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// schemas starts a registry and a client of it.
func schemas(t testing.TB) (*sandbox.Registry, *formats.Registry) {
	t.Helper()
	s, err := sandbox.StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	r, err := formats.New(formats.Config{RegistryURL: []string{s.URL}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, r
}

func startWithSchemas(t *testing.T, change ...func(*Config, *Needs)) (*world, *sandbox.Registry) {
	t.Helper()
	s, r := schemas(t)
	return start(t, append([]func(*Config, *Needs){func(_ *Config, n *Needs) { n.Schemas = r }}, change...)...), s
}

const (
	avroV1, avroV2 = "application/vnd.kafka.avro.v1+json", "application/vnd.kafka.avro.v2+json"
	schemaV2       = "application/vnd.kafka.jsonschema.v2+json"
	protoV2        = "application/vnd.kafka.protobuf.v2+json"
	textV2         = "application/vnd.kafka.text.v2+json"
)

func TestRecordsWithSchemasArriveFramed(t *testing.T) {
	w, s := startWithSchemas(t)
	at := time.UnixMilli(1612554562000)
	for _, c := range []struct {
		contentType, body, answer string
		want                      []sluice.NewRecord
	}{
		{avroV2, `{"key_schema":"\"string\"","value_schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"n\",\"type\":\"long\"}]}","records":[{"key":"k","value":{"n":9007199254740993},"partition":0,"timestamp":1612554562000,"headers":[{"key":"h","value":"eA=="}]},{"key":null,"value":null},{}]}`,
			`"key_schema_id":1,"value_schema_id":2}`, []sluice.NewRecord{
				{Partition: 0, Key: []byte("\x00\x00\x00\x00\x01\x02k"), Value: []byte("\x00\x00\x00\x00\x02\x82\x80\x80\x80\x80\x80\x80\x20"), Timestamp: at, Headers: []sluice.Header{{Name: "h", Value: []byte("x")}}},
				{Partition: -1}, {Partition: -1}}},
		{avroV1, `{"records":[{"value":{"n":0}}],"value_schema_id":"2"}`, `"key_schema_id":null,"value_schema_id":2}`, []sluice.NewRecord{{Partition: -1, Value: []byte("\x00\x00\x00\x00\x02\x00")}}},
		{schemaV2, `{"value_schema":"{}","records":[{"value":0},{"value":false},{"value":""},{"value":{ }},{"value":[1.50, "\u00e4"]},{"value":null}]}`, `"key_schema_id":null,"value_schema_id":3}`, []sluice.NewRecord{
			{Partition: -1, Value: []byte("\x00\x00\x00\x00\x030")}, {Partition: -1, Value: []byte("\x00\x00\x00\x00\x03false")}, {Partition: -1, Value: []byte("\x00\x00\x00\x00\x03\"\"")},
			{Partition: -1, Value: []byte("\x00\x00\x00\x00\x03{}")}, {Partition: -1, Value: []byte("\x00\x00\x00\x00\x03[1.50,\"\\u00e4\"]")}, {Partition: -1}}},
		{protoV2, `{"value_schema":"syntax=\"proto3\"; message M { string s = 1; }","records":[{"value":{"s":"x"}},{"value":{}}]}`, `"key_schema_id":null,"value_schema_id":4}`, []sluice.NewRecord{
			{Partition: -1, Value: []byte("\x00\x00\x00\x00\x04\x00\x0a\x01x")}, {Partition: -1, Value: []byte("\x00\x00\x00\x00\x04\x00")}}},
		{textV2, `{"records":[{"key":"k\u00e4","value":"a\nb"},{"value":""},{"value":null}]}`, `"key_schema_id":null,"value_schema_id":null}`, []sluice.NewRecord{
			{Partition: -1, Key: []byte("kä"), Value: []byte("a\nb")}, {Partition: -1, Value: []byte{}}, {Partition: -1}}},
	} {
		delete(w.kafka.produced, "orders")
		a := w.call("POST", "/topics/orders", c.body, "Content-Type", c.contentType)
		if a.status != 200 || !strings.HasSuffix(a.body, c.answer) || strings.Contains(a.body, `"error":"`) {
			t.Errorf("%s: %d %s, want …%s", c.contentType, a.status, a.body, c.answer)
			continue
		}
		if diff := cmp.Diff(c.want, w.kafka.produced["orders"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.contentType, diff)
		}
	}
	if id, err := s.Register("orders-value", "AVRO", `{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}`); err != nil || id != 2 {
		t.Errorf("the schema stands under another subject: %d %v", id, err)
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

func TestWhatIsWrongWithASchemaRefusesTheRequest(t *testing.T) {
	w, s := startWithSchemas(t)
	for subject, text := range map[string]string{"articles-value": `"int"`, "orders-value": `"string"`} {
		if _, err := s.Register(subject, "AVRO", text); err != nil {
			t.Fatal(err)
		}
	}
	other, _ := s.Register("articles-value", "AVRO", `"int"`)
	for _, c := range []struct{ body, want string }{
		{`{"value_schema":"\"int\"","records":[{"key":"k","value":1}]}`, `422 {"error_code":42201,"message":"Request includes keys but does not include key schema"}`},
		{`{"key_schema":"\"string\"","records":[{"key":"k","value":1}]}`, `422 {"error_code":42202,"message":"Request includes values but does not include value schema"}`},
		{`{"records":[{"value":null},{"value":{"a":1,"a":2}}]}`, `422 {"error_code":42202,"message":"Request includes values but does not include value schema"}`},
		{`{"value_schema":"{","records":[{"value":1}]}`, `422 {"error_code":42205,"message":"Invalid schema: Invalid JSON: expected a field name at byte 1"}`},
		{`{"value_schema":"` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `","records":[{"value":1}]}`, `422 {"error_code":42205,"message":"Invalid schema: it is nested deeper than 100 levels"}`},
		{`{"value_schema":"\"nosuch\"","records":[{}]}`, `422 {"error_code":42205,"message":"Invalid schema: type nosuch is not defined"}`},
		{`{"value_schema_id":99,"records":[{"value":1}]}`, `422 {"error_code":42205,"message":"Invalid schema: there is no schema with id 99"}`},
		{fmt.Sprintf(`{"value_schema_id":%d,"records":[{"value":1}]}`, other), fmt.Sprintf(`422 {"error_code":42205,"message":"Invalid schema: schema %d is not registered under subject orders-value"}`, other)},
		{`{"value_schema":5,"records":[{}]}`, `400 {"error_code":400,"message":"Invalid JSON: value_schema must be a string, at byte 16"}`},
	} {
		a := w.call("POST", "/topics/orders", c.body, "Content-Type", avroV2)
		if got := fmt.Sprintf("%d %s", a.status, a.body); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.body, got, c.want)
		}
	}
	asked := 0
	s.Trouble(func(*http.Request) (int, time.Duration) { asked++; return 409, 0 })
	body := `{"value_schema":"\"long\"","records":[{"value":1}]}`
	w.call("POST", "/topics/orders", body, "Content-Type", avroV2).want(t, 408,
		`{"error_code":40801,"message":"Schema registration or lookup failed","detail":"The schema registry answered 409: Error in the backend data store"}`)
	asked = 0
	if a := w.call("POST", "/topics/nope", body, "Content-Type", avroV2); a.status != 404 || !strings.Contains(a.body, "40401") || asked != 0 {
		t.Errorf("an unknown topic: %d %s, registry asked %d times", a.status, a.body, asked)
	}
	if a := w.call("POST", "/topics/orders/partitions/7", body, "Content-Type", avroV2); a.status != 404 || !strings.Contains(a.body, "40402") || asked != 0 {
		t.Errorf("an unknown partition: %d %s, registry asked %d times", a.status, a.body, asked)
	}
	if n := len(w.kafka.produced); n != 0 {
		t.Error("something was written")
	}
}

func TestAValueThatDoesNotFitCostsItsRecord(t *testing.T) {
	w, _ := startWithSchemas(t)
	const body = `{"value_schema":"\"int\"","records":[{"value":"x"},{"value":1},{"value":{"a":1,"a":1}},{"value":2,"partition":-1},{"value":2147483648},{"value":3}]}`
	w.call("POST", "/topics/orders", body, "Content-Type", avroV2).want(t, 200,
		`{"offsets":[{"partition":null,"offset":null,"error_code":42203,"error":"Conversion of JSON to Object failed: expected int at byte 0"},`+
			`{"partition":0,"offset":0,"error_code":null,"error":null},`+
			`{"partition":null,"offset":null,"error_code":422,"error":"Duplicate field: a"},`+
			`{"partition":null,"offset":null,"error_code":422,"error":"partition must be greater than or equal to 0 (was -1)"},`+
			`{"partition":null,"offset":null,"error_code":42203,"error":"Conversion of JSON to Object failed: expected int at byte 0: an integer of 32 bits"},`+
			`{"partition":0,"offset":1,"error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":1}`)
	w.call("POST", "/topics/orders", `{"value_schema":"\"int\"","records":[{"value":"x"}]}`, "Content-Type", avroV1).want(t, 422,
		`{"error_code":42203,"message":"Conversion of JSON to Avro failed: expected int at byte 0","detail":"records[0].value; all 1 record of the request have such a fault, nothing was written."}`)
	if a := w.call("POST", "/topics/orders", `{"records":[{"value":5}]}`, "Content-Type", textV2); a.status != 422 || !strings.Contains(a.body, `"message":"Record value must be a JSON string"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestFormatsWithSchemasNeedARegistry(t *testing.T) {
	without := start(t)
	with, _ := startWithSchemas(t)
	for _, typ := range []string{avroV1, avroV2, schemaV2, protoV2, "application/vnd.kafka.avro+json"} {
		without.call("POST", "/topics/orders", `{"records":[{}]}`, "Content-Type", typ).want(t, 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`)
		without.call("GET", "/topics", "", "Accept", typ).want(t, 406, `{"error_code":406,"message":"HTTP 406 Not Acceptable"}`)
		if a := with.call("POST", "/topics/orders", `{"records":[{}]}`, "Content-Type", typ); a.status != 200 {
			t.Errorf("%s: %d %s", typ, a.status, a.body)
		}
		if a := with.call("GET", "/topics", "", "Accept", typ); a.status != 200 || a.header.Get("Content-Type") != typ {
			t.Errorf("Accept %s: %d %s", typ, a.status, a.header.Get("Content-Type"))
		}
	}
	for _, typ := range []string{"application/vnd.kafka.jsonschema.v1+json", "application/vnd.kafka.protobuf.v1+json", "application/vnd.kafka.text.v1+json"} {
		if a := with.call("POST", "/topics/orders", `{"records":[{}]}`, "Content-Type", typ); a.status != 415 {
			t.Errorf("%s: %d %s", typ, a.status, a.body)
		}
	}
}

// An instance may come from a replica that has a registry.
func TestAReaderWithoutARegistryJudgesNoRecord(t *testing.T) {
	show := start(t).srv.shower(t.Context(), formats.Avro)
	if out, err := show.Append(nil, nil); err != nil || string(out) != "null" {
		t.Errorf("null: %s %v", out, err)
	}
	if _, err := show.Append(nil, []byte("\x00\x00\x00\x00\x01\x02a")); failureOf(instances, err).code != 40801 {
		t.Errorf("%v", err)
	}
}

func TestSixteenMiBOfText(t *testing.T) {
	w := start(t)
	value := strings.Repeat("ä\n\"0", 16<<20/6)
	body, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if a := w.call("POST", "/topics/orders", `{"records":[{"value":`+string(body)+`}]}`, "Content-Type", textV2); a.status != 200 {
		t.Fatalf("%d %.200s", a.status, a.body)
	}
	if string(w.kafka.produced["orders"][0].Value) != value {
		t.Error("the value is not what was sent")
	}
}

func TestSixteenMiBOfTextComeBack(t *testing.T) {
	p := pullers(t)
	topic := p.k.Topic(t, "large", 1, "max.message.bytes=25165824")
	body, err := json.Marshal(strings.Repeat("ä\n\"0", 16<<20/5))
	if err != nil {
		t.Fatal(err)
	}
	p.want(200, "*", "POST", "/topics/"+topic, `{"records":[{"value":`+string(body)+`}]}`, "Content-Type", textV2)
	a := p.want(200, "*", "GET", "/topics/"+topic+"/partitions/0/records?timeout=20000&count=1", "", "Accept", textV2)
	if !strings.Contains(a.body, `"value":`+string(body)) {
		t.Errorf("%.200s", a.body)
	}
}

// What was produced in a format is read back in it, by an instance and without one.
func TestEveryFormatComesBack(t *testing.T) {
	k := backend.Kafka(t)
	_, client := schemas(t)
	p := pullersWith(t, k, client)
	for _, c := range []struct{ format, schema, body, want string }{
		{"json", "", `0 false "" {} [] 9007199254740993 null`, `0 false "" {} [] 9007199254740993 null`},
		{"text", "", `"" "ä\n" "0" null`, `"" "ä\n" "0" null`},
		{"binary", "", `"" "AA==" null`, `"" "AA==" null`},
		{"avro", `["null","long","string","bytes",{"type":"map","values":"int"}]`, `{"long":0} {"long":9007199254740993} {"string":""} {"map":{}} {"bytes":"\u00ff\u0000"} null`, `{"long":0} {"long":9007199254740993} {"string":""} {"map":{}} {"bytes":"\u00ff\u0000"} null`},
		{"jsonschema", `{}`, `0 false "" {} [] 9007199254740993 {"b":1,"a":"\u00e4"} null`, `0 false "" {} [] 9007199254740993 {"b":1,"a":"\u00e4"} null`},
		{"protobuf", `syntax="proto3"; message M { int64 n = 1; bool b = 2; string s = 3; }`, `{} {"n":"9007199254740993","b":true,"s":"ä"} null`, `{"n":"0","b":false,"s":""} {"n":"9007199254740993","b":true,"s":"ä"} null`},
	} {
		topic := k.Topic(t, "formats", 1)
		typ := "application/vnd.kafka." + c.format + ".v2+json"
		name := ""
		if c.schema != "" {
			quoted, _ := json.Marshal(c.schema)
			name = `"value_schema":` + string(quoted) + `,"key_schema":` + string(quoted) + `,`
		}
		var records []string
		for value := range strings.SplitSeq(c.body, " ") {
			records = append(records, `{"key":`+value+`,"value":`+value+`,"timestamp":1612554562000,"headers":[{"key":"h","value":"eA=="},{"key":"h","value":null}]}`)
		}
		a := p.want(200, "*", "POST", "/topics/"+topic, `{`+name+`"records":[`+strings.Join(records, ",")+`]}`, "Content-Type", typ)
		if strings.Contains(a.body, `"error":"`) {
			t.Errorf("%s: %s", c.format, a.body)
		}
		var want []string
		for value := range strings.SplitSeq(c.want, " ") {
			want = append(want, fmt.Sprintf(`{"topic":"%s","key":%s,"value":%s,"partition":0,"offset":%d,"timestamp":1612554562000,"headers":[{"key":"h","value":"eA=="},{"key":"h","value":null}]}`, topic, value, value, len(want)))
		}
		all := "[" + strings.Join(want, ",") + "]"
		if b := p.want(200, "*", "GET", "/topics/"+topic+"/partitions/0/records?timeout=2000", "", "Accept", typ); b.body != all {
			t.Errorf("%s, without an instance:\n got %s\nwant %s", c.format, b.body, all)
		}
		base := p.consumer(backend.Unique("g"), `{"format":"`+c.format+`","auto.offset.reset":"earliest","consumer.request.timeout.ms":"20000"}`, topic)
		b := p.want(200, "*", "GET", base+"/records", "")
		if got := b.header.Get("Content-Type"); b.body != all || got != typ {
			t.Errorf("%s: %s\n got %s\nwant %s", c.format, got, b.body, all)
		}
		if c.format != "binary" {
			p.want(406, `{"error_code":40601,"message":"The requested embedded data format does not match the deserializer for this consumer instance"}`, "GET", base+"/records", "", "Accept", "application/vnd.kafka.binary.v2+json")
		}
	}
	without := pullersOn(t, k)
	without.want(422, `{"error_code":422,"message":"Invalid format type."}`, "POST", "/consumers/"+backend.Unique("g"), `{"format":"avro"}`, "Content-Type", typeV2Name)
}

// A record that nobody can decode fails one read; one whose schema could not be asked for fails every read until it can.
func TestARecordWaitsForItsSchema(t *testing.T) {
	k := backend.Kafka(t)
	registry, client := schemas(t)
	p := pullersWith(t, k, client)
	topic := k.Topic(t, "waits", 1)
	id, err := registry.Register(topic+"-value", "AVRO", `"string"`)
	if err != nil {
		t.Fatal(err)
	}
	framed := "\x00\x00\x00\x00" + string(rune(id)) + "\x02a"
	p.produce(topic, 0, framed, "plain", "\x00\x00\x00\x10\x00\x02b", framed)
	registry.Trouble(func(*http.Request) (int, time.Duration) { return 400, 0 })
	base := p.consumer(backend.Unique("g"), `{"format":"avro","auto.offset.reset":"earliest","consumer.request.timeout.ms":"20000"}`, topic)
	for range 2 {
		p.want(408, `{"error_code":40801,"message":"Schema registration or lookup failed","detail":"The schema registry answered 400: Error in the backend data store"}`, "GET", base+"/records", "")
		p.want(408, "*", "GET", "/topics/"+topic+"/partitions/0/records", "", "Accept", avroV2)
	}
	registry.Trouble(nil)
	value := func(offset int) string {
		return fmt.Sprintf(`{"topic":"%s","key":null,"value":"a","partition":0,"offset":%d,"timestamp":`, topic, offset)
	}
	if a := p.want(200, "*", "GET", base+"/records", ""); !strings.HasPrefix(a.body, "["+value(0)) || strings.Count(a.body, "offset") != 1 {
		t.Fatal(a.body)
	}
	for _, offset := range []int{1, 2} {
		p.want(500, fmt.Sprintf(`{"error_code":50002,"message":"Kafka error: the record at partition %s-0, offset %d cannot be decoded in the format of this instance"}`, topic, offset), "GET", base+"/records", "")
	}
	if a := p.want(200, "*", "GET", base+"/records", ""); !strings.HasPrefix(a.body, "["+value(3)) {
		t.Fatal(a.body)
	}
}

// FuzzProduceWithSchemas holds the whole path to this: every record is either written, as bytes that are shown as JSON,
// or has a fault; and nothing is lost or moved.
func FuzzProduceWithSchemas(f *testing.F) {
	_, client := schemas(f)
	for _, seed := range []string{
		`{"value_schema":"\"int\"","records":[{"value":1},{"value":"x"},{"value":null},{"partition":-1,"value":2}]}`,
		`{"records":[{"key":"a","value":[1]}],"value_schema":"{\"type\":\"array\",\"items\":\"int\"}","key_schema":"\"string\""}`,
		`{"value_schema":"{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"a\",\"type\":[\"null\",\"R\"]}]}","records":[{"value":{"a":{"R":{"a":null}}}}]}`,
		`{"value_schema_id":1,"key_schema_id":"1","records":[{}]}`, `{"value_schema":"{}","records":[{"value":{}}]}`, `{"value_schema":"syntax=\"proto3\"; message M{int32 a=1;}","records":[{"value":{"a":1}}]}`,
	} {
		for n := range byte(3) {
			f.Add([]byte(seed), n)
		}
	}
	s := &Server{needs: Needs{Schemas: client}}
	f.Fuzz(func(t *testing.T, in []byte, n byte) {
		if len(in) > 4096 { // what is registered stays in the registry's memory
			return
		}
		s.requests = t.Context()
		b := &batch{path: 3, format: formats.Avro + formats.Format(n%3), lease: &lease{from: &budget{limit: 1 << 30}}}
		if b.parse(bytes.Clone(in)) != nil {
			return
		}
		if err := s.encodeBatch("fuzz", b, v2); err != nil {
			switch sluice.KindOf(err) {
			case sluice.BadSchema, sluice.SchemaLookup:
			default:
				if failureOf(classic, err).code != 42201 && failureOf(classic, err).code != 42202 {
					t.Fatalf("%q: %v", in, err)
				}
			}
			return
		}
		if len(b.records)+len(b.faults) != b.size {
			t.Fatalf("%q: %d records and %d faults of %d", in, len(b.records), len(b.faults), b.size)
		}
		for n := 1; n < len(b.faults); n++ {
			if b.faults[n].slot <= b.faults[n-1].slot {
				t.Fatalf("%q: faults out of order", in)
			}
		}
		show := client.Reader(t.Context(), b.format)
		for _, r := range b.records {
			for _, part := range [][]byte{r.Key, r.Value} {
				if out, err := show.Append(nil, part); err != nil || !json.Valid(out) {
					t.Fatalf("%q: %s is not shown: %s %v", in, hex.EncodeToString(part), base64.StdEncoding.EncodeToString(out), err)
				}
			}
		}
	})
}
