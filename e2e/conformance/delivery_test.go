package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// delivery is rest-api.md 4.5: where records go, and how long a produce waits.
func delivery(t *testing.T, s *server) {
	const partitions = 7
	topic := s.kafka.Topic(t, "c45", partitions)
	type written struct {
		Offsets []struct {
			Partition int
			Offset    int64
			Error     *string
		}
	}
	produce := func(t *testing.T, records []string) written {
		a := s.expect(t, request{method: "POST", path: "/topics/" + topic, contentType: textV2, body: `{"records":[` + strings.Join(records, ",") + `]}`}, want{status: 200})
		var w written
		a.into(t, &w)
		if len(w.Offsets) != len(records) {
			t.Fatalf("%v\ngot %v: not a slot for each record", a.asked, a)
		}
		return w
	}
	s.row(t, "keys go where the Java client puts them", func(t *testing.T) {
		var keys, records []string
		for i := range 300 {
			keys = append(keys, fmt.Sprintf("key-%d-é", i*i))
		}
		keys = append(keys, "") // a zero-length key is a key
		for _, k := range keys {
			records = append(records, fmt.Sprintf(`{"key":%q,"value":"x"}`, k))
		}
		judge := kgo.StickyKeyPartitioner(nil).ForTopic(topic) // murmur2, another's
		for i, slot := range produce(t, records).Offsets {
			if by := judge.Partition(&kgo.Record{Key: []byte(keys[i])}, partitions); by != slot.Partition {
				s.differ(t, "key %q went to partition %d, want %d", keys[i], slot.Partition, by)
			}
		}
	})
	s.row(t, "records without a key stay together", func(t *testing.T) {
		records := make([]string, 20)
		for i := range records {
			records[i] = `{"value":"small"}`
		}
		first := produce(t, records).Offsets
		for _, slot := range first {
			if slot.Partition != first[0].Partition {
				s.differ(t, "20 small records without a key went to partitions %d and %d", first[0].Partition, slot.Partition)
			}
		}
	})
	s.row(t, "and move on after 16 KiB", func(t *testing.T) {
		seen := map[int]bool{}
		large := fmt.Sprintf(`{"value":%q}`, strings.Repeat("x", 17<<10))
		for range 20 {
			seen[produce(t, []string{large}).Offsets[0].Partition] = true
		}
		if len(seen) < 3 {
			s.differ(t, "20 records of 17 KiB without a key went to the partitions %v alone", seen)
		}
	})
	s.row(t, "one request's records keep their order", func(t *testing.T) {
		records := make([]string, 500)
		for i := range records {
			records[i] = fmt.Sprintf(`{"partition":3,"value":"%d"}`, i)
		}
		slots := produce(t, records).Offsets
		for i := 1; i < len(slots); i++ {
			if slots[i].Offset <= slots[i-1].Offset {
				s.differ(t, "record %d has offset %d, and the one before it %d", i, slots[i].Offset, slots[i-1].Offset)
			}
		}
		for i, r := range s.inKafka(t, topic, 3, slots[0].Offset, len(slots)) {
			if string(r.Value) != fmt.Sprint(i) {
				s.differ(t, "Kafka holds %q as record %d", r.Value, i)
			}
		}
	})
	s.row(t, "async answers 204 and writes", func(t *testing.T) {
		mine := s.kafka.Topic(t, "c45-later", 1)
		for i, query := range []string{"?async=true", "?async"} {
			s.expect(t, request{method: "POST", path: "/topics/" + mine + query, contentType: textV2, body: fmt.Sprintf(`{"records":[{"value":"later %d"}]}`, i)}, want{status: 204})
			if held := s.inKafka(t, mine, 0, int64(i), 1)[0].Value; string(held) != fmt.Sprintf("later %d", i) { // waits for it
				s.differ(t, "Kafka holds %q as record %d", held, i)
			}
		}
	})
	s.rows(t, []row{
		{"async is checked", request{method: "POST", path: "/topics/" + topic + "?async=true", contentType: binaryV2, body: `{"records":[{"value":"?"}]}`}, want{status: 422, code: 422, message: "Record value contains invalid base64 encoding"}},
		{"async of an unknown topic", request{method: "POST", path: "/topics/" + s.unknown(t) + "?async=true", body: oneRecord}, unknownTopic},
		{"async that is no boolean", request{method: "POST", path: "/topics/" + topic + "?async=later", body: oneRecord}, want{status: 400, code: 400, like: ".*async.*"}},
		{"async=false waits", request{method: "POST", path: "/topics/" + topic + "?async=false", body: oneRecord}, want{status: 200, json: okSlots}},
	})
	s.row(t, "a topic is made where that was asked for", func(t *testing.T) {
		creating := s.own(t, "SLUICE_AUTO_CREATE_TOPICS=true")
		name := topic + "-made"
		a := creating.expect(t, request{method: "POST", path: "/topics/" + name, body: oneRecord}, want{status: 200, json: okSlots})
		t.Cleanup(func() { s.kafka.Delete(t, name) })
		if held := s.written(t, name, a).Value; string(held) != "foo" {
			s.differ(t, "Kafka holds %q", held)
		}
		creating.expect(t, request{method: "GET", path: "/topics/" + name + "-not"}, unknownTopic)
		creating.expect(t, request{method: "GET", path: "/topics/" + name + "-not/partitions/0/messages"}, unknownTopic)
	})
}
