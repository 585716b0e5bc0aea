package conformance

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// gone is the answer of an instance that is not there, and why.
func gone(why string) want {
	return want{status: 404, code: 40403, message: "Consumer instance not found.", detail: "^" + why + "$"}
}

// everyCall is each call on an instance, with a body that is good.
func everyCall(topic string) []request {
	return []request{
		{method: "POST", path: "/subscription", body: topicList(topic)}, {method: "GET", path: "/subscription"}, {method: "DELETE", path: "/subscription"},
		{method: "POST", path: "/assignments", body: places(topic, 0)}, {method: "GET", path: "/assignments"},
		{method: "POST", path: "/positions", body: offsetsOf(topic, 0, 0, "")},
		{method: "POST", path: "/positions/beginning", body: places(topic, 0)}, {method: "POST", path: "/positions/end", body: places(topic, 0)},
		{method: "GET", path: "/records"}, {method: "GET", path: "/topics/" + topic},
		{method: "POST", path: "/offsets"}, {method: "GET", path: "/offsets"}, {method: "DELETE"},
	}
}

// life is rest-api.md 5.4.
func life(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c54", 2)
	for _, c := range everyCall(topic) {
		s.row(t, "never existed: "+c.method+" "+strings.Replace(c.path, topic, "{topic}", 1), func(t *testing.T) {
			c.path = "/consumers/c54/instances/none" + c.path
			c.contentType = bareV2
			s.expect(t, c, gone("never existed"))
		})
	}
	s.row(t, "deleted", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		s.expect(t, request{method: "DELETE", path: i.path}, want{status: 204, header: map[string]string{"Cache-Control": "no-store"}})
		for _, c := range everyCall(topic) {
			c.path, c.contentType = i.path+c.path, bareV2
			s.expect(t, c, gone("deleted by the client"))
		}
	})
	s.row(t, "the name is free after DELETE", func(t *testing.T) {
		i := s.create(t, "", `{"id":"one"}`, bareV2)
		i.expect(t, "DELETE", "", "", want{status: 204})
		s.create(t, i.group, `{"id":"one"}`, bareV1)
	})
	expiry(t, s, topic)
	s.row(t, "DELETE leaves the group at once", func(t *testing.T) {
		t.Parallel()
		first := s.subscribed(t, "", quick, topic)
		second := s.subscribed(t, first.group, quick, topic)
		first.holds(t, 1)
		second.holds(t, 1)
		began := time.Now()
		first.expect(t, "DELETE", "", "", want{status: 204})
		second.holds(t, 2)
		if took := time.Since(began); took > 8*time.Second { // a session lasts 10 s
			s.differ(t, "the other member had the partitions after %v", took)
		}
	})
	oneAfterTheOther(t, s, topic)
	// Old proxies threw members out that did not poll; the scripts of section 9 sleep for 8 s after an empty read.
	s.row(t, "a gap of 8 s between polls", func(t *testing.T) {
		t.Parallel()
		empty := s.kafka.Topic(t, "c54", 2)
		first := s.subscribed(t, "", quick, empty)
		second := s.subscribed(t, first.group, quick, empty)
		first.holds(t, 1)
		second.holds(t, 1)
		before := first.expect(t, "GET", "/assignments", "", want{status: 200})
		wait(t.Context(), 8*time.Second)
		first.expect(t, "GET", "/assignments", "", want{status: 200, body: string(before.body)})
		second.holds(t, 1)
		s.fill(t, empty, 0, "a")
		s.fill(t, empty, 1, "a")
		first.texts(t, "", "a")
		first.expect(t, "POST", "/offsets", "", want{status: 200, body: "[]"})
	})
}

func expiry(t *testing.T, s *server, topic string) {
	s.row(t, "expiry, its reason, and the free name", func(t *testing.T) {
		t.Parallel()
		own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=1000")
		i := own.subscribed(t, "", quick, topic)
		named := own.create(t, i.group, `{"id":"one"}`, bareV2)
		eventually(t, 20*time.Second, "the name of an idle instance is free", func() bool { // to look at it would keep it
			a := own.ask(t, request{method: "POST", path: "/consumers/" + i.group, contentType: bareV2, body: `{"id":"one"}`})
			return a.status == 200
		})
		_ = named
		for _, c := range everyCall(topic) {
			c.path, c.contentType = i.path+c.path, bareV2
			own.expect(t, c, gone("expired after 1 s without a request"))
		}
	})
	s.row(t, "an idle instance gives its partitions up", func(t *testing.T) {
		t.Parallel()
		own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=2000")
		left := own.subscribed(t, "", quick, topic)
		left.holds(t, 2)
		began := time.Now()
		other := own.subscribed(t, left.group, quick, topic)
		other.holds(t, 2) // its own calls keep it
		if took := time.Since(began); took > 15*time.Second {
			own.differ(t, "the partitions came after %v", took)
		}
	})
	s.row(t, "a read is a request as long as it lasts", func(t *testing.T) {
		t.Parallel()
		own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=1000")
		empty := own.kafka.Topic(t, "c54", 1)
		i := own.subscribed(t, "", `{"consumer.request.timeout.ms":"2500"}`, empty)
		a := own.expect(t, request{method: "GET", path: i.path + "/records"}, want{status: 200, body: "[]"})
		if a.took < 2*time.Second {
			own.differ(t, "the read took %v", a.took)
		}
		i.expect(t, "GET", "/subscription", "", want{status: 200})
	})
}

