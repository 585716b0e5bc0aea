package httpapi

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

var interrupt os.Signal = syscall.SIGTERM

// rest-api.md 9.3: a Go consumer of v2 (gonsumer 1.0.0).
func TestScriptBGoConsumerV2(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "NativeCmsPublicationEvents", 1), backend.Unique("go-consumer")
	a := p.want(200, "*", "POST", "/consumers/"+group, `{"auto.offset.reset": "latest", "auto.commit.enable": "false"}`, "Content-Type", typeV2Name)
	var made struct {
		Base string `json:"base_uri"`
	}
	if err := json.Unmarshal([]byte(a.body), &made); err != nil {
		t.Fatal(err)
	}
	if a.header.Get("Content-Type") != typeV2Name || a.header.Get("Cache-Control") != "no-store" {
		t.Fatal(a.header)
	}
	base, err := url.QueryUnescape(made.Base)
	if err != nil || strings.ContainsAny(base, "%?#") {
		t.Fatal(base, err)
	}
	at, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	p.want(204, "", "POST", at.Path+"/subscription", `{"topics": ["`+topic+`"]}`, "Content-Type", typeV2Name)
	p.want(200, "*", "GET", at.Path+"/records", "", "Accept", typeV2Name)
	p.want(200, "[]", "POST", at.Path+"/offsets", "", "Content-Type", typeV2Name)
	awaitAssigned(p, at.Path, topic)
	p.produce(topic, 0, "FTMSG/1.0\r\nMessage-Id: 1\r\n\r\nbody")
	rs := p.readSome(at.Path, "", 1)
	if rs[0].value(t) != "FTMSG/1.0\r\nMessage-Id: 1\r\n\r\nbody" || rs[0].Topic != topic {
		t.Fatalf("%+v", rs)
	}
	if a := p.want(200, "[]", "POST", at.Path+"/offsets", "", "Content-Type", typeV2Name); a.header.Get("Content-Type") != typeV2Name {
		t.Fatal(a.header)
	}
	p.wantCommitted(group, topic, 0, rs[0].Offset+1)
	p.want(204, "", "DELETE", at.Path+"/subscription", "", "Accept", typeV2Name)
	p.want(204, "", "DELETE", at.Path, "", "Accept", typeV2Name)
}

// awaitAssigned produces probes until one is read: with latest that is only after the position was found.
func awaitAssigned(p *pull, base, topic string) {
	p.t.Helper()
	await(p.t, "an assignment", func() bool {
		p.produce(topic, 0, "probe")
		return len(p.read(base, "?timeout=300")) > 0
	})
}

func (p *pull) wantCommitted(group, topic string, number int32, want int64) {
	p.t.Helper()
	cs, err := p.offsets.Group(p.t.Context(), group, []sluice.Partition{{Topic: topic, Number: number}})
	if err != nil || len(cs) != 1 || cs[0].Offset != want {
		p.t.Fatalf("committed %v, %v, want %d", cs, err, want)
	}
}

// rest-api.md 9.4: the v2 part of a Java consumer (2.0.0). Its commit carries no Content-Type.
func TestScriptFJavaConsumerV2(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 2), backend.Unique("java-consumer")
	p.produce(topic, 0, "a")
	p.produce(topic, 1, "b")
	base := p.create(group, `{"auto.offset.reset":"earliest","auto.commit.enable":"false","consumer.request.timeout.ms":"10000"}`)
	p.subscribe(base, topic)
	p.wantValues(p.readSome(base, "", 2), "a", "b")
	if a := p.want(200, "[]", "POST", base+"/offsets", ""); a.header.Get("Content-Type") != typeV2Name {
		t.Fatal(a.header)
	}
	p.want(204, "", "DELETE", base, "", "Accept", typeV2Name)
	p.wantCommitted(group, topic, 0, 1)
	p.wantCommitted(group, topic, 1, 1)

	health := p.create("healthcheck"+group, "")
	p.want(204, "", "DELETE", health, "", "Accept", typeV2Name)
	a := p.want(404, "*", "DELETE", health, "", "Accept", typeV2Name)
	if a.body != `{"error_code":40403,"message":"Consumer instance not found.","detail":"deleted by the client"}` {
		t.Fatal(a.body)
	}
}

