package stream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
)

func encoderOf(v variant) *encoder {
	return newEncoder(part("orders", 1), v, 1<<20, prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}))
}

func recordOf(key, value []byte, headers ...sluice.Header) *sluice.Record {
	return &sluice.Record{Topic: "orders", Partition: 1, Offset: 104856, Timestamp: time.UnixMilli(1795409232118), Key: key, Value: value, Headers: headers}
}

func TestEnvelope(t *testing.T) {
	const head = `{"topic":"orders","partition":1,"offset":104856,"timestamp":1795409232118,`
	for name, c := range map[string]struct {
		v    variant
		r    *sluice.Record
		want string
	}{
		"the example of the contract": {variant{}, recordOf([]byte("customer-42"), []byte(`{"total": 12.50}`), sluice.Header{Name: "trace", Value: []byte("4bf9")}),
			head + `"key":"customer-42","key_format":"text","value":{"total":12.50},"value_format":"json","headers":[{"name":"trace","value":"4bf9"}]}`},
		"tombstone":              {variant{}, recordOf([]byte("a"), nil), head + `"key":"a","key_format":"text","value":null,"value_format":null}`},
		"the JSON text null":     {variant{}, recordOf(nil, []byte("null")), head + `"key":null,"key_format":null,"value":"null","value_format":"text"}`},
		"null as json":           {variant{value: JSON}, recordOf(nil, []byte(" null ")), head + `"key":null,"key_format":null,"value":null,"value_format":"json"}`},
		"empty":                  {variant{}, recordOf([]byte{}, []byte{}), head + `"key":"","key_format":"text","value":"","value_format":"text"}`},
		"a JSON key is text":     {variant{}, recordOf([]byte(`{}`), []byte(`[1]`)), head + `"key":"{}","key_format":"text","value":[1],"value_format":"json"}`},
		"a scalar is text":       {variant{}, recordOf(nil, []byte(`12.50`)), head + `"key":null,"key_format":null,"value":"12.50","value_format":"text"}`},
		"json takes any":         {variant{key: JSON, value: JSON}, recordOf([]byte(`1e400`), []byte(`"a"`)), head + `"key":1e400,"key_format":"json","value":"a","value_format":"json"}`},
		"json falls back":        {variant{value: JSON}, recordOf(nil, []byte(`{`)), head + `"key":null,"key_format":null,"value":"{","value_format":"text"}`},
		"text":                   {variant{value: Text}, recordOf(nil, []byte(`{}`)), head + `"key":null,"key_format":null,"value":"{}","value_format":"text"}`},
		"base64":                 {variant{key: Base64, value: Base64}, recordOf([]byte("a"), []byte(`{}`)), head + `"key":"YQ==","key_format":"base64","value":"e30=","value_format":"base64"}`},
		"not UTF-8":              {variant{value: Text}, recordOf([]byte{0xff}, []byte{0xfe, 0xff}), head + `"key":"/w==","key_format":"base64","value":"/v8=","value_format":"base64"}`},
		"digits and doubles":     {variant{}, recordOf(nil, []byte("{\n \"a\" : 9223372036854775808,\t\"a\":\r 1.0e+5, \"\\u0041 b\":[ true , null ]}")), head + `"key":null,"key_format":null,"value":{"a":9223372036854775808,"a":1.0e+5,"\u0041 b":[true,null]},"value_format":"json"}`},
		"control characters":     {variant{}, recordOf(nil, []byte("a\r\nevent: evil\n\n\x00\x1f\"\\\ufeff")), head + `"key":null,"key_format":null,"value":"a\r\nevent: evil\n\n\u0000\u001f\"\\` + "\ufeff" + `","value_format":"text"}`},
		"headers":                {variant{}, recordOf(nil, nil, sluice.Header{Name: "n"}, sluice.Header{Name: "b", Value: []byte{0xff}}, sluice.Header{Name: "\xff\"", Value: []byte{}}), head + `"key":null,"key_format":null,"value":null,"value_format":null,"headers":[{"name":"n","value":null},{"name":"b","value_base64":"/w=="},{"name":"` + "\ufffd" + `\"","value":""}]}`},
		"64 levels are embedded": {variant{}, recordOf(nil, []byte(strings.Repeat("[", 64)+strings.Repeat("]", 64))), head + `"key":null,"key_format":null,"value":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `,"value_format":"json"}`},
		"65 levels are text":     {variant{}, recordOf(nil, []byte(strings.Repeat("[", 65)+strings.Repeat("]", 65))), head + `"key":null,"key_format":null,"value":"` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `","value_format":"text"}`},
	} {
		got := string(encoderOf(c.v).append(nil, c.r))
		if want := "data: " + c.want + "\n\n"; got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	appended := recordOf(nil, nil)
	appended.Appended = true
	if got := string(encoderOf(variant{}).append(nil, appended)); !strings.Contains(got, `"timestamp":1795409232118,"timestamp_type":"append","key"`) {
		t.Error(got)
	}
	withID := string(encoderOf(variant{ids: true, log: sluice.LogTagOf("sluice-dev", sluice.TopicID{}), count: 3}).append(nil, recordOf(nil, nil)))
	_, id, _ := strings.Cut(withID, "\nid: ")
	if c, err := sluice.ParseCursor(strings.TrimSuffix(id, "\n\n")); err != nil || c.Topics[0].Partitions[0] != (sluice.PartitionCursor{Number: 1, Next: 104857}) {
		t.Errorf("%s: %+v %v", withID, c, err)
	}
}

// FuzzCompact holds the strict reader to encoding/json, with the two rules that are stricter: UTF-8 and nesting.
func FuzzCompact(f *testing.F) {
	for _, s := range []string{`{"a": [1, 2.5e-3, "x\u00e9\n", true, null]}`, `[]`, ` 0 `, `-0.0E+1`, `"\ud800"`, "\"\xff\"", `{"a":1,}`, `01`, `[1 2]`, `{"a" 1}`, "\"\t\"", `nul`, `{"\`, `1.`, `-`, "\ufeff{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		prefix := []byte("x")
		got, ok := appendCompact(prefix, src)
		if !ok {
			if json.Valid(src) && utf8.Valid(src) && !strings.Contains(string(src), strings.Repeat("[", 8)) && depth(src) <= maxNesting {
				t.Errorf("%q is refused", src)
			}
			if string(got) != "x" {
				t.Errorf("%q is refused, and left %q", src, got)
			}
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, src); err != nil || !utf8.Valid(src) {
			t.Fatalf("%q passes: %v", src, err)
		}
		if string(got[1:]) != want.String() {
			t.Errorf("%q: got %s, want %s", src, got[1:], want.String())
		}
		if bytes.ContainsAny(got, "\r\n") {
			t.Errorf("%q: a line end in %q", src, got)
		}
	})
}

