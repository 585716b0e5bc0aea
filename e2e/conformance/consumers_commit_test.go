package conformance

import (
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// committing is rest-api.md 5.6.
func committing(t *testing.T, s *server) {
	const committed = "[]"
	const auto = `{"auto.offset.reset":"earliest","auto.commit.enable":"true","consumer.request.timeout.ms":"10000"}`
	topic := s.kafka.Topic(t, "c56", 1)
	s.fill(t, topic, 0, "a", "b", "c", "d")
	commit := func(t *testing.T, i instance) {
		t.Helper()
		i.expect(t, "POST", "/offsets", "", want{status: 200, body: committed})
	}
	s.row(t, "the next offset, of what was delivered", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.texts(t, "?max_bytes=2", "a", "b") // what max_bytes cut off does not count
		commit(t, i)
		s.wantCommitted(t, i.group, topic, 0, 2)
	})
	s.row(t, "nothing before the first record", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.holds(t, 1)
		commit(t, i)
		s.wantCommitted(t, i.group, topic, 0, -1)
	})
	s.row(t, "after a seek, the position sought", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.expect(t, "POST", "/positions", offsetsOf(topic, 0, 3, ""), want{status: 204})
		commit(t, i)
		s.wantCommitted(t, i.group, topic, 0, 3)
	})
	s.row(t, "the read position stays", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.texts(t, "?max_bytes=2", "a", "b")
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 0, ""), want{status: 200, body: committed})
		i.texts(t, "?max_bytes=1", "c")
		i.expect(t, "POST", "/offsets", offsetsOf(topic, 0, 3, ""), want{status: 200, body: committed})
		i.texts(t, "", "d")
	})
	s.row(t, "auto-commit before DELETE", func(t *testing.T) {
		i := s.subscribed(t, "", auto, topic)
		i.texts(t, "?max_bytes=3", "a", "b", "c")
		i.expect(t, "DELETE", "", "", want{status: 204})
		s.wantCommitted(t, i.group, topic, 0, 3)
	})
	s.row(t, "auto-commit before DELETE of the subscription", func(t *testing.T) {
		i := s.subscribed(t, "", auto, topic)
		i.texts(t, "?max_bytes=3", "a", "b", "c")
		i.expect(t, "DELETE", "/subscription", "", want{status: 204})
		s.wantCommitted(t, i.group, topic, 0, 3)
	})
	s.row(t, "without auto-commit DELETE commits nothing", func(t *testing.T) {
		i := s.subscribed(t, "", earliest, topic)
		i.texts(t, "?max_bytes=3", "a", "b", "c")
		i.expect(t, "DELETE", "", "", want{status: 204})
		s.wantCommitted(t, i.group, topic, 0, -1)
	})
	s.row(t, "auto-commit every 5 s", func(t *testing.T) {
		t.Parallel()
		i := s.subscribed(t, "", auto, topic)
		i.texts(t, "?max_bytes=3", "a", "b", "c")
		read := time.Now()
		eventually(t, 20*time.Second, "three records committed", func() bool { return s.committed(t, i.group, topic, 0) == 3 })
		if took := time.Since(read); took > 10*time.Second {
			s.differ(t, "committed after %v", took)
		}
	})
	for _, c := range []struct {
		name, options string
		want          int64
	}{{"expiry with auto-commit", auto, 3}, {"expiry without", earliest, -1}} {
		s.row(t, c.name, func(t *testing.T) {
			t.Parallel()
			own := s.own(t, "SLUICE_CONSUMER_INSTANCE_TIMEOUT=1000")
			i := own.create(t, backend.Unique("c56"), strings.Replace(c.options, "{", `{"id":"one",`, 1), bareV2)
			i.subscribe(t, topic)
			i.texts(t, "?max_bytes=3", "a", "b", "c")
			eventually(t, 20*time.Second, "its name is free", func() bool {
				return own.ask(t, request{method: "POST", path: "/consumers/" + i.group, contentType: bareV2, body: `{"id":"one"}`}).status == 200
			})
			i.subscribe(t, topic)
			i.holds(t, 1) // its namesake has left, after its last commit
			own.wantCommitted(t, i.group, topic, 0, c.want)
		})
	}
	s.row(t, "a partition that was given up is left out", func(t *testing.T) {
		t.Parallel()
		two := s.kafka.Topic(t, "c56", 2)
		s.fill(t, two, 0, "a")
		s.fill(t, two, 1, "a")
		first := s.subscribed(t, "", earliest, two)
		first.some(t, "", 2)
		second := s.subscribed(t, first.group, earliest, two)
		second.holds(t, 1)
		first.holds(t, 1)
		commit(t, first)
		if sum := s.committed(t, first.group, two, 0) + s.committed(t, first.group, two, 1); sum != 0 { // 1 and -1
			s.differ(t, "Kafka holds offsets with the sum %d", sum)
		}
		second.texts(t, "", "a") // it was not committed, so the new owner gives it again
	})
}
