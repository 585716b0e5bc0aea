package formats

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicegate/sluice"
)

// Golden bytes: magic, id, payload, as Confluent's serializers write them.
func TestTheFrameIsConfluents(t *testing.T) {
	r := client(t, embedded(t).URL)
	for _, c := range []struct {
		format       Format
		schema, in   string
		frame, shown string
	}{
		{Avro, `{"type":"record","name":"R","fields":[{"name":"a","type":["null","string"]},{"name":"n","type":"long"}]}`, `{"n":1,"a":{"string":"x"}}`, "00 00000001 02 02 78 02", `{"a":{"string":"x"},"n":1}`},
		{JSONSchema, pairJSONSchema, `{"name":"<ä>\u00e4","id":9007199254740993,"x":[1.50]}`, "00 00000002 " + hex.EncodeToString([]byte(`{"name":"<ä>\u00e4","id":9007199254740993,"x":[1.50]}`)), `{"name":"<ä>\u00e4","id":9007199254740993,"x":[1.50]}`},
		{Protobuf, pairProto, `{"bigNumber":"9007199254740993","kind":"SOME"}`, "00 00000003 00 08 8180808080808010 18 01",
			`{"big_number":"9007199254740993","name":"","kind":"SOME","list":[],"raw":"","flags":{}}`},
		{Protobuf, pairProto, `{"big_number":5,"name":"<ä>","list":[1],"maybe":"","at":"2021-02-05T19:14:42Z","raw":"AP8=","flags":{"b":true,"a":false},"inner":{}}`, "",
			`{"big_number":"5","name":"<ä>","kind":"NONE","list":[1],"maybe":"","at":"2021-02-05T19:14:42Z","raw":"AP8=","flags":{"a":false,"b":true},"inner":{"yes":false}}`},
		{Protobuf, pairProto, `{}`, "00 00000003 00", `{"big_number":"0","name":"","kind":"NONE","list":[],"raw":"","flags":{}}`},
	} {
		s, err := r.ForWriting(t.Context(), c.format, "golden-value", text(c.schema))
		if err != nil {
			t.Fatalf("%s: %v", c.format, err)
		}
		b, err := s.Encode(t.Context(), []byte(c.in))
		if err != nil {
			t.Errorf("%s %s: %v", c.format, c.in, err)
			continue
		}
		if want := strings.ReplaceAll(c.frame, " ", ""); want != "" && hex.EncodeToString(b) != want {
			t.Errorf("%s %s: %x, want %s", c.format, c.in, b, want)
		}
		out, err := r.Reader(t.Context(), c.format).Append([]byte("x"), b)
		if err != nil || string(out) != "x"+c.shown {
			t.Errorf("%s %s: shown as %s %v", c.format, c.in, out, err)
		}
	}
}

func TestNullIsNullWithSchemasToo(t *testing.T) {
	r := client(t, embedded(t).URL)
	for f, schema := range namedSchemas {
		s, err := r.ForWriting(t.Context(), f, "null-value", text(schema))
		if err != nil {
			t.Fatal(err)
		}
		value, err := f.Decode([]byte(" null "))
		if err != nil || value != nil {
			t.Fatalf("%s: %q %v", f, value, err)
		}
		if b, err := s.Encode(t.Context(), value); err != nil || b != nil {
			t.Errorf("%s: % x %v", f, b, err)
		}
		if out, err := r.Reader(t.Context(), f).Append(nil, nil); err != nil || string(out) != "null" {
			t.Errorf("%s: %s %v", f, out, err)
		}
	}
}