func depth(src []byte) (most int) {
	d, text := 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			d++
			most = max(most, d)
		case c == '}' || c == ']':
			d--
		}
	}
	return most
}

// FuzzFrame lets payloads try to inject: whatever they hold, an independent parser sees exactly one event with exactly
// these bytes.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("k"), []byte("x\n\nevent: evil\ndata: 1\n\n"), "h", []byte("a\rid: 1"), byte(0))
	f.Add([]byte("\ufeff"), []byte(": comment"), "\n\nid: x", []byte(nil), byte(1))
	f.Add([]byte("\x00\r\n"), []byte("{\"a\":\"\\n\"}\r\r"), "", []byte("\xff"), byte(2))
	f.Add([]byte(" "), []byte("[\n\n1\r\n]"), ":", []byte(""), byte(3))
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte, format byte) {
		v := variant{key: Format(format % 4), value: Format(format / 4 % 4), ids: format&16 != 0}
		r := recordOf(key, value, sluice.Header{Name: name, Value: header})
		e := encoderOf(v)
		bytes := e.append(e.append(nil, r), r)
		events, err := parseText(string(bytes))
		if err != nil || len(events) != 2 || events[0] != events[1] || events[0].name != "" || events[0].hasID != v.ids {
			t.Fatalf("%q parses as %+v, %v", bytes, events, err)
		}
		m, err := events[0].message()
		if err != nil || m.Offset != r.Offset || len(m.Headers) != 1 {
			t.Fatalf("%q: %+v %v", bytes, m, err)
		}
		if got := payload(t, m.Value, m.ValueFormat); m.ValueFormat != nil && *m.ValueFormat != "json" && string(got) != string(value) {
			t.Errorf("value %q arrives as %q", value, got)
		}
		if got := payload(t, m.Key, m.KeyFormat); m.KeyFormat != nil && *m.KeyFormat != "json" && string(got) != string(key) {
			t.Errorf("key %q arrives as %q", key, got)
		}
		if (m.ValueFormat == nil) != (value == nil) || (m.KeyFormat == nil) != (key == nil) {
			t.Errorf("nulls: %q", bytes)
		}
	})
}

func payload(t *testing.T, raw json.RawMessage, format *string) []byte {
	if format == nil || *format == "json" {
		return raw
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if *format == "text" {
		return []byte(s)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
