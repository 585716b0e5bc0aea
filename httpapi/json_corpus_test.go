package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// The corpus is in the manner of the public conformance suites for JSON parsers: what every parser must take (y), what
// none may (n), and what RFC 8259 leaves open (i), with what we do about it. Each stands as the value of a record.

var mustTake = []string{
	`null`, `true`, `false`, `0`, `-0`, `42`, `-123`, `1.5`, `0.1`, `1e5`, `1E5`, `1e+5`, `1E-5`, `0e1`, `0e+1`, `-0.0e-0`, `123.456e78`, `20e1`, `1.000000000000000005`, `123456789012345678901234567890`,
	`""`, `"a"`, `" "`, `"\""`, `"\\"`, `"\/"`, `"\b\f\n\r\t"`, `"\u0000"`, `"\u0022"`, `"\u005C"`, `"\uD834\uDD1E"`, `"\ud834\udd1e"`, `"\\u0000"`, `"\\n"`, `"/"`, `"asd "`, `"new\u000Aline"`, `"\uFFFE"`, `"\uFFFF"`, `"\uFDD0"`, `"\uDBFF\uDFFE"`, `"\u200B"`, `"\u2064"`, `"\uA66D"`,
	"\"\x7f\"", `"é"`, `"€𝄞"`, "\"\u2028\u2029\"", "\"\uffff\"", "\"\U0010ffff\"", "\"\U0001bfff\"", `"⍂㈴⍂"`, "\"\u00a0\"", "\"\ufeff\"", `"\u0012"`, `"\u0060\u012a\u12AB"`,
	`[]`, `[ ]`, `[""]`, `["a"]`, `[false]`, `[null, 1, "1", {}]`, `[null]`, "[1\n]", ` [1]`, `[1,null,null,null,2]`, `[2] `, `[[]]`, `[[]   ]`, `[ 4]`, "\t[\r\n1 ,\t2]", `[[],[[]],[[[]]]]`,
	`{}`, `{ }`, `{"":0}`, `{"a":[]}`, `{"asd":"sdf","dfg":"fgh"}`, `{"a":{"a":{"a":1}}}`, `{"foo\u0000bar":42}`, `{"min":-1.0e+28,"max":1.0e+28}`, "{\n\"a\": \"b\"\n}", `{"title":"\u041f\u043e\u043b"}`, `{"a":1,"A":2}`, `{"\u00e9":1,"e\u0301":2}`, `{"__proto__":{"x":1}}`,
	strings.Repeat("[", 497) + strings.Repeat("]", 497),
}