func TestProtobufFollowsTheMessageIndexes(t *testing.T) {
	c, err := compileProtobuf(pairProto, nil, &weights{})
	if err != nil {
		t.Fatal(err)
	}
	word := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "w")
	number := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	for name, one := range map[string]struct {
		payload []byte
		want    string // "": refused
	}{
		"[1]":           {append([]byte{2, 2}, word...), `{"word":"w"}`},
		"[1,0]":         {append([]byte{4, 2, 0}, number...), `{"n":"7"}`},
		"[0] in full":   {[]byte{2, 0}, `{"big_number":"0","name":"","kind":"NONE","list":[],"raw":"","flags":{}}`},
		"[2]":           {[]byte{2, 4}, ""},
		"[1,1]":         {[]byte{4, 2, 2}, ""},
		"[-1]":          {[]byte{2, 1}, ""},
		"-1 of them":    {[]byte{1}, ""},
		"2^62 of them":  {bytes.Repeat([]byte{0xff}, 9), ""},
		"cut":           {[]byte{4, 2}, ""},
		"none":          {nil, ""},
		"a broken body": {[]byte{0, 0x0a, 5}, ""},
	} {
		out, err := c.show(nil, one.payload)
		if (err == nil) != (one.want != "") || (err == nil && string(out) != one.want) {
			t.Errorf("%s: %s %v", name, out, err)
		}
	}
}

func TestWhatDoesNotFitItsSchema(t *testing.T) {
	r := client(t, embedded(t).URL)
	for _, c := range []struct {
		format   Format
		schema   string
		in, says string
	}{
		{Avro, `"int"`, `"1"`, "expected int at byte 0"},
		{JSONSchema, pairJSONSchema, `{"name":"x"}`, `at '': missing property 'id'`},
		{JSONSchema, pairJSONSchema, `{"id":"1"}`, `at '/id': got string, want integer`},
		{Protobuf, pairProto, `{"nosuch":1}`, `unknown field "nosuch"`},
		{Protobuf, pairProto, `{"kind":"NOSUCH"}`, `invalid value for enum field kind: "NOSUCH"`},
		{Protobuf, pairProto, `[]`, `unexpected token [`},
	} {
		s, err := r.ForWriting(t.Context(), c.format, "misfit-value", text(c.schema))
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Encode(t.Context(), []byte(c.in))
		if sluice.KindOf(err) != sluice.Invalid || !strings.Contains(said(err), c.says) || strings.ContainsAny(said(err), "\n\u00a0") {
			t.Errorf("%s %s: % x %q", c.format, c.in, b, said(err))
		}
	}
}

func TestBytesThatAreNotOfTheFormat(t *testing.T) {
	s := embedded(t)
	n, err := s.Register("x", "AVRO", `"string"`)
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	r := client(t, s.URL)
	for name, c := range map[string]struct {
		format Format
		b      []byte
	}{
		"empty":           {Avro, []byte{}},
		"no frame":        {Avro, []byte("plain")},
		"short":           {Avro, []byte{0, 0, 0, 0}},
		"unknown id":      {Avro, []byte{0, 0, 0, 0x10, 0, 2, 'a'}},
		"negative id":     {Avro, []byte{0, 0xff, 0xff, 0xff, 0xff, 2, 'a'}},
		"another format":  {Protobuf, []byte{0, 0, 0, 0, 1, 2, 'a'}},
		"broken payload":  {Avro, []byte{0, 0, 0, 0, 1, 9}},
		"json or nothing": {JSONSchema, []byte("{}")},
	} {
		out, err := r.Reader(t.Context(), c.format).Append([]byte("keep"), c.b)
		if k := sluice.KindOf(err); (k != sluice.Invalid && k != sluice.BadSchema) || string(out) != "keep" {
			t.Errorf("%s: %s %v", name, out, err)
		}
	}
}

