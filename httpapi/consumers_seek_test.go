package httpapi

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// places is a list of partitions as the API takes it, e.g. places("t", 0, 1).
func places(topic string, numbers ...int) string {
	var all []string
	for _, n := range numbers {
		all = append(all, fmt.Sprintf(`{"topic":"%s","partition":%d}`, topic, n))
	}
	return `{"partitions":[` + strings.Join(all, ",") + `]}`
}

// produceAt writes values with the timestamps 1000, 2000, …
func (p *pull) produceAt(topic string, partition int, values ...string) {
	p.t.Helper()
	var all []string
	for n, v := range values {
		all = append(all, fmt.Sprintf(`{"value":"%s","timestamp":%d}`, base64.StdEncoding.EncodeToString([]byte(v)), 1612554562000+1000*n))
	}
	p.want(200, "*", "POST", fmt.Sprintf("/topics/%s/partitions/%d", topic, partition), `{"records":[`+strings.Join(all, ",")+`]}`, "Content-Type", "application/vnd.kafka.binary.v2+json")
}

func TestAssignAndSeekByOffsetTimeAndEdge(t *testing.T) {
	p := pullers(t)
	topic, group := p.k.Topic(t, "orders", 2), backend.Unique("g")
	p.produceAt(topic, 0, "a", "b", "c")
	p.produceAt(topic, 1, "x", "y")
	base := p.create(group, earliestJSON)
	post := func(where, body string) {
		t.Helper()
		p.want(204, "", "POST", base+where, body, "Content-Type", typeV2Name)
	}
	p.want(200, `{"partitions":[]}`, "GET", base+"/assignments", "")
	post("/assignments", places(topic, 1, 0))
	p.want(200, places(topic, 0, 1), "GET", base+"/assignments", "")
	p.want(200, `{"topics":[]}`, "GET", base+"/subscription", "")
	p.wantValues(p.readSome(base, "", 5), "a", "b", "c", "x", "y")

	seeks := []struct {
		where, body string
		want        []string
	}{
		{"/positions", `{"offsets":[{"topic":"%s","partition":0,"offset":1},{"topic":"%[1]s","partition":1,"offset":"1","metadata":"m"}]}`, []string{"b", "c", "y"}},
		{"/positions", `{"timestamps":[{"topic":"%s","partition":0,"timestamp":"2021-02-05T19:49:23Z","metadata":"m"}]}`, []string{"b", "c"}},
		{"/positions", `{"timestamps":[{"topic":"%s","partition":1,"timestamp":1612554563000}],"offsets":[{"topic":"%[1]s","partition":0,"offset":2}]}`, []string{"c", "y"}},
		{"/positions/beginning", `{"partitions":[{"topic":"%s","partition":1}]}`, []string{"x", "y"}},
		{"//positions//beginning/", `{"partitions":[{"topic":"%s","partition":1}]}`, []string{"x", "y"}},
	}
	for _, s := range seeks {
		post(s.where, fmt.Sprintf(s.body, topic))
		p.wantValues(p.readSome(base, "", len(s.want)), s.want...)
	}
	for _, s := range []struct{ where, body string }{
		{"/positions/end", places(topic, 0, 1)},
		{"/positions", fmt.Sprintf(`{"timestamps":[{"topic":"%s","partition":0,"timestamp":"2250-01-01T00:00:00Z"}]}`, topic)},
	} {
		post("/positions/beginning", places(topic, 0))
		post(s.where, s.body)
		p.wantValues(p.read(base, "?timeout=300"))
	}

	// The position sought is what a commit stores, and a GET of the offsets takes both its forms.
	post("/positions", fmt.Sprintf(`{"offsets":[{"topic":"%s","partition":0,"offset":1}]}`, topic))
	p.want(200, "[]", "POST", base+"/offsets", "", "Content-Type", typeV2Name)
	p.wantCommitted(group, topic, 0, 1)
	one := fmt.Sprintf(`{"offsets":[{"topic":"%s","partition":0,"offset":1,"metadata":""}]}`, topic)
	p.want(200, one, "GET", base+"/offsets", places(topic, 0))
	p.want(200, one[:len(one)-2]+fmt.Sprintf(`,{"topic":"%s","partition":1,"offset":2,"metadata":""}]}`, topic), "GET", base+"/offsets", "")
	p.want(200, `{"offsets":[]}`, "GET", base+"/offsets", `{"partitions":[]}`)
}