// A commit of N, then a new instance in the group: it starts at N+1.
func TestANewInstanceGoesOnBehindTheCommit(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.produce(topic, 0, "0", "1", "2", "3")
	base := p.consumer(group, earliestJSON, topic)
	p.wantValues(p.readSome(base, "?max_bytes=2", 2), "0", "1")
	p.want(200, "[]", "POST", base+"/offsets", "")
	p.want(200, `{"offsets":[{"topic":"`+topic+`","partition":0,"offset":2,"metadata":""}]}`, "GET", base+"/offsets", "")
	p.want(204, "", "DELETE", base, "")

	base = p.consumer(group, earliestJSON, topic)
	p.wantValues(p.readSome(base, "?max_bytes=1", 1), "2")
	// The client names the last record it processed; the committed position of a partition that it lists in a body.
	p.want(200, "[]", "POST", base+"/offsets", `{"offsets":[{"topic":"`+topic+`","partition":0,"offset":2,"metadata":"m"}]}`, "Content-Type", typeV2Name)
	p.want(200, `{"offsets":[{"topic":"`+topic+`","partition":0,"offset":3,"metadata":"m"}]}`, "GET", base+"/offsets",
		`{"partitions":[{"topic":"`+topic+`","partition":0},{"topic":"`+topic+`","partition":7}]}`, "Content-Type", typeV2Name)
	p.want(204, "", "DELETE", base, "")
	base = p.consumer(group, earliestJSON, topic)
	p.wantValues(p.readSome(base, "", 1), "3")
	p.want(200, "[]", "POST", base+"/offsets?async=true", "")
	await(t, "the asynchronous commit", func() bool {
		cs, err := p.offsets.Group(t.Context(), group, []sluice.Partition{{Topic: topic}})
		return err == nil && cs[0].Offset == 4
	})
	// In v1 words: the offset of the last record, which Kafka's is one above.
	p.want(200, `[{"topic":"`+topic+`","partition":0,"consumed":3,"committed":3}]`, "POST", base+"/offsets", "", "Accept", "application/vnd.kafka.v1+json")
}

func TestTwoInstancesSeeEveryRecordOnce(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 6), backend.Unique("g")
	bases := []string{p.consumer(group, earliestJSON, topic), p.consumer(group, earliestJSON, topic)}
	p.awaitMembers(group, bases, 3)
	var want []string
	for n := range 300 {
		want = append(want, fmt.Sprintf("%04d", n))
	}
	for part := range 6 {
		var vs []string
		for n := part; n < 300; n += 6 {
			vs = append(vs, want[n])
		}
		p.produce(topic, part, vs...)
	}
	var mu sync.Mutex
	var all []string
	shares := make([]int, 2)
	var wg sync.WaitGroup
	for n, base := range bases {
		wg.Go(func() {
			for {
				rs := p.read(base, "?timeout=2000&max_bytes=100")
				if len(rs) == 0 {
					return
				}
				mu.Lock()
				all, shares[n] = append(all, p.values(rs)...), shares[n]+len(rs)
				mu.Unlock()
				p.want(200, "[]", "POST", base+"/offsets", "")
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	if !slices.Equal(all, want) || shares[0] != 150 || shares[1] != 150 {
		t.Fatalf("%d records, shares %v", len(all), shares)
	}
	p.want(204, "", "DELETE", bases[0], "")
	p.want(204, "", "DELETE", bases[1], "")
	p.produce(topic, 3, "next")
	p.wantValues(p.readSome(p.consumer(group, earliestJSON, topic), "", 1), "next")
}

// awaitMembers waits until each instance holds so many partitions.
func (p *pull) awaitMembers(group string, bases []string, each int) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%d partitions for each", each), func() bool {
		return !slices.ContainsFunc(bases, func(base string) bool { return len(p.instance(group, base).Assignment()) != each })
	})
}

// instance looks behind the API for what it does not tell.
func (p *pull) instance(group, base string) *consumers.Instance {
	p.t.Helper()
	i, err := p.room.Instance(group, base[strings.LastIndexByte(base, '/')+1:])
	if err != nil {
		p.t.Fatal(err)
	}
	return i
}

