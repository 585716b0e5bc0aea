package httpapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/stream"
)

// admin speaks Kafka's protocol as an operator would.
func (s *streamer) admin(request kmsg.Request) kmsg.Response {
	s.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.k.Brokers...))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	response, err := client.Request(s.t.Context(), request)
	if err != nil {
		s.t.Fatal(err)
	}
	return response
}

func (s *streamer) deleteBefore(topic string, partition int32, offset int64) {
	s.t.Helper()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	t := kmsg.NewDeleteRecordsRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	r := kmsg.NewPtrDeleteRecordsRequest()
	r.TimeoutMillis, r.Topics = 10_000, append(r.Topics, t)
	if code := s.admin(r).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
		s.t.Fatalf("delete records: error %d", code)
	}
}

// createWhenGone creates a topic whose deletion may still be under way.
func (s *streamer) createWhenGone(topic string) {
	s.t.Helper()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, 1, 1
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis, r.Topics = 10_000, append(r.Topics, t)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		code := s.admin(r).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode
		if code == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("create topic: error %d", code)
		}
	}
}

func (s *streamer) addPartitions(topic string, count int32) {
	s.t.Helper()
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, count
	r := kmsg.NewPtrCreatePartitionsRequest()
	r.TimeoutMillis, r.Topics = 10_000, append(r.Topics, t)
	if code := s.admin(r).(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode; code != 0 {
		s.t.Fatalf("create partitions: error %d", code)
	}
}

// tail opens a stream and takes the first frame off.
func (s *streamer) tail(query string, headers ...string) (*bufio.Reader, sseEvent) {
	s.t.Helper()
	resp, _ := s.request("GET", "/events?"+query, headers...)
	if resp.StatusCode != 200 {
		body, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
	}
	r := bufio.NewReader(resp.Body)
	e := s.mustEvent(r)
	if e.name != "progress" || e.id == "" {
		s.t.Fatalf("first: %+v", e)
	}
	return r, e
}

// at is the partition and the offset of a record.
func (e sseEvent) at() string {
	var m struct {
		Partition int32
		Offset    int64
	}
	if err := json.Unmarshal([]byte(e.data), &m); err != nil || e.name != "" {
		return fmt.Sprintf("%+v", e)
	}
	return fmt.Sprint(m.Partition, ":", m.Offset)
}

func (s *streamer) want(r *bufio.Reader, records ...string) (last sseEvent) {
	s.t.Helper()
	for _, want := range records {
		if last = s.mustEvent(r); last.at() != want {
			s.t.Fatalf("got %s, want %s", last.at(), want)
		}
	}
	return last
}

func TestRetentionPassedTheCursor(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1)
	s.produce(topic, 0, numbered(0, 20)...)
	s.deleteBefore(topic, 0, 15)
	r, _ := s.tail("topic="+topic, "Last-Event-ID: "+topic+"/0:5")
	if e := s.mustEvent(r); e.name != "gap" || e.data != `{"topic":"`+topic+`","partition":0,"from":5,"to":15,"lost":10,"reason":"retention"}` || e.id == "" {
		t.Fatalf("got %+v", e)
	}
	s.want(r, "0:15", "0:16", "0:17", "0:18", "0:19")

	resp, _ := s.request("GET", "/events?on_gap=error&topic="+topic, "Last-Event-ID: "+topic+"/0:5")
	body, _ := io.ReadAll(resp.Body)
	if want := `{"error_code":40910,"message":"Offset 5 of ` + topic + `/0 is out of range [15, 20]."}`; resp.StatusCode != 409 || string(body) != want {
		t.Errorf("got %d %s, want %s", resp.StatusCode, body, want)
	}
	// Above the end, and by time.
	r, _ = s.tail("topic="+topic+"&on_gap=latest", "Last-Event-ID: "+topic+"/0:50")
	if e := s.mustEvent(r); e.data != `{"topic":"`+topic+`","partition":0,"from":50,"to":20,"lost":null,"reason":"truncated"}` {
		t.Fatalf("got %+v", e)
	}
	r, _ = s.tail("topic=" + topic + "&since=-1h")
	s.want(r, "0:15")
}

