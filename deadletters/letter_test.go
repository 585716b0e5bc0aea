package deadletters

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a topic that refuses records above max bytes and what its errors say.
type log struct {
	partitions int
	max        int
	fail       error

	mu      sync.Mutex
	written []sluice.NewRecord
}

func (l *log) Topic(context.Context, string) (sluice.Topic, error) {
	return sluice.Topic{Partitions: make([]sluice.PartitionState, l.partitions)}, nil
}

func (l *log) Produce(_ context.Context, topic string, records []sluice.NewRecord) ([]sluice.Receipt, error) {
	if topic != Topic || len(records) != 1 {
		return nil, fmt.Errorf("%d records to %s", len(records), topic)
	}
	r := records[0]
	size := (&sluice.Record{Key: r.Key, Value: r.Value, Headers: r.Headers}).Size()
	if l.fail != nil {
		return []sluice.Receipt{{Err: l.fail}}, nil
	}
	if l.max > 0 && size > l.max {
		return []sluice.Receipt{{Err: &sluice.Error{Kind: sluice.TooLarge, Msg: "too large"}}}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = append(l.written, r)
	return []sluice.Receipt{{Partition: r.Partition, Offset: int64(len(l.written))}}, nil
}

// read is the n-th written record as a reader of the topic gets it.
func (l *log) read(n int) *sluice.Record {
	w := l.written[n]
	return &sluice.Record{Topic: Topic, Partition: 1, Offset: int64(n), Timestamp: w.Timestamp, Key: w.Key, Value: w.Value, Headers: w.Headers}
}

func writer(t testing.TB, l *log) *Writer {
	t.Helper()
	return NewWriter(l, l, Topic, "replica-1 1.0.0")
}

func letter() Letter {
	return Letter{
		Record: &sluice.Record{Topic: "orders", Partition: 3, Offset: 104857, Timestamp: time.UnixMilli(1795409232118).UTC(), Key: []byte("k"), Value: []byte("v"),
			Headers: []sluice.Header{{Name: "a", Value: []byte("1")}, {Name: "a", Value: nil}, {Name: "sluice-dlq-topic", Value: []byte("forged")}}},
		TopicID: sluice.TopicID{1, 2, 3}, Subscription: "sub_1", Owner: "ann", Endpoint: "https://user:pw@api.example.com/hook?token=s3cret#f", Replay: "rpl_1", WebhookID: "evt_1",
		Reason: "client_error", Class: "C", Status: 422, Error: "the endpoint answered 422", Response: []byte{0xff, 0, 'x'},
		Attempts: 4, FirstAttempt: time.UnixMilli(1795409232000).UTC(), LastAttempt: time.UnixMilli(1795409299123).UTC(), Redrives: 2,
	}
}

// Key, value and headers come out byte for byte, and the story with them.
func TestALetterComesBackAsItWas(t *testing.T) {
	for name, change := range map[string]func(*Letter){
		"full":           func(*Letter) {},
		"null key":       func(l *Letter) { l.Record.Key = nil },
		"empty key":      func(l *Letter) { l.Record.Key = []byte{} },
		"tombstone":      func(l *Letter) { l.Record.Value = nil },
		"empty value":    func(l *Letter) { l.Record.Value = []byte{} },
		"no headers":     func(l *Letter) { l.Record.Headers = l.Record.Headers[:0] },
		"never answered": func(l *Letter) { l.Status, l.Response, l.Error, l.Replay, l.Owner = 0, nil, "", "", "" },
		"never tried":    func(l *Letter) { l.Attempts, l.FirstAttempt, l.LastAttempt = 0, time.Time{}, time.Time{} },
		"no uuid":        func(l *Letter) { l.TopicID, l.Record.Timestamp = sluice.TopicID{}, time.Time{} },
	} {
		topic := &log{partitions: 12}
		want := letter()
		change(&want)
		began := time.Now()
		if err := writer(t, topic).Write(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		got, err := Parse(topic.read(0))
		if err != nil {
			t.Fatal(err)
		}
		if got.At.Before(began.Add(-time.Second)) || got.Instance != "replica-1 1.0.0" {
			t.Errorf("%s: written at %v by %q", name, got.At, got.Instance)
		}
		want.Endpoint, want.Instance, want.At = "https://api.example.com/hook", got.Instance, got.At
		if (want.Record.Key == nil) != (got.Record.Key == nil) || (want.Record.Value == nil) != (got.Record.Value == nil) {
			t.Errorf("%s: null and empty were confused", name)
		}
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s:\n%+v %+v\nwant\n%+v %+v", name, got, got.Record, want, want.Record)
		}
	}
}

func TestHeadersOfTheContract(t *testing.T) {
	topic := &log{partitions: 12}
	if err := writer(t, topic).Write(t.Context(), letter()); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, h := range topic.written[0].Headers {
		lines = append(lines, h.Name+"="+string(h.Value))
	}
	want := `a=1 a= sluice-dlq-topic=forged sluice-dlq-version=1 sluice-dlq-id=evt_1/sub_1/rpl_1 sluice-dlq-subscription=sub_1 sluice-dlq-owner=ann sluice-dlq-endpoint=https://api.example.com/hook
sluice-dlq-topic=orders sluice-dlq-partition=3 sluice-dlq-offset=104857 sluice-dlq-timestamp=1795409232118 sluice-dlq-topic-id=01020300-0000-0000-0000-000000000000
sluice-dlq-webhook-id=evt_1 sluice-dlq-reason=client_error sluice-dlq-class=C sluice-dlq-status=422 sluice-dlq-error=the endpoint answered 422 sluice-dlq-response=/wB4 sluice-dlq-attempts=4
sluice-dlq-first-attempt=2026-11-23T04:47:12.000Z sluice-dlq-last-attempt=2026-11-23T04:48:19.123Z sluice-dlq-redrives=2 sluice-dlq-instance=replica-1 1.0.0`
	if got := strings.Join(lines, " "); got != strings.ReplaceAll(want, "\n", " ") {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// A letter about a letter keeps the first story among the original headers and tells its own.
func TestALetterAboutALetter(t *testing.T) {
	topic := &log{partitions: 12}
	w := writer(t, topic)
	if err := w.Write(t.Context(), letter()); err != nil {
		t.Fatal(err)
	}
	again := Letter{Record: topic.read(0), Subscription: "sub_2", WebhookID: "evt_2", Reason: "manual"}
	if err := w.Write(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(topic.read(1))
	if err != nil || got.Subscription != "sub_2" || got.Record.Topic != Topic || got.Status != 0 {
		t.Fatalf("%+v %v", got, err)
	}
	got.Record.Offset = 0
	if inner, err := Parse(got.Record); err != nil || inner.Subscription != "sub_1" || inner.Reason != "client_error" {
		t.Errorf("%+v %v", inner, err)
	}
}

func TestTextsAreBounded(t *testing.T) {
	topic := &log{partitions: 1}
	l := letter()
	l.Error, l.Response = strings.Repeat("é", 400), bytes.Repeat([]byte("x"), 5000)
	if err := writer(t, topic).Write(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(topic.read(0))
	if err != nil || got.Error != strings.Repeat("é", 256) || len(got.Response) != 1024 {
		t.Errorf("error of %d bytes, response of %d", len(got.Error), len(got.Response))
	}
}

// MESSAGE_TOO_LARGE: once more without what the endpoint said, then it is for the lane to block.
func TestTooLarge(t *testing.T) {
	l := letter()
	l.Response = bytes.Repeat([]byte("x"), 1024)
	whole := l.Record.Size()
	for _, h := range l.headers("replica-1 1.0.0", true)[len(l.Record.Headers):] {
		whole += len(h.Name) + len(h.Value)
	}
	topic := &log{partitions: 1, max: whole}
	if err := writer(t, topic).Write(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(topic.read(0)); err != nil || got.Response != nil || got.Error != "" || got.Status != 422 {
		t.Errorf("%+v %v", got, err)
	}
	topic = &log{partitions: 1, max: whole - 1}
	if err := writer(t, topic).Write(t.Context(), l); sluice.KindOf(err) != sluice.TooLarge || len(topic.written) != 0 {
		t.Errorf("%v", err)
	}
}

func TestFailuresAreHandedOn(t *testing.T) {
	topic := &log{partitions: 1, fail: &sluice.Error{Kind: sluice.OutcomeUnknown, Msg: "?"}}
	if err := writer(t, topic).Write(t.Context(), letter()); sluice.KindOf(err) != sluice.OutcomeUnknown {
		t.Errorf("%v", err)
	}
	down := errors.New("down")
	topic.fail = down
	if err := writer(t, topic).Write(t.Context(), letter()); !errors.Is(err, down) {
		t.Errorf("%v", err)
	}
}

// Letters with a key follow the key; those without follow their origin.
func TestPartitionOfALetter(t *testing.T) {
	topic := &log{partitions: 12}
	w := writer(t, topic)
	for _, key := range [][]byte{[]byte("k"), {}, nil, nil} {
		l := letter()
		l.Record.Key = key
		l.Record.Offset += int64(len(topic.written))
		if err := w.Write(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	p := func(n int) int32 { return topic.written[n].Partition }
	if p(0) != sluice.AnyPartition || p(1) != sluice.AnyPartition || p(2) != p(3) || p(2) < 0 || p(2) > 11 {
		t.Errorf("partitions %d %d %d %d", p(0), p(1), p(2), p(3))
	}
	// From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
	for text, want := range map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107} {
		if got := int32(murmur2([]byte(text))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestWhatIsNoLetter(t *testing.T) {
	h := func(pairs ...string) (all []sluice.Header) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, sluice.Header{Name: "sluice-dlq-" + pairs[i], Value: []byte(pairs[i+1])})
		}
		return all
	}
	for _, headers := range [][]sluice.Header{nil, h("topic", "orders"), h("version", "2", "topic", "a", "partition", "0", "offset", "0", "subscription", "s", "webhook-id", "e"),
		h("version", "1"), h("version", "1", "topic", "a", "partition", "-1", "offset", "0", "subscription", "s", "webhook-id", "e"), h("version", "1", "topic", "a", "partition", "0", "offset", "x", "subscription", "s", "webhook-id", "e")} {
		if l, err := Parse(&sluice.Record{Topic: Topic, Headers: headers}); err == nil {
			t.Errorf("%v is %+v", headers, l)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("version", []byte("1"), "response", []byte("!"))
	f.Fuzz(func(t *testing.T, a string, av []byte, b string, bv []byte) {
		r := &sluice.Record{Topic: Topic, Headers: append(letter().headers("i", false), sluice.Header{Name: "sluice-dlq-" + a, Value: av}, sluice.Header{Name: b, Value: bv})}
		l, err := Parse(r)
		if err != nil {
			return
		}
		if l.Record.Partition < 0 || l.Record.Offset < 0 || l.Record.Topic == "" || l.Status < 0 || l.Attempts < 0 {
			t.Errorf("%+v", l)
		}
	})
}
