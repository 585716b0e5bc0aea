package conformance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// instance is a consumer at the server under test.
type instance struct {
	s     *server
	group string
	path  string // from /consumers on: where a server says it can be reached is a matter of section 5.3 alone
}

const (
	earliest = `{"auto.offset.reset":"earliest","auto.commit.enable":"false","consumer.request.timeout.ms":"10000"}`
	quick    = `{"auto.offset.reset":"earliest","auto.commit.enable":"false","consumer.request.timeout.ms":"100"}`
)

// create makes an instance; group "" is a new one. It is deleted at the end of the test, whatever has become of it.
func (s *server) create(t *testing.T, group, options, contentType string) instance {
	t.Helper()
	if group == "" {
		group = backend.Unique("conformance")
	}
	a := s.expect(t, request{method: "POST", path: "/consumers/" + url.PathEscape(group), contentType: contentType, body: options}, want{status: 200})
	var made struct {
		ID string `json:"instance_id"`
	}
	a.into(t, &made)
	if made.ID == "" {
		t.Fatalf("no instance_id: %v", a)
	}
	i := instance{s, group, "/consumers/" + url.PathEscape(group) + "/instances/" + url.PathEscape(made.ID)}
	t.Cleanup(func() { i.forget(t) })
	return i
}

// forget deletes the instance if it is still there; the test's context has ended by then.
func (i instance) forget(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, i.s.url+i.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Do(req); err == nil { // else the server is gone, and the instance with it
		_ = resp.Body.Close()
	}
}

// subscribed is a v2 instance that reads the topics.
func (s *server) subscribed(t *testing.T, group, options string, topics ...string) instance {
	t.Helper()
	i := s.create(t, group, options, bareV2)
	i.subscribe(t, topics...)
	return i
}

// assigned is a v2 instance that reads partitions of a topic without a group's doing.
func (s *server) assigned(t *testing.T, group, options, topic string, partitions ...int32) instance {
	t.Helper()
	i := s.create(t, group, options, bareV2)
	i.must(t, "POST", "/assignments", places(topic, partitions...), want{status: 204})
	return i
}

// must is expect for what the rest of a row builds on.
func (i instance) must(t *testing.T, method, path, body string, w want) answer {
	t.Helper()
	a := i.expect(t, method, path, body, w)
	if a.status != w.status {
		t.FailNow()
	}
	return a
}

// expect is a v2 call on the instance.
func (i instance) expect(t *testing.T, method, path, body string, w want) answer {
	t.Helper()
	r := request{method: method, path: i.path + path, accept: bareV2, body: body}
	if body != "" {
		r.contentType = bareV2
	}
	return i.s.expect(t, r, w)
}

func (i instance) subscribe(t *testing.T, topics ...string) {
	t.Helper()
	i.must(t, "POST", "/subscription", topicList(topics...), want{status: 204})
}

// holds waits until the instance has so many partitions.
func (i instance) holds(t *testing.T, n int) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("%s has %d partitions", i.path, n), func() bool {
		var doc struct{ Partitions []any }
		i.must(t, "GET", "/assignments", "", want{status: 200}).into(t, &doc)
		return len(doc.Partitions) == n
	})
}

// got is a record of an answer.
type got struct {
	Topic      string
	Key, Value json.RawMessage
	Partition  int32
	Offset     int64
	Timestamp  *int64
	Headers    json.RawMessage
}

// text is the value of a record of a binary instance.
func (g got) text(t *testing.T) string {
	t.Helper()
	var encoded *string
	if err := json.Unmarshal(g.Value, &encoded); err != nil {
		t.Fatalf("%s: %v", g.Value, err)
	}
	if encoded == nil {
		return "null"
	}
	raw, err := base64.StdEncoding.DecodeString(*encoded)
	if err != nil {
		t.Fatalf("%s: %v", g.Value, err)
	}
	return string(raw)
}

// read is one read of v2.
func (i instance) read(t *testing.T, query string) (all []got) {
	t.Helper()
	i.must(t, "GET", "/records"+query, "", want{status: 200}).into(t, &all)
	return all
}

// some reads until n records have come.
func (i instance) some(t *testing.T, query string, n int) (all []got) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("%d records of %s", n, i.path), func() bool {
		all = append(all, i.read(t, query)...)
		return len(all) >= n
	})
	return all
}

// texts reads until there are as many records as wanted, and compares.
func (i instance) texts(t *testing.T, query string, want ...string) {
	t.Helper()
	i.s.same(t, i.some(t, query, len(want)), want...)
}

// same compares the values of records of a binary instance.
func (s *server) same(t *testing.T, all []got, want ...string) {
	t.Helper()
	var have []string
	for _, g := range all {
		have = append(have, g.text(t))
	}
	if strings.Join(have, "|") != strings.Join(want, "|") {
		s.differ(t, "read %.300q, want %.300q", have, want)
	}
}

// places is a list of partitions as the API takes it.
func places(topic string, partitions ...int32) string {
	var all []string
	for _, p := range partitions {
		all = append(all, fmt.Sprintf(`{"topic":%q,"partition":%d}`, topic, p))
	}
	return `{"partitions":[` + strings.Join(all, ",") + `]}`
}

// offsetsOf is a list of one offset as the API takes and gives it.
func offsetsOf(topic string, partition int32, offset int64, metadata string) string {
	return fmt.Sprintf(`{"offsets":[{"topic":%q,"partition":%d,"offset":%d,"metadata":%q}]}`, topic, partition, offset, metadata)
}

func topicList(topics ...string) string {
	list, err := json.Marshal(map[string][]string{"topics": topics})
	if err != nil {
		panic(err) // strings always encode
	}
	return string(list)
}

// fill writes values to a partition, past the server under test.
func (s *server) fill(t *testing.T, topic string, partition int32, values ...string) {
	t.Helper()
	var records []kgo.Record
	for _, v := range values {
		records = append(records, kgo.Record{Partition: partition, Value: []byte(v)})
	}
	s.intoKafka(t, topic, records...)
}

// committed is what Kafka holds for the group, -1 for nothing.
func (s *server) committed(t *testing.T, group, topic string, partition int32) int64 {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := kmsg.NewPtrOffsetFetchRequest()
	ask.Group = group
	one := kmsg.NewOffsetFetchRequestTopic()
	one.Topic, one.Partitions = topic, []int32{partition}
	ask.Topics = append(ask.Topics, one)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answer, err := ask.RequestWith(ctx, c)
	if err != nil {
		t.Fatalf("offsets of %s: %v", group, err)
	}
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		t.Fatalf("offsets of %s: %v", group, err)
	}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			return p.Offset
		}
	}
	return -1
}

// wantCommitted compares with what Kafka holds.
func (s *server) wantCommitted(t *testing.T, group, topic string, partition int32, want int64) {
	t.Helper()
	if n := s.committed(t, group, topic, partition); n != want {
		s.differ(t, "Kafka holds %d for %s-%d, want %d", n, topic, partition, want)
	}
}

// eventually looks every 20 ms.
func eventually(t *testing.T, within time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
