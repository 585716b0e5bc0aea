package conformance

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// readingRules is rest-api.md 5.7.
func readingRules(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c57", 1)
	hundred := func(n int) string { return fmt.Sprintf("%0100d", n) } // raw bytes
	s.fill(t, topic, 0, hundred(0), hundred(1), hundred(2))
	quickly := func(t *testing.T, a answer) {
		t.Helper()
		if a.took > 8*time.Second { // of 20
			s.differ(t, "it was held for %v", a.took)
		}
	}
	const slow = `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"20000"%s}`
	with := func(more string) string { return fmt.Sprintf(slow, more) }
	s.row(t, "1 a read ends with the first data", func(t *testing.T) {
		i := s.assigned(t, "", with(""), topic, 0)
		a := i.must(t, "GET", "/records", "", want{status: 200})
		quickly(t, a)
		var all []got
		a.into(t, &all)
		if len(all) != 3 {
			s.differ(t, "%d records of the three that were there", len(all))
		}
	})
	s.row(t, "1 with fetch.min.bytes it waits for those", func(t *testing.T) {
		t.Parallel()
		mine := s.kafka.Topic(t, "c57", 1)
		s.fill(t, mine, 0, hundred(0))
		i := s.assigned(t, "", with(`,"fetch.min.bytes":"250"`), mine, 0)
		done := make(chan answer, 1)
		go func() {
			a, err := s.try(t.Context(), request{method: "GET", path: i.path + "/records"})
			if err != nil {
				t.Error(err)
			}
			done <- a
		}()
		for n := range 2 {
			select {
			case a := <-done:
				s.differ(t, "it ended with %d of 250 bytes: %v", 100*(n+1), a)
				return
			case <-time.After(700 * time.Millisecond):
			}
			s.fill(t, mine, 0, hundred(n+1))
		}
		a := <-done
		if n := strings.Count(string(a.body), `"offset"`); n != 3 || a.took > 12*time.Second {
			s.differ(t, "%d records after %v", n, a.took)
		}
	})
	s.row(t, "1 with fetch.min.bytes and the timeout first", func(t *testing.T) {
		i := s.assigned(t, "", `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"800","fetch.min.bytes":"10000000"}`, topic, 0)
		var a answer
		for range 5 { // on a busy machine the first may end before there is an assignment
			if a = i.must(t, "GET", "/records", "", want{status: 200}); string(a.body) != "[]" {
				break
			}
		}
		if n := strings.Count(string(a.body), `"offset"`); n != 3 || a.took < 500*time.Millisecond || a.took > 8*time.Second {
			s.differ(t, "%d records after %v", n, a.took)
		}
	})
	s.row(t, "2 the first read waits for the join", func(t *testing.T) {
		i := s.subscribed(t, "", with(""), topic)
		a := i.must(t, "GET", "/records", "", want{status: 200})
		if string(a.body) == "[]" {
			s.differ(t, "it was empty")
		}
	})
	timeouts(t, s)
	for _, c := range []struct {
		query string
		want  []int // records of each read
	}{
		{"", []int{3}}, {"?max_bytes=0", []int{3}}, {"?max_bytes=-1", []int{3}}, {"?max_bytes=300", []int{3}}, {"?max_bytes=299", []int{2, 1}},
		{"?max_bytes=200", []int{2, 1}}, {"?max_bytes=199", []int{1, 1, 1}}, {"?max_bytes=1", []int{1, 1, 1}}, {"?max_bytes=9223372036854775807", []int{3}}, {"?unknown=1", []int{3}},
	} {
		s.row(t, "4 "+c.query, func(t *testing.T) {
			i := s.assigned(t, "", with(""), topic, 0)
			next := 0
			for _, n := range c.want {
				var wanted []string
				for range n {
					wanted = append(wanted, hundred(next))
					next++
				}
				i.texts(t, c.query, wanted...)
			}
		})
	}
	s.row(t, "4 keys count", func(t *testing.T) {
		keyed := s.kafka.Topic(t, "c57", 1)
		s.intoKafka(t, keyed, kgo.Record{Key: []byte("12345"), Value: []byte("a")}, kgo.Record{Key: []byte("12345"), Value: []byte("b")})
		i := s.assigned(t, "", with(""), keyed, 0)
		i.texts(t, "?max_bytes=11", "a")
		i.texts(t, "?max_bytes=11", "b")
		i = s.assigned(t, "", with(""), keyed, 0)
		i.texts(t, "?max_bytes=12", "a", "b")
	})
	s.row(t, "4 the server's limit", func(t *testing.T) {
		own := s.own(t, "SLUICE_CONSUMER_REQUEST_MAX_BYTES=250")
		i := own.assigned(t, "", with(""), topic, 0)
		i.texts(t, "", hundred(0), hundred(1))
		i = own.assigned(t, "", with(""), topic, 0)
		i.texts(t, "?max_bytes=100000", hundred(0), hundred(1))
		own = s.own(t, "SLUICE_CONSUMER_REQUEST_MAX_BYTES=1")
		i = own.assigned(t, "", with(""), topic, 0)
		for n := range 3 {
			i.texts(t, "", hundred(n))
		}
	})
	s.row(t, "4 a parameter that is no number", func(t *testing.T) {
		i := s.assigned(t, "", with(""), topic, 0)
		i.expect(t, "GET", "/records?max_bytes=abc", "", want{status: 400, code: 400, like: ".*max_bytes.*"})
		i.expect(t, "GET", "/records?timeout=abc", "", want{status: 400, code: 400, like: ".*timeout.*"})
		i.texts(t, "", hundred(0), hundred(1), hundred(2)) // they took nothing
	})
	resets(t, s, topic)
	undecodable(t, s)
	s.row(t, "9 offsets ascend", func(t *testing.T) {
		many := s.kafka.Topic(t, "c57", 3)
		var values []string
		for n := range 400 {
			values = append(values, fmt.Sprint(n))
		}
		for p := range int32(3) {
			s.fill(t, many, p, values...)
		}
		i := s.assigned(t, "", with(""), many, 0, 1, 2)
		next := map[int32]int64{}
		for _, g := range i.some(t, "?max_bytes=500", 1200) {
			if g.Offset != next[g.Partition] || g.text(t) != fmt.Sprint(g.Offset) {
				s.differ(t, "offset %d of partition %d where %d was next", g.Offset, g.Partition, next[g.Partition])
				return
			}
			next[g.Partition]++
		}
	})
	s.row(t, "isolation.level", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c57", 1)
		s.transactions(t, mine, false, "aborted")
		s.transactions(t, mine, true, "committed")
		i := s.assigned(t, "", with(`,"isolation.level":"read_committed"`), mine, 0)
		i.texts(t, "", "committed")
		i = s.assigned(t, "", with(""), mine, 0)
		i.texts(t, "", "aborted", "committed")
	})
}

