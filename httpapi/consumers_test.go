package httpapi

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

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
		{"GET", gone + "/assignments", ``, 404, `40403,"message":"Consumer instance not found.","detail":"never existed"`},
		{"GET", gone + "/unknown", ``, 404, `404,"message":"HTTP 404 Not Found"`},
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
		{"POST", other + "/offsets", `{"offsets":[{"topic":"` + topic + `","partition":0,"offset":1},{"topic":"` + topic + `","partition":1,"offset":1}]}`, 404, `40402,"message":"Partition not found."`},
		{"POST", other + "/offsets", `{"offsets":[{"topic":"` + topic + `","partition":1,"offset":1},{"topic":"` + topic + `-unknown","partition":0,"offset":1}]}`, 404, `40401,"message":"Topic not found."`},
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
