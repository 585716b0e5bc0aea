package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/formats"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// R4 and R5: the first read after subscribing is not empty when there are records, and returns with the first of them.
func TestReadsReturnAtTheFirstData(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 3), backend.Unique("g")
	p.produce(topic, 1, "there")
	options := `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"50000"}`
	base := p.consumer(group, options, topic)
	start := time.Now()
	p.wantValues(p.read(base, ""), "there")
	t.Logf("%s: first read after subscribe: %v", p.k.Name, time.Since(start).Round(time.Millisecond))
	came := make(chan time.Duration, 1)
	var begun time.Time
	go func() {
		rs := p.read(base, "")
		came <- time.Since(begun)
		if len(rs) != 1 {
			t.Errorf("%d records", len(rs))
		}
	}()
	await(t, "a held read", func() bool { return p.reads() == 1 })
	begun = time.Now()
	p.produce(topic, 2, "late")
	d := <-came
	t.Logf("%s: from the produce to the end of the held read: %v", p.k.Name, d.Round(time.Millisecond))
	if d > 20*time.Second { // far below the timeout, far above what a busy machine needs
		t.Fatalf("the read was held for %v", d)
	}
	start = time.Now()
	if rs := p.read(base, "?timeout=700"); len(rs) != 0 {
		t.Fatal(rs)
	}
	if d := time.Since(start); d < 700*time.Millisecond {
		t.Fatalf("an empty read returned after %v", d)
	}
}

func TestOneRecordAReadNoneLost(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 2), backend.Unique("g")
	var want []string
	for n := range 40 {
		v := fmt.Sprintf("%03d", n) + strings.Repeat("x", 1021)
		p.produce(topic, n%2, v)
		want = append(want, v)
	}
	base := p.consumer(group, earliestJSON, topic)
	var all []pulled
	for range 40 {
		rs := p.read(base, "?max_bytes=1")
		if len(rs) != 1 {
			t.Fatalf("a read gave %d records", len(rs))
		}
		all = append(all, rs...)
	}
	p.wantValues(all, want...)
}

func TestSixteenMebibytesComeThrough(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "large", 1, "max.message.bytes=25165824"), backend.Unique("g")
	big := strings.Repeat("0123456789abcdef", 1<<20)
	p.produce(topic, 0, big)
	p.produce(topic, 0, "small")
	base := p.consumer(group, earliestJSON, topic)
	rs := p.readSome(base, "?max_bytes=1000000", 1)
	if len(rs) != 1 || rs[0].value(t) != big {
		t.Fatalf("%d records, %d bytes", len(rs), len(rs[0].value(t)))
	}
	p.wantValues(p.readSome(base, "", 1), "small")

	// Compressed, in a stream.
	base = p.consumer(backend.Unique("g"), earliestJSON, topic)
	a := p.want(200, "*", "GET", base+"/records", "", "Accept-Encoding", "gzip")
	if a.header.Get("Content-Encoding") != "gzip" {
		t.Fatal(a.header)
	}
	z, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(plain, &rs); err != nil || rs[0].value(t) != big {
		t.Fatal(err, len(plain))
	}
}

// A client that is cut in the middle of an answer gets the records again, and nothing of them can be committed before.
func TestAnAnswerThatWasCutIsGivenAgain(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "large", 1, "max.message.bytes=25165824"), backend.Unique("g")
	big := strings.Repeat("x", 16<<20)
	p.produce(topic, 0, "first")
	p.produce(topic, 0, big)
	base := p.consumer(group, earliestJSON, topic)
	p.wantValues(p.readSome(base, "?max_bytes=1", 1), "first")
	at, _ := url.Parse(base)
	conn := p.raw("GET " + at.Path + "/records HTTP/1.1\r\nHost: sluice\r\n\r\n")
	if n, err := io.ReadFull(conn, make([]byte, 100<<10)); err != nil {
		t.Fatal(n, err)
	}
	if err := errors.Join(conn.SetLinger(0), conn.Close()); err != nil { // a reset, as from a client that was killed
		t.Fatal(err)
	}
	p.want(200, "[]", "POST", base+"/offsets", "")
	p.wantCommitted(group, topic, 0, 1)
	p.wantValues(p.readSome(base, "", 1), big)
	p.want(200, "[]", "POST", base+"/offsets", "")
	p.wantCommitted(group, topic, 0, 2)
}

