package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// unknownAndStopped is the second half of rest-api.md 15.2 (R9, R10): each route when the topic is unknown, and when
// Kafka or Redis is gone.
func unknownAndStopped(t *testing.T, s *server) {
	i := s.create(t, "", quick, bareV1)
	for _, r := range classic {
		if !strings.Contains(r.path, "{t}") {
			continue
		}
		for method := range strings.FieldsSeq(r.methods) {
			ask := request{method: method, path: strings.NewReplacer("{t}", s.unknown(t), "{p}", "0", "{i}", i.path).Replace(r.path)}
			if method == "POST" {
				ask.body, ask.contentType = oneRecord, binaryV1
			}
			s.row(t, "unknown topic, "+method+" "+r.path, func(t *testing.T) {
				// Well under a second is the promise (1.4); a busy machine gets more. Twice: once the name is new.
				for range 2 {
					if a := s.expect(t, ask, unknownTopic); a.took > 3*time.Second {
						s.differ(t, "%v: the answer took %s", ask, a.took)
					}
				}
			})
		}
	}
	stopped(t, s)
}

// stopped is a gateway whose Kafka, and then whose Redis, goes away under it.
func stopped(t *testing.T, s *server) {
	if !s.ours || s.kafka.Real() {
		s.row(t, "stopped Kafka", func(t *testing.T) { s.notRun(t, "stops the Kafka, which nobody else may be using; runs on kfake") })
		return
	}
	kafka, err := sandbox.StartKafka(sandbox.KafkaConfig{Topics: map[string]int32{"orders": 2}})
	if err != nil {
		t.Fatal(err)
	}
	running := true
	stop := func() {
		if running {
			kafka.Close()
			running = false
		}
	}
	t.Cleanup(stop)
	redis := backend.RedisServer(t)
	g := &server{kafka: &backend.Broker{Name: s.kafka.Name, Brokers: kafka.Brokers}, ours: true, report: s.report}
	g.url = start(t, kafka.Brokers, "SLUICE_REDIS_URL="+redis.URL, "SLUICE_PRODUCE_TIMEOUT=2s").URL
	g.fill(t, "orders", 0, "a", "b", "c")

	// Everything is in use before it goes: connections, metadata, a group, positions.
	const reads = `{"auto.offset.reset":"earliest","auto.commit.enable":"false","consumer.request.timeout.ms":"1000"}`
	old, member, placed := g.create(t, "", reads, bareV1), g.subscribed(t, "", reads, "orders"), g.assigned(t, "", reads, "orders", 0)
	sought := g.assigned(t, "", reads, "orders", 0) // a read beside a seek would only wait for its turn
	old.untilV1(t, "orders", "?max_bytes=1")
	member.some(t, "?max_bytes=1", 1)
	placed.some(t, "?max_bytes=1", 1)
	sought.some(t, "?max_bytes=1", 1)
	g.expect(t, request{method: "POST", path: "/topics/orders", body: oneRecord}, want{status: 200})
	g.expect(t, request{method: "GET", path: "/topics"}, want{status: 200})
	stop()

	away := want{status: 503, code: 50302, like: ".+", header: map[string]string{"Retry-After": "*"}}
	eventually(t, 30*time.Second, "the gateway sees that Kafka is gone", func() bool { // it keeps metadata for 3 s
		return g.ask(t, request{method: "GET", path: "/topics"}).status == http.StatusServiceUnavailable
	})
	// A record that was on its way when the connection broke is of unknown outcome, and its slot says so.
	eventually(t, 30*time.Second, "a produce is not attempted", func() bool {
		return g.ask(t, request{method: "POST", path: "/topics/orders", body: oneRecord}).status == http.StatusServiceUnavailable
	})
	offsets := `{"offsets":[{"topic":"orders","partition":0,"offset":0}]}`
	t.Run("stopped Kafka", func(t *testing.T) {
		for _, r := range []struct {
			method, path, body string
			want               want
		}{
			{"GET", "/", "", want{status: 200, json: `{}`}},
			{"GET", "/brokers", "", away},
			{"GET", "/topics", "", away},
			{"GET", "/topics/orders", "", away},
			{"GET", "/topics/nosuch", "", away},
			{"GET", "/topics/orders/partitions", "", away},
			{"GET", "/topics/orders/partitions/0", "", away},
			{"GET", "/topics/orders/partitions/0/offsets", "", away},
			{"GET", "/topics/orders/partitions/0/messages", "", away},
			{"GET", "/topics/orders/partitions/0/records", "", away},
			{"POST", "/topics/orders", oneRecord, away},
			{"POST", "/topics/orders/partitions/0", oneRecord, away},
			{"POST", "/topics/nosuch", oneRecord, away},
			{"POST", "/topics/orders?async=true", oneRecord, away},
			{"GET", "{old}/topics/orders", "", away},
			{"POST", "{old}/offsets", "", away},
			{"GET", "{member}/records", "", away},
			{"POST", "{member}/offsets", "", away},
			{"GET", "{member}/offsets", "", away},
			{"GET", "{placed}/records", "", away},
			{"POST", "{placed}/offsets", offsets, away},
			{"GET", "{placed}/offsets", places("orders", 0), away},
			{"POST", "{sought}/positions/beginning", places("orders", 0), away},
			{"POST", "{sought}/positions/end", places("orders", 0), away},

			{"POST", "/consumers/later", `{}`, want{status: 200}}, // creating one needs no Kafka
			{"GET", "{member}/subscription", "", want{status: 200, json: `{"topics":["orders"]}`}},
			{"GET", "{placed}/assignments", "", want{status: 200, json: places("orders", 0)}},
			{"POST", "{sought}/positions", offsets, want{status: 204}},
		} {
			s.row(t, r.method+" "+r.path, func(t *testing.T) {
				t.Parallel() // a commit waits ten seconds for Kafka
				ask := request{method: r.method, path: strings.NewReplacer("{old}", old.path, "{member}", member.path, "{placed}", placed.path, "{sought}", sought.path).Replace(r.path), body: r.body}
				if r.body != "" {
					ask.contentType = bareV2
				}
				if a := g.expect(t, ask, r.want); a.took > 15*time.Second {
					s.differ(t, "%v: the answer took %s", ask, a.took)
				}
			})
		}
	})
	s.row(t, "stopped Kafka, instances can be given up", func(t *testing.T) {
		for _, i := range []instance{old, member, placed, sought} {
			g.expect(t, request{method: "DELETE", path: i.path}, want{status: 204})
		}
	})
	redis.Stop(t)
	s.row(t, "stopped Redis, no instance can be made", func(t *testing.T) {
		a := g.expect(t, request{method: "POST", path: "/consumers/later", contentType: bareV2, body: `{}`}, want{status: 503, code: 503, like: ".+", header: map[string]string{"Retry-After": "*"}})
		if a.took > 15*time.Second {
			s.differ(t, "%v: the answer took %s", a.asked, a.took)
		}
	})
}

