package formats

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
)

const orderAvro = `{"type":"record","name":"Order","namespace":"com.ft","fields":[
	{"name":"id","type":"long"},
	{"name":"note","type":["null","string"],"default":null},
	{"name":"raw","type":"bytes"},
	{"name":"kind","type":{"type":"enum","name":"Kind","symbols":["NEW","OLD"]}},
	{"name":"mac","type":{"type":"fixed","name":"Mac","size":2}},
	{"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[{"name":"n","type":"int"}]}}},
	{"name":"tags","type":{"type":"map","values":"double"}},
	{"name":"next","type":["null","Order"]}]}`

// The judge of the bytes is goavro.
var avroCases = []struct{ schema, in, want string }{ // want "" is in
	{`"string"`, `"ä€😀\"\\\n\u0001"`, ""},
	{`"string"`, `""`, ""},
	{`"string"`, `"\u00e4\ud83d\ude00\/"`, `"ä😀/"`},
	{`"long"`, `9007199254740993`, ""},
	{`"long"`, `-9223372036854775808`, ""},
	{`"long"`, `0`, ""},
	{`"int"`, `-2147483648`, ""},
	{`"boolean"`, `false`, ""},
	{`"boolean"`, `true`, ""},
	{`"double"`, `12.5`, ""},
	{`"double"`, `1e+300`, ""},
	{`"double"`, `-0.1`, ""},
	{`"float"`, `0.1`, ""},
	{`"bytes"`, `"\u0000a\u00ff\""`, ""},
	{`"bytes"`, `""`, ""},
	{`["null","string","long"]`, `{"string":"a"}`, ""},
	{`["null","string","long"]`, `{"long":9007199254740993}`, ""},
	{`{"type":"array","items":"int"}`, `[]`, ""},
	{`{"type":"array","items":"int"}`, `[1,2,-3]`, ""},
	{`{"type":"map","values":"int"}`, `{}`, ""},
	{`{"type":"map","values":["null","int"]}`, `{"a":{"int":1}}`, ""},
	{`{"type":"map","values":["null","int"]}`, `{"a":null}`, ""},
	{`{"type":"record","name":"Empty","fields":[]}`, `{}`, ""},
	{`{"type":"long","logicalType":"timestamp-millis"}`, `1612554562000`, ""},
	{`{"type":"enum","name":"a.b.E","symbols":["X","Y"]}`, `"Y"`, ""},
	{orderAvro, `{"id":9007199254740993,"note":{"string":"<&>"},"raw":"\u0000\u00ff","kind":"OLD","mac":"\u0001\u0002","lines":[{"n":1},{"n":2}],"tags":{"a":1.5},"next":null}`, ""},
	{orderAvro, `{"next":{"com.ft.Order":{"id":2,"note":null,"raw":"","kind":"NEW","mac":"ab","lines":[],"tags":{},"next":null}},"tags":{},"lines":[],"mac":"ab","kind":"NEW","raw":"","note":null,"id":1}`,
		`{"id":1,"note":null,"raw":"","kind":"NEW","mac":"ab","lines":[],"tags":{},"next":{"com.ft.Order":{"id":2,"note":null,"raw":"","kind":"NEW","mac":"ab","lines":[],"tags":{},"next":null}}}`},
}

func TestAvroHasTheBytesOfGoavro(t *testing.T) {
	for _, c := range avroCases {
		mine := mustAvro(t, c.schema)
		got, err := mine.encode([]byte("frame"), []byte(c.in))
		if err != nil {
			t.Errorf("%s %s: %v", c.schema, c.in, err)
			continue
		}
		judge, err := goavro.NewCodec(strings.ReplaceAll(c.schema, `,"logicalType":"timestamp-millis"`, ""))
		if err != nil {
			t.Fatal(err)
		}
		native, rest, err := judge.NativeFromTextual([]byte(c.in))
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s %s: the judge: %v, %q left", c.schema, c.in, err, rest)
		}
		want, err := judge.BinaryFromNative([]byte("frame"), native)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s %s: % x, want % x", c.schema, c.in, got, want)
		}
		text := c.want
		if text == "" {
			text = c.in
		}
		if back, err := mine.show([]byte("x"), want[5:]); err != nil || string(back) != "x"+text {
			t.Errorf("%s %s: back %s %v", c.schema, c.in, back, err)
		}
	}
}

// Avro's specification says code points; goavro takes the bytes of the UTF-8 for those that are not escaped.
func TestAvroBytesAreCodePointsHoweverTheyAreWritten(t *testing.T) {
	c := mustAvro(t, `"bytes"`)
	for _, in := range []string{`"ÿa"`, `"\u00ffa"`, `"\u00FF\u0061"`} {
		if b, err := c.encode(nil, []byte(in)); err != nil || !bytes.Equal(b, []byte{4, 0xff, 'a'}) {
			t.Errorf("%s: % x %v", in, b, err)
		}
	}
}

func mustAvro(t testing.TB, schema string, refs ...reference) codec {
	t.Helper()
	c, err := compileAvro(schema, refs)
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	return c
}