// A foreign member of the group shares the partitions with an instance, and every record is seen by one of the two.
func TestForeignMembersShareTheGroup(t *testing.T) {
	for name, start := range map[string]func(p *pull, t *testing.T, group, topic string) *exec.Cmd{
		"kcat": func(p *pull, t *testing.T, group, topic string) *exec.Cmd {
			if _, err := exec.LookPath("kcat"); err != nil {
				backend.NotRun(t, "needs kcat")
			}
			return exec.Command("kcat", "-b", p.k.Brokers[0], "-q", "-u", "-X", "auto.offset.reset=earliest", "-f", "%s\n", "-G", group, topic)
		},
		"java": func(p *pull, t *testing.T, group, topic string) *exec.Cmd {
			return p.k.Tool(t.Context(), t, "ConsoleConsumer", "--topic", topic, "--group", group, "--from-beginning")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := pullers(t)
			topic, group := p.k.Topic(t, "orders", 4), backend.Unique("g")
			cmd := start(p, t, group, topic)
			base := p.consumer(group, earliestJSON, topic)
			p.awaitMembers(group, []string{base}, 4)
			printed, stop := running(t, cmd)
			p.awaitMembers(group, []string{base}, 2)
			for part := range 4 {
				for n := range 10 {
					p.produce(topic, part, fmt.Sprintf("record-%d-%d", part, n))
				}
			}
			mine := p.values(p.readSome(base, "?timeout=2000", 20))
			pattern := regexp.MustCompile(`record-\d-\d`)
			var theirs []string
			await(t, "what the other printed", func() bool {
				theirs = pattern.FindAllString(printed(), -1)
				return len(theirs) >= 20
			})
			all := append(slices.Clone(mine), theirs...)
			slices.Sort(all)
			if len(mine) != 20 || len(theirs) != 20 || len(slices.Compact(all)) != 40 {
				t.Fatalf("mine %v, theirs %v", mine, theirs)
			}
			p.want(200, "[]", "POST", base+"/offsets", "")
			stop() // it leaves the group, and its partitions come to us
			p.awaitMembers(group, []string{base}, 4)
			p.produce(topic, 0, "last-0")
			p.produce(topic, 3, "last-3")
			var last []string // and perhaps, once more, what the other left uncommitted
			await(t, "what the other held", func() bool {
				for _, v := range p.values(p.read(base, "?timeout=1000")) {
					if strings.HasPrefix(v, "last") {
						last = append(last, v)
					}
				}
				return len(last) >= 2
			})
			slices.Sort(last)
			if !slices.Equal(last, []string{"last-0", "last-3"}) {
				t.Fatal(last)
			}
		})
	}
}

// DELETE leaves the group at once: the other instance reads the partitions within a second (issue 4, section 7).
func TestDeleteHandsOverWithinASecond(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 2), backend.Unique("g")
	first := p.consumer(group, earliestJSON, topic)
	second := p.consumer(group, earliestJSON, topic)
	p.awaitMembers(group, []string{first, second}, 1)
	p.produce(topic, 0, "0")
	p.produce(topic, 1, "1")
	p.readSome(first, "", 1)
	p.readSome(second, "", 1)
	p.want(200, "[]", "POST", first+"/offsets", "")
	p.want(200, "[]", "POST", second+"/offsets", "")
	p.produce(topic, 0, "handed")
	p.produce(topic, 1, "over")
	p.readSome(second, "", 1) // its own
	start := time.Now()
	p.want(204, "", "DELETE", first, "")
	left := time.Since(start)
	p.readSome(second, "", 1)
	took := time.Since(start)
	t.Logf("%s: DELETE answered after %v, the other instance had the record after %v", p.k.Name, left.Round(time.Millisecond), took.Round(time.Millisecond))
	if took > time.Second {
		t.Fatalf("handing over took %v", took)
	}
}

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

