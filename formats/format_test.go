package formats

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/sluicegate/sluice"
)

func TestValuesComeBackToTheByte(t *testing.T) {
	big := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xFB, 0xFF, 0}, 1<<20))
	for _, c := range []struct {
		format   Format
		in, want string
	}{
		{Binary, `""`, ""}, {Binary, `"Zm9v"`, "foo"}, {Binary, `"\u005am9v"`, "foo"}, {Binary, `"+\/8="`, "\xfb\xff"}, {Binary, `"Zg\u003d\u003D"`, "f"},
		{JSON, `0`, `0`}, {JSON, `false`, `false`}, {JSON, `""`, `""`}, {JSON, `{}`, `{}`}, {JSON, `[]`, `[]`}, {JSON, " [ 1 ,\n2 ] ", `[1,2]`},
		{JSON, `123456789012345678901234567890.10e+1`, `123456789012345678901234567890.10e+1`},
		{JSON, `{ "b" : "\u00e4 \ud800 <&>" , "a" : [ null , { } ] }`, `{"b":"\u00e4 \ud800 <&>","a":[null,{}]}`},
		{JSON, `"ä€😀"`, `"ä€😀"`},
	} {
		got, err := c.format.Decode([]byte(c.in))
		if err != nil || got == nil || string(got) != c.want {
			t.Errorf("%s %s: %q %v, want %q", c.format, c.in, got, err, c.want)
			continue
		}
		back, err := c.format.Append([]byte("x"), got)
		if err != nil {
			t.Errorf("%s %s: back: %v", c.format, c.in, err)
		}
		if again, err := c.format.Decode(back[1:]); err != nil || string(again) != c.want {
			t.Errorf("%s %s: there and back again: %q %v", c.format, c.in, again, err)
		}
	}
	if got, err := Binary.Decode([]byte(`"` + big + `"`)); err != nil || len(got) != 3<<20 {
		t.Errorf("3 MiB: %d bytes, %v", len(got), err)
	}
	for _, f := range []Format{Binary, JSON} {
		if got, err := f.Decode([]byte(" null ")); err != nil || got != nil {
			t.Errorf("%s null: %q %v", f, got, err)
		}
		if got, err := f.Append(nil, nil); err != nil || string(got) != "null" {
			t.Errorf("%s nil: %q %v", f, got, err)
		}
	}
	if got, _ := Binary.Append(nil, []byte{}); string(got) != `""` {
		t.Errorf("binary, zero bytes: %s", got)
	}
	if got, _ := JSON.Append(nil, []byte{}); string(got) != `null` {
		t.Errorf("json, zero bytes: %s", got)
	}
	for _, bad := range []string{"{", "\xff", "\"\xff\"", "1 2", "nul"} {
		if got, err := JSON.Append([]byte("keep"), []byte(bad)); sluice.KindOf(err) != sluice.Invalid || string(got) != "keep" {
			t.Errorf("json %q: %q %v", bad, got, err)
		}
	}
}

func TestBase64IsTheStandardAlphabetAndNothingElse(t *testing.T) {
	for _, bad := range []string{"Zg", "Zg=", "Zh==", "Z-_=", "Zm9v\n", "Zm\r\n9v", "Zm9v====", " Zm9v", "Zm9v=", "====", "Z===", "Zm9vZg==Zg==", "ä"} {
		if b, ok := DecodeBase64([]byte(bad)); ok {
			t.Errorf("%q was taken for %q", bad, b)
		}
	}
}