// oneAfterTheOther is what waits for what on one instance.
func oneAfterTheOther(t *testing.T, s *server, topic string) {
	const slow = `{"auto.offset.reset":"latest","auto.commit.enable":"false","consumer.request.timeout.ms":"20000"}`
	// held starts a read that has nothing to read, and gives its answer.
	held := func(t *testing.T, i instance, ctx context.Context) <-chan answer {
		t.Helper()
		i.holds(t, 2)
		done := make(chan answer, 1)
		go func() {
			a, err := s.try(ctx, request{method: "GET", path: i.path + "/records"})
			if err != nil && ctx.Err() == nil {
				t.Errorf("the held read: %v", err)
			}
			done <- a
		}()
		return done
	}
	// busy waits until a read is held: then another with a short timeout of its own waits for it in vain, and not the shortest time.
	busy := func(t *testing.T, i instance) {
		t.Helper()
		eventually(t, 10*time.Second, "a read is held", func() bool {
			a := s.expect(t, request{method: "GET", path: i.path + "/records?timeout=100"}, want{status: 200, body: "[]"})
			return a.took < 5*time.Second
		})
	}
	s.row(t, "a commit and a DELETE do not wait for a held read", func(t *testing.T) {
		t.Parallel()
		i := s.subscribed(t, "", slow, topic)
		read := held(t, i, t.Context())
		busy(t, i)
		for range 3 {
			if a := i.expect(t, "POST", "/offsets", "", want{status: 200, body: "[]"}); a.took > 8*time.Second { // the read is held for 20 s
				s.differ(t, "the commit took %v", a.took)
			}
		}
		if a := i.expect(t, "DELETE", "", "", want{status: 204}); a.took > 8*time.Second {
			s.differ(t, "DELETE took %v", a.took)
		}
		if a := <-read; a.status != 200 || string(a.body) != "[]" || a.took > 15*time.Second {
			s.differ(t, "the held read was answered %v after %v", a, a.took)
		}
	})
	s.row(t, "DELETE makes a held read return what it has", func(t *testing.T) {
		t.Parallel()
		mine := s.kafka.Topic(t, "c54", 2)
		s.fill(t, mine, 1, "a")
		i := s.subscribed(t, "", `{"auto.offset.reset":"earliest","auto.commit.enable":"true","consumer.request.timeout.ms":"20000","fetch.min.bytes":"1000"}`, mine)
		read := held(t, i, t.Context())
		wait(t.Context(), 2*time.Second) // it holds the record by now, and waits for more
		i.expect(t, "DELETE", "", "", want{status: 204})
		a := <-read
		s.compare(t, a, want{status: 200, json: fmt.Sprintf(`[{"topic":%q,"key":null,"value":"YQ==","partition":1,"offset":0,"timestamp":"<any>"}]`, mine)})
	})
	s.row(t, "a second read waits within its own timeout", func(t *testing.T) {
		t.Parallel()
		i := s.subscribed(t, "", `{"consumer.request.timeout.ms":"5000"}`, topic)
		read := held(t, i, t.Context())
		busy(t, i)
		a := s.expect(t, request{method: "GET", path: i.path + "/records?timeout=200"}, want{status: 200, body: "[]"})
		if a.took > 3*time.Second {
			s.differ(t, "it took %v", a.took)
		}
		if a := <-read; a.status != 200 || string(a.body) != "[]" {
			s.differ(t, "the first read was answered %v", a)
		}
	})
	s.row(t, "a read whose client leaves takes nothing and holds up nobody", func(t *testing.T) {
		t.Parallel()
		mine := s.kafka.Topic(t, "c54", 2)
		i := s.subscribed(t, "", earliest, mine)
		ctx, leave := context.WithCancel(t.Context())
		read := held(t, i, ctx)
		busy(t, i)
		leave()
		<-read
		s.fill(t, mine, 0, "a")
		began := time.Now()
		i.texts(t, "", "a")
		if took := time.Since(began); took > 8*time.Second {
			s.differ(t, "the next read took %v", took)
		}
	})
	s.row(t, "held reads do not hold up other instances", func(t *testing.T) {
		t.Parallel()
		full := s.kafka.Topic(t, "c54", 1)
		s.fill(t, full, 0, "a", "b", "c")
		ctx, end := context.WithCancel(t.Context())
		defer end()
		var reads []<-chan answer
		for n := range 16 {
			i := s.subscribed(t, fmt.Sprintf("%s-%d", full, n), slow, topic)
			reads = append(reads, held(t, i, ctx))
		}
		i := s.assigned(t, "", earliest, full, 0)
		for _, v := range []string{"a", "b", "c"} {
			began := time.Now()
			i.texts(t, "?max_bytes=1", v)
			if took := time.Since(began); took > 8*time.Second {
				s.differ(t, "a read beside 16 held ones took %v", took)
			}
		}
		end()
		for _, r := range reads {
			<-r
		}
	})
}

// wait is for what lasts a time that the contract names.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