func TestRefusedConsumerCalls(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	base := p.create(group, `{"id":"one"}`)
	other := p.create(group, "")
	p.subscribe(other, topic)
	const v2type = typeV2Name
	gone := strings.TrimSuffix(base, "one") + "two"
	for _, c := range []struct {
		method, where, body string
		status              int
		want                string
	}{
		{"POST", "/consumers/" + group, `{"id":"one"}`, 409, `40902,"message":"Consumer with specified consumer ID already exists in the specified consumer group."`},
		{"POST", "/consumers/" + group, `{"format":"xml"}`, 422, `422,"message":"Invalid format type."`},
		{"POST", "/consumers/" + group, `{"format":{}}`, 400, `400,"message":"format must be a string, a number or a boolean"`},
		{"POST", "/consumers/" + group, `{"color":"red"}`, 422, `422,"message":"Unrecognized field: color"`},
		{"POST", "/consumers/" + group, `{"id":"a","id":"b"}`, 422, `422,"message":"Duplicate field: id"`},
		{"POST", "/consumers/" + group, `["id"]`, 400, `400,"message":"Invalid JSON: the document must be an object, at byte 0"`},
		{"POST", "/consumers/" + group, `{`, 400, `400,"message":"Invalid JSON: expected a field name at byte 1"`},
		{"POST", "/consumers/" + group, `{"auto.offset.reset":"x"}`, 422, `42204,"message":"Invalid consumer configuration: Invalid value x for configuration auto.offset.reset: String must be one of: latest, earliest, none"`},
		{"POST", "/consumers/" + group, `{"fetch.min.bytes":-2}`, 422, `40001,"message":"Invalid consumer configuration. It does not abide by the constraints: fetch.min.bytes must be an integer from -1 to 10000000 (was -2)"`},
		{"POST", "/consumers/sluice.topic.x", ``, 422, `42204,"message":"Invalid consumer configuration: Group names that begin with \"sluice.\" are reserved"`},
		{"GET", "/consumers", ``, 404, `404,"message":"HTTP 404 Not Found"`},
		{"GET", "/consumers/" + group, ``, 405, `405,"message":"HTTP 405 Method Not Allowed"`},
		{"GET", gone + "/assignments", ``, 404, `404,"message":"HTTP 404 Not Found"`},
		{"POST", base + "/positions/beginning", `{}`, 404, `404,"message":"HTTP 404 Not Found"`},
		{"GET", base + "/unknown", ``, 404, `404,"message":"HTTP 404 Not Found"`},
		{"GET", gone + "/records", ``, 404, `40403,"message":"Consumer instance not found.","detail":"never existed"`},
		{"POST", gone + "/subscription", `{"topics":["a"]}`, 404, `40403,"message":"Consumer instance not found.","detail":"never existed"`},
		{"POST", gone + "/offsets", ``, 404, `40403,"message":"Consumer instance not found.","detail":"never existed"`},
		{"DELETE", gone, ``, 404, `40403,"message":"Consumer instance not found.","detail":"never existed"`},
		{"GET", base + "/records", ``, 409, `40903,"message":"Illegal state: Consumer is not subscribed to any topics or assigned any partitions"`},
		{"GET", base + "/records?max_bytes=abc", ``, 400, `400,"message":"The query parameter max_bytes must be an integer."`},
		{"GET", base + "/records?timeout=abc", ``, 400, `400,"message":"The query parameter timeout must be an integer."`},
		{"POST", base + "/subscription", ``, 422, `422,"message":"topics may not be empty (was null)"`},
		{"POST", base + "/subscription", `{}`, 422, `422,"message":"topics may not be empty (was null)"`},
		{"POST", base + "/subscription", `{"topics":null}`, 422, `422,"message":"topics may not be empty (was null)"`},
		{"POST", base + "/subscription", `{"topics":"a"}`, 400, `400,"message":"Invalid JSON: topics must be an array, at byte 10"`},
		{"POST", base + "/subscription", `{"topics":[1]}`, 400, `400,"message":"Invalid JSON: topics[0] must be a string, at byte 11"`},
		{"POST", base + "/subscription", `{"topics":["a"],"topic_pattern":"b"}`, 409, `40903,"message":"Illegal state: Subscription to topics, partitions and pattern are mutually exclusive"`},
		{"POST", base + "/subscription", `{"topic_pattern":"("}`, 422, `422,"message":"topic_pattern is not a valid regular expression"`},
		{"POST", other + "/subscription", `{"topic_pattern":"b"}`, 409, `40903,"message":"Illegal state: Subscription to topics, partitions and pattern are mutually exclusive"`},
		{"POST", base + "/offsets", `{"offsets":[{"topic":"t","partition":0,"offset":-1}]}`, 422, `422,"message":"offsets[0].offset must be greater than or equal to 0 (was -1)"`},
		{"POST", base + "/offsets", `{"offsets":[{"topic":"t","partition":0}]}`, 422, `422,"message":"offsets[0].offset may not be empty (was null)"`},
		{"POST", base + "/offsets?async=maybe", ``, 400, `400,"message":"The query parameter async must be true or false."`},
		{"GET", base + "/offsets", `{"partitions":[{"topic":"t","partition":"x"}]}`, 400, `400,"message":"Invalid JSON: partitions[0].partition must be an integer, at byte 40"`},
	} {
		a := p.call(c.method, c.where, c.body, "Content-Type", v2type)
		if want := `{"error_code":` + c.want + `}`; a.status != c.status || a.body != want {
			t.Errorf("%s %s %s: %d %s, want %d %s", c.method, c.where, c.body, a.status, a.body, c.status, want)
		}
		if ct := a.header.Get("Content-Type"); ct != v2type && ct != "application/vnd.kafka.binary.v2+json" {
			t.Errorf("%s %s: type %s", c.method, c.where, ct)
		}
	}
	p.want(415, "*", "POST", base+"/subscription", `{"topics":["a"]}`, "Content-Type", "text/plain")
	p.want(200, `{"topics":["`+topic+`"]}`, "GET", other+"/subscription", "", "Content-Type", "text/plain")
	p.want(200, `{"topics":[]}`, "GET", base+"/subscription", "")
	p.want(204, "", "DELETE", base+"/subscription", "")
	p.want(200, `[]`, "POST", base+"/offsets", "{}", "Content-Type", v2type)
	p.want(200, `[]`, "POST", base+"/offsets", `{"offsets":[]}`, "Content-Type", v2type)
	p.want(200, `{"offsets":[]}`, "GET", base+"/offsets", "")
}