// A client that leaves while its read is held takes nothing with it, and holds up nobody.
func TestAHeldReadEndsWithItsClient(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.produce(topic, 0, "a")
	base := p.consumer(group, `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"50000"}`, topic)
	p.wantValues(p.read(base, ""), "a")
	at, _ := url.Parse(base)
	conn := p.raw("GET " + at.Path + "/records HTTP/1.1\r\nHost: sluice\r\n\r\n")
	await(t, "a held read", func() bool { return p.reads() == 1 })
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the read", func() bool { return p.reads() == 0 })
	p.produce(topic, 0, "b")
	p.wantValues(p.read(base, ""), "b")
}

// A record that comes in the moment after the client has left was not delivered to it: the socket would still take it.
func TestARecordBehindItsClientStays(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.produce(topic, 0, "a")
	base := p.consumer(group, `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"50000"}`, topic)
	p.wantValues(p.read(base, ""), "a")
	at, _ := url.Parse(base)
	for i := range 5 { // at any point between two looks at the client
		conn := p.raw("GET " + at.Path + "/records HTTP/1.1\r\nHost: sluice\r\n\r\n")
		await(t, "a held read", func() bool { return p.reads() == 1 })
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		value := fmt.Sprint("late ", i)
		p.produce(topic, 0, value)
		p.wantValues(p.read(base, ""), value)
	}
}

func TestDeleteEndsAHeldRead(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	base := p.consumer(group, `{"consumer.request.timeout.ms":"50000"}`, topic)
	done := make(chan answer, 1)
	go func() {
		a, err := p.try("GET", base+"/records", "")
		if err != nil {
			t.Error(err)
		}
		done <- a
	}()
	await(t, "a held read", func() bool { return p.reads() == 1 })
	p.want(204, "", "DELETE", base, "")
	if a := <-done; a.status != 200 || a.body != "[]" {
		t.Fatal(a)
	}
	p.want(404, `{"error_code":40403,"message":"Consumer instance not found.","detail":"deleted by the client"}`, "GET", base+"/records", "")
}

func TestJSONRecords(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.want(200, "*", "POST", "/topics/"+topic, `{"records":[
		{"key":"k","value":{"a": [1, 2.50, "<é>"], "b": null},"timestamp":1612554562000,"headers":[{"key":"h","value":"YQ=="},{"key":"h","value":null}]},
		{"value":0,"timestamp":1612554562001},{"value":null,"timestamp":1612554562002}]}`, "Content-Type", "application/vnd.kafka.json.v2+json")
	p.produce(topic, 0, "not json", `"after"`)
	base := p.consumer(group, `{"format":"JSON","auto.offset.reset":"earliest","consumer.request.timeout.ms":"10000"}`, topic)
	record := func(n int, key, value, more string) string {
		return fmt.Sprintf(`{"topic":"%s","key":%s,"value":%s,"partition":0,"offset":%d%s}`, topic, key, value, n, more)
	}
	a := p.want(200, "["+record(0, `"k"`, `{"a":[1,2.50,"<é>"],"b":null}`, `,"timestamp":1612554562000,"headers":[{"key":"h","value":"YQ=="},{"key":"h","value":null}]`)+","+
		record(1, "null", "0", `,"timestamp":1612554562001`)+","+record(2, "null", "null", `,"timestamp":1612554562002`)+"]", "GET", base+"/records", "")
	if ct := a.header.Get("Content-Type"); ct != "application/vnd.kafka.json.v2+json" {
		t.Fatal(ct)
	}
	a = p.want(500, "*", "GET", base+"/records", "", "Accept", typeV2Name)
	if want := fmt.Sprintf(`{"error_code":50002,"message":"Kafka error: the record at partition %s-0, offset 3 cannot be decoded in the format of this instance"}`, topic); a.body != want {
		t.Fatal(a.body)
	}
	// In v1 words there are neither timestamps nor headers.
	p.want(200, "["+record(4, "null", `"after"`, "")+"]", "GET", base+"/records", "", "Accept", "application/vnd.kafka.json.v1+json")
	p.want(406, `{"error_code":40601,"message":"The requested embedded data format does not match the deserializer for this consumer instance"}`,
		"GET", base+"/records", "", "Accept", "application/vnd.kafka.binary.v2+json")
	p.want(406, `{"error_code":406,"message":"HTTP 406 Not Acceptable"}`, "GET", base+"/records", "", "Accept", "text/plain")
}

// HEAD is a GET without a body, so nothing was delivered.
func TestHeadDeliversNothing(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.produce(topic, 0, "a")
	base := p.consumer(group, earliestJSON, topic)
	p.want(200, "", "HEAD", base+"/records", "")
	p.wantValues(p.read(base, ""), "a")
}

