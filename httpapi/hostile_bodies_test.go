package httpapi

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// papers are the routes that read a document, each with one that is sound.
type paper struct{ name, method, path, sound string }

func (w *fort) papers() []paper {
	var topic, one string
	for _, f := range w.families {
		switch f.name {
		case "metadata":
			topic = strings.TrimPrefix(f.path, "/topics/")
		case "assign":
			one = strings.TrimSuffix(f.path, "/assignments")
		}
	}
	part := `{"topic":"` + topic + `","partition":0`
	return []paper{
		{"produce", "POST", "/topics/" + topic, `{"records":[{"value":"YQ=="}]}`},
		{"produce to a partition", "POST", "/topics/" + topic + "/partitions/0", `{"records":[{"value":"YQ=="}]}`},
		{"create", "POST", strings.TrimSuffix(one, "/instances/one"), `{"format":"json"}`},
		{"assign", "POST", one + "/assignments", `{"partitions":[` + part + `}]}`},
		{"seek", "POST", one + "/positions", `{"offsets":[` + part + `,"offset":0}]}`},
		{"beginning", "POST", one + "/positions/beginning", `{"partitions":[` + part + `}]}`},
		{"commit", "POST", one + "/offsets", `{"offsets":[` + part + `,"offset":5}]}`},
		{"committed", "GET", one + "/offsets", `{"partitions":[` + part + `}]}`},
		{"unsubscribe and subscribe", "POST", one + "/subscription", `{"topics":[]}`},
	}
}

// field is the one field of the sound document, value what it holds.
func (p paper) field() string {
	name, _, _ := strings.Cut(p.sound[2:], `"`)
	return name
}

func (p paper) member() string { return p.sound[1 : len(p.sound)-1] }