var mustRefuse = []string{
	``, ` `, "\f", "\v1", "\u00a01", "\u20601", `a`, `nul`, `nulll`, `tru`, `truth`, `True`, `TRUE`, `None`, `undefined`, `NaN`, `-NaN`, `Infinity`, `+Infinity`, `-Infinity`, `Inf`,
	`+1`, `++1`, `--1`, `-`, `- 1`, `-a`, `.5`, `-.5`, `5.`, `-5.`, `1.e1`, `.e1`, `0.e1`, `0.3e`, `0.3e+`, `0e`, `0e+`, `1e`, `1eE2`, `1e+-2`, `1.0e`, `1.2.3`, `01`, `-01`, `-012`, `00`, `0x1`, `0x`, `0b1`, `1_000`, `1 000`, `1,5e1.5`, `1a`, `1ea`, "1\x00", `1/2`, "\uff11", `2.e+3`, `9.e+`, `-1x`, `0.1.2`,
	`"`, `"a`, `'a'`, `"\"`, `"\`, `"\x00"`, `"\a"`, `"\v"`, `"\'"`, `"\u"`, `"\u1"`, `"\u12"`, `"\u123"`, `"\uqqqq"`, `"\u00A"`, `"\u+123"`, `"\u 123"`, `"\U0001F600"`, "\"\\\u00e9\"", "\"\t\"", "\"a\nb\"", "\"\r\"", "\"\x00\"", "\"\x1f\"", `"\uD834\uDd`, `""x`, `"a" "b"`, `abc"`, "\"\\\x00\"", `"\🌀"`, "`a`",
	`[`, `]`, `[1`, `[1,`, `[1,]`, `[,1]`, `[,]`, `[1,,2]`, `[1 2]`, `[1:2]`, `["a"`, `["",]`, `[""`, `[a`, `[a]`, `[*]`, `[3[4]]`, `[1]]`, `[][]`, `[]]`, `[x`, `[x]`, `[1,{}`, `[{`, `[{}`, `[}`, "[\"\va\"\\f]", "[1\f]", `["x"x]`, `[.]`, `[-]`, `[<null>]`, `<.>`, `[new Date()]`, `["a",4,1,`, "[1,\n1\n,1",
	`{`, `}`, `{]`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":1,,"b":2}`, `{,"a":1}`, `{"a" 1}`, `{"a",1}`, `{"a"::1}`, `{a:1}`, `{'a':1}`, `{1:1}`, `{null:1}`, `{"a":1 "b":2}`, `{"a":"b"}#`, `{"a":"b"}/**/`, `{"a":"b"}//`, `{"a":/*x*/"b"}`, `{"a":true} "x"`, `{"x"::"b"}`, `{"a":}`, `{"a"}`, `{[]:1}`, `{"a":1]`, `{"x", null}`, `{9999E9999:1}`, `{"id":0,,,,,}`, `{🇨🇭}`, `{"a":"a" 123}`, `{"a":"b",}`, `*`, `<null>`, `#{}`, `\u000A""`, `"",`, `]:[`, `{"a":1}}`,
}

// undecided maps what the RFC leaves open to our status: what is not UTF-8 or too deep is 422, the rest passes untouched.
var undecided = map[string]int{
	`123123e100000`: 200, `-1e+9999`: 200, `1e-10000`: 200, `0.4e00669999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999969999999006`: 200, `-237462374673276894279832749832423479823246327846`: 200,
	`"\uD800"`: 200, `"\uDC00"`: 200, `"\uD834"`: 200, `"\uDd1e\uD834"`: 200, `"\uD800\n"`: 200, `"\ud800abc"`: 200, `"\uD888\u1234"`: 200, `"\uDFAA"`: 200, `{"\uDFAA":0}`: 200,
	"\"\xff\"": 422, "\"\x81\"": 422, "\"\xe9\"": 422, "\"\xc0\xaf\"": 422, "\"\xe0\x80\xaf\"": 422, "\"\xed\xa0\x80\"": 422, "\"\xf4\x90\x80\x80\"": 422, "\"\xfc\x83\xbf\xbf\xbf\xbf\"": 422, "\"\xe6\x97\xa5\xd1\x88\xfa\"": 422, "\"\xe2\x82\"": 422, "{\"\xff\":1}": 422, "[\"\xf0\x9f\x92\"]": 422,
	`{"a":1,"a":1}`: 422, `{"a":{"b":0,"\u0062":0}}`: 422, `{"":1,"":2}`: 422,
	strings.Repeat("[", 498) + strings.Repeat("]", 498): 422, strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000): 422, strings.Repeat(`{"a":`, 500) + `1` + strings.Repeat("}", 500): 422, strings.Repeat("[", 100_000): 422,
}

func TestTheJSONCorpus(t *testing.T) {
	w := start(t)
	const asJSON = "application/vnd.kafka.json.v2+json"
	send := func(value string) answer {
		return w.call("POST", "/topics/orders", `{"records":[{"value":`+value+`}]}`, "Content-Type", asJSON)
	}
	var sent []string
	took := func(value string) {
		if a := send(value); a.status != 200 {
			t.Errorf("y %.60q: %d %s", value, a.status, a.body)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(value)); err != nil {
			t.Errorf("encoding/json does not take %.60q: %v", value, err)
		}
		sent = append(sent, compact.String())
	}
	for _, value := range mustTake {
		took(value)
	}
	for _, value := range mustRefuse {
		if json.Valid([]byte(value)) {
			t.Errorf("encoding/json takes %.60q", value)
		}
		if a := send(value); a.status != 400 || !strings.HasPrefix(a.body, `{"error_code":400,"message":"Invalid JSON: `) || !strings.Contains(a.body, "at byte ") {
			t.Errorf("n %.60q: %d %s", value, a.status, a.body)
		}
	}
	for value, status := range undecided {
		if status == 200 {
			took(value)
		} else if a := send(value); a.status != status || !strings.HasPrefix(a.body, fmt.Sprintf(`{"error_code":%d,`, status)) {
			t.Errorf("i %.60q: %d %s", value, a.status, a.body)
		}
	}
	written := w.kafka.produced["orders"]
	if len(written) != len(sent) {
		t.Fatalf("%d records were written of %d", len(written), len(sent))
	}
	for i, want := range sent {
		if got := string(written[i].Value); got != want && (want != "null" || written[i].Value != nil) {
			t.Errorf("%.60q became %.60q", want, got)
		}
	}
}
