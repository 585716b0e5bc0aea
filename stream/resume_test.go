package stream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

func cursorOf(topic string, id byte, count int32, ps ...sluice.PartitionCursor) string {
	c := sluice.Cursor{Topics: []sluice.TopicCursor{{Name: sluice.NameTagOf(topic), Log: sluice.LogTagOf("sluice-dev", sluice.TopicID{id}), Count: count, Partitions: ps}}}
	return c.String()
}

func at(n int32, next int64) sluice.PartitionCursor {
	return sluice.PartitionCursor{Number: n, Next: next}
}

func TestWhereAStreamBegins(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 3)
	begun := time.Now()
	for p := range 3 {
		w.mem.Produce(part("orders", p), sluice.NewRecord{Value: []byte("old"), Timestamp: begun.Add(-time.Hour)}, sluice.NewRecord{Value: []byte("older"), Timestamp: begun.Add(-2 * time.Hour)},
			sluice.NewRecord{Value: []byte("new"), Timestamp: begun}, sluice.NewRecord{Value: []byte("new"), Timestamp: begun})
	}
	w.create("payments", 2, 1)
	for name, c := range map[string]struct{ query, id, want string }{
		"latest":                         {"topic=orders", "", "4 4 4"},
		"earliest":                       {"topic=orders&from=earliest", "", "0 0 0"},
		"timestamp":                      {"topic=orders&since=-60s", "", "2 2 2"},
		"offsets, the others at the end": {"topic=orders&offsets=1:3", "", "4 3 4"},
		"subset":                         {"topic=orders&from=earliest&partitions=0,2", "", "0 - 0"},
		"cursor":                         {"topic=orders", cursorOf("orders", 1, 3, at(0, 1), at(1, 2), at(2, 3)), "1 2 3"},
		"the cursor beats from":          {"topic=orders&from=earliest", cursorOf("orders", 1, 3, at(0, 1), at(1, 2), at(2, 3)), "1 2 3"},
		"one that was not followed starts by from": {"topic=orders&from=earliest", cursorOf("orders", 1, 3, at(0, 1), at(2, 3)), "1 0 3"},
		"the same at the end":                      {"topic=orders", cursorOf("orders", 1, 3, at(0, 1), at(2, 3)), "1 4 3"},
		"one that was added starts at 0":           {"topic=orders", cursorOf("orders", 1, 2, at(0, 1)), "1 4 0"},
		"one that is not asked for is dropped":     {"topic=orders&partitions=1", cursorOf("orders", 1, 3, at(0, 1), at(1, 2)), "- 2 -"},
		"written by hand":                          {"topic=orders&last_event_id=orders/1:3,orders/2:-1&from=earliest", "", "0 3 4"},
		"as JSON":                                  {`topic=orders&last_event_id=[{"topic":"orders","partition":1,"offset":3},{"topic":"orders","partition":0,"timestamp":` + fmt.Sprint(begun.Add(-time.Minute).UnixMilli()) + `}]`, "", "2 3 4"},
		"the header beats the query":               {"topic=orders&last_event_id=orders/1:3", "orders/1:2", "4 2 4"},
		"an empty one is absent":                   {"topic=orders&last_event_id=", "", "4 4 4"},
	} {
		query := strings.ReplaceAll(c.query, `"`, "%22")
		_, first := w.tail(query, c.id)
		cur, err := sluice.ParseCursor(first.id)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := []string{"-", "-", "-"}
		for _, p := range cur.Topics[0].Partitions {
			got[p.Number] = fmt.Sprint(p.Next)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: begins at %s, want %s", name, s, c.want)
		}
	}

	// A topic that the cursor lacks starts by from.
	_, first := w.tail("topic=orders&topic=payments&from=earliest", cursorOf("orders", 1, 3, at(0, 4), at(1, 4), at(2, 4)))
	if cur, _ := sluice.ParseCursor(first.id); len(cur.Topics) != 2 {
		t.Errorf("two topics: %+v", cur)
	}
}

func TestIdsThatAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 3)
	w.create("payments", 2, 3)
	id := cursorOf("orders", 1, 3, at(0, 0))
	w.refused("topic=orders", id[:len(id)-1], "40023: Malformed Last-Event-ID.")
	w.refused("topic=orders&last_event_id=orders/x:1", "", "40023: Malformed Last-Event-ID.")
	w.refused("topic=payments", id, "40024: Last-Event-ID belongs to other topics.")
	w.refused("topic=orders", "payments/0:1", "40024: Last-Event-ID belongs to other topics.")
	w.refused("topic=orders", "orders/7:1", "40402: Partition not found.")
	w.refused("topic=nothing", id, "40401: Topic not found.")

	topics := []sluice.TopicCursor{{Name: sluice.NameTagOf("orders"), Log: sluice.LogTagOf("sluice-dev", sluice.TopicID{1}), Count: 3}}
	for _, c := range []sluice.Cursor{{Limited: true, Left: 1, Topics: topics}, {Bounded: true, Topics: topics}} {
		w.refused("topic=orders", c.String(), "50314: Last-Event-ID was issued by a newer release.")
	}
	ended := sluice.Cursor{Ended: true, Topics: topics}
	c := w.connect("topic=orders", ended.String())
	if c.resp.StatusCode != 204 {
		t.Errorf("a finished read: %d", c.resp.StatusCode)
	}
	timed := sluice.Cursor{Time: time.Now(), Topics: topics}
	w.tail("topic=orders", timed.String()) // of the same log: its offsets hold
	w.create("orders", 9, 3)
	w.refused("topic=orders", timed.String(), "50314: Last-Event-ID was issued by a newer release.")
}

func TestGapsAtConnect(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 2)
	w.produceN(part("orders", 0), 0, 900)
	w.mem.DeleteBefore(part("orders", 0), 250)
	for name, c := range map[string]struct {
		query, id, gap string
		next           int64
	}{
		"retention":          {"topic=orders", "orders/0:5,orders/1:0", `{"topic":"orders","partition":0,"from":5,"to":250,"lost":245,"reason":"retention"}`, 250},
		"retention, latest":  {"topic=orders&on_gap=latest", "orders/0:5", `{"topic":"orders","partition":0,"from":5,"to":900,"lost":895,"reason":"retention"}`, 900},
		"truncated":          {"topic=orders", "orders/0:901", `{"topic":"orders","partition":0,"from":901,"to":250,"lost":null,"reason":"truncated"}`, 250},
		"truncated, latest":  {"topic=orders&on_gap=latest&partitions=0", "orders/0:901", `{"topic":"orders","partition":0,"from":901,"to":900,"lost":null,"reason":"truncated"}`, 900},
		"another log":        {"topic=orders", cursorOf("orders", 7, 2, at(0, 300)), `{"topic":"orders","partition":0,"from":300,"to":250,"lost":null,"reason":"other-log"}`, 250},
		"another log, later": {"topic=orders&on_gap=latest", cursorOf("orders", 7, 2, at(0, 5000)), `{"topic":"orders","partition":0,"from":5000,"to":900,"lost":null,"reason":"other-log"}`, 900},
	} {
		t.Run(name, func(t *testing.T) {
			cl, _ := w.tail(c.query, c.id)
			cl.t = t
			e := cl.want("gap")
			cur, err := sluice.ParseCursor(e.id)
			if e.data != c.gap || err != nil || cur.Topics[0].Partitions[0].Next != c.next {
				t.Errorf("got %s %+v\nwant %s", e.data, cur, c.gap)
			}
			if c.next == 250 {
				cl.offsets(0, 250, 260)
			}
		})
	}
	w.refused("topic=orders&on_gap=error", "orders/0:100", "40910: Offset 100 of orders/0 is out of range [250, 900].")

	// Another replica may be ahead of what this one has seen: that is no gap.
	w.tail("topic=orders", "") // follows the partitions
	w.topics.mu.Lock()
	w.topics.ends[part("orders", 0)] = sluice.Range{Start: 250, End: 905}
	w.topics.mu.Unlock()
	c, _ := w.tail("topic=orders", "orders/0:903,orders/1:0")
	w.produceN(part("orders", 0), 900, 6)
	c.offsets(0, 903, 906)
}