// Faults F3 to F8: each document is parsed strictly, and refused with its own words.
func TestDocumentsAreReadStrictlyOnEveryRoute(t *testing.T) {
	w := everything(t)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, p := range w.papers() {
		field := p.field()
		if a := w.call(p.method, p.path, p.sound, "Content-Type", typeV2Name); a.status >= 300 {
			t.Fatalf("%s: %d %s", p.name, a.status, a.body)
		}
		type fault struct {
			body   string
			status int
			says   string
		}
		faults := map[string]fault{
			"duplicate":         {`{` + p.member() + `,` + p.member() + `}`, 422, "Duplicate field: " + field},
			"duplicate, spelt":  {`{` + p.member() + `,"\u00` + fmt.Sprintf("%02x", field[0]) + p.member()[2:] + `}`, 422, "Duplicate field: " + field},
			"other case":        {strings.Replace(p.sound, field, strings.ToUpper(field), 1), 422, "Unrecognized field: " + strings.ToUpper(field)},
			"unknown":           {`{"nope":1,` + p.member() + `}`, 422, "Unrecognized field: nope"},
			"long unknown":      {`{"` + strings.Repeat("n", 1<<20) + `":1}`, 422, "Unrecognized field: " + strings.Repeat("n", 20)},
			"not UTF-8":         {"{\"\xff\":1}", 422, "Invalid UTF-8 at byte 2"},
			"overlong UTF-8":    {"{\"\xc0\xaf\":1}", 422, "Invalid UTF-8 at byte 2"},
			"lone surrogate":    {`{"\ud800":1}`, 422, "a surrogate stands alone"},
			"BOM":               {"\xef\xbb\xbf" + p.sound, 400, "at byte 0"},
			"UTF-16":            {"\xff\xfe{\x00}\x00", 400, "at byte 0"},
			"NUL":               {"\x00", 400, "at byte 0"},
			"two documents":     {p.sound + p.sound, 400, fmt.Sprintf("unexpected data after the document at byte %d", len(p.sound))},
			"junk":              {p.sound + " x", 400, fmt.Sprintf("unexpected data after the document at byte %d", len(p.sound)+1)},
			"trailing comma":    {`{` + p.member() + `,}`, 400, fmt.Sprintf("at byte %d", len(p.sound))},
			"comment":           {"/* */" + p.sound, 400, "at byte 0"},
			"comment within":    {`{ // x` + "\n" + p.member() + `}`, 400, "at byte 2"},
			"NaN":               {`{"` + field + `":NaN}`, 400, "at byte"},
			"Infinity":          {`{"` + field + `":-Infinity}`, 400, "at byte"},
			"cut off":           {p.sound[:len(p.sound)-1], 400, fmt.Sprintf("at byte %d", len(p.sound)-1)},
			"single quotes":     {strings.ReplaceAll(p.sound, `"`, `'`), 400, "at byte 1"},
			"bare name":         {`{` + field + `:1}`, 400, "at byte 1"},
			"array":             {`[` + p.sound + `]`, 400, "the document must be an object, at byte 0"},
			"string":            {`"` + field + `"`, 400, "the document must be an object, at byte 0"},
			"deep array":        {deep(200_000), 400, "the document must be an object, at byte 0"},
			"nothing but space": {strings.Repeat(" ", 1<<20) + "x", 400, "at byte 1048576"},
		}
		if before, after, nested := strings.Cut(p.sound, `{"topic":`); nested {
			faults["nested duplicate"] = fault{before + `{"partition":1,"topic":` + after, 422, "Duplicate field: partition"}
			faults["nested unknown"] = fault{before + `{"nope":1,"topic":` + after, 422, "Unrecognized field: nope"}
			faults["nested case"] = fault{before + `{"Topic":` + after, 422, "Unrecognized field: Topic"}
			faults["nested UTF-8"] = fault{before + "{\"topic\":\"\xe2\x28\xa1\"", 422, "Invalid UTF-8"}
			faults["nested null"] = fault{before + `{"topic":null,"partition":0}]}`, 422, "may not be empty (was null)"}
			faults["negative"] = fault{before + `{"topic":"t","partition":-1}]}`, 422, "must be greater than or equal to 0 (was -1)"}
			faults["too large"] = fault{before + `{"topic":"t","partition":99999999999999999999}]}`, 422, "must be less than or equal to 2147483647"}
			faults["a fraction"] = fault{before + `{"topic":"t","partition":0.5}]}`, 400, "must be an integer"}
			faults["wrong type"] = fault{before + `{"topic":1,"partition":0}]}`, 400, "must be a string"}
			faults["absurd count"] = fault{before + strings.Repeat(`{"topic":"t","partition":1,"offset":1},`, 10_001) + `{}]}`, 422, ""}
			if !strings.Contains(p.sound, "offset") {
				faults["absurd count"] = fault{before + strings.Repeat(`{"topic":"t","partition":1},`, 10_001) + `{}]}`, 422, field + " may not have more than 10000 elements"}
			}
		}
		switch {
		case strings.HasPrefix(p.name, "produce"):
			faults["deep value"] = fault{`{"records":[{"value":` + deep(10_000) + `}]}`, 422, "JSON is nested deeper than 500 levels"}
			faults["null"] = fault{`null`, 422, "records may not be empty (was null)"}
			faults["duplicate value"] = fault{`{"records":[{"value":"","value":""}]}`, 422, "Duplicate field: value"}
		case p.name == "create":
			faults["deep value"] = fault{`{"id":` + deep(200_000) + `}`, 422, "JSON is nested deeper than 500 levels"}
			faults["long value"] = fault{`{"auto.offset.reset":"` + strings.Repeat("x", 1<<20) + `"}`, 422, "Invalid consumer configuration: Invalid value xxx"}
		case p.name != "commit" && p.name != "committed":
			faults["null"] = fault{`null`, 422, "may not be empty (was null)"}
			faults["no list"] = fault{`{}`, 422, "may not be empty (was null)"}
		}
		for name, c := range faults {
			a := w.call(p.method, p.path, c.body, "Content-Type", typeV2Name)
			if a.status != c.status || !strings.HasPrefix(a.body, fmt.Sprintf(`{"error_code":%d`, c.status)) || !strings.Contains(a.body, c.says) || len(a.body) > 4<<10 {
				t.Errorf("%s, %s: %d %.300s, want %d … %s", p.name, name, a.status, a.body, c.status, c.says)
			}
		}
	}
}