// The version of a call without a versioned type is the instance's; one whose creation named none is settled by the
// first call that only v2 has.
func TestAnInstanceRemembersItsVersion(t *testing.T) {
	p := pullers(t)
	group := backend.Unique("g")
	const v1type = "application/vnd.kafka.v1+json"
	created := func(want string, headers ...string) string {
		t.Helper()
		a := p.want(200, "*", "POST", "/consumers/"+group, `{}`, headers...)
		if ct := a.header.Get("Content-Type"); ct != want {
			t.Errorf("created as %s, want %s", ct, want)
		}
		return regexp.MustCompile(`"base_uri":"([^"]*)"`).FindStringSubmatch(a.body)[1]
	}
	commits := func(base, want string) {
		t.Helper()
		if ct := p.want(200, "[]", "POST", base+"/offsets", "").header.Get("Content-Type"); ct != want {
			t.Errorf("commit answered as %s, want %s", ct, want)
		}
	}
	commits(created(typeV2Name, "Content-Type", "application/vnd.kafka.json.v2+json"), typeV2Name)
	commits(created(v1type, "Content-Type", v1type), v1type)
	commits(created(typeV2Name, "Accept", typeV2Name), typeV2Name)
	open := created("application/json", "Content-Type", "application/json", "Accept", "application/json")
	commits(open, v1type)
	p.want(200, `{"topics":[]}`, "GET", open+"/subscription", "")
	commits(open, typeV2Name)
	v1made := created(v1type, "Accept", v1type)
	p.want(200, `{"topics":[]}`, "GET", v1made+"/subscription", "")
	commits(v1made, v1type)
}