func TestAvroRefusesWhatDoesNotFit(t *testing.T) {
	for _, c := range []struct{ schema, in, why string }{
		{`"string"`, `1`, "expected string at byte 0"},
		{`"string"`, `"\ud800"`, "Invalid UTF-8: a surrogate stands alone in the string at byte 0"},
		{`"int"`, `2147483648`, "expected int at byte 0: an integer of 32 bits"},
		{`"int"`, `1.5`, "expected int at byte 0: an integer of 32 bits"},
		{`"long"`, `9223372036854775808`, "expected long at byte 0: an integer of 64 bits"},
		{`"long"`, `"1"`, "expected long at byte 0"},
		{`"double"`, `1e999`, "expected double at byte 0: the number is too large"},
		{`"boolean"`, `0`, "expected boolean at byte 0"},
		{`"bytes"`, `"€"`, "bytes are written as code points from 0 to 255 (was 8364)"},
		{`["null","string"]`, `"a"`, `expected a value of a union at byte 0: null, or {"type": value}`}, // tagged, as the Confluent proxy has it
		{`["null","string"]`, `{"int":1}`, "int is not the one type of the union that is wanted here"},
		{`["null","string"]`, `{"string":"a","null":null}`, "null is not the one type of the union that is wanted here"},
		{`["null","string"]`, `{"null":null}`, "null is not the one type of the union that is wanted here"},
		{`["null","string"]`, `{}`, "a value of a union must name its type"},
		{`["int","string"]`, `null`, "null is not one of the types of the union"},
		{`{"type":"enum","name":"E","symbols":["X"]}`, `"Y"`, "enum E has no symbol Y"},
		{`{"type":"fixed","name":"F","size":2}`, `"abc"`, "fixed F has 2 bytes, not 3"},
		{`{"type":"array","items":"int"}`, `{}`, "expected array at byte 0"},
		{`{"type":"map","values":"int"}`, `[]`, "expected map at byte 0"},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}`, `{}`, "record R lacks its field a"},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int","default":1}]}`, `{}`, "record R lacks its field a"}, // defaults are for readers
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}`, `{"a":1,"b":2}`, "record R has no field b"},
		{`{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}`, `{"a":"1"}`, "field a: expected int at byte 5"},
		{`{"type":"record","name":"R","fields":[]}`, `[]`, "expected record R at byte 0"},
	} {
		if got, err := mustAvro(t, c.schema).encode(make([]byte, 5), []byte(c.in)); err == nil || err.Error() != c.why {
			t.Errorf("%s %s: % x %v, want %q", c.schema, c.in, got, err, c.why)
		}
	}
}

func TestAvroSchemasThatDoNotParse(t *testing.T) {
	for _, text := range []string{``, `{`, `1`, `"nosuch"`, `{"type":"record"}`, `{"type":"record","name":"R"}`, `{"type":"record","name":"1","fields":[]}`,
		`{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}`, `{"type":"enum","name":"E"}`,
		`{"type":"enum","name":"E","symbols":["A","A"]}`, `{"type":"fixed","name":"F"}`, `{"type":"fixed","name":"F","size":-1}`, `{"type":"array"}`, `{"type":"map"}`,
		`["int","int"]`, `[["int"]]`, `{"type":"record","name":"int","fields":[]}`, `{"type":"array","type":"map"}`, `{"name":"x"}`,
		strings.Repeat(`{"type":"array","items":`, 600) + `"int"` + strings.Repeat(`}`, 600)} {
		if _, err := compileAvro(text, nil); err == nil {
			t.Errorf("%.60s was taken", text)
		}
	}
	for _, text := range []string{`string`, `{"type":"string"}`, `{"type":{"type":"string"}}`, `{"type":"error","name":"E","fields":[]}`,
		`{"type":"record","name":"a.R","fields":[{"name":"x","type":["null","R"]},{"name":"y","type":["null","a.R"]}]}`} {
		if _, err := compileAvro(text, nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAvroKnowsWhatItRefersTo(t *testing.T) {
	c := mustAvro(t, `{"type":"record","name":"b.R","fields":[{"name":"x","type":"a.X"}]}`, reference{"a.X", `{"type":"enum","name":"a.X","symbols":["ON"]}`})
	if b, err := c.encode(make([]byte, 5), []byte(`{"x":"ON"}`)); err != nil || len(b) != 6 {
		t.Errorf("% x %v", b, err)
	}
}

// A payload is what somebody wrote to a topic. None of these may take the process down, or its memory.
func TestHostileAvroPayloads(t *testing.T) {
	list := mustAvro(t, `{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`)
	nulls := mustAvro(t, `{"type":"array","items":"null"}`)
	count := binary.AppendVarint(nil, 1<<62)
	for name, c := range map[string]struct {
		codec   codec
		payload []byte
	}{
		"a list of a million":       {list, bytes.Repeat([]byte{2}, 1_000_000)},
		"2^62 nulls":                {nulls, append(bytes.Clone(count), 0)},
		"a million blocks of nulls": {nulls, append(bytes.Repeat([]byte{0x02}, 1_000_000), 0)},
		"2^62 ints":                 {mustAvro(t, `{"type":"array","items":"int"}`), count},
		"2^62 entries":              {mustAvro(t, `{"type":"map","values":"int"}`), count},
		"a string of 2^62":          {mustAvro(t, `"string"`), count},
		"bytes of -1":               {mustAvro(t, `"bytes"`), []byte{1}},
		"the least count":           {nulls, binary.AppendVarint(nil, -1<<63)},
		"an endless varint":         {mustAvro(t, `"long"`), bytes.Repeat([]byte{0xff}, 100)},
		"a choice of none":          {mustAvro(t, `["null","int"]`), []byte{6}},
		"left over":                 {mustAvro(t, `"int"`), []byte{2, 2}},
		"broken UTF-8":              {mustAvro(t, `"string"`), []byte{2, 0xff}},
		"nothing":                   {mustAvro(t, `"int"`), nil},
	} {
		begun := time.Now()
		if out, err := c.codec.show(nil, c.payload); err == nil {
			t.Errorf("%s: shown as %.60s", name, out)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
	names, err := parseAvro(`{"type":"array","items":{"type":"enum","name":"E","symbols":["`+strings.Repeat("x", 10_000)+`"]}}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := avroReader{rest: append(binary.AppendVarint(nil, 10_000), make([]byte, 10_001)...), most: 1 << 20}
	if err := r.read(names); err == nil || len(r.out) > 2<<20 {
		t.Errorf("long names: %d bytes, %v", len(r.out), err)
	}
}

func TestAvroCarriesMegabytes(t *testing.T) {
	raw := bytes.Repeat([]byte{0, 0xff, 'a', '"'}, 1<<20)
	var in []byte
	r := avroReader{}
	r.bytes(raw)
	in = r.out
	c := mustAvro(t, `"bytes"`)
	b, err := c.encode(make([]byte, 5), bytes.Clone(in))
	if err != nil || !bytes.HasSuffix(b, raw) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if out, err := c.show(nil, b[5:]); err != nil || !bytes.Equal(out, in) {
		t.Fatalf("%d bytes back, %v", len(out), err)
	}
	text := `"` + base64.StdEncoding.EncodeToString(raw[:3<<20]) + `"`
	c = mustAvro(t, `"string"`)
	if b, err = c.encode(make([]byte, 5), []byte(text)); err != nil {
		t.Fatal(err)
	}
	if out, err := c.show(nil, b[5:]); err != nil || string(out) != text {
		t.Fatalf("%d bytes back, %v", len(out), err)
	}
}

// What is shown of any bytes is valid JSON, and stands for bytes that are shown the same.
func FuzzAvroPayload(f *testing.F) {
	for n := range avroCases {
		f.Add(n, []byte{2, 2, 0, 1, 4, 6, 0x80, 0x80})
	}
	f.Fuzz(func(t *testing.T, n int, payload []byte) {
		c := mustAvro(t, avroCases[uint(n)%uint(len(avroCases))].schema)
		out, err := c.show(nil, payload)
		if err != nil {
			return
		}
		if !json.Valid(out) {
			t.Fatalf("% x: %s", payload, out)
		}
		b, err := c.encode(make([]byte, 5), bytes.Clone(out))
		if err != nil {
			if bytes.Contains(out, []byte("null")) { // goes the way of Kafka's null
				return
			}
			t.Fatalf("% x: %s does not go back: %v", payload, out, err)
		}
		if again, err := c.show(nil, b[5:]); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("% x: %s became %s (%v)", payload, out, again, err)
		}
	})
}

