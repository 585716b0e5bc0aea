package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// wantBodies compares the bodies of FTMSG messages.
func (s *server) wantBodies(t *testing.T, all []message, want ...string) {
	t.Helper()
	var have []string
	for _, m := range all {
		have = append(have, ftBody(m.Value))
	}
	if strings.Join(have, "|") != strings.Join(want, "|") {
		s.differ(t, "messages %.200q, want %.200q", have, want)
	}
}

// commonRules is rest-api.md 9.1.
func commonRules(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "NativeCmsPublicationEvents", 4)
	for _, accept := range []string{"Accept: application/json", takesV2, ""} {
		s.row(t, "probe, "+strings.ReplaceAll(accept, "/", " "), func(t *testing.T) {
			c := s.script(t, goV1, "", topic)
			headers := []string{"Host: {host}", goAgent, gzipped}
			if accept != "" {
				headers = []string{"Host: {host}", goAgent, accept, gzipped}
			}
			eventually(t, 6*time.Second, "the topic in the list", func() bool { // which may be 3 s old
				a, err := c.step(200, "GET", c.prefix+"/topics", headers, "")
				s.must(t, err)
				var topics []string
				a.into(t, &topics)
				return slices.Contains(topics, topic)
			})
		})
	}
	s.row(t, "n streams are n instances in one group", func(t *testing.T) {
		const streams, count = 4, 200
		group := backend.Unique("script")
		for n := range count {
			s.fill(t, topic, int32(n%4), ftMessage(n, fmt.Sprint(n)))
		}
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for range streams {
			c := s.script(t, goV1, group, topic)
			wg.Go(func() {
				_, err := c.make("smallest")
				for until := time.Now().Add(30 * time.Second); err == nil && time.Now().Before(until); {
					var some []message
					if some, _, err = c.get(); err != nil {
						break
					}
					mu.Lock()
					for _, m := range some {
						seen[ftBody(m.Value)]++
					}
					all := len(seen) == count
					mu.Unlock()
					if _, err = c.save(); all {
						break
					}
				}
				if err == nil {
					err = c.end()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(seen) != count {
			s.differ(t, "%d of %d messages came", len(seen), count)
		}
	})
}

// scriptA is rest-api.md 9.2, with its tests (a) to (h).
func scriptA(t *testing.T, s *server) {
	topic := func(t *testing.T) string {
		t.Helper()
		return s.kafka.Topic(t, "NativeCmsPublicationEvents", 1, "max.message.bytes=25165824")
	}
	s.row(t, "the script", func(t *testing.T) {
		c := s.script(t, goV1, "", topic(t))
		a, err := c.make("smallest")
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV1, json: `{"instance_id":"<any>","base_uri":"<any>"}`})
		s.fill(t, c.topic, 0, ftMessage(0, "one"), ftMessage(1, "two"))
		s.wantBodies(t, c.messages(t, s, 2, false), "one", "two")
		a, err = c.save()
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV1, json: fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":1,"committed":1}]`, c.topic)})
		s.wantCommitted(t, c.group, c.topic, 0, 2)
		_, a, err = c.get()
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: plainJSON, body: "[]"})
		s.must(t, c.end())
		a, err = c.step(404, "DELETE", c.path, c.remove, "") // only logged by the client
		s.must(t, err)
		s.compare(t, a, gone("deleted by the client"))
		_, err = c.make("smallest") // and again, on the next address
		s.must(t, err)
		s.fill(t, c.topic, 0, ftMessage(2, "three"))
		s.wantBodies(t, c.messages(t, s, 1, true), "three")
		s.must(t, c.end())
	})
	s.row(t, "every word for reset that the contract knows", func(t *testing.T) {
		mine := topic(t)
		for _, word := range []string{"largest", "smallest", "latest", "earliest", "none"} {
			c := s.script(t, goV1, "", mine)
			_, err := c.make(word)
			s.must(t, err)
			s.must(t, c.end())
		}
	})
	s.row(t, "(a) a commit right after an empty read", func(t *testing.T) {
		c := s.script(t, goV1, "", topic(t))
		_, err := c.make("largest")
		s.must(t, err)
		for range 2 {
			some, _, err := c.get()
			s.must(t, err)
			s.wantBodies(t, some)
			a, err := c.save()
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: bareV1, body: "[]"})
		}
		s.must(t, c.end())
	})
	s.row(t, "(b) gone when idle, and a new one works", func(t *testing.T) {
		t.Parallel()
		own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=1000")
		c := own.script(t, goV1, "", topic(t))
		_, err := c.make("smallest")
		own.must(t, err)
		own.awaitExpiry(t, c.group)
		a, err := c.step(404, "GET", c.path+"/topics/"+c.topic, c.read, "")
		own.must(t, err)
		own.compare(t, a, want{status: 404, typ: plainJSON, code: 40403, message: "Consumer instance not found.", detail: "expired after 1 s without a request"})
		_, err = c.make("smallest")
		own.must(t, err)
		s.fill(t, c.topic, 0, ftMessage(0, "one"))
		own.wantBodies(t, c.messages(t, own, 1, true), "one")
		own.must(t, c.end())
	})
	s.row(t, "(c) gzip for those who ask, (d) 16 MiB", func(t *testing.T) {
		large := ftMessage(0, strings.Repeat("0123456789abcdef", 1<<20))
		large = large[:16<<20]
		plain := goV1
		plain.read = []string{"Host: {host}", goAgent, "Accept: application/json"}
		mine := topic(t)
		s.fill(t, mine, 0, large)
		for name, d := range map[string]dialect{"gzip": goV1, "": plain} {
			c := s.script(t, d, "", mine)
			_, err := c.make("smallest")
			s.must(t, err)
			var all []message
			eventually(t, 20*time.Second, "the large message", func() bool {
				some, a, err := c.get()
				s.must(t, err)
				if len(some) > 0 && a.header.Get("Content-Encoding") != name {
					s.differ(t, "Content-Encoding %q, want %q", a.header.Get("Content-Encoding"), name)
				}
				all = append(all, some...)
				return len(all) == 1
			})
			if all[0].Value != large {
				s.differ(t, "%d bytes came, and not those that were sent", len(all[0].Value))
			}
			s.must(t, c.end())
		}
	})
	s.row(t, "(e) Host: kafka", func(t *testing.T) {
		c := s.script(t, goV1, "", topic(t))
		c.host = "kafka"
		_, err := c.make("smallest")
		s.must(t, err)
		if !strings.HasPrefix(c.base, "http://kafka/consumers/"+c.group+"/instances/") {
			s.differ(t, "base_uri %q", c.base)
		}
		s.fill(t, c.topic, 0, ftMessage(0, "one"))
		s.wantBodies(t, c.messages(t, s, 1, true), "one")
		s.must(t, c.end())
	})
	s.row(t, "(f) killed between read and commit", func(t *testing.T) {
		t.Parallel()
		own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=2000")
		c := own.script(t, goV1, "", topic(t))
		s.fill(t, c.topic, 0, ftMessage(0, "one"), ftMessage(1, "two"))
		_, err := c.make("smallest")
		own.must(t, err)
		own.wantBodies(t, c.messages(t, own, 2, false), "one", "two")
		c.hangUp() // it will not come back, and sends no DELETE
		next := own.script(t, goV1, c.group, c.topic)
		_, err = next.make("smallest")
		own.must(t, err)
		own.wantBodies(t, next.messages(t, own, 2, true), "one", "two")
		own.must(t, next.end())
	})
	s.row(t, "(g) largest on a new group", func(t *testing.T) {
		c := s.script(t, goV1, "", topic(t))
		s.fill(t, c.topic, 0, ftMessage(0, "before"))
		_, err := c.make("largest")
		s.must(t, err)
		some, _, err := c.get()
		s.must(t, err)
		s.wantBodies(t, some)
		c.fromTheEnd(t, s, "after")
		s.must(t, c.end())
	})
	s.row(t, "(h) one that was left behind holds nobody up for long", func(t *testing.T) {
		t.Parallel()
		own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=2000")
		left := own.script(t, goV1, "", topic(t))
		_, err := left.make("smallest")
		own.must(t, err)
		_, _, err = left.get() // it has the only partition
		own.must(t, err)
		left.hangUp()
		began := time.Now()
		s.fill(t, left.topic, 0, ftMessage(0, "one"))
		c := own.script(t, goV1, left.group, left.topic)
		_, err = c.make("smallest")
		own.must(t, err)
		own.wantBodies(t, c.messages(t, own, 1, true), "one")
		if took := time.Since(began); took > 15*time.Second {
			own.differ(t, "the message came after %v", took)
		}
		own.must(t, c.end())
	})
}