func TestStrictJSON(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for in, kind := range map[string]sluice.Kind{
		"": sluice.Malformed, "\xef\xbb\xbf1": sluice.Malformed, "1 1": sluice.Malformed, "nan": sluice.Malformed, "NaN": sluice.Malformed,
		"Infinity": sluice.Malformed, "[1,]": sluice.Malformed, `{"a":1,}`: sluice.Malformed, "{a:1}": sluice.Malformed, "// x\n1": sluice.Malformed,
		"01": sluice.Malformed, "1.": sluice.Malformed, ".5": sluice.Malformed, "+1": sluice.Malformed, "1e": sluice.Malformed, "-": sluice.Malformed,
		"'a'": sluice.Malformed, `"a`: sluice.Malformed, "\"a\nb\"": sluice.Malformed, `"\x"`: sluice.Malformed, `"\u12g4"`: sluice.Malformed,
		`"\`: sluice.Malformed, "[1": sluice.Malformed, `{"a"`: sluice.Malformed, `{"a":`: sluice.Malformed, "[1 2]": sluice.Malformed, "tru": sluice.Malformed,
		"truex": sluice.Malformed, "\x00": sluice.Malformed, "\u00a01": sluice.Malformed,
		"\"\xff\"": sluice.Invalid, "{\"\xc3\":1}": sluice.Invalid, "\"\xed\xa0\x80\"": sluice.Invalid, "\"\xc0\xaf\"": sluice.Invalid,
		deep(501): sluice.Invalid, deep(200_000): sluice.Invalid, deep(500): "",
		`{"a":1,"a":2}`: sluice.Invalid, `{"a":1,"\u0061":2}`: sluice.Invalid, `[{"x":{"b":1,"c":{},"b":2}}]`: sluice.Invalid,
		`{"a":{"a":1},"b":{"a":1}}`: "", `{"\ud800":1,"\ud801":2}`: "", `{"\ud800":1,"\ud800":2}`: sluice.Invalid,
	} {
		_, err := JSON.Decode([]byte(in))
		if got := sluice.KindOf(err); got != kind {
			t.Errorf("%.40q: %q (%v), want %q", in, got, err, kind)
		}
	}
	if _, err := JSON.Decode([]byte(`{"a":1,"ab":2,"a":3}`)); said(err) != "Duplicate field: a" {
		t.Errorf("duplicate: %v", err)
	}
	if _, err := JSON.Decode([]byte(`[1, x]`)); said(err) != "Invalid JSON: unexpected character at byte 4" {
		t.Errorf("offset: %v", err)
	}
}

func said(err error) string {
	if e, ok := errors.AsType[*sluice.Error](err); ok {
		return e.Msg
	}
	return ""
}

func TestManyNamesAreComparedToo(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"k0":0`)
	for i := 1; i < 1000; i++ {
		b.WriteString(`,"k` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i) + `": {"k0":1}`)
	}
	if _, err := JSON.Decode([]byte(b.String() + "}")); err != nil {
		t.Error(err)
	}
	if _, err := JSON.Decode([]byte(b.String() + `,"\u006b0":1}`)); err == nil {
		t.Error("the duplicate of the first name was not found")
	}
}

// The naive judge of the compactor: what encoding/json takes and compacts, so do we, but for what we refuse on purpose.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{"a": [1, 2.5e3, "\u00e4"], "b": {}}`, ` null `, `"\ud83d\ude00"`, `[[[]]]`, "1 2", `{"a":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := JSON.Decode(bytes.Clone(in))
		var want bytes.Buffer
		valid := json.Compact(&want, in) == nil
		switch {
		case err == nil && !valid:
			t.Fatalf("%q was taken for %q", in, got)
		case err == nil && got == nil:
			if want.String() != "null" {
				t.Fatalf("%q became null", in)
			}
		case err == nil && !bytes.Equal(got, want.Bytes()):
			t.Fatalf("%q: %q, want %q", in, got, want.Bytes())
		case valid && sluice.KindOf(err) == sluice.Malformed:
			t.Fatalf("%q is valid JSON: %v", in, err)
		}
	})
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{`"a"`, `"\n\u00e4\ud83d\ude00"`, `"\ud800"`, `"\\\/"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 || in[0] != '"' {
			return
		}
		s := NewScanner(bytes.Clone(in))
		got, err := s.Text()
		if err == nil {
			err = s.End()
		}
		var want string
		valid := json.Unmarshal(in, &want) == nil
		if err == nil && (!valid || string(got) != want) {
			t.Fatalf("%q: %q, want %q (valid: %v)", in, got, want, valid)
		}
		if valid && sluice.KindOf(err) == sluice.Malformed {
			t.Fatalf("%q is valid: %v", in, err)
		}
		if valid && err != nil && !strings.ContainsRune(want, '\uFFFD') {
			t.Fatalf("%q has no broken text: %v", in, err)
		}
	})
}

// The naive judge of base64: decode leniently, encode again, compare.
func FuzzBase64(f *testing.F) {
	for _, seed := range []string{"", "Zg==", "Zh==", "Zm9v", "Zm9v\n", "+/+/", "-_-_"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		text, before := bytes.Clone(in), allocatedSoFar()
		got, ok := DecodeBase64(text)
		if total := allocatedSoFar() - before; total > 64<<10 { // it is decoded where it stands; this is the fuzzer's own
			t.Fatalf("%d bytes took %d", len(in), total)
		}
		lenient, err := base64.StdEncoding.DecodeString(string(in))
		want := err == nil && base64.StdEncoding.EncodeToString(lenient) == string(in)
		if ok != want || (ok && !bytes.Equal(got, lenient)) {
			t.Fatalf("%q: %q %v, want %q %v", in, got, ok, lenient, want)
		}
	})
}

func TestIntegers(t *testing.T) {
	for in, want := range map[string]int64{`0`: 0, `-1`: -1, `"17"`: 17, `"-2"`: -2, `99999999999999999999`: 1<<63 - 1, "\n5\t": 5} {
		if n, ok, err := NewScanner([]byte(in)).Integer(); n != want || !ok || err != nil {
			t.Errorf("%s: %d %v %v", in, n, ok, err)
		}
	}
	for _, in := range []string{`1.0`, `1e3`, `"1.5"`, `""`, `"-"`, `"abc"`, `true`, `[]`, `null`} {
		if n, ok, err := NewScanner([]byte(in)).Integer(); ok || err != nil {
			t.Errorf("%s was taken for %d (%v)", in, n, err)
		}
	}
	if _, _, err := NewScanner([]byte(`01`)).Integer(); err != nil && !errors.As(err, new(*sluice.Error)) {
		t.Error(err)
	}
}

// Names are remembered outside the document, so somebody must pay for them.
func TestManyNamesArePaidFor(t *testing.T) {
	var b strings.Builder
	b.WriteString(`[{"a":1}`)
	for range 3 { // the room of one object is used again for the next
		b.WriteString(`,{"k":0`)
		for i := range 10_000 {
			b.WriteString(`,"` + strconv.Itoa(i) + `":0`)
		}
		b.WriteString("}")
	}
	b.WriteString("]")
	s, charged := NewScanner([]byte(b.String())), 0
	s.Charge = func(n int) error { charged += n; return nil }
	if _, fault, err := s.Value(); fault != nil || err != nil {
		t.Fatal(fault, err)
	}
	if charged < 10_000*nameCost || charged > 11_000*nameCost {
		t.Errorf("charged %d bytes", charged)
	}
	broke := errors.New("no memory left")
	s = NewScanner([]byte(b.String()))
	s.Charge = func(int) error { return broke }
	if _, _, err := s.Value(); !errors.Is(err, broke) {
		t.Errorf("unpaid: %v", err)
	}
}
