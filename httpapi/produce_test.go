package httpapi

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicegate/sluice"
)

func TestRecordsArriveAsTheyWereSent(t *testing.T) {
	at := time.UnixMilli(1612554562000)
	for name, c := range map[string]struct {
		contentType, body string
		want              []sluice.NewRecord
	}{
		"binary": {"application/vnd.kafka.binary.v1+json", `{"records":[{"key":"Zm9v","value":"YmFy"},{"key":"","value":""},{"value":null},{}]}`, []sluice.NewRecord{
			{Partition: -1, Key: []byte("foo"), Value: []byte("bar")}, {Partition: -1, Key: []byte{}, Value: []byte{}}, {Partition: -1}, {Partition: -1}}},
		"json": {"application/vnd.kafka.json.v2+json", `{"records":[{"key": "k" ,"value":{"n": 12345678901234567890.10 , "b":[1, 2]}},{"key":0,"value":false},{"key":null,"value":""}]}`, []sluice.NewRecord{
			{Partition: -1, Key: []byte(`"k"`), Value: []byte(`{"n":12345678901234567890.10,"b":[1,2]}`)}, {Partition: -1, Key: []byte(`0`), Value: []byte(`false`)}, {Partition: -1, Value: []byte(`""`)}}},
		"json without a version": {"application/vnd.kafka.json+json", `{"records":[{"value":[ ]}]}`, []sluice.NewRecord{{Partition: -1, Value: []byte(`[]`)}}},
		"no type is binary":      {"", `{"records":[{"value":"YmFy","partition":2}]}`, []sluice.NewRecord{{Partition: 2, Value: []byte("bar")}}},
		"application/json is binary": {"application/json; charset=UTF-8", `{"key_schema":null,"value_schema_id":"3","records":[{"value":"YmFy","partition":"1","timestamp":1612554562000}]}`,
			[]sluice.NewRecord{{Partition: 1, Value: []byte("bar"), Timestamp: at}}},
		"headers and time": {"application/octet-stream", `{"records":[{"value":"YmFy","partition":null,"timestamp":"2021-02-05T19:49:22Z","headers":[{"key":"a","value":"YQ=="},{"key":"a","value":null},{"key":"ä"}]}]}`,
			[]sluice.NewRecord{{Partition: -1, Value: []byte("bar"), Timestamp: at, Headers: []sluice.Header{{Name: "a", Value: []byte("a")}, {Name: "a"}, {Name: "ä"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			a := w.call("POST", "/topics/orders", c.body, "Content-Type", c.contentType)
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if diff := cmp.Diff(c.want, w.kafka.produced["orders"]); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachRecordHasItsSlot(t *testing.T) {
	w := start(t)
	a := w.call("POST", "/topics/orders", `{"records":[{"value":"YQ=="},{"value":"?"},{"value":"YQ==","partition":9},{"value":"YQ==","partition":-1},{"key":1},{"value":"YQ==","partition":1,"timestamp":"now"},{"value":"YQ==","partition":1}]}`,
		"Content-Type", "application/vnd.kafka.binary.v2+json")
	a.want(t, 200, `{"offsets":[{"partition":0,"offset":0,"error_code":null,"error":null},`+
		`{"partition":null,"offset":null,"error_code":422,"error":"Record value contains invalid base64 encoding"},`+
		`{"partition":null,"offset":null,"error_code":40402,"error":"Partition not found."},`+
		`{"partition":null,"offset":null,"error_code":422,"error":"partition must be greater than or equal to 0 (was -1)"},`+
		`{"partition":null,"offset":null,"error_code":422,"error":"Record key contains invalid base64 encoding"},`+
		`{"partition":null,"offset":null,"error_code":422,"error":"timestamp must be milliseconds since 1970 or an RFC 3339 time"},`+
		`{"partition":1,"offset":1,"error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`)
	if ct := a.header.Get("Content-Type"); ct != "application/vnd.kafka.v2+json" {
		t.Errorf("Content-Type %q", ct)
	}
	if log := w.logs.String(); !strings.Contains(log, `"failed":5`) {
		t.Error("the failed records are not in the log")
	}
}

func TestThePathNamesThePartition(t *testing.T) {
	w := start(t)
	w.call("POST", "/topics/orders/partitions/2", `{"records":[{"value":"YQ=="},{"value":"YQ==","partition":1},{"value":"YQ==","partition":null}]}`).want(t, 200,
		`{"offsets":[{"partition":2,"offset":0,"error_code":null,"error":null},{"partition":1,"offset":1,"error_code":null,"error":null},{"partition":2,"offset":2,"error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`)
	for _, p := range []string{"3", "-1", "99999999999999999999"} {
		if a := w.call("POST", "/topics/orders/partitions/"+p, `{"records":[{"value":"YQ=="}]}`); a.status != 404 || !strings.HasPrefix(a.body, `{"error_code":40402,"message":"Partition not found."`) {
			t.Errorf("partition %s: %d %s", p, a.status, a.body)
		}
	}
	w.call("POST", "/topics/orders/partitions/foo", `{"records":[{}]}`).want(t, 404, `{"error_code":404,"message":"HTTP 404 Not Found"}`)
	if n := len(w.kafka.produced["orders"]); n != 3 {
		t.Errorf("%d records were written", n)
	}
}

func TestDocumentFaultsRefuseTheWholeRequest(t *testing.T) {
	w := start(t)
	deep := strings.Repeat("[", 498) + strings.Repeat("]", 498)
	for body, want := range map[string]string{
		``:                                             `422 {"error_code":422,"message":"records may not be empty (was null)"}`,
		`null`:                                         `422 {"error_code":422,"message":"records may not be empty (was null)"}`,
		`{}`:                                           `422 {"error_code":422,"message":"records may not be empty (was null)"}`,
		`{"records":null}`:                             `422 {"error_code":422,"message":"records may not be empty (was null)"}`,
		`{"records":[]}`:                               `422 {"error_code":422,"message":"records may not be empty (was [])"}`,
		`[]`:                                           `400 {"error_code":400,"message":"Invalid JSON: the document must be an object, at byte 0"}`,
		`{"records":{}}`:                               `400 {"error_code":400,"message":"Invalid JSON: records must be an array, at byte 11"}`,
		`{"records":[1]}`:                              `400 {"error_code":400,"message":"Invalid JSON: records[0] must be an object, at byte 12"}`,
		`{"records":[{"partition":1.5}]}`:              `400 {"error_code":400,"message":"Invalid JSON: records[0].partition must be an integer, at byte 25"}`,
		`{"records":[{"partition":"x"}]}`:              `400 {"error_code":400,"message":"Invalid JSON: records[0].partition must be an integer, at byte 25"}`,
		`{"records":[{"timestamp":true}]}`:             `400 {"error_code":400,"message":"Invalid JSON: records[0].timestamp must be an integer or a string, at byte 25"}`,
		`{"records":[{"headers":{}}]}`:                 `400 {"error_code":400,"message":"Invalid JSON: records[0].headers must be an array, at byte 23"}`,
		`{"records":[{"headers":[{}]}]}`:               `422 {"error_code":422,"message":"records[0].headers[0].key may not be null (was null)"}`,
		`{"records":[{}]} x`:                           `400 {"error_code":400,"message":"Invalid JSON: unexpected data after the document at byte 17"}`,
		"\xef\xbb\xbf" + `{"records":[{}]}`:            `400 {"error_code":400,"message":"Invalid JSON: unexpected character at byte 0"}`,
		`{"records":[{"value":NaN}]}`:                  `400 {"error_code":400,"message":"Invalid JSON: unexpected character at byte 21"}`,
		`{"records":[{}],}`:                            `400 {"error_code":400,"message":"Invalid JSON: expected a field name at byte 16"}`,
		`{"records":[{}],"records":[{}]}`:              `422 {"error_code":422,"message":"Duplicate field: records"}`,
		`{"records":[{"value":"","value":1}]}`:         `422 {"error_code":422,"message":"Duplicate field: value"}`,
		`{"RECORDS":[{}]}`:                             `422 {"error_code":422,"message":"Unrecognized field: RECORDS"}`,
		`{"records":[{"Value":1}]}`:                    `422 {"error_code":422,"message":"Unrecognized field: Value"}`,
		`{"records":[{"headers":[{"k":1}]}]}`:          `422 {"error_code":422,"message":"Unrecognized field: k"}`,
		`{"<a&b>":1}`:                                  `422 {"error_code":422,"message":"Unrecognized field: <a&b>"}`,
		"{\"records\":[{\"value\":\"\xff\"}]}":         `422 {"error_code":422,"message":"Invalid UTF-8 at byte 22"}`,
		`{"records":[{"headers":[{"key":"\ud800"}]}]}`: `422 {"error_code":422,"message":"Invalid UTF-8: a surrogate stands alone in the string at byte 31"}`,
		`{"records":[{"value":` + deep + `}]}`:         `422 {"error_code":422,"message":"JSON is nested deeper than 500 levels"}`,
		`{"key_schema":5,"records":[{}]}`:              `400 {"error_code":400,"message":"Invalid JSON: key_schema must be a string, at byte 14"}`,
		`{"key_schema_id":"x","records":[{}]}`:         `400 {"error_code":400,"message":"Invalid JSON: key_schema_id must be an integer, at byte 17"}`,
	} {
		a := w.call("POST", "/topics/orders", body, "Content-Type", "application/vnd.kafka.json.v2+json")
		if got := fmt.Sprintf("%d %s", a.status, a.body); got != want {
			t.Errorf("%.60q:\n got %s\nwant %s", body, got, want)
		}
		if n := len(w.kafka.produced); n != 0 {
			t.Errorf("%.60q: something was written", body)
		}
	}
}

func TestOnlyContentFaultsRefuseWithTheFirst(t *testing.T) {
	w := start(t)
	w.call("POST", "/topics/orders", `{"records":[{"value":"a b"},{"key":"Zh=="}]}`).want(t, 422,
		`{"error_code":422,"message":"Record value contains invalid base64 encoding","detail":"records[0].value; all 2 records of the request have such a fault, nothing was written."}`)
	w.call("POST", "/topics/orders", `{"records":[{"value":{"a":1,"a":2}}]}`, "Content-Type", "application/vnd.kafka.json.v1+json").want(t, 422,
		`{"error_code":422,"message":"Duplicate field: a","detail":"records[0].value; all 1 record of the request have such a fault, nothing was written."}`)
	if a := w.call("POST", "/topics/nope", `{"records":[{"value":"a b"}]}`); a.status != 404 {
		t.Errorf("an unknown topic comes first: %d %s", a.status, a.body)
	}
}

func TestAnUnknownTopicIsToldHowToCreateIt(t *testing.T) {
	w := start(t)
	a := w.call("POST", "/topics/nope", `{"records":[{}]}`)
	if a.status != 404 || !strings.HasPrefix(a.body, `{"error_code":40401,"message":"Topic not found.","detail":"Topic nope does not exist. Create it`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestProduceStatus(t *testing.T) {
	failing := func(kinds ...sluice.Kind) func(string, []sluice.NewRecord) ([]sluice.Receipt, error) {
		return func(_ string, recs []sluice.NewRecord) ([]sluice.Receipt, error) {
			out := make([]sluice.Receipt, len(recs))
			for i := range out {
				if k := kinds[i%len(kinds)]; k != "" {
					out[i].Err = &sluice.Error{Kind: k, Msg: "text <" + string(k) + ">"}
				}
			}
			return out, nil
		}
	}
	for _, c := range []struct {
		kinds           []sluice.Kind
		classic, strict int
	}{
		{[]sluice.Kind{"", sluice.Rejected}, 200, 200},
		{[]sluice.Kind{sluice.Rejected}, 200, 500},
		{[]sluice.Kind{sluice.TooLarge}, 200, 500},
		{[]sluice.Kind{sluice.Rejected, sluice.Retriable}, 200, 503},
		{[]sluice.Kind{sluice.OutcomeUnknown}, 200, 503},
		{[]sluice.Kind{sluice.UnknownPart}, 200, 404},
		{[]sluice.Kind{"", sluice.Forbidden}, 403, 403},
		{[]sluice.Kind{sluice.Forbidden, sluice.Unauthorized}, 401, 401},
	} {
		for mode, status := range map[string]int{"classic": c.classic, "strict": c.strict} {
			w := start(t, func(cfg *Config, _ *Needs) { cfg.ProduceStatus = mode })
			w.kafka.produce = failing(c.kinds...)
			a := w.call("POST", "/topics/orders", `{"records":[{},{}]}`)
			if a.status != status {
				t.Errorf("%v %s: %d, want %d", c.kinds, mode, a.status, status)
			}
			var body struct {
				Offsets []map[string]any `json:"offsets"`
				Code    int              `json:"error_code"`
				Message string           `json:"message"`
			}
			if err := json.Unmarshal([]byte(a.body), &body); err != nil || len(body.Offsets) != 2 || len(body.Offsets[0]) != 4 {
				t.Errorf("%v %s: %s", c.kinds, mode, a.body)
			}
			if all := !strings.Contains(a.body, `"error":null`); (mode == "strict" && all) != (body.Code != 0) {
				t.Errorf("%v %s: error_code %d", c.kinds, mode, body.Code)
			}
			if (status == 503) != (a.header.Get("Retry-After") != "") {
				t.Errorf("%v %s: Retry-After %q", c.kinds, mode, a.header.Get("Retry-After"))
			}
		}
	}
}

func TestProduceThatCouldNotBeAttemptedIsAnError(t *testing.T) {
	w := start(t)
	w.kafka.fail(&sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached."})
	a := w.call("POST", "/topics/orders", `{"records":[{}]}`)
	a.want(t, 503, `{"error_code":50302,"message":"No Kafka broker could be reached."}`)
	if a.header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	w.kafka.fail(errors.New("a cause with a secret"))
	w.call("POST", "/topics/orders", `{"records":[{}]}`).want(t, 500, `{"error_code":500,"message":"Internal Server Error"}`)
}

func zipped(t *testing.T, members ...string) string {
	t.Helper()
	var b bytes.Buffer
	for _, m := range members {
		z := gzip.NewWriter(&b)
		if _, err := io.WriteString(z, m); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestBodiesAndTheirEncodings(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.MaxBodyBytes = 4 << 20 })
	record := `{"records":[{"value":"YQ=="}]}`
	limit := `{"error_code":413,"message":"The request body is larger than the limit of 4194304 bytes."}`
	for name, c := range map[string]struct {
		encoding, body string
		status         int
		want           string
	}{
		"gzip":            {"gzip", zipped(t, record), 200, ""},
		"several members": {"GZIP", zipped(t, record[:10], record[10:]), 200, ""},
		"identity":        {"identity", record, 200, ""},
		"damaged":         {"gzip", zipped(t, record)[:30], 400, `{"error_code":400,"message":"The body is not valid gzip."}`},
		"not gzip":        {"gzip", record, 400, `{"error_code":400,"message":"The body is not valid gzip."}`},
		"twice":           {"gzip, gzip", zipped(t, record), 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`},
		"br":              {"br", record, 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`},
		"deflate":         {"deflate", record, 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`},
		"bomb":            {"gzip", zipped(t, strings.Repeat(" ", 8<<20)), 413, limit},
		"inflated":        {"gzip", zipped(t, strings.Repeat(record, 5<<20/len(record))), 413, limit},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.call("POST", "/topics/orders", c.body, "Content-Encoding", c.encoding)
			if a.status != c.status || (c.want != "" && a.body != c.want) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

func TestATooLargeBodyIsRefusedAndTheClientCanReadIt(t *testing.T) {
	w := start(t)
	limit := `{"error_code":413,"message":"The request body is larger than the limit of 25165824 bytes."}`
	for name, length := range map[string]int64{"by its length": 30 << 20, "chunked": -1} {
		body := io.LimitReader(zeros{}, 30<<20)
		req, err := http.NewRequest(http.MethodPost, w.url+"/topics/orders", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge || string(b) != limit || !res.Close {
			t.Errorf("%s: %d %s close=%v", name, res.StatusCode, b, res.Close)
		}
	}
	got := w.raw("POST /topics/orders HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 30000000\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 413 ") || !strings.Contains(got, limit) || !strings.Contains(got, "X-Request-Id: tid_") {
		t.Errorf("with Expect: %q", got)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	return copy(p, bytes.Repeat([]byte("0"), min(len(p), 4096))), nil
}

func TestARecordOfSixteenMiBPasses(t *testing.T) {
	w := start(t)
	value := bytes.Repeat([]byte{0xAB}, 16<<20)
	a := w.call("POST", "/topics/orders", `{"records":[{"value":"`+base64.StdEncoding.EncodeToString(value)+`"}]}`)
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if !bytes.Equal(w.kafka.produced["orders"][0].Value, value) {
		t.Error("the value is not what was sent")
	}
}

func TestBeyondTheBudgetIs503BeforeTheBodyIsRead(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.InflightBytes = 49 << 20 })
	if !w.srv.budget.take(w.srv.budget.limit - 1000) {
		t.Fatal("no budget")
	}
	got := w.raw("POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n" + strings.Repeat(" ", 8<<10)) // fasthttp itself waits for 8 KiB
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "Retry-After: 1\r\n") || !strings.Contains(got, `{"error_code":503,`) || !strings.Contains(got, "Connection: close") {
		t.Errorf("%q", got)
	}
	w.call("GET", "/__gtg", "").want(t, 503, "memory budget exhausted")
	w.srv.budget.give(w.srv.budget.limit - 1000)
	w.call("GET", "/__gtg", "").want(t, 200, "OK")
	w.call("POST", "/topics/orders", `{"records":[`+strings.Repeat("{},", 20_000)+"{}]}").want(t, 200, func() string {
		var b strings.Builder
		b.WriteString(`{"offsets":[`)
		for i := range 20_001 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"partition":0,"offset":%d,"error_code":null,"error":null}`, i)
		}
		return b.String() + `],"key_schema_id":null,"value_schema_id":null}`
	}())
	if a := w.call("POST", "/topics/orders", `{"records":[`+strings.Repeat("{},", 300_000)+"{}]}"); a.status != 503 {
		t.Errorf("three hundred thousand records: %d %.100s", a.status, a.body)
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

func TestContentTypes(t *testing.T) {
	w := start(t)
	for _, ct := range []string{"text/plain", "application/x-www-form-urlencoded", "application/vnd.kafka.binary.v0+json", "application/vnd.kafka.json.v3+json", "nonsense",
		"application/vnd.kafka.avro.v1+json", "application/vnd.kafka.protobuf.v2+json", "application/json; charset=utf-16", "application/json; charset"} {
		for _, body := range []string{`{"records":[{}]}`, ""} {
			w.call("POST", "/topics/orders", body, "Content-Type", ct).want(t, 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`)
		}
		w.call("GET", "/topics", "", "Content-Type", ct).want(t, 200, `["__consumer_offsets","articles","orders"]`)
		w.call("POST", "/", "", "Content-Type", ct).want(t, 200, `{}`)
		w.call("POST", "/", "x", "Content-Type", ct).want(t, 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`)
	}
	for _, ct := range []string{"application/vnd.kafka.v1+json", "application/vnd.kafka.v2+json", "application/vnd.kafka+json", "Application/JSON;charset=\"utf-8\"", "application/octet-stream", "application/vnd.kafka.binary+json ; charset=us-ascii"} {
		if a := w.call("POST", "/topics/orders", `{"records":[{"value":"YQ=="}]}`, "Content-Type", ct); a.status != 200 {
			t.Errorf("%s: %d %s", ct, a.status, a.body)
		}
	}
}

// Fault F21: the outcome is determined and logged although nobody waits for it any more.
func TestAClientThatLeavesDuringProduceChangesNothing(t *testing.T) {
	w := start(t)
	entered, goOn := make(chan struct{}), make(chan struct{})
	w.kafka.produce = func(_ string, recs []sluice.NewRecord) ([]sluice.Receipt, error) {
		close(entered)
		<-goOn
		return make([]sluice.Receipt, len(recs)), nil
	}
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n{\"records\":[{}]}")
	<-entered
	conn.Close()
	close(goOn)
	eventually(t, "the request is logged", func() bool { return strings.Contains(w.logs.String(), `"uri":"/topics/orders"`) })
	eventually(t, "nothing is left of it", func() bool {
		w.srv.ln.mu.Lock()
		defer w.srv.ln.mu.Unlock()
		return len(w.srv.ln.open) == 0
	})
}

func TestTheBudgetLeavesRoomUnderAMemoryLimit(t *testing.T) {
	limit := debug.SetMemoryLimit(128 << 20)
	defer debug.SetMemoryLimit(limit)
	c := Default()
	if got := c.inflight(); got != 64<<20 {
		t.Errorf("by default %d", got)
	}
	c.InflightBytes = 100 << 20
	if got := c.inflight(); got != 100<<20 {
		t.Errorf("as set %d", got)
	}
}