// fromTheEnd produces until a message comes: the end is found some time after the join. It must be the first that comes.
func (c *scripted) fromTheEnd(t *testing.T, s *server, body string) (last message) {
	t.Helper()
	eventually(t, 20*time.Second, "a message from behind the end", func() bool {
		s.fill(t, c.topic, 0, ftMessage(1, body))
		some, _, err := c.get()
		s.must(t, err)
		_, err = c.save()
		s.must(t, err)
		for _, last = range some {
			if ftBody(last.Value) != body {
				s.differ(t, "it read %q", last.Value)
			}
		}
		return len(some) > 0
	})
	return last
}

// awaitExpiry returns when an instance that nobody calls has expired: one that was made after all others has.
func (s *server) awaitExpiry(t *testing.T, group string) {
	t.Helper()
	make := request{method: "POST", path: "/consumers/" + group, contentType: bareV2, body: `{"id":"last"}`}
	s.expect(t, make, want{status: 200})
	eventually(t, 20*time.Second, "the expiry of an idle instance", func() bool { return s.ask(t, make).status == 200 })
}

// scriptB is rest-api.md 9.3.
func scriptB(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "NativeCmsPublicationEvents", 1)
	s.fill(t, topic, 0, ftMessage(0, "before"))
	for _, group := range []string{backend.Unique("v2-suggestor"), backend.Unique("v2:suggestor")} {
		s.row(t, "the script, "+strings.ReplaceAll(group[:12], ":", " colon "), func(t *testing.T) {
			c := s.script(t, goV2, group, topic)
			a, err := c.make("latest")
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: bareV2, json: `{"instance_id":"<any>","base_uri":"<any>"}`})
			_, a, err = c.get()
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: bareV2, body: "[]"})
			_, err = c.save()
			s.must(t, err)
			last := c.fromTheEnd(t, s, "after "+group)
			s.wantCommitted(t, c.group, topic, 0, last.Offset+1)
			s.must(t, c.end())
		})
	}
	s.row(t, "none without a commit", func(t *testing.T) {
		c := s.script(t, goV2, "", topic)
		_, err := c.make("none")
		s.must(t, err)
		a, err := c.step(500, "GET", c.path+"/records", c.read, "")
		s.must(t, err)
		s.compare(t, a, want{status: 500, typ: bareV2, code: 50002, like: "Kafka error: .+"})
		s.must(t, c.end())
	})
}

