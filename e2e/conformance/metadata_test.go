package conformance

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// metadata is rest-api.md 3, in both versions.
func metadata(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c3", 3, "retention.ms=123456789")
	s.intoKafka(t, topic, kgo.Record{Partition: 1, Value: []byte("x")}, kgo.Record{Partition: 1, Value: []byte("y")})
	get := func(path, accept string) request {
		return request{method: "GET", path: path, accept: accept}
	}
	const replica = `"leader":"<any>","replicas":[{"broker":"<any>","leader":true,"in_sync":true}]`
	at, nosuch := "/topics/"+topic, "/topics/"+s.unknown(t)
	for version, typ := range map[string]string{"v1": bareV1, "v2": bareV2} {
		for _, r := range []struct {
			name, path string
			want       want
		}{
			{"root", "/", want{status: 200, json: `{}`}},
			{"topic", at, want{status: 200, json: fmt.Sprintf(`{"name":%q,"configs":"<any>","partitions":[{"partition":0,%s},{"partition":1,%s},{"partition":2,%s}]}`, topic, replica, replica, replica)}},
			{"partitions", at + "/partitions", want{status: 200, json: fmt.Sprintf(`[{"partition":0,%s},{"partition":1,%s},{"partition":2,%s}]`, replica, replica, replica)}},
			{"partition", at + "/partitions/2", want{status: 200, json: fmt.Sprintf(`{"partition":2,%s}`, replica)}},
			{"offsets", at + "/partitions/1/offsets", want{status: 200, json: `{"beginning_offset":0,"end_offset":2}`}},
			{"offsets of an empty partition", at + "/partitions/0/offsets", want{status: 200, json: `{"beginning_offset":0,"end_offset":0}`}},
			{"unknown topic", nosuch, unknownTopic},
			{"partitions of an unknown topic", nosuch + "/partitions", unknownTopic},
			{"partition of an unknown topic", nosuch + "/partitions/0", unknownTopic},
			{"offsets of an unknown topic", nosuch + "/partitions/0/offsets", unknownTopic},
			{"a name that no topic can have", "/topics/a%20b", unknownTopic},
			{"partition above the last", at + "/partitions/3", unknownPartition},
			{"partition below 0", at + "/partitions/-1", unknownPartition},
			{"partition beyond 32 bits", at + "/partitions/4294967296", unknownPartition},
			{"offsets of a partition above the last", at + "/partitions/3/offsets", unknownPartition},
			{"offsets of a partition below 0", at + "/partitions/-1/offsets", unknownPartition},
		} {
			s.row(t, r.name+" in "+version, func(t *testing.T) {
				w := r.want
				w.typ = typ
				s.expect(t, get(r.path, typ), w)
			})
		}
	}
	s.row(t, "POST on the root", func(t *testing.T) {
		s.expect(t, request{method: "POST", path: "/", contentType: bareV2, body: `{}`}, want{status: 200, json: `{}`, typ: bareV2})
	})
	s.row(t, "brokers", func(t *testing.T) {
		var got struct{ Brokers []int }
		a := s.expect(t, get("/brokers", bareV1), want{status: 200, typ: bareV1, json: `{"brokers":"<any>"}`})
		a.into(t, &got)
		if len(got.Brokers) == 0 || !slices.IsSorted(got.Brokers) {
			s.differ(t, "%v: no sorted list of brokers", a)
		}
	})
	s.row(t, "configs are strings", func(t *testing.T) {
		var got struct{ Configs map[string]*string }
		a := s.ask(t, get(at, bareV2))
		a.into(t, &got)
		if v := got.Configs["retention.ms"]; v == nil || *v != "123456789" {
			s.differ(t, "%v: retention.ms is not the string 123456789", a)
		}
		for name, v := range got.Configs {
			if v == nil {
				s.differ(t, "configs.%s is null", name)
			}
		}
		if _, ok := got.Configs["cleanup.policy"]; !ok {
			s.differ(t, "%v: cleanup.policy, a default, is missing", a)
		}
	})
	topicNames(t, s, topic)
}

// topicNames is GET /topics: what is made elsewhere is listed within 3 s, what is removed goes.
func topicNames(t *testing.T, s *server, topic string) {
	listed := func(t *testing.T) []string {
		var list []string
		a := s.expect(t, request{method: "GET", path: "/topics"}, want{status: 200})
		if err := json.Unmarshal(a.body, &list); err != nil {
			t.Fatalf("%v: %v", a, err)
		}
		return list
	}
	s.row(t, "topics are sorted strings", func(t *testing.T) {
		eventually(t, 4*time.Second, "the topic is listed", func() bool { return slices.Contains(listed(t), topic) })
		if list := listed(t); !slices.IsSorted(list) {
			s.differ(t, "GET /topics: %.300q is not sorted", list)
		}
	})
	s.row(t, "internal topics are listed", func(t *testing.T) {
		i := s.assigned(t, "", quick, topic, 1)
		i.read(t, "")
		i.must(t, "POST", "/offsets", "", want{status: 200})
		if !s.kafkaHas(t, "__consumer_offsets") {
			s.notRun(t, "this Kafka keeps offsets without a topic")
		}
		eventually(t, 10*time.Second, "__consumer_offsets is listed", func() bool { return slices.Contains(listed(t), "__consumer_offsets") })
	})
	s.row(t, "a new topic is listed within 3 s", func(t *testing.T) {
		listed(t) // so that there is a list to be kept
		fresh := s.kafka.Topic(t, "c3-new", 1)
		began := time.Now()
		eventually(t, 20*time.Second, "the new topic is listed", func() bool { return slices.Contains(listed(t), fresh) })
		if took := time.Since(began); took > 6*time.Second { // 3 s and what a busy machine takes
			s.differ(t, "the new topic was listed after %s", took)
		}
	})
	s.row(t, "a new topic is known at once", func(t *testing.T) {
		name := backend.Unique("c3-at-once")
		s.expect(t, request{method: "GET", path: "/topics/" + name}, unknownTopic)
		s.kafka.Create(t, name, 1, 1)
		s.expect(t, request{method: "GET", path: "/topics/" + name}, want{status: 200})
		s.expect(t, request{method: "POST", path: "/topics/" + name, body: oneRecord}, want{status: 200, json: okSlots})
	})
}
