package httpapi

import (
	"regexp"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Everything but what operators need has a name by which it can be taken away.
func TestEveryOperationHasAName(t *testing.T) {
	named := map[string]bool{}
	parameter := regexp.MustCompile(`:(\w+)`)
	for row := range operationNames {
		named[parameter.ReplaceAllString(row, "{$1}")] = true
	}
	served := map[string]bool{}
	for _, row := range allRoutes() {
		served[row] = true
		_, path, _ := strings.Cut(row, " ")
		operators := strings.HasPrefix(path, "/__") || path == "/metrics" || path == "/build-info"
		if named[row] == operators {
			t.Errorf("%s: named %v, for operators %v", row, named[row], operators)
		}
	}
	for row := range named {
		if !served[row] {
			t.Errorf("%s has a name and is not served", row)
		}
	}
}

func TestBlockedOperationsAreUnknownPaths(t *testing.T) {
	const unknown = `{"error_code":404,"message":"HTTP 404 Not Found"}`
	w := start(t, func(c *Config, _ *Needs) {
		c.API.Block = []string{"api.v2.topics.list", "api.v2.partitions.*", "api.v2.produce-to-topic.json", "api.v3.topics.delete"}
	})
	for path, status := range map[string]int{"/topics": 404, "/topics/orders": 200, "/topics/orders/partitions": 404, "/topics/orders/partitions/0": 405, "/brokers": 200, "/__gtg": 200} {
		if a := w.call("GET", path, ""); a.status != status || status == 404 && a.body != unknown {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	w.call("POST", "/topics/orders", `{"records":[{"value":1}]}`, "Content-Type", "application/vnd.kafka.json.v2+json").want(t, 404, unknown)
	if a := w.call("POST", "/topics/orders", `{"records":[{"value":"dg=="}]}`); a.status != 200 {
		t.Errorf("binary: %d %s", a.status, a.body)
	}

	w = start(t, func(c *Config, _ *Needs) { c.API.Allow = []string{"api.v2.topics.*", "api.v2.produce-to-topic.binary"} })
	for path, status := range map[string]int{"/topics": 200, "/topics/orders": 200, "/topics/orders/partitions": 404, "/brokers": 404, "/": 404, "/__gtg": 200, "/metrics": 200} {
		if a := w.call("GET", path, ""); a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	w.call("POST", "/topics/orders", `{"records":[{"value":1}]}`, "Content-Type", "application/vnd.kafka.json.v2+json").want(t, 404, unknown)
	if a := w.call("POST", "/topics/orders", `{"records":[{"value":"dg=="}]}`); a.status != 200 {
		t.Errorf("binary: %d %s", a.status, a.body)
	}
}

func TestABlockedFormatIsNotReadEither(t *testing.T) {
	p := pullers(t, func(c *Config, _ *consumers.Config) { c.API.Block = []string{"api.v2.consumers.consume-json"} })
	topic := p.k.Topic(t, "t", 1)
	for format, status := range map[string]int{"json": 404, "binary": 200} {
		base := p.create(backend.Unique("g"), `{"format":"`+format+`"}`)
		p.want(status, "*", "GET", base+"/topics/"+topic, "")
	}
}

// Without v2 the paths that only it has answer 404, its media types 406 and 415; v1 works on.
func TestWithoutV2(t *testing.T) {
	p := pullers(t, func(c *Config, _ *consumers.Config) { c.API.V2 = false })
	topic := p.k.Topic(t, "t", 1)
	v2Type := []string{"Content-Type", typeV2Name}
	p.want(415, "*", "POST", "/consumers/"+backend.Unique("g"), `{}`, v2Type...)
	p.want(406, "*", "GET", "/topics", "", "Accept", typeV2Name)
	p.want(415, "*", "POST", "/topics/"+topic, `{"records":[{"value":"dg=="}]}`, "Content-Type", "application/vnd.kafka.binary.v2+json")
	a := p.want(200, "*", "POST", "/consumers/"+backend.Unique("g"), `{"auto.offset.reset":"smallest"}`, "Content-Type", "application/json")
	_, rest, _ := strings.Cut(a.body, `"base_uri":"`)
	base := strings.TrimPrefix(strings.TrimSuffix(rest, `"}`), p.url)
	for _, path := range []string{"/subscription", "/assignments", "/records"} {
		p.want(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, "GET", base+path, "")
	}
	p.want(404, "*", "GET", "/topics/"+topic+"/partitions/0/records", "")
	a = p.want(200, "*", "POST", "/topics/"+topic, `{"records":[{"value":"dg=="}]}`, "Content-Type", "application/vnd.kafka.binary.v1+json")
	if a.header.Get("Content-Type") != "application/vnd.kafka.v1+json" {
		t.Errorf("%v", a.header)
	}
	eventually(t, "the record is read", func() bool {
		return strings.Contains(p.want(200, "*", "GET", base+"/topics/"+topic, "").body, `"value":"dg=="`)
	})
	p.want(406, "*", "GET", base+"/topics/"+topic, "", "Accept", "application/vnd.kafka.binary.v2+json")
	p.want(204, "", "DELETE", base, "")
}

// A name that nothing has would leave open what it was to close.
func TestAMisspeltOperationIsRefused(t *testing.T) {
	for name, ok := range map[string]bool{
		"api.v2.topics.list": true, "api.v2.consumers.*": true, "api.v2.produce-to-topic.json-schema": true, "api.v2.consumers.consume-protobuf": true, "api.v3.anything": true, "api.*": true, "api.events.*": true,
		"api.v2.topic.list": false, "api.v2.topics": false, "*": false, "": false, "api.v2.produce-to-topic.xml": false, "api.v2.consumers.consume-*": false,
	} {
		if err := (APIConfig{V2: true, Block: []string{name}}).validate(); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