func TestSeekAndAssignRefuse(t *testing.T) {
	p := pullers(t)
	topic := p.k.Topic(t, "orders", 1)
	assigned, subscribed, idle := p.create(backend.Unique("g"), earliestJSON), p.create(backend.Unique("g"), earliestJSON), p.create(backend.Unique("g"), `{"consumer.request.timeout.ms":"300"}`)
	p.want(204, "", "POST", assigned+"/assignments", places(topic, 0, 99), "Content-Type", typeV2Name)
	p.want(204, "", "POST", idle+"/assignments", places(backend.Unique("nosuch"), 0), "Content-Type", typeV2Name)
	p.subscribe(subscribed, topic)
	const exclusive = `{"error_code":40903,"message":"Illegal state: Subscription to topics, partitions and pattern are mutually exclusive"}`
	unassigned := fmt.Sprintf(`{"error_code":40903,"message":"Illegal state: No current assignment for partition %s-5"}`, topic)
	offset := fmt.Sprintf(`{"offsets":[{"topic":"%s","partition":5,"offset":0}]}`, topic)
	for _, c := range []struct {
		where, body string
		status      int
		want        string
	}{
		{assigned + "/subscription", `{"topics":["` + topic + `"]}`, 409, exclusive},
		{assigned + "/subscription", `{"topic_pattern":".*"}`, 409, exclusive},
		{subscribed + "/assignments", places(topic, 0), 409, exclusive},
		{assigned + "/positions", offset, 409, unassigned},
		{subscribed + "/positions", offset, 409, unassigned},
		{subscribed + "/positions/end", places(topic, 0, 5), 409, unassigned},
		{assigned + "/assignments", "", 422, `{"error_code":422,"message":"partitions may not be empty (was null)"}`},
		{assigned + "/assignments", "null", 422, `{"error_code":422,"message":"partitions may not be empty (was null)"}`},
		{assigned + "/positions", "{}", 422, `{"error_code":422,"message":"offsets may not be empty (was null)"}`},
		{assigned + "/positions", `{"offsets":[{"topic":"t","partition":0,"offset":-1}]}`, 422, `{"error_code":422,"message":"offsets[0].offset must be greater than or equal to 0 (was -1)"}`},
		{assigned + "/positions", `{"offsets":[{"topic":"t","partition":0}]}`, 422, `{"error_code":422,"message":"offsets[0].offset may not be empty (was null)"}`},
		{assigned + "/positions", `{"timestamps":[{"topic":"t","partition":0,"timestamp":"soon"}]}`, 422, `{"error_code":422,"message":"timestamps[0].timestamp must be milliseconds since 1970 or an ISO 8601 time (was soon)"}`},
		{assigned + "/positions/end", `{"partitions":[{"topic":"t","partition":0,"offset":1}]}`, 422, `{"error_code":422,"message":"Unrecognized field: offset"}`},
	} {
		p.want(c.status, c.want, "POST", c.where, c.body, "Content-Type", typeV2Name)
	}
	p.want(200, "[]", "GET", idle+"/records", "")           // an unknown topic is just empty
	p.want(204, "", "DELETE", assigned+"/subscription", "") // ends the assignment
	p.want(200, `{"partitions":[]}`, "GET", assigned+"/assignments", "")
	p.subscribe(assigned, topic)
}

// Services that come from the Strimzi bridge send the next offset; clients that bear no unknown fields get none.
func TestTwoSettingsForClientsOfOtherProxies(t *testing.T) {
	p := pullers(t, func(c *Config, _ *consumers.Config) { c.Pull.CommitOffsets, c.Pull.RecordExtras = "next", false })
	topic, group := p.k.Topic(t, "orders", 1), backend.Unique("g")
	p.want(200, "*", "POST", "/topics/"+topic, `{"records":[{"value":"YQ==","headers":[{"key":"h","value":"YQ=="}]}]}`)
	base := p.consumer(group, earliestJSON, topic)
	p.want(200, fmt.Sprintf(`[{"topic":"%s","key":null,"value":"YQ==","partition":0,"offset":0}]`, topic), "GET", base+"/records", "")
	p.want(200, "[]", "POST", base+"/offsets", fmt.Sprintf(`{"offsets":[{"topic":"%s","partition":0,"offset":1}]}`, topic), "Content-Type", typeV2Name)
	p.wantCommitted(group, topic, 0, 1)
}

// A pattern picks up a topic within ten seconds of its creation (rest-api.md 7.2).
func TestAPatternFindsNewTopics(t *testing.T) {
	p := pullers(t)
	prefix := backend.Unique("pattern")
	base := p.create(backend.Unique("g"), earliestJSON)
	p.want(204, "", "POST", base+"/subscription", `{"topic_pattern":"`+prefix+`.*"}`, "Content-Type", typeV2Name)
	p.want(200, `{"topics":[]}`, "GET", base+"/subscription", "")
	topic := p.k.Topic(t, prefix, 1)
	p.produce(topic, 0, "new")
	p.wantValues(p.readSome(base, "?timeout=2000", 1), "new")
	await(t, "the topic in the list", func() bool {
		return p.call("GET", base+"/subscription", "").body == `{"topics":["`+topic+`"]}`
	})
}
