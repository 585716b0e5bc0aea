package conformance

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// complaints are the lines of rest-api.md 14 about consumers that no row of another section tells whole. R1 is in 15.1,
// R2 in 5.3, R3 and R12 in 15.3, R13 in 5.7 (7), R15 in 5.4, R21 in 7.4, R22 in 8.
func complaints(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c14", 2)
	s.fill(t, topic, 0, "a", "b")
	s.fill(t, topic, 1, "c")
	s.row(t, "R4 first reads are not empty, a seek right after subscribing is no 409", func(t *testing.T) {
		for range 3 {
			i := s.subscribed(t, "", earliest, topic)
			a := i.must(t, "GET", "/records", "", want{status: 200})
			if string(a.body) == "[]" {
				s.differ(t, "the first read was empty after %v", a.took)
			}
			i = s.subscribed(t, "", earliest, topic)
			i.expect(t, "POST", "/positions/end", places(topic, 0, 1), want{status: 204})
		}
	})
	s.row(t, "R5 reads with data do not last the timeout", func(t *testing.T) {
		i := s.assigned(t, "", `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"30000"}`, topic, 0)
		for _, v := range []string{"a", "b"} {
			began := time.Now()
			i.texts(t, "?max_bytes=1", v)
			if took := time.Since(began); took > 10*time.Second {
				s.differ(t, "a read took %v", took)
			}
		}
	})
	s.row(t, "R6 a record above every limit comes, and none is gone", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c14", 1, "max.message.bytes=8388608")
		large := strings.Repeat("x", 3<<20)
		s.fill(t, mine, 0, "small", large, "next")
		i := s.assigned(t, "", earliest, mine, 0)
		for _, v := range []string{"small", large, "next"} {
			i.texts(t, "?max_bytes=1000", v)
		}
		one := s.create(t, "", quick, bareV1)
		for _, v := range []string{"small", large, "next"} {
			var all []got
			one.untilV1(t, mine, "?max_bytes=1000").into(t, &all)
			s.same(t, all, v)
		}
	})
	s.row(t, "R7 what a client that left did not get is not committed", func(t *testing.T) { cutOff(t, s) })
	s.row(t, "R11 an odd client is taken as it is", func(t *testing.T) {
		for _, r := range []request{
			{contentType: "application/json"}, {contentType: "application/json; charset=utf-8", accept: "*/json"}, {contentType: "application/octet-stream"},
			{contentType: bare}, {contentType: jsonV1, accept: "text/html, */*;q=0.1"}, {contentType: "", accept: "application/vnd.kafka.v2+json;q=0.5,,*/*;q=0.1"},
		} {
			r.method, r.path = "POST", "/consumers/"+backend.Unique("c14")
			r.body = `{"name":"` + backend.Unique("strimzi") + `","format":"Binary","auto.offset.reset":"smallest","enable.auto.commit":false,"responseMinBytes":"-1","requestWaitMs":1000,"isolation.level":"read_committed","topic.metadata.refresh.interval.ms":1000}`
			s.madeBy(t, s.expect(t, r, want{status: 200}))
		}
	})
	s.row(t, "R16 an idle instance costs no measurable CPU", func(t *testing.T) {
		t.Parallel()
		idle(t, s, topic)
	})
	s.row(t, "R23 a name is free again", func(t *testing.T) {
		i := s.create(t, "", `{"id":"one"}`, bareV2)
		taken := request{method: "POST", path: "/consumers/" + i.group, contentType: bareV2, body: `{"id":"one"}`}
		s.expect(t, taken, want{status: 409, code: 40902, message: "Consumer with specified consumer ID already exists in the specified consumer group."})
		i.expect(t, "DELETE", "", "", want{status: 204})
		s.expect(t, taken, want{status: 200})
	})
}

// cutOff leaves in the middle of an answer that is larger than all buffers on its way.
func cutOff(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c14", 1, "max.message.bytes=2097152")
	value := strings.Repeat("x", 1<<20)
	for n := range 11 {
		s.fill(t, topic, 0, fmt.Sprint(n, " ", value))
	}
	i := s.assigned(t, "", `{"auto.offset.reset":"earliest","auto.commit.enable":"false","fetch.min.bytes":"10000000","consumer.request.timeout.ms":"10000"}`, topic, 0)
	w := s.dial(t)
	w.send(t, "GET", i.path+"/records", nil, "")
	if _, err := io.ReadFull(w.in, make([]byte, 100<<10)); err != nil {
		t.Fatal(err)
	}
	if err := w.conn.Close(); err != nil {
		t.Fatal(err)
	}
	i.expect(t, "POST", "/offsets", "", want{status: 200, body: "[]"})
	s.wantCommitted(t, i.group, topic, 0, -1)
	i.texts(t, "?max_bytes=1", "0 "+value)
	i.expect(t, "POST", "/offsets", "", want{status: 200, body: "[]"})
	s.wantCommitted(t, i.group, topic, 0, 1)
}

// idle measures the processor time of a gateway with and without instances that nobody calls.
func idle(t *testing.T, s *server, topic string) {
	const instances, lasts = 40, 2 * time.Second
	if !s.ours {
		s.notRun(t, "looks at the process of the server")
	}
	r := start(t, s.kafka.Brokers)
	own := &server{url: r.URL, kafka: s.kafka, ours: true, report: s.report}
	wait(t.Context(), lasts/2) // its start is over
	spent := func() time.Duration {
		before := processorTime(t, r)
		wait(t.Context(), lasts)
		return processorTime(t, r) - before
	}
	alone := spent()
	for n := range instances {
		own.subscribed(t, fmt.Sprintf("%s-%d", topic, n), quick, topic).some(t, "", 3)
	}
	wait(t.Context(), lasts/2)
	with := spent()
	each := max(0, with-alone) / instances
	t.Logf("%s: %v without instances, %v with %d of them, in %v", s.kafka.Name, alone, with, instances, lasts)
	if each > lasts/500 { // 0.2 %: two heartbeats a second
		own.differ(t, "%v for each instance in %v", each, lasts)
	}
}

// processorTime is what the process has used, by the kernel's count (proc(5), in ticks of 10 ms).
func processorTime(t *testing.T, r *peers.Replica) time.Duration {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