// produceComplaints are the rows of rest-api.md 14 that are about producing, errors and probes. What 1.4, 4.2, 4.4 and 15.2
// show of them already is not shown again.
func produceComplaints(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c14-produce", 1)
	s.row(t, "R3 headers and timestamps in both directions", func(t *testing.T) {
		const record = `"timestamp":1612554562000,"headers":[{"key":"trace","value":"YQ=="},{"key":"trace","value":null},{"key":"é","value":""}]`
		a := s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: `{"records":[{"key":"aw==","value":"dg==",` + record + `}]}`}, want{status: 200})
		at := s.written(t, topic, a).Offset
		s.expect(t, request{method: "GET", path: fmt.Sprintf("/topics/%s/partitions/0/records?offset=%d&count=1", topic, at)}, want{status: 200, typ: binaryV2,
			json: fmt.Sprintf(`[{"topic":%q,"key":"aw==","value":"dg==","partition":0,"offset":%d,%s}]`, topic, at, record)})
	})
	s.row(t, "R13 a record that is too large fails no other request", func(t *testing.T) {
		narrow := s.kafka.Topic(t, "c14-narrow", 1, "max.message.bytes=3000")
		const requests = 24
		answers := make(chan error, requests)
		for n := range requests { // at once, so that they share batches
			go func() {
				value, expected := `"`+strings.Repeat("YWJj", 20)+`"`, good(0, `"<any>"`)
				if n%4 == 0 {
					value, expected = `"`+strings.Repeat("YWJj", 2000)+`"`, `{"partition":null,"offset":null,"error_code":50002,"error":"<any>"}`
				}
				a, err := s.try(t.Context(), request{method: "POST", path: "/topics/" + narrow, contentType: binaryV2, body: `{"records":[{"value":` + value + `}]}`})
				if d := (want{status: 200, json: slots(expected)}).differences(a); err == nil && len(d) > 0 {
					err = fmt.Errorf("request %d: %s", n, strings.Join(d, "; "))
				}
				answers <- err
			}()
		}
		for range requests {
			if err := <-answers; err != nil {
				s.differ(t, "%v", err)
			}
		}
	})
	s.row(t, "R14 an error names limit, record and field", func(t *testing.T) {
		s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: binaryV2, body: `{"records":[{"key":"?"},{"key":"?"}]}`}, want{status: 422, code: 422, message: "Record key contains invalid base64 encoding", detail: `^records\[0\]\.key`})
	})
	s.row(t, "R18 probes tell about Kafka", func(t *testing.T) {
		if !s.ours {
			s.notRun(t, "asks Sluice's own /__health")
		}
		var health struct {
			Checks []struct {
				ID string
				OK bool
			}
		}
		s.expect(t, request{method: "GET", path: "/__health"}, want{status: 200}).into(t, &health)
		for _, c := range health.Checks {
			if c.ID == "kafka-reachable" && c.OK {
				return
			}
		}
		s.differ(t, "/__health has no good check of Kafka: %+v", health)
	})
	s.row(t, "R19 a client's mistake is never a 500, and shows nothing of the inside", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		for _, ask := range []request{
			{method: "GET", path: "/topics/%ff"}, {method: "GET", path: "/topics/%00"}, {method: "GET", path: "/topics/" + strings.Repeat("a", 300)}, {method: "GET", path: "/topics/.."}, {method: "GET", path: "/topics/%2e%2e"},
			{method: "GET", path: "/topics/" + topic + "/partitions/99999999999999999999"}, {method: "GET", path: "/topics/" + topic + "/partitions/0/messages?count=-1"},
			{method: "GET", path: "/topics/" + topic + "/partitions/0/messages?timestamp=yesterday"}, {method: "GET", path: i.path + "/records?max_bytes=-1"},
			{method: "POST", path: "/topics/" + topic, body: `{"records":[{"value":"YQ==","partition":99999999999}]}`}, {method: "POST", path: "/topics/" + topic, body: `{"records":[{"value":"YQ==","timestamp":99999999999999999999}]}`},
			{method: "POST", path: "/topics/" + topic, body: "\x00\x01\x02"}, {method: "POST", path: "/topics/" + topic, contentType: jsonV2, body: `{"records":[{"value":1e999999999}]}`},
			{method: "POST", path: "/consumers/" + strings.Repeat("g", 300)}, {method: "POST", path: "/consumers/a%2Fb"}, {method: "POST", path: "/consumers/%00"},
			{method: "POST", path: i.path + "/subscription", contentType: bareV2, body: `{"topic_pattern":"("}`}, {method: "POST", path: i.path + "/positions", contentType: bareV2, body: `{"offsets":[{"topic":"a","partition":-1,"offset":0}]}`},
			{method: "POST", path: i.path + "/offsets", contentType: bareV2, body: `{"offsets":[{"topic":"","partition":0,"offset":9223372036854775807}]}`},
		} {
			a := s.ask(t, ask)
			text := strings.ToLower(string(a.body))
			for _, inside := range []string{"goroutine", ".go:", "sarama", "panic", "fasthttp", "runtime error"} {
				if strings.Contains(text, inside) {
					s.differ(t, "%v: %v shows %q", ask, a, inside)
				}
			}
			if a.status >= 500 {
				s.differ(t, "%v: %v", ask, a)
			}
		}
	})
}
