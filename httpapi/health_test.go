package httpapi

import (
	"errors"
	"strings"
	"testing"
	"time"

	"encoding/json"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicegate/sluice"
)

// The page that reads it knows these names and this order (operations-and-security.md 2.1).
func TestHealthHasTheShapeOfTheOtherServices(t *testing.T) {
	w := start(t)
	w.kafka.fail(&sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka did not answer in time.", Err: errors.New("dial tcp 10.1.2.3: canary")})
	w.store.fail(errors.New("canary"))
	w.srv.checks.look(t.Context())
	a := w.call("GET", "/__health", "", "Accept", "application/json")
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", a.status, a.header.Get("Content-Type"))
	}
	var report reportBody
	if err := json.Unmarshal([]byte(a.body), &report); err != nil {
		t.Fatal(err)
	}
	for i := range report.Checks {
		if _, err := time.Parse(time.RFC3339Nano, report.Checks[i].LastUpdated); err != nil {
			t.Error(err)
		}
		report.Checks[i].LastUpdated = ""
	}
	again, err := encode(report)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schemaVersion":1,"systemCode":"msk-kafka-proxy","name":"UPP - MSK Kafka REST Proxy (Sluice)","description":"REST, webhook and SSE access to Kafka","checks":[` +
		`{"id":"kafka-reachable","name":"Kafka brokers are reachable","ok":false,"severity":1,"businessImpact":"Publishing services cannot send or receive messages; content will not be published.",` +
		`"technicalSummary":"Sluice cannot fetch metadata from Kafka. Check the brokers, the security groups and the setting SLUICE_KAFKA_BROKERS.","panicGuide":"https://runbooks.ftops.tech/msk-kafka-proxy",` +
		`"checkOutput":"Kafka did not answer in time.","lastUpdated":""},` +
		`{"id":"redis-reachable","name":"Redis is reachable","ok":false,"severity":2,"businessImpact":"Subscriptions cannot be created or changed. Deliveries go on.",` +
		`"technicalSummary":"Redis does not answer within 1 s. Check the server and the setting SLUICE_REDIS_URL.","panicGuide":"https://runbooks.ftops.tech/msk-kafka-proxy",` +
		`"checkOutput":"redis-reachable: no answer within 1s","lastUpdated":""}],"ok":false,"severity":1}`
	if diff := cmp.Diff(want, string(again)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if order := strings.Index(a.body, `"schemaVersion"`); order != 1 || strings.Contains(a.body, "canary") {
		t.Errorf("%s", a.body)
	}
	page := w.call("GET", "/__health", "", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if page.header.Get("Content-Type") != "text/html; charset=utf-8" || page.header.Get("Content-Security-Policy") != "default-src 'none'" ||
		!strings.Contains(page.body, `<a href="https://runbooks.ftops.tech/msk-kafka-proxy">`) || strings.Contains(page.body, "canary") {
		t.Errorf("%s", page.body)
	}

	w.kafka.fail(nil)
	w.store.fail(nil)
	w.srv.checks.look(t.Context())
	if a := w.call("GET", "/__health", ""); !strings.HasSuffix(a.body, `],"ok":true}`) {
		t.Errorf("healthy: %s", a.body)
	}
}

// Kafka makes a replica unfit only when it has been gone for longer than the grace: else one short outage would empty
// the load balancer. Redis never does.
func TestReadinessWaitsForTheGrace(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.GTGKafkaGrace = 0 })
	w.store.fail(errors.New("gone"))
	w.srv.checks.look(t.Context())
	w.call("GET", "/__gtg", "").want(t, 200, "OK")
	w.kafka.fail(errors.New("gone"))
	w.srv.checks.look(t.Context())
	eventually(t, "503", func() bool { return w.call("GET", "/__gtg", "").status == 503 })
	w.call("GET", "/__gtg", "").want(t, 503, "Kafka has been out of reach for more than 0s")
	w.call("GET", "/__live", "").want(t, 200, "OK")
	w.kafka.fail(nil)
	w.srv.checks.look(t.Context())
	w.call("GET", "/__gtg", "").want(t, 200, "OK")

	patient := start(t)
	patient.kafka.fail(errors.New("gone"))
	patient.srv.checks.look(t.Context())
	patient.call("GET", "/__gtg", "").want(t, 200, "OK")
}

func TestTheProbesAnswerExactly(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) {
		c.Build = Build{Version: "1.2.3", Repository: "https://github.com/Financial-Times/x.git", Revision: "XYZ", Builder: "go version go1.26 linux/amd64", DateTime: "20261123044000"}
	})
	a := w.call("GET", "/__gtg", "")
	a.want(t, 200, "OK")
	if a.header.Get("Content-Type") != "text/plain; charset=US-ASCII" || a.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("%v", a.header)
	}
	a = w.call("POST", "/__gtg", "")
	a.want(t, 405, `{"error":"Method POST not allowed"}`)
	if a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow %q", a.header.Get("Allow"))
	}
	w.call("HEAD", "/__gtg", "").want(t, 200, "")
	w.call("GET", "/__ping", "").want(t, 200, "pong")
	for _, path := range []string{"/__build-info", "/build-info"} {
		a := w.call("GET", path, "")
		a.want(t, 200, `{"version":"1.2.3","repository":"https://github.com/Financial-Times/x.git","revision":"Revision XYZ does not match regex ^[0-9a-f]{5,40}$","builder":"go version go1.26 linux/amd64","dateTime":"20261123044000"}`)
		if ct := a.header.Get("Content-Type"); ct != "application/json; charset=UTF-8" {
			t.Errorf("Content-Type %q", ct)
		}
	}
	a = w.call("GET", "/metrics", "")
	if a.status != 200 || !strings.Contains(a.body, `sluice_http_requests_total{code="200",method="GET",route="/__ping"} 1`) || !strings.Contains(a.body, "sluice_inflight_limit_bytes 2.68435456e+08") {
		t.Errorf("%d %.2000s", a.status, a.body)
	}

	unready := startTuned(t, func(s *Server) {})
	unready.srv.ready.Store(false)
	unready.call("GET", "/__gtg", "").want(t, 503, "starting")
}

func TestTheRootPageIsForBrowsers(t *testing.T) {
	w := start(t, func(_ *Config, n *Needs) { n.RootPage = []byte("<!doctype html>hello") })
	w.call("GET", "/", "", "Accept", "text/html,*/*;q=0.8").want(t, 200, "<!doctype html>hello")
	w.call("GET", "/", "").want(t, 200, "{}")
	w.call("POST", "/", "", "Accept", "text/html,*/*;q=0.8").want(t, 200, "{}")
}
