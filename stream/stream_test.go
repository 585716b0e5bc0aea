package stream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

func newBufio(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

func TestEveryRecordArrivesOnceAndInOrder(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 3)
	c, first := w.tail("topic=orders", "")
	cur, err := sluice.ParseCursor(first.id)
	if err != nil || len(cur.Topics) != 1 || len(cur.Topics[0].Partitions) != 3 {
		t.Fatalf("the first id must name every partition: %+v %v", cur, err)
	}
	const each = 3000
	go func() {
		for i := 0; i < each; i += 100 {
			for p := range 3 {
				w.produceN(part("orders", p), i, 100)
			}
		}
	}()
	next := map[int32]int64{}
	for range 3 * each {
		m := c.message()
		if m.Offset != next[m.Partition] || string(m.Value) != fmt.Sprintf(`{"n":%d}`, m.Offset) {
			t.Fatalf("got %d:%d %s, want offset %d", m.Partition, m.Offset, m.Value, next[m.Partition])
		}
		next[m.Partition]++
	}
}

func TestSinglePartitionHasAnIdOnEveryEvent(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 3)
	c, _ := w.tail("topic=orders&partitions=1", "")
	w.produceN(part("orders", 1), 0, 50)
	for i := range int64(50) {
		e := c.want("")
		cur, err := sluice.ParseCursor(e.id)
		if err != nil || cur.Topics[0].Count != 3 || len(cur.Topics[0].Partitions) != 1 || cur.Topics[0].Partitions[0].Next != i+1 {
			t.Fatalf("event %d: id %q is %+v %v", i, e.id, cur, err)
		}
	}
}

func TestCatchUpMeetsLive(t *testing.T) {
	for _, query := range []string{"topic=orders&from=earliest", "topic=orders&from=earliest&partitions=0"} {
		t.Run(query, func(t *testing.T) {
			w := newWorld(t, nil)
			w.create("orders", 1, 2)
			const history, live = 20_000, 6_000
			for i := 0; i < history; i += 500 {
				w.produceN(part("orders", 0), i, 500)
			}
			c, first := w.tail(query, "")
			if d := decode(t, first.data); d["state"] != "catching-up" || d["behind"] != float64(history) {
				t.Errorf("first frame: %s", first.data)
			}
			go func() {
				for i := range live / 50 {
					w.produceN(part("orders", 0), history+50*i, 50)
					time.Sleep(time.Millisecond)
				}
			}()
			c.offsets(0, 0, history+live)
		})
	}
}

func TestSilentPartitionsLoseNothingWhileAway(t *testing.T) {
	w := newWorld(t, nil)
	w.create("orders", 1, 12)
	for p := range 12 {
		w.produceN(part("orders", p), 0, p)
	}
	c, _ := w.tail("topic=orders", "")
	w.produceN(part("orders", 5), 0, 1)
	e := c.want("")
	_ = c.conn.Close()
	for p := range 12 {
		w.produceN(part("orders", p), 0, 2)
	}
	c, first := w.tail("topic=orders", e.id)
	if d := decode(t, first.data); d["resumed"] != true || d["behind"] != float64(24) {
		t.Errorf("first frame: %s", first.data)
	}
	seen := map[string]bool{}
	for range 24 {
		m := c.message()
		seen[fmt.Sprint(m.Partition, ":", m.Offset)] = true
	}
	for p := range 12 {
		from := int64(p)
		if p == 5 {
			from++
		}
		for o := from; o < from+2; o++ {
			if !seen[fmt.Sprint(p, ":", o)] {
				t.Errorf("%d:%d is missing", p, o)
			}
		}
	}
}

// A cut anywhere repeats at most one write, loses nothing, and ids never go back.
func TestCutAtManyBytes(t *testing.T) {
	for name, query := range map[string]string{"one partition": "topic=orders&from=earliest&partitions=0", "three partitions": "topic=orders&from=earliest"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.ConnectRate = 1 << 20 })
			w.create("orders", 1, 3)
			total := 0
			for p := range 3 {
				n := 67
				if name == "one partition" {
					n = 200 * (1 - min(p, 1))
				}
				w.produceN(part("orders", p), 0, n)
				total += n
			}
			whole := w.connect(query, "")
			var size int64
			for seen := 0; seen < total; {
				e := whole.event()
				size += int64(len(e.data) + len(e.id)) // and a little more
				if e.name == "" {
					seen++
				}
			}
			for cut := int64(0); cut < size; cut += 211 {
				seen := map[string]int{}
				c := w.connect(query, "")
				first, lastID, _ := readAll(io.LimitReader(c.resp.Body, cut))
				_ = c.conn.Close()
				collect(t, seen, first)
				before, _ := sluice.ParseCursor(lastID)
				rest := w.connect(query, lastID)
				for len(seen) < total {
					e := rest.event()
					collect(t, seen, []event{e})
					if e.hasID {
						now, err := sluice.ParseCursor(e.id)
						if err != nil || !notBelow(before, now) {
							t.Fatalf("cut at %d: the id goes back", cut)
						}
						before = now
					}
				}
				_ = rest.conn.Close()
				for k, n := range seen {
					if n > 2 {
						t.Fatalf("cut at %d: %s came %d times", cut, k, n)
					}
				}
			}
		})
	}
}

func collect(t *testing.T, seen map[string]int, events []event) {
	t.Helper()
	for _, e := range events {
		if e.name != "" {
			continue
		}
		m, err := e.message()
		if err != nil {
			t.Fatal(err)
		}
		seen[fmt.Sprint(m.Partition, ":", m.Offset)]++
	}
}

func notBelow(before, now sluice.Cursor) bool {
	for i, t := range before.Topics {
		for j, p := range t.Partitions {
			if now.Topics[i].Partitions[j].Next < p.Next {
				return false
			}
		}
	}
	return true
}