func TestTopicThatWasCreatedAgainIsAnotherLog(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1)
	s.produce(topic, 0, numbered(0, 5)...)
	r, first := s.tail("from=earliest&topic=" + topic)
	last := s.want(r, "0:0", "0:1", "0:2", "0:3", "0:4")
	if first.id == last.id {
		t.Error("the id did not move")
	}
	s.k.Delete(t, topic)
	s.createWhenGone(topic)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		receipts, err := s.producer.Produce(t.Context(), topic, []sluice.NewRecord{{Value: []byte("new"), Timestamp: time.Now()}})
		if err == nil && receipts[0].Err == nil && receipts[0].Offset == 7 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err, receipts)
		}
	}
	hasID := false
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the list of topics may be 3 s old
		resp, _ := s.request("GET", "/events?topic="+topic, "Last-Event-ID: "+last.id)
		if resp.StatusCode == 200 {
			r := bufio.NewReader(resp.Body)
			s.mustEvent(r)
			e := s.mustEvent(r)
			if hasID = strings.Contains(e.data, `"reason":"other-log"`); hasID {
				s.want(r, "0:0", "0:1")
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the other log was not noticed")
		}
	}
}

func TestPartitionThatIsAddedIsFollowedFromItsBeginning(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1)
	_, first := s.tail("topic=" + topic)
	s.addPartitions(topic, 2)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		receipts, err := s.producer.Produce(t.Context(), topic, []sluice.NewRecord{{Partition: 1, Value: []byte("one"), Timestamp: time.Now()}})
		if err == nil && receipts[0].Err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err, receipts)
		}
	}
	eventually := time.Now().Add(20 * time.Second)
	for ; ; time.Sleep(50 * time.Millisecond) {
		r, e := s.tail("topic="+topic, "Last-Event-ID: "+first.id)
		if strings.Contains(e.data, `"behind":1,`) {
			s.want(r, "1:0")
			return
		}
		if time.Now().After(eventually) {
			t.Fatal("the new partition was not noticed")
		}
	}
}

// The deadlines of requests are not those of streams.
func TestStreamsOutliveRequestDeadlines(t *testing.T) {
	s := streamers(t)
	topic, other := s.k.Topic(t, "orders", 1), s.k.Topic(t, "payments", 1)
	r, _ := s.tail("topic="+topic+"&topic="+other, "Accept-Encoding: gzip")
	server := s.server.app.Server()
	time.Sleep(2 * server.ReadTimeout)
	s.produce(other, 0, "one")
	if e := s.want(r, "0:0"); !strings.Contains(e.data, `"topic":"`+other+`"`) {
		t.Errorf("got %s", e.data)
	}
}

func TestLargestRecordPasses(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 1, "max.message.bytes=25165824")
	large := strings.Repeat("x", 16<<20)
	resp, err := http.Post(s.url+"/topics/"+topic, "application/vnd.kafka.json.v2+json", strings.NewReader(`{"records":[{"value":"`+large[:16<<20-2]+`"},{"value":1}]}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.Body.Close(); resp.StatusCode != 200 || strings.Contains(string(body), `"error":"`) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	r, _ := s.tail("from=earliest&topic=" + topic)
	e := s.want(r, "0:0")
	if !strings.Contains(e.data, `"value_format":"text"`) || len(e.data) < 16<<20 {
		t.Errorf("%d bytes", len(e.data))
	}
	s.want(r, "0:1")
}

// A stream takes head, retry, progress and id in its first packet, soon.
func TestFirstPacketHasEverything(t *testing.T) {
	s := streamers(t)
	topic := s.k.Topic(t, "orders", 3)
	s.tail("topic=" + topic) // so that it is followed
	best := time.Hour
	for range 3 {
		begun := time.Now()
		s.tail("topic=" + topic)
		best = min(best, time.Since(begun))
	}
	t.Logf("first event after %v", best)
	if best > time.Second { // 100 ms on a quiet machine
		t.Errorf("first event after %v", best)
	}
}

// With Kafka out of reach a connect is refused within its five seconds, and an open stream goes on beating.
func TestKafkaIsOutOfReach(t *testing.T) {
	s := streamers(t, func(_ *Config, c *stream.Config) { c.Heartbeat = time.Second })
	if s.k.Real() {
		backend.NotRun(t, "the real broker is everybody's; e2e stops one of its own")
	}
	topic := s.k.Topic(t, "orders", 1)
	r, _ := s.tail("topic=" + topic)
	s.produce(topic, 0, "one")
	s.want(r, "0:0")
	s.k.Fake().Close()
	begun := time.Now()
	resp, _ := s.request("GET", "/events?topic=another&strict=1", "Accept: text/event-stream")
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 503 || string(body) != `{"error_code":50302,"message":"Kafka is not available."}` || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %v %s", resp.StatusCode, resp.Header, body)
	}
	if took := time.Since(begun); took > 6*time.Second {
		t.Errorf("refused after %v", took)
	}
	for range 2 {
		if line, err := r.ReadString('\n'); err != nil || line != ":\n" {
			t.Fatalf("got %q %v, want a heartbeat", line, err)
		}
	}
}