// transactions writes one transaction, and ends it well or not.
func (s *server) transactions(t *testing.T, topic string, commit bool, values ...string) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...), kgo.TransactionalID(fmt.Sprintf("%s-%t", topic, commit)), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if err := c.ProduceSync(ctx, kgo.StringRecord(v)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
		t.Fatal(err)
	}
}

// timeouts is 5.7, rule 3.
func timeouts(t *testing.T, s *server) {
	empty := s.kafka.Topic(t, "c57", 1)
	for _, c := range []struct {
		name, options, query string
		least, most          time.Duration
	}{
		{"3 the instance's timeout", `{"consumer.request.timeout.ms":"1200"}`, "", 1100 * time.Millisecond, 8 * time.Second},
		{"3 the server's timeout", `{}`, "", 900 * time.Millisecond, 8 * time.Second},
		{"3 the query shortens", `{"consumer.request.timeout.ms":"30000"}`, "?timeout=300", 200 * time.Millisecond, 8 * time.Second},
		{"3 the query does not lengthen", `{"consumer.request.timeout.ms":"300"}`, "?timeout=30000", 200 * time.Millisecond, 8 * time.Second},
		{"3 timeout=0 changes nothing", `{"consumer.request.timeout.ms":"1200"}`, "?timeout=0", 1100 * time.Millisecond, 8 * time.Second},
		{"3 timeout=-1 changes nothing", `{"consumer.request.timeout.ms":"1200"}`, "?timeout=-1", 1100 * time.Millisecond, 8 * time.Second},
	} {
		s.row(t, c.name, func(t *testing.T) {
			t.Parallel()
			i := s.assigned(t, "", c.options, empty, 0)
			a := i.must(t, "GET", "/records"+c.query, "", want{status: 200, body: "[]"})
			if a.took < c.least || a.took > c.most {
				s.differ(t, "it was held for %v", a.took)
			}
		})
	}
}