// What goavro and we both take has the same bytes, but for maps, whose order goavro draws by lot, and for bytes that are
// not escaped. It takes more: defaults, for one.
func FuzzAvroText(f *testing.F) {
	for n, c := range avroCases {
		f.Add(n, []byte(c.in))
	}
	f.Fuzz(func(t *testing.T, n int, in []byte) {
		c := avroCases[uint(n)%uint(len(avroCases))]
		value, err := JSON.Decode(bytes.Clone(in))
		if err != nil || value == nil {
			return
		}
		got, err := mustAvro(t, c.schema).encode(make([]byte, 5), bytes.Clone(value))
		if err != nil {
			return
		}
		if _, err := mustAvro(t, c.schema).show(nil, got[5:]); err != nil {
			t.Fatalf("%s %s: % x is not shown: %v", c.schema, in, got, err)
		}
		if strings.Contains(c.schema, "map") || strings.Contains(c.schema, "bytes") || strings.Contains(c.schema, "logicalType") {
			return
		}
		judge, err := goavro.NewCodec(c.schema)
		if err != nil {
			t.Fatal(err)
		}
		native, _, err := judge.NativeFromTextual(bytes.Clone(value))
		if err != nil {
			return
		}
		if want, err := judge.BinaryFromNative(make([]byte, 5), native); err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%s %s: % x, want % x", c.schema, in, got, want)
		}
	})
}