// R10: while no broker can be reached a read is 503/50302 and never empty; afterwards the instance goes on by itself.
func TestAReadWithoutKafkaIsNotEmpty(t *testing.T) {
	var p *pull
	kill, restart := func() {}, func() {}
	switch backend.Name() {
	case backend.KFake:
		p = pullers(t)
		kill = p.k.Fake().Close
	case backend.Kafka41:
		own := backend.Cluster(t, 1)
		p = pullersOn(t, &own.Broker)
		kill, restart = func() { own.Kill(t, 1) }, func() { own.Start(t, 1) }
	default:
		backend.NotRun(t, "needs a broker of its own to kill; runs on kfake and kafka41")
	}
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.produce(topic, 0, "a")
	base := p.consumer(group, earliestJSON, topic)
	p.wantValues(p.readSome(base, "", 1), "a")
	kill()
	fresh := p.consumer(backend.Unique("h"), earliestJSON, topic)
	for _, b := range []string{base, fresh} {
		start := time.Now()
		await(t, "an error", func() bool { // the list of topics may be three seconds old
			a := p.call("GET", b+"/records?timeout=200", "")
			if a.status == 200 && a.body == "[]" {
				return false
			}
			if a.status != 503 || !strings.Contains(a.body, `"error_code":50302`) || a.header.Get("Retry-After") == "" {
				t.Fatal(a)
			}
			return true
		})
		t.Logf("%s: the first error came after %v", p.k.Name, time.Since(start).Round(time.Millisecond))
	}
	restart()
	if p.k.Real() {
		p.produce(topic, 0, "b")
		await(t, "the record after the restart", func() bool {
			a := p.call("GET", base+"/records?timeout=1000", "")
			return a.status == 200 && strings.Contains(a.body, `"value":"Yg=="`)
		})
	}
}

// An answer is settled with its last byte, whatever comes behind it on the connection: a pipelined commit, a close, or
// a client of HTTP/1.0, which knows no chunks.
func TestAnAnswerSettlesHoweverTheConnectionGoesOn(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1, "max.message.bytes=25165824"), backend.Unique("g")
	base := p.consumer(group, earliestJSON, topic)
	at, _ := url.Parse(base)
	large := strings.Repeat("x", 2<<20)
	for n, c := range []struct{ value, request string }{
		{"a", "GET %[1]s/records HTTP/1.1\r\nHost: h\r\n\r\nPOST %[1]s/offsets HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{large, "GET %[1]s/records HTTP/1.1\r\nHost: h\r\n\r\nPOST %[1]s/offsets HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		{"c", "GET %[1]s/records HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"},
		{large, "GET %[1]s/records HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"},
		{"e", "GET %[1]s/records HTTP/1.0\r\n\r\n"},
		{large, "GET %[1]s/records HTTP/1.0\r\n\r\n"},
	} {
		p.produce(topic, 0, c.value)
		conn := p.raw(fmt.Sprintf(c.request, at.Path))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(n, err)
		}
		var rs []pulled
		if err := json.NewDecoder(res.Body).Decode(&rs); err != nil || len(rs) != 1 || rs[0].value(t) != c.value {
			t.Fatalf("request %d: %d records, %v", n, len(rs), err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil { // until the other side closes
			t.Fatal(n, err)
		}
		p.want(200, "[]", "POST", base+"/offsets", "")
		p.wantCommitted(group, topic, 0, int64(n)+1)
	}
}

// A streamed answer has the same bytes whether it is read or written, and is not cut into fasthttp's pieces of 4 KiB.
func TestAnswersAreWrittenInLargePieces(t *testing.T) {
	body := func() *recordsBody {
		b := &recordsBody{format: formats.Binary, version: v2}
		for n := range 300 {
			b.records = append(b.records, &sluice.Record{Topic: "t", Offset: int64(n), Value: bytes.Repeat([]byte{byte(n)}, 1000)})
		}
		return b
	}
	for name, streams := range map[string][2]io.Reader{
		"plain": {body(), body()}, "gzip": {newDeflated(body()), newDeflated(body())},
	} {
		read, err := io.ReadAll(streams[0])
		if err != nil {
			t.Fatal(err)
		}
		var p pieceSizes
		written, err := streams[1].(fasthttp.BodyWriterTo).WriteTo(&p)
		if err != nil || written != int64(len(read)) || !bytes.Equal(p.all, read) {
			t.Errorf("%s: %d bytes written, %d of them other than the %d read, %v", name, written, len(p.all), len(read), err)
		}
		if most := len(read)/bodyPiece + 1; p.writes > most {
			t.Errorf("%s: %d writes for %d bytes, want at most %d", name, p.writes, len(read), most)
		}
	}
}

type pieceSizes struct {
	all    []byte
	writes int
}

func (p *pieceSizes) Write(b []byte) (int, error) {
	p.all = append(p.all, b...)
	p.writes++
	return len(b), nil
}
