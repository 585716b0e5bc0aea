package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

func TestReadingWithoutAnInstance(t *testing.T) {
	p := pullers(t)
	topic := p.k.Topic(t, "orders", 2)
	p.produceAt(topic, 0, `{"n":1}`, `{"n":2}`, `{"n":3}`)
	path := "/topics/" + topic + "/partitions/0"
	one := func(n int) string {
		return fmt.Sprintf(`{"topic":"%s","key":null,"value":"%s","partition":0,"offset":%d}`, topic, []string{"eyJuIjoxfQ==", "eyJuIjoyfQ==", "eyJuIjozfQ=="}[n], n)
	}
	two := func(n int) string {
		return strings.TrimSuffix(one(n), "}") + fmt.Sprintf(`,"timestamp":%d}`, 1612554562000+1000*n)
	}
	const binary1, binary2 = "application/vnd.kafka.binary.v1+json", "application/vnd.kafka.binary.v2+json"
	for _, c := range []struct {
		where, accept, want, typ string
	}{
		{"/messages", "", "[" + one(0) + "]", binary1},
		{"/messages?offset=1", "", "[" + one(1) + "]", binary1},
		{"/messages?offset=&count=&timestamp=", "", "[" + one(0) + "]", binary1}, // empty is absent
		{"/records?offset=2&timeout=&max_bytes=&timestamp=", "", "[" + two(2) + "]", binary2},
		{"/messages?offset=1&count=9", "", "[" + one(1) + "," + one(2) + "]", binary1},
		{"/messages?offset=0&count=2", "application/json", "[" + one(0) + "," + one(1) + "]", "application/json"},
		{"/messages?offset=3", "", "[]", binary1},
		{"/messages?timestamp=2021-02-05T19:49:23Z", "", "[" + one(1) + "]", binary1},
		{"/messages?timestamp=2250-01-01T00:00:00Z", "", "[]", binary1},
		{"/messages?count=1", "application/vnd.kafka.v2+json", "[" + two(0) + "]", "application/vnd.kafka.v2+json"},
		{"/messages", "application/vnd.kafka.json.v1+json", fmt.Sprintf(`[{"topic":"%s","key":null,"value":{"n":1},"partition":0,"offset":0}]`, topic), "application/vnd.kafka.json.v1+json"},
		{"/records", "", "[" + two(0) + "," + two(1) + "," + two(2) + "]", binary2},
		{"/records?offset=1&max_bytes=1", "", "[" + two(1) + "]", binary2},
		{"/records?offset=3&timeout=50", "", "[]", binary2},
		{"/records?timestamp=1612554564000", "", "[" + two(2) + "]", binary2},
		{"/records?timestamp=2250-01-01T00:00:00Z&timeout=20000", "", "[]", binary2},
	} {
		a := p.want(200, c.want, "GET", path+c.where, "", "Accept", c.accept)
		if got := a.header.Get("Content-Type"); got != c.typ {
			t.Errorf("%s %s: type %s, want %s", c.where, c.accept, got, c.typ)
		}
	}
	for _, c := range []struct {
		where  string
		status int
		want   string
	}{
		{path + "/messages?offset=1&timestamp=2021-02-05T19:49:23Z", 400, "400,\"message\":\"Either `offset` or `timestamp` query parameters must be set.\""},
		{path + "/messages?offset=x", 400, `400,"message":"The query parameter offset must be an integer."`},
		{path + "/messages?count=0", 400, `400,"message":"The query parameter count must be at least 1."`},
		{path + "/messages?offset=4", 500, `50002,"message":"Kafka error: Fetch response contains an error code: 1"`},
		{path + "/records?offset=-1", 500, `50002,"message":"Kafka error: Fetch response contains an error code: 1"`},
		{"/topics/" + topic + "/partitions/2/messages", 404, `40402,"message":"Partition not found."`},
		{"/topics/" + backend.Unique("nosuch") + "/partitions/0/records", 404, `40401,"message":"Topic not found."`},
	} {
		p.want(c.status, `{"error_code":`+c.want+`}`, "GET", c.where, "")
	}
}

// What is not there yet is waited for, and a read of records returns with the first of it.
func TestReadingWithoutAnInstanceWaits(t *testing.T) {
	p := pullers(t)
	topic := p.k.Topic(t, "orders", 1)
	path := "/topics/" + topic + "/partitions/0"
	start := time.Now()
	p.want(200, "[]", "GET", path+"/records?timeout=400", "")
	if d := time.Since(start); d < 400*time.Millisecond {
		t.Fatal(d)
	}
	came := make(chan answer, 1)
	go func() {
		a, err := p.try("GET", path+"/records?timeout=50000", "")
		if err != nil {
			t.Error(err)
		}
		came <- a
	}()
	p.produce(topic, 0, "late")
	if a := <-came; a.status != 200 || !strings.Contains(a.body, `"value":"bGF0ZQ=="`) {
		t.Fatal(a.status, a.body)
	}
}