func TestTextIsUTF8(t *testing.T) {
	for in, want := range map[string]string{`""`: "", `"a"`: "a", `"\u00e4\n\"\\\u0001<"`: "ä\n\"\\\x01<", `"😀"`: "😀"} {
		b, err := Text.Decode([]byte(in))
		if err != nil || b == nil || string(b) != want {
			t.Errorf("%s: %q %v", in, b, err)
		}
		out, err := Text.Append(nil, b)
		var back string
		if err != nil || json.Unmarshal(out, &back) != nil || back != want {
			t.Errorf("%s: back %s %v", in, out, err)
		}
	}
	for _, in := range []string{`1`, `{}`, `[]`, `true`} {
		if b, err := Text.Decode([]byte(in)); said(err) != "must be a JSON string" {
			t.Errorf("%s: %q %v", in, b, err)
		}
	}
	if out, err := Text.Append([]byte("keep"), []byte{0xff}); sluice.KindOf(err) != sluice.Invalid || string(out) != "keep" {
		t.Errorf("%s %v", out, err)
	}
	big := bytes.Repeat([]byte("ä\n\"x"), 1<<16)
	out, err := Text.Append(nil, big)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Text.Decode(out); err != nil || !bytes.Equal(b, big) {
		t.Errorf("%d bytes back, %v", len(b), err)
	}
}

// Whatever protojson and JSON Schema make of any text: no panic, and what is taken is shown.
func FuzzSchemaText(f *testing.F) {
	proto, err := compileProtobuf(pairProto, nil, &weights{})
	if err != nil {
		f.Fatal(err)
	}
	schema, err := compileJSONSchema(pairJSONSchema, nil, &weights{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"id":1,"name":"a"}`))
	f.Add([]byte(`{"bigNumber":"1","at":"2021-02-05T19:14:42Z"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		value, err := JSON.Decode(bytes.Clone(in))
		if err != nil || value == nil {
			return
		}
		for _, c := range []codec{proto, schema} {
			b, err := c.encode(nil, bytes.Clone(value))
			if err != nil {
				continue
			}
			if out, err := c.show(nil, b); err != nil || !json.Valid(out) {
				t.Fatalf("%s: % x: %s %v", in, b, out, err)
			}
		}
	})
}

// What a few bytes on the wire claim must not be built.
func TestHostileProtobufPayloads(t *testing.T) {
	fields := make([]string, 1000)
	for n := range fields {
		fields[n] = fmt.Sprintf("int32 a_rather_long_name_of_a_field_%d = %d;", n, n+10)
	}
	c, err := compileProtobuf(`syntax = "proto3"; import "google/protobuf/any.proto";
		enum E { `+strings.Repeat("X", 10_000)+` = 0; }
		message R { repeated W wide = 1; repeated E kinds = 2; R deep = 3; google.protobuf.Any any = 4; repeated N small = 5; repeated int64 list = 6; }
		message N {} message W { `+strings.Join(fields, " ")+` }`, nil, &weights{})
	if err != nil {
		t.Fatal(err)
	}
	block := func(number protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
	}
	wide := bytes.Repeat(block(1, nil), 10_000)
	deep := []byte{}
	for range 1000 {
		deep = block(3, deep)
	}
	for name, payload := range map[string][]byte{
		"wide messages": wide,
		"long enums":    block(2, make([]byte, 100_000)),
		"deep":          deep,
		"inside an Any": block(4, append(block(1, []byte("type.googleapis.com/R")), block(2, wide)...)),
		"cut":           {0x0a, 9, 1},
		"no tag":        {0x07},
	} {
		begun := time.Now()
		if out, err := c.show(nil, append([]byte{0}, payload...)); err == nil {
			t.Errorf("%s: shown in %d bytes", name, len(out))
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
	if out, err := c.show(nil, append([]byte{0}, block(6, bytes.Repeat([]byte{1}, 1<<16))...)); err != nil || len(out) < 1<<18 {
		t.Errorf("many numbers: %d bytes, %v", len(out), err)
	}
	small := scales{codec: c.(*protobufCodec), left: 1 << 20, empty: map[protoreflect.FullName]int{}}
	if err := small.message(small.codec.file.Messages().Get(0), bytes.Repeat(block(5, nil), 20_000), 0); !errors.Is(err, errTooHeavy) {
		t.Errorf("small ones: %v", err)
	}
	if b, err := c.encode(nil, []byte(`{"small":[`+strings.Repeat("{},", 3<<20)+`{}]}`)); err == nil {
		t.Errorf("three million messages became %d bytes", len(b))
	}
}