// resets is 5.7, rule 6.
func resets(t *testing.T, s *server, topic string) {
	none := func(option string) string {
		return `{"consumer.request.timeout.ms":"1500","auto.offset.reset":"` + option + `"}`
	}
	lost := want{status: 500, code: 50002, like: "Kafka error: .+"}
	s.row(t, "6 none, v2", func(t *testing.T) {
		i := s.assigned(t, "", none("none"), topic, 0)
		i.expect(t, "GET", "/records", "", lost)
		i.must(t, "POST", "/positions/beginning", places(topic, 0), want{status: 204})
		i.some(t, "", 3) // a client may seek
	})
	s.row(t, "6 none, v1", func(t *testing.T) {
		i := s.create(t, "", none("none"), bareV1)
		s.expect(t, request{method: "GET", path: i.path + "/topics/" + topic}, lost)
	})
	s.row(t, "6 none with a commit", func(t *testing.T) {
		i := s.assigned(t, "", none("none"), topic, 0)
		i.must(t, "POST", "/offsets", offsetsOf(topic, 0, 1, ""), want{status: 200})
		other := s.assigned(t, i.group, none("none"), topic, 0)
		if all := other.some(t, "", 1); len(all) != 1 || all[0].Offset != 2 {
			s.differ(t, "read %v", all)
		}
	})
	for option, first := range map[string]int64{"earliest": 0, "latest": 3} {
		s.row(t, "6 out of range, "+option, func(t *testing.T) {
			mine := s.kafka.Topic(t, "c57", 1)
			s.fill(t, mine, 0, "a", "b", "c")
			i := s.assigned(t, "", none(option), mine, 0)
			i.must(t, "POST", "/positions", offsetsOf(mine, 0, 1000, ""), want{status: 204})
			var all []got
			eventually(t, 20*time.Second, "a record", func() bool {
				all = i.read(t, "?timeout=500")
				if len(all) == 0 { // the end is found some time after the seek
					s.fill(t, mine, 0, "d")
				}
				return len(all) > 0
			})
			if all[0].Offset < first || (option == "earliest" && all[0].Offset != 0) {
				s.differ(t, "it went on at %d, want %d", all[0].Offset, first)
			}
		})
	}
	s.row(t, "6 out of range, none", func(t *testing.T) {
		i := s.assigned(t, "", none("none"), topic, 0)
		i.must(t, "POST", "/positions", offsetsOf(topic, 0, 1000, ""), want{status: 204})
		i.expect(t, "GET", "/records", "", lost)
	})
}

// undecodable is 5.7, rule 7.
func undecodable(t *testing.T, s *server) {
	for _, c := range []struct{ format, good, bad, shown string }{
		{"json", `{"a":1}`, `{"a":`, `{"a":1}`},
		{"text", "text", "\xff", `"text"`},
		{"avro", "", "no schema", ""}, {"jsonschema", "", "no schema", ""}, {"protobuf", "", "no schema", ""},
	} {
		s.row(t, "7 "+c.format, func(t *testing.T) {
			if c.good == "" && s.registry == "" {
				s.notRun(t, "needs a schema registry")
			}
			topic := s.kafka.Topic(t, "c57", 1)
			good := func(offset int) string {
				if c.good == "" {
					return fmt.Sprintf(`{"topic":%q,"key":null,"value":null,"partition":0,"offset":%d,"timestamp":"<any>"}`, topic, offset)
				}
				return fmt.Sprintf(`{"topic":%q,"key":null,"value":%s,"partition":0,"offset":%d,"timestamp":"<any>"}`, topic, c.shown, offset)
			}
			one := kgo.Record{Value: []byte(c.good)}
			if c.good == "" {
				one.Value = nil // null is null in every format
			}
			bad := kgo.Record{Value: []byte(c.bad)}
			s.intoKafka(t, topic, one, bad, bad, one)
			i := s.assigned(t, "", `{"format":"`+c.format+`","auto.offset.reset":"earliest","consumer.request.timeout.ms":"3000"}`, topic, 0)
			i.must(t, "GET", "/records", "", want{status: 200, json: "[" + good(0) + "]"})
			for offset := 1; offset <= 2; offset++ {
				i.expect(t, "GET", "/records", "", want{status: 500, code: 50002, like: fmt.Sprintf(`Kafka error: .*%s.*0.*%d.*`, topic, offset)})
			}
			i.must(t, "GET", "/records", "", want{status: 200, json: "[" + good(3) + "]"})
			i.must(t, "POST", "/positions", offsetsOf(topic, 0, 2, ""), want{status: 204}) // back to it
			i.expect(t, "GET", "/records", "", want{status: 500, code: 50002, like: ".*"})
			i.must(t, "GET", "/records", "", want{status: 200, json: "[" + good(3) + "]"})
		})
	}
}