func TestBaseURI(t *testing.T) {
	p := pullers(t)
	port := p.addr[strings.LastIndexByte(p.addr, ':'):]
	for name, c := range map[string]struct {
		change  func(*Config)
		group   string
		headers []string
		want    string
	}{
		"plain":        {nil, "g", nil, p.url + "/consumers/g/instances/i"},
		"host":         {nil, "g", []string{"Host", "kafka"}, "http://kafka/consumers/g/instances/i"},
		"colon, plus":  {nil, "a:b+c", []string{"Host", "kafka:8080"}, "http://kafka:8080/consumers/a:b%2Bc/instances/i"},
		"configured":   {func(c *Config) { c.Pull.BaseURL = "https://example.com/kafka/" }, "g", nil, "https://example.com/kafka/consumers/g/instances/i"},
		"relative":     {func(c *Config) { c.Pull.BaseURI = "relative" }, "g", nil, "/consumers/g/instances/i"},
		"advertised":   {func(c *Config) { c.Pull.AdvertisedListeners = []string{"https://a", "http://b:1/x"} }, "g", nil, "http://b:1/x/consumers/g/instances/i"},
		"host.name":    {func(c *Config) { c.Pull.HostName = "proxy:8080" }, "g", nil, "http://proxy:8080/consumers/g/instances/i"},
		"bare":         {func(c *Config) { c.Pull.HostName = "proxy" }, "g", []string{"Host", "kafka"}, "http://proxy/consumers/g/instances/i"},
		"bare, port":   {func(c *Config) { c.Pull.HostName = "proxy" }, "g", nil, "http://proxy" + port + "/consumers/g/instances/i"},
		"forwarded":    {nil, "g", []string{"Forwarded", `for=1.2.3.4;proto=https;host="public:8443", for=5.6.7.8`}, "https://public:8443/consumers/g/instances/i"},
		"x-forwarded":  {nil, "g", []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "public", "X-Forwarded-Port", "443", "X-Forwarded-Prefix", "/p"}, "https://public/consumers/g/instances/i"},
		"x-port":       {nil, "g", []string{"X-Forwarded-Host", "public", "X-Forwarded-Port", "8443"}, "http://public:8443/consumers/g/instances/i"},
		"prefix":       {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, "g", []string{"Host", "h", "X-Forwarded-Prefix", "/p/"}, "http://h/p/consumers/g/instances/i"},
		"untrusted":    {func(c *Config) { c.Pull.TrustedProxies = []string{"10.1.2.3"} }, "g", []string{"Host", "h", "X-Forwarded-Host", "evil"}, "http://h/consumers/g/instances/i"},
		"not an host":  {nil, "g", []string{"Host", "h", "X-Forwarded-Host", "evil/path"}, "http://h/consumers/g/instances/i"},
		"not a prefix": {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, "g", []string{"Host", "h", "X-Forwarded-Prefix", "//evil"}, "http://h/consumers/g/instances/i"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change != nil {
				own := pullers(t, func(cfg *Config, _ *consumers.Config) { c.change(cfg) })
				c.want = strings.Replace(c.want, port, own.addr[strings.LastIndexByte(own.addr, ':'):], 1)
				own.want(200, `{"instance_id":"i","base_uri":"`+c.want+`"}`, "POST", "/consumers/"+c.group, `{"id":"i"}`, c.headers...)
				return
			}
			p.want(200, `{"instance_id":"i","base_uri":"`+c.want+`"}`, "POST", "/consumers/"+c.group, `{"id":"i"}`, c.headers...)
			p.want(204, "", "DELETE", "/consumers/"+url.PathEscape(c.group)+"/instances/i", "")
		})
	}
}

func TestAnIdleInstanceSaysWhyItIsGone(t *testing.T) {
	p := pullers(t, func(_ *Config, c *consumers.Config) { c.InstanceTimeout = time.Second })
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	base := p.consumer(group, earliestJSON, topic)
	p.read(base, "?timeout=1500") // is a request all the time
	await(t, "its expiry", func() bool {
		_, err := p.room.Instance(group, base[strings.LastIndexByte(base, '/')+1:])
		return err != nil
	})
	p.want(404, `{"error_code":40403,"message":"Consumer instance not found.","detail":"expired after 1 s without a request"}`, "GET", base+"/records", "")
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

// Instances come and go, some by DELETE, some abandoned with an answer under way: every record is seen, and what is
// committed was seen before.
func TestNothingIsLostWhileInstancesComeAndGo(t *testing.T) {
	const partitions, each = 4, 250
	p := pullers(t, func(_ *Config, c *consumers.Config) { c.InstanceTimeout = time.Second })
	topic, group := p.k.Topic(t, "orders", partitions), backend.Unique("g")
	var mu sync.Mutex
	seen := map[string]int{}
	ctx, stop := context.WithTimeout(t.Context(), 90*time.Second)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range each {
			for part := range partitions {
				p.produce(topic, part, fmt.Sprintf("%d-%03d", part, n))
			}
		}
	})
	for worker := range 3 {
		wg.Go(func() {
			for round := worker; ctx.Err() == nil; round++ {
				base := p.consumer(group, `{"auto.offset.reset":"earliest","auto.commit.enable":"false"}`, topic)
				for range 6 + 3*worker {
					rs := p.read(base, "?timeout=400&max_bytes=20")
					mu.Lock()
					for _, r := range rs {
						seen[r.value(t)]++
					}
					done := len(seen) == partitions*each
					mu.Unlock()
					if done {
						stop()
						return
					}
					if a := p.call("POST", base+"/offsets", ""); a.status != 200 && a.status != 500 {
						t.Errorf("commit: %d %s", a.status, a.body)
					}
				}
				if round%3 == 0 {
					continue // abandoned: it expires
				}
				p.want(204, "", "DELETE", base, "")
			}
		})
	}
	wg.Wait()
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	t.Logf("%s: %d records seen, %d of them more than once", p.k.Name, len(seen), twice)
	if len(seen) != partitions*each {
		t.Fatalf("%d of %d records were seen", len(seen), partitions*each)
	}
}