// Fault F11: a list that cannot be meant costs no more than its body.
func TestAbsurdCountsCostTheirBodyAlone(t *testing.T) {
	w := everything(t)
	many := func(begin, element, end string) string {
		return begin + strings.Repeat(element, (8<<20-len(begin)-len(end))/len(element)) + end
	}
	var names strings.Builder
	for i := range 700_000 {
		fmt.Fprintf(&names, `"%x":1,`, i)
	}
	for _, p := range w.papers() {
		body, status := "", 422
		switch p.name {
		case "unsubscribe and subscribe":
			body = many(`{"topics":["a"`, `,""`, `]}`) // millions of names of no length
		case "create":
			body = `{` + names.String() + `"id":"x"}`
		case "assign", "beginning", "committed":
			body = many(`{"partitions":[`, `{"topic":"","partition":0},`, `{}]}`)
		case "seek", "commit":
			body = many(`{"offsets":[`, `{"topic":"t","partition":0,"offset":0},`, `{}]}`)
		case "produce":
			body, status = many(`{"records":[{}`, `,{}`, `]}`), 503 // records are paid for from the budget
		default:
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		a := w.call(p.method, p.path, body, "Content-Type", typeV2Name)
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		if a.status != status || len(a.body) > 4<<10 {
			t.Errorf("%s: %d %.200s", p.name, a.status, a.body)
		}
		most := uint64(48 << 20)
		if p.name == "produce" {
			most = 768 << 20 // what the budget allows, and all the smaller rooms it has outgrown
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > most {
			t.Errorf("%s: %d MiB were allocated for %d MiB", p.name, grown>>20, len(body)>>20)
		}
		if took > 10*time.Second {
			t.Errorf("%s took %s", p.name, took)
		}
	}
	if !w.srv.budget.fits(w.srv.budget.limit) {
		t.Error("the budget was not given back")
	}
}

// Faults F1 and F2 on every route that reads a body.
func TestLargeAndPackedBodiesOnEveryRoute(t *testing.T) {
	const most = 1 << 20
	w := everythingTuned(t, func(s *Server) { s.cfg.MaxBodyBytes = most })
	limit := fmt.Sprintf(`{"error_code":413,"message":"The request body is larger than the limit of %d bytes."}`, most)
	bomb := strings.Repeat(zipped(t, strings.Repeat("\x00", 16<<20)), 10)
	for _, p := range w.papers() {
		head := p.method + " " + p.path + " HTTP/1.1\r\nHost: a\r\nContent-Type: " + typeV2Name + "\r\n"
		// The client has sent its head and 8 KiB at most, and reads the answer.
		for name, rest := range map[string]string{
			"by its length": fmt.Sprintf("Content-Length: %d\r\n\r\n", most+1) + strings.Repeat(" ", 8<<10), "by a length beyond reason": "Content-Length: 900000000000000000\r\n\r\n" + strings.Repeat(" ", 8<<10),
			"before it is sent": fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", most+1),
		} {
			got := w.raw(head + rest)
			if !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.HasSuffix(got, limit) || !strings.Contains(got, "Connection: close\r\n") {
				t.Errorf("%s, too large %s: %.300q", p.name, name, got)
			}
		}
		largest := p.sound + strings.Repeat(" ", most-len(p.sound))
		for name, c := range map[string]struct {
			body, encoding string
			status         int
			says           string
		}{
			"the largest":          {largest, "", 0, ""},
			"the largest, packed":  {zipped(t, largest), "gzip", 0, ""},
			"one more, packed":     {zipped(t, largest+" "), "gzip", 413, limit},
			"one more, in chunks":  {largest + " ", "chunks", 413, limit},
			"bomb":                 {bomb, "gzip", 413, limit},
			"several members":      {zipped(t, p.sound[:5], "", p.sound[5:]), "gzip", 0, ""},
			"a member too many":    {zipped(t, p.sound, p.sound), "gzip", 400, "unexpected data after the document"},
			"packed twice":         {zipped(t, zipped(t, p.sound)), "gzip", 400, "Invalid JSON"},
			"packed twice, said":   {zipped(t, zipped(t, p.sound)), "gzip, gzip", 415, "HTTP 415"},
			"junk behind":          {zipped(t, p.sound) + "junk", "gzip", 400, "The body is not valid gzip."},
			"damaged":              {zipped(t, p.sound)[:len(zipped(t, p.sound))-8] + "12345678", "gzip", 400, "The body is not valid gzip."},
			"cut off":              {zipped(t, p.sound)[:20], "gzip", 400, "The body is not valid gzip."},
			"a header alone":       {zipped(t, p.sound)[:10], "gzip", 400, "The body is not valid gzip."},
			"plain, said packed":   {p.sound, "gzip", 400, "The body is not valid gzip."},
			"packed, said plain":   {zipped(t, p.sound), "", 400, "Invalid JSON"},
			"deflate":              {p.sound, "deflate", 415, "HTTP 415"},
			"br":                   {p.sound, "br", 415, "HTTP 415"},
			"zstd":                 {p.sound, "zstd", 415, "HTTP 415"},
			"two encodings":        {p.sound, "identity, gzip", 415, "HTTP 415"},
			"identity":             {p.sound, "identity", 0, ""},
			"x-gzip in other case": {zipped(t, p.sound), "X-GZIP", 0, ""},
		} {
			headers := []string{"Content-Type", typeV2Name}
			var a answer
			switch c.encoding {
			case "chunks":
				a = w.chunked(p.method, p.path, c.body, headers...)
			case "":
				a = w.call(p.method, p.path, c.body, headers...)
			default:
				a = w.call(p.method, p.path, c.body, append(headers, "Content-Encoding", c.encoding)...)
			}
			if (c.status == 0 && a.status >= 300) || (c.status != 0 && a.status != c.status) || !strings.Contains(a.body, c.says) {
				t.Errorf("%s, %s: %d %.300s, want %d %s", p.name, name, a.status, a.body, c.status, c.says)
			}
		}
	}
	if !w.srv.budget.fits(w.srv.budget.limit) {
		t.Error("the budget was not given back")
	}
}

// Fault F9, through the door: each is a content fault of its record, and of no other.
func TestBadBase64CostsItsRecord(t *testing.T) {
	w := start(t)
	bad := []string{"YQ=", "YQ", "Y", "YQ===", "Y=Q=", "=YQ=", "YQ==YQ==", "YR==", "YWJ=", "-_-_", "YW_j", `YW\nJj`, `YW\rJj`, `YWJj\n`, `\r\nYWJj`, "YW Jj", `YW\tJj`, "YW\u00e4j", `YW\u0000j`, "\u200bYWJj", "YWJj,", "YW%4Aj", "YW{j"}
	var records []string
	for _, b := range bad {
		records = append(records, `{"value":"`+b+`"}`, `{"key":"`+b+`"}`, `{"headers":[{"key":"h","value":"`+b+`"}]}`, `{"value":"YWJj"}`)
	}
	for _, wrong := range []string{`1`, `true`, `{}`, `["YQ=="]`} {
		records = append(records, `{"value":`+wrong+`}`, `{"value":"YWJj"}`)
	}
	a := w.call("POST", "/topics/orders", `{"records":[`+strings.Join(records, ",")+`]}`, "Content-Type", "application/vnd.kafka.binary.v2+json")
	value := `"error":"Record value contains invalid base64 encoding"`
	if n := strings.Count(a.body, value); a.status != 200 || n != len(bad)+4 {
		t.Errorf("%d: %d values were refused of %d: %s", a.status, n, len(bad)+4, a.body)
	}
	for says, n := range map[string]int{`"error":"Record key contains invalid base64 encoding"`: len(bad), `"error":"Record header value contains invalid base64 encoding"`: len(bad), `"error":null`: len(bad) + 4} {
		if got := strings.Count(a.body, says); got != n {
			t.Errorf("%s: %d times, want %d", says, got, n)
		}
	}
	for _, r := range w.kafka.produced["orders"] {
		if string(r.Value) != "abc" {
			t.Errorf("%q was written", r.Value)
		}
	}
}

// Fault F12: a name that Kafka would not take reaches no Kafka, and a path is decoded once.
func TestHostileTopicNamesOnEveryRoute(t *testing.T) {
	w := everything(t)
	for _, name := range []string{"..", ".", "..%2f", "%2e%2e", "%2e", "a%2fb", "%00", "a%00b", "%0d%0aX:1", "a b", "a%20b", "a+b", "%E2%82%AC", "\u20ac", "%ff", "%25", "%2561", "a;b", "a:b", "a,b", "a'b", `a\b`, "a%5cb", "<a>", "a&b", "~a", strings.Repeat("x", 250), strings.Repeat("%78", 250), "{topic}"} {
		for _, f := range []family{
			{"", "GET", "/topics/%s", ""}, {"", "GET", "/topics/%s/partitions", ""}, {"", "GET", "/topics/%s/partitions/0", ""}, {"", "GET", "/topics/%s/partitions/0/offsets", ""},
			{"", "POST", "/topics/%s", `{"records":[{}]}`}, {"", "POST", "/topics/%s/partitions/0", `{"records":[{}]}`},
			{"", "GET", "/topics/%s/partitions/0/messages", ""}, {"", "GET", "/topics/%s/partitions/0/records", ""}, {"", "GET", "/topics/%s/events", ""},
		} {
			f.path = strings.Replace(f.path, "%s", name, 1)
			if strings.ContainsAny(name, " ") {
				continue // that is no request line
			}
			got := w.raw(f.start() + fmt.Sprintf("Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(f.body), f.body))
			if !strings.HasPrefix(got, "HTTP/1.1 404 ") || !strings.Contains(got, `{"error_code":404`) || strings.Count(got, "HTTP/1.") != 1 || strings.Contains(got, "\r\nX:1") {
				t.Errorf("%s %s: %.300q", f.method, f.path, got)
			}
		}
	}
}

// Fault F10 and F6: numbers and lone surrogates of a json value stay what they are, to the byte.
func TestNumbersAndSurrogatesStayAsTheyAre(t *testing.T) {
	w := start(t)
	for _, value := range []string{"9007199254740993", "-9223372036854775809", "123456789012345678901234567890.000", "1e400", "-0", "0.1e-10", "1E+2", `"\ud800"`, `{"\udfff":"\ud834"}`, `"\u0000"`, `"\/"`, `[1.0,1.00]`} {
		a := w.call("POST", "/topics/orders", `{"records":[{"key":`+value+`,"value":`+value+`}]}`, "Content-Type", "application/vnd.kafka.json.v2+json")
		got := w.kafka.produced["orders"]
		if a.status != 200 || string(got[len(got)-1].Value) != value || string(got[len(got)-1].Key) != value {
			t.Errorf("%s: %d %s, wrote %q", value, a.status, a.body, got[len(got)-1].Value)
		}
	}
}

// Fault F11: nothing at all and the largest there is pass the same way.
func TestEmptyAndLargestValuesPass(t *testing.T) {
	w := start(t)
	largest := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 16<<20))
	for _, value := range []string{`""`, `null`, `"` + largest + `"`} {
		a := w.call("POST", "/topics/orders", `{"records":[{"value":`+value+`}]}`)
		if a.status != 200 || strings.Contains(a.body, `"error":"`) {
			t.Errorf("%.20s: %d %s", value, a.status, a.body)
		}
	}
	got := w.kafka.produced["orders"]
	if len(got) != 3 || got[0].Value == nil || len(got[0].Value) != 0 || got[1].Value != nil || len(got[2].Value) != 16<<20 {
		t.Error("they are not what was sent")
	}
}