// otherScripts is rest-api.md 9.4: C and D produce, E and F consume.
func otherScripts(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "CmsPublicationEvents", 1)
	encoded := base64.StdEncoding.EncodeToString
	s.row(t, "C", func(t *testing.T) {
		c := s.script(t, goV1, "", topic)
		headers := []string{"Host: {host}", goAgent, "Content-Length: {length}", "Content-Type: " + binaryV1, gzipped}
		value := ftMessage(1, `{"uuid":"c"}`)
		for _, key := range []string{encoded([]byte("9e4eeaf5-0cbd-4e2f-8a47-6e4f2f7d0c3d")), ""} {
			a, err := c.step(200, "POST", c.prefix+"/topics/"+topic, headers, `{"records":[{"key":"`+key+`","value":"`+encoded([]byte(value))+`"}]}`)
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: bareV1, json: slots(good(0, `"<any>"`))})
			r := s.written(t, topic, a)
			if encoded(r.Key) != key || r.Key == nil || string(r.Value) != value { // without a key it is a zero-length one
				s.differ(t, "Kafka holds key %q (nil %t), value %q", r.Key, r.Key == nil, r.Value)
			}
		}
		c.host = "kafka"
		_, err := c.step(200, "POST", c.prefix+"/topics/"+topic, headers, `{"records":[{"key":"","value":"`+encoded([]byte(value))+`"}]}`)
		s.must(t, err)
	})
	s.row(t, "C sees a failure where the status is strict", func(t *testing.T) {
		own := s.own(t, "SLUICE_PRODUCE_STATUS=strict")
		small := s.kafka.Topic(t, "CmsPublicationEvents", 1, "max.message.bytes=1000")
		c := own.script(t, goV1, "", small)
		headers := []string{"Host: {host}", goAgent, "Content-Length: {length}", "Content-Type: " + binaryV1, gzipped}
		_, err := c.step(500, "POST", c.prefix+"/topics/"+small, headers, `{"records":[{"key":"","value":"`+encoded(make([]byte, 2000))+`"}]}`)
		own.must(t, err)
	})
	s.row(t, "D", func(t *testing.T) {
		c := s.script(t, javaV1, "", topic)
		headers := []string{"Content-Type: application/json", "Accept: application/json", javaAgent, "Host: {host}", "Connection: keep-alive", "Content-Length: {length}"}
		value := ftMessage(2, `{"uuid":"d"}`)
		for _, key := range []string{`"key":"` + encoded([]byte("key")) + `",`, ""} {
			a, err := c.step(200, "POST", c.prefix+"/topics/"+topic, headers, `{"records":[{`+key+`"value":"`+encoded([]byte(value))+`"}]}`)
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: plainJSON, json: slots(good(0, `"<any>"`))})
			r := s.written(t, topic, a)
			if (r.Key == nil) != (key == "") || string(r.Value) != value {
				s.differ(t, "Kafka holds key %q (nil %t), value %q", r.Key, r.Key == nil, r.Value)
			}
		}
		probe := []string{javaAgent, "Host: {host}", javaAccept, "Connection: keep-alive"}
		_, err := c.step(200, "GET", c.prefix+"/topics/"+topic, probe, "")
		s.must(t, err)
		_, err = c.step(404, "GET", c.prefix+"/topics/"+backend.Unique("missing"), probe, "") // topic missing
		s.must(t, err)
	})
	s.row(t, "E", func(t *testing.T) {
		mine := s.kafka.Topic(t, "CmsPublicationEvents", 1)
		s.fill(t, mine, 0, ftMessage(0, "one"), ftMessage(1, "two"))
		for _, queue := range []string{"", "kafka"} { // where a queue is set, it replaces host and port of base_uri
			c := s.script(t, javaV1, "", mine)
			if queue != "" {
				c.host = queue
			}
			a, err := c.make("smallest")
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: bareV1})
			if !strings.HasPrefix(c.base, "http://"+c.host+c.prefix+"/consumers/") { // it goes there
				s.differ(t, "base_uri %q", c.base)
			}
			s.wantBodies(t, c.messages(t, s, 2, false), "one", "two")
			a, err = c.save()
			s.must(t, err)
			s.compare(t, a, want{status: 200, typ: bareV1, json: fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":1,"committed":1}]`, mine)})
			s.must(t, c.end())
			s.wantCommitted(t, c.group, mine, 0, 2)
		}
	})
	s.row(t, "E, where Java adds a type to its empty body", func(t *testing.T) {
		c := s.script(t, javaV1, "", topic)
		_, err := c.make("largest")
		s.must(t, err)
		_, err = c.step(200, "POST", c.path+"/offsets", append([]string{"Content-type: application/x-www-form-urlencoded"}, c.commit...), "")
		s.must(t, err)
		s.must(t, c.end())
	})
	s.row(t, "F", func(t *testing.T) {
		mine := s.kafka.Topic(t, "CmsPublicationEvents", 1)
		s.fill(t, mine, 0, ftMessage(0, "one"), ftMessage(1, "two"))
		c := s.script(t, javaV2, "", mine)
		a, err := c.make("earliest")
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV2})
		s.wantBodies(t, c.messages(t, s, 2, false), "one", "two")
		a, err = c.save()
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV2, body: "[]"})
		s.must(t, c.end())
		s.wantCommitted(t, c.group, mine, 0, 2)
	})
	s.row(t, "F, health", func(t *testing.T) {
		c := s.script(t, javaV2, "healthcheck", topic)
		a, err := c.step(200, "POST", c.prefix+"/consumers/healthcheck", append([]string{sendsV2}, c.commit...), "")
		s.must(t, err)
		i := s.madeBy(t, answer{body: a.body, asked: request{path: "/consumers/healthcheck"}})
		a, err = c.step(200, "GET", c.prefix+i.path+"/topics/"+topic, c.read, "")
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV2})
		_, err = c.step(204, "DELETE", c.prefix+i.path, c.remove, "")
		s.must(t, err)
	})
}

// scriptG is rest-api.md 9.5.
func scriptG(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "orders", 1)
	s.row(t, "JavaScript", func(t *testing.T) {
		c := s.script(t, goV1, "", topic)
		agent, sends := "User-Agent: node", "Content-Type: "+bareV1
		const options = `{"format":"binary","auto.offset.reset":"smallest","auto.commit.enable":"true"}`
		a, err := c.step(200, "POST", c.prefix+"/consumers/"+c.group, []string{agent, sends, "Host: {host}", "Connection: keep-alive", "Content-Length: {length}"}, options)
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV1})
		s.must(t, c.turnTo(baseOf(t, a)))
		a, err = c.step(200, "POST", c.prefix+"/topics/"+topic, []string{"Content-Type: " + binaryV1, "Host: {host}", "Connection: keep-alive", "Transfer-Encoding: chunked"},
			"21\r\n{\"records\":[{\"value\":\"b25lYnl0\"}]\r\n1\r\n}\r\n0\r\n\r\n")
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV1})
		eventually(t, 20*time.Second, "the record", func() bool {
			a, err = c.step(200, "GET", c.path+"/topics/"+topic, []string{"Accept: " + binaryV1, "Host: {host}", "Connection: keep-alive"}, "")
			s.must(t, err)
			return string(a.body) != "[]"
		})
		s.compare(t, a, want{status: 200, typ: binaryV1, json: fmt.Sprintf(`[{"topic":%q,"key":null,"value":"b25lYnl0","partition":0,"offset":0}]`, topic)})
		_, err = c.step(204, "DELETE", c.path, []string{"Host: {host}", "Connection: keep-alive"}, "")
		s.must(t, err)
		s.wantCommitted(t, c.group, topic, 0, 1) // auto.commit.enable
	})
	s.row(t, "three types with q", func(t *testing.T) {
		c := s.script(t, goV1, "", topic)
		accept := "Accept: application/vnd.kafka.v1+json, application/vnd.kafka+json; q=0.9, application/json; q=0.8"
		c.create = []string{"Host: {host}", accept, "Content-Type: " + bareV1, "Content-Length: {length}"}
		c.read = []string{"Host: {host}", accept}
		c.commit = []string{"Host: {host}", accept, "Content-Type: " + bareV1, "Content-Length: 0"}
		_, err := c.make("smallest")
		s.must(t, err)
		_, a, err := c.get()
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV1})
		a, err = c.save()
		s.must(t, err)
		s.compare(t, a, want{status: 200, typ: bareV1})
		s.must(t, c.end())
	})
	s.row(t, "pollers", func(t *testing.T) {
		a := s.expect(t, request{method: "GET", path: "/topics"}, want{status: 200})
		var topics []string
		a.into(t, &topics)
	})
	s.row(t, "Content-Type on GET, a boolean, parameters on every read", func(t *testing.T) {
		i := s.create(t, "", `{"enable.auto.commit":true,"auto.offset.reset":"earliest"}`, bareV2)
		i.subscribe(t, topic)
		for _, query := range []string{"?timeout=3000&max_bytes=100000", "?timeout=&max_bytes="} { // an empty one counts as absent
			s.expect(t, request{method: "GET", path: i.path + "/records" + query, contentType: bareV2}, want{status: 200, typ: binaryV2})
		}
	})
}

// baseOf is the base_uri in an answer.
func baseOf(t *testing.T, a answer) string {
	t.Helper()
	var made struct {
		Base string `json:"base_uri"`
	}
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != http.StatusOK {
		t.Fatalf("%v: %v", a, err)
	}
	return made.Base
}
