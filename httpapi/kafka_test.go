package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/subscriptions"
)

// house is the server over the real rooms behind it and the Kafka of the environment.
type house struct {
	*world
	broker  *backend.Broker
	admin   *kafka.Admin
	fetcher *kafka.Fetcher
	offsets *kafka.Offsets
}

func overKafka(t *testing.T, change ...func(*Config, *Needs)) *house {
	t.Helper()
	broker := backend.Kafka(t)
	h := overBrokers(t, broker.Brokers, change...)
	h.broker = broker
	return h
}

func overBrokers(t *testing.T, brokers []string, change ...func(*Config, *Needs)) *house {
	t.Helper()
	return overBrokersTuned(t, brokers, func(*Server) {}, change...)
}

// overBrokersTuned is overBrokers with a look at the server before it serves.
func overBrokersTuned(t *testing.T, brokers []string, tune func(*Server), change ...func(*Config, *Needs)) *house {
	t.Helper()
	h := &house{}
	c := kafka.Default()
	c.Brokers = brokers
	c.ProduceTimeout = 5 * time.Second
	clients, err := kafka.Connect(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = clients.Close() })
	producer, err := kafka.NewProducer(clients, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- producer.Run(ctx) }()
	t.Cleanup(func() {
		stop, done := context.WithTimeout(context.Background(), 5*time.Second)
		defer done()
		if err := producer.Stop(stop); err != nil {
			t.Logf("stop the producer: %v", err)
		}
		cancel()
		<-ran
	})
	h.admin, h.fetcher, h.offsets = kafka.NewAdmin(clients), kafka.NewFetcher(clients), kafka.NewOffsets(clients)
	needs := func(_ *Config, n *Needs) {
		n.Topics, n.Producer, n.Kafka, n.Commits = h.admin, producer, h.admin, h.offsets
	}
	h.world = startTuned(t, tune, append([]func(*Config, *Needs){needs}, change...)...)
	return h
}

// record reads one record back from Kafka.
func (h *house) record(topic string, partition int32, offset int64) *sluice.Record {
	h.t.Helper()
	p := sluice.Partition{Topic: topic, Number: partition}
	var last error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		chunk, err := h.fetcher.Fetch(h.t.Context(), p, offset, 32<<20)
		last = err
		for _, r := range chunk.Records {
			if r.Offset == offset {
				return r
			}
		}
	}
	h.t.Fatalf("%s/%d has no record at %d: %v", topic, partition, offset, last)
	return nil
}

type receiptBody struct {
	Offsets []struct {
		Partition *int32  `json:"partition"`
		Offset    *int64  `json:"offset"`
		Code      *int    `json:"error_code"`
		Error     *string `json:"error"`
	} `json:"offsets"`
}

func receiptsOf(t *testing.T, a answer) receiptBody {
	t.Helper()
	var body receiptBody
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != 200 {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	return body
}

func TestWhatIsPostedStandsInKafka(t *testing.T) {
	h := overKafka(t)
	topic := h.broker.Topic(t, "orders", 3, "max.message.bytes=25165824")
	big := bytes.Repeat([]byte{0, 0xFF, '"'}, 16<<20/3)
	for name, c := range map[string]struct {
		format, record string
		want           sluice.Record
	}{
		"binary":    {"binary", `{"key":"a2V5","value":"AP8="}`, sluice.Record{Key: []byte("key"), Value: []byte{0, 0xFF}}},
		"empty":     {"binary", `{"key":"","value":""}`, sluice.Record{Key: []byte{}, Value: []byte{}}},
		"tombstone": {"binary", `{"key":"a2V5","value":null}`, sluice.Record{Key: []byte("key")}},
		"json":      {"json", `{"key":"k","value":{"n": 1.10 }}`, sluice.Record{Key: []byte(`"k"`), Value: []byte(`{"n":1.10}`)}},
		"headers": {"binary", `{"value":"YQ==","timestamp":1612554562000,"headers":[{"key":"h","value":"YQ=="},{"key":"h","value":""},{"key":"n","value":null}]}`,
			sluice.Record{Value: []byte("a"), Timestamp: time.UnixMilli(1612554562000), Headers: []sluice.Header{{Name: "h", Value: []byte("a")}, {Name: "h", Value: []byte{}}, {Name: "n"}}}},
		"16 MiB": {"binary", `{"value":"` + base64.StdEncoding.EncodeToString(big) + `"}`, sluice.Record{Value: big}},
	} {
		t.Run(name, func(t *testing.T) {
			a := h.call("POST", "/topics/"+topic, `{"records":[`+c.record+`]}`, "Content-Type", "application/vnd.kafka."+c.format+".v2+json")
			slot := receiptsOf(t, a).Offsets[0]
			if slot.Code != nil {
				t.Fatalf("%d %s", *slot.Code, *slot.Error)
			}
			got := h.record(topic, *slot.Partition, *slot.Offset)
			if !same(got.Key, c.want.Key) || !same(got.Value, c.want.Value) || len(got.Headers) != len(c.want.Headers) {
				t.Fatalf("got %.80q %.80q %v", got.Key, got.Value, got.Headers)
			}
			for i, header := range got.Headers {
				if header.Name != c.want.Headers[i].Name || !same(header.Value, c.want.Headers[i].Value) {
					t.Errorf("header %d: %v", i, header)
				}
			}
			if !c.want.Timestamp.IsZero() && !got.Timestamp.Equal(c.want.Timestamp) {
				t.Errorf("timestamp %v", got.Timestamp)
			}
		})
	}
}

// same tells null from empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestMetadataIsKafkas(t *testing.T) {
	h := overKafka(t)
	topic := h.broker.Topic(t, "orders", 2, "retention.ms=1234567")
	h.call("POST", "/topics/"+topic+"/partitions/1", `{"records":[{"value":"YQ=="},{"value":"YQ=="}]}`).want(t, 200,
		`{"offsets":[{"partition":1,"offset":0,"error_code":null,"error":null},{"partition":1,"offset":1,"error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`)
	eventually(t, "the topic is listed", func() bool {
		return strings.Contains(h.call("GET", "/topics", "").body, `"`+topic+`"`)
	})
	var shown struct {
		Name       string            `json:"name"`
		Configs    map[string]string `json:"configs"`
		Partitions []partitionBody   `json:"partitions"`
	}
	if a := h.call("GET", "/topics/"+topic, ""); a.status != 200 || json.Unmarshal([]byte(a.body), &shown) != nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if shown.Name != topic || shown.Configs["retention.ms"] != "1234567" || len(shown.Partitions) != 2 || shown.Partitions[1].Leader < 0 || len(shown.Partitions[1].Replicas) == 0 {
		t.Errorf("%+v", shown)
	}
	h.call("GET", "/topics/"+topic+"/partitions/1/offsets", "").want(t, 200, `{"beginning_offset":0,"end_offset":2}`)
	h.call("GET", "/topics/"+topic+"/partitions/0/offsets", "").want(t, 200, `{"beginning_offset":0,"end_offset":0}`)
	if a := h.call("GET", "/brokers", ""); a.status != 200 || !strings.HasPrefix(a.body, `{"brokers":[`) || a.body == `{"brokers":[]}` {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestAnUnknownTopicIsAFast404(t *testing.T) {
	h := overKafka(t)
	for _, call := range [][3]string{{"GET", "", ""}, {"GET", "/partitions", ""}, {"GET", "/partitions/0", ""}, {"GET", "/partitions/0/offsets", ""},
		{"POST", "", `{"records":[{}]}`}, {"POST", "/partitions/0", `{"records":[{}]}`}} {
		name := backend.Unique("nope")
		began := time.Now()
		a := h.call(call[0], "/topics/"+name+call[1], call[2])
		if took := time.Since(began); a.status != 404 || !strings.HasPrefix(a.body, `{"error_code":40401,"message":"Topic not found."`) || took > time.Second {
			t.Errorf("%s %s: %d %s after %s", call[0], call[1], a.status, a.body, took)
		}
	}
}

// One of 64 concurrent requests is too large for the topic: it fails alone, and says why.
func TestAnOversizedRecordFailsAlone(t *testing.T) {
	h := overKafka(t)
	topic := h.broker.Topic(t, "small", 1, "max.message.bytes=5000")
	value := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("x"), n)) }
	var wg sync.WaitGroup
	answers := make([]answer, 64)
	for i := range answers {
		size := 1000
		if i == 13 {
			size = 6000
		}
		wg.Go(func() { answers[i] = h.call("POST", "/topics/"+topic, `{"records":[{"value":"`+value(size)+`"}]}`) })
	}
	wg.Wait()
	for i, a := range answers {
		slot := receiptsOf(t, a).Offsets[0]
		if failed := slot.Code != nil; failed != (i == 13) {
			t.Errorf("request %d: %s", i, a.body)
		}
	}
	if slot := receiptsOf(t, answers[13]).Offsets[0]; *slot.Code != 50002 || !strings.Contains(*slot.Error, "5000") {
		t.Errorf("the slot says %d %s", *slot.Code, *slot.Error)
	}
	mixed := receiptsOf(t, h.call("POST", "/topics/"+topic, `{"records":[{"value":"YQ=="},{"value":"`+value(6000)+`"},{"value":"YQ==","partition":5},{"value":"YQ=="}]}`))
	for i, code := range []int{0, 50002, 40402, 0} {
		if got := mixed.Offsets[i].Code; (got == nil) != (code == 0) || (got != nil && *got != code) {
			t.Errorf("slot %d: %v, want %d", i, got, code)
		}
	}
}

// Bodies are decoded where they were read, in memory that the next request gets: no value may show up in another.
func TestConcurrentRequestsDoNotMixTheirBytes(t *testing.T) {
	h := overKafka(t)
	topic := h.broker.Topic(t, "orders", 1)
	value := func(client, n int) []byte {
		return bytes.Repeat(fmt.Appendf(nil, "client %d request %d;", client, n), 1+(client*7+n*13)%60)
	}
	const clients, requests = 16, 25
	type written struct {
		offset int64
		value  []byte
	}
	all := make([][]written, clients)
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for n := range requests {
				want := value(client, n)
				body := `{"records":[{"key":"` + base64.StdEncoding.EncodeToString(want) + `","value":"` + base64.StdEncoding.EncodeToString(want) + `"}]}`
				slot := receiptsOf(t, h.call("POST", "/topics/"+topic, body)).Offsets[0]
				if slot.Code != nil {
					t.Errorf("%d %s", *slot.Code, *slot.Error)
					return
				}
				all[client] = append(all[client], written{*slot.Offset, want})
			}
		})
	}
	wg.Wait()
	held := map[int64]*sluice.Record{}
	for next := int64(0); len(held) < clients*requests && !t.Failed(); {
		chunk, err := h.fetcher.Fetch(t.Context(), sluice.Partition{Topic: topic}, next, 8<<20)
		if err != nil || chunk.Next == next {
			t.Fatalf("%d records at %d: %v", len(held), next, err)
		}
		for _, r := range chunk.Records {
			held[r.Offset] = r
		}
		next = chunk.Next
	}
	for _, one := range all {
		for _, w := range one {
			if r := held[w.offset]; r == nil || !bytes.Equal(r.Value, w.value) || !bytes.Equal(r.Key, w.value) {
				t.Fatalf("offset %d does not hold %.40q", w.offset, w.value)
			}
		}
	}
}

func TestKafkaGoneIsToldSoon(t *testing.T) {
	var h *house
	var broker *backend.Broker
	var gone func()
	if backend.Name() == backend.KFake {
		h = overKafka(t)
		broker, gone = h.broker, h.broker.Fake().Close
	} else {
		cluster := backend.Cluster(t, 1)
		h = overBrokers(t, cluster.Brokers)
		broker, gone = &cluster.Broker, func() { cluster.Kill(t, 1) }
	}
	topic := "orders"
	broker.Create(t, topic, 1, 1)
	eventually(t, "a record is taken", func() bool { return h.call("POST", "/topics/"+topic, `{"records":[{}]}`).status == 200 })
	gone()
	eventually(t, "503 on every route", func() bool {
		for _, path := range []string{"/topics", "/brokers", "/topics/" + backend.Unique("other")} {
			a := h.call("GET", path, "")
			if a.status != 503 || !strings.HasPrefix(a.body, `{"error_code":50302,`) || a.header.Get("Retry-After") == "" {
				return false
			}
		}
		return true
	})
	began := time.Now()
	a := h.call("POST", "/topics/"+topic, `{"records":[{}]}`)
	if took := time.Since(began); took > 8*time.Second || (a.status != 503 && !strings.Contains(a.body, `"error_code":50003`)) {
		t.Errorf("produce: %d %s after %s", a.status, a.body, took)
	}
	h.call("GET", "/__live", "").want(t, 200, "OK")
	h.srv.checks.look(t.Context()) // instead of waiting for its turn
	if a := h.call("GET", "/__health", ""); !strings.Contains(a.body, `"id":"kafka-reachable","name":"Kafka brokers are reachable","ok":false`) {
		t.Errorf("health: %s", a.body)
	}
}

// openGuard lets every endpoint through but one.
type openGuard struct{}

func (openGuard) Check(_ context.Context, url string) error {
	if strings.Contains(url, "169.254") {
		return &sluice.Error{Kind: sluice.Invalid, Msg: "no"}
	}
	return nil
}

// withSubscriptions adds the real registry over a Redis of the test's own.
func withSubscriptions(t *testing.T, change ...func(*Needs)) *house {
	t.Helper()
	store, err := subscriptions.OpenStore(subscriptions.Config{RedisURL: backend.Redis(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	health, err := subscriptions.NewHealth(store, nil, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return overKafka(t, func(_ *Config, n *Needs) {
		admin := n.Topics.(*kafka.Admin)
		registry, err := subscriptions.NewRegistry(subscriptions.Needs{Store: store, Topics: admin, Offsets: admin, Commits: n.Commits.(*kafka.Offsets), Guard: openGuard{}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n.Subscriptions, n.Health, n.Store = registry, health, store
		for _, one := range change {
			one(n)
		}
	})
}

type shownSubscription struct {
	ID       string `json:"id"`
	Owner    string `json:"owner"`
	Revision int64  `json:"revision"`
	State    string `json:"state"`
	Signing  struct {
		Secret any `json:"secret"`
	} `json:"signing"`
	Status *struct {
		LastError any            `json:"last_error"`
		Position  []positionBody `json:"position"`
	} `json:"status"`
}

func TestSubscriptionsOverHTTP(t *testing.T) {
	h := withSubscriptions(t)
	topic := h.broker.Topic(t, "orders", 2)
	h.call("POST", "/topics/"+topic+"/partitions/1", `{"records":[{"value":"YQ=="},{"value":"Yg=="},{"value":"Yw=="}]}`)

	definition := fmt.Sprintf(`{"name":"n<&>","source":{"topics":[%q],"start_from":"earliest"},"endpoint":{"url":"https://example.com/hook"}}`, topic)
	a := h.call("POST", "/subscriptions", definition, "Content-Type", "application/json")
	var created shownSubscription
	if err := json.Unmarshal([]byte(a.body), &created); err != nil || a.status != 201 {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	if a.header.Get("Location") != "/subscriptions/"+created.ID || a.header.Get("ETag") != `"1"` || a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, `"name":"n<&>"`) {
		t.Errorf("created: %v %s", a.header, a.body)
	}
	if secret, ok := created.Signing.Secret.(string); !ok || !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("a generated secret is shown once: %s", a.body)
	}

	a = h.call("GET", "/subscriptions/"+created.ID, "")
	var shown shownSubscription
	if err := json.Unmarshal([]byte(a.body), &shown); err != nil || a.status != 200 || shown.Status == nil || a.header.Get("ETag") != `"1"` {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	if _, marker := shown.Signing.Secret.(map[string]any); !marker || strings.Contains(a.body, "whsec_") {
		t.Errorf("a read shows a secret: %s", a.body)
	}
	zero := int64(0)
	want := []positionBody{{topic, 0, &zero, 0, 0, 0}, {topic, 1, &zero, 0, 3, 3}}
	if got := shown.Status.Position; len(got) != 2 || !samePosition(got[0], want[0]) || !samePosition(got[1], want[1]) {
		t.Errorf("position: %s", a.body)
	}

	second := h.call("POST", "/subscriptions", definition, "Content-Type", "application/json; charset=utf-8")
	if second.status != 201 {
		t.Fatalf("%d %s", second.status, second.body)
	}
	var page struct {
		Data []shownSubscription `json:"data"`
		Next *string             `json:"next"`
	}
	a = h.call("GET", "/subscriptions?limit=1", "")
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(page.Data) != 1 || page.Data[0].ID != created.ID || page.Next == nil || strings.Contains(a.body, "whsec_") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	a = h.call("GET", "/subscriptions?topic="+topic+"&cursor="+*page.Next, "")
	if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(page.Data) != 1 || !strings.HasSuffix(a.body, `,"next":null}`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	h.call("GET", "/subscriptions?topic=other", "").want(t, 200, `{"data":[],"next":null}`)
	h.call("GET", "/subscriptions?limit=101", "").want(t, 400, `{"error_code":400,"message":"Query parameter limit must be an integer from 1 to 100."}`)
	h.call("GET", "/subscriptions?label=a=b", "").want(t, 400, `{"error_code":400,"message":"Query parameter label is not supported yet."}`)

	h.call("DELETE", "/subscriptions/"+created.ID, "", "If-Match", `"7"`).want(t, 412, `{"error_code":41201,"message":"The subscription was changed: If-Match names another revision."}`)
	h.call("DELETE", "/subscriptions/"+created.ID, "", "If-Match", `"1"`).want(t, 202, `{"id":"`+created.ID+`","state":"deleting"}`)
	if a = h.call("GET", "/subscriptions/"+created.ID, ""); a.status != 200 || !strings.Contains(a.body, `"state":"deleting"`) || a.header.Get("ETag") != `"2"` {
		t.Errorf("%d %s", a.status, a.body)
	}
	notFound := `{"error_code":40411,"message":"Subscription not found."}`
	h.call("GET", "/subscriptions/sub_nope", "").want(t, 404, notFound)
	h.call("DELETE", "/subscriptions/sub_nope", "").want(t, 404, notFound)
}

func samePosition(a, b positionBody) bool {
	return a.Topic == b.Topic && a.Partition == b.Partition && a.End == b.End && a.Lag == b.Lag && a.Holes == b.Holes &&
		(a.Committed == nil) == (b.Committed == nil) && (a.Committed == nil || *a.Committed == *b.Committed)
}

func TestDefinitionsAreRefusedWithTheirFields(t *testing.T) {
	h := withSubscriptions(t)
	topic := h.broker.Topic(t, "orders", 1)
	a := h.call("POST", "/subscriptions", `{"source":{"topics":[]},"endpoint":{"url":"https://example.com/"},"breaker":{}}`, "Content-Type", "application/json")
	var body struct {
		Code   int                   `json:"error_code"`
		Fields []subscriptions.Field `json:"fields"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.status != 422 || body.Code != 42210 || len(body.Fields) != 2 {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = h.call("POST", "/subscriptions", fmt.Sprintf(`{"source":{"topics":[%q]},"endpoint":{"url":"https://169.254.169.254/"}}`, topic), "Content-Type", "application/json")
	if a.status != 422 || !strings.HasPrefix(a.body, `{"error_code":42211,"message":"The endpoint's address or port is not allowed.","fields":[{"path":"endpoint.url",`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = h.call("POST", "/subscriptions", fmt.Sprintf(`{"source":{"topics":[%q]},"endpoint":{"url":"https://example.com/"}}`, backend.Unique("nope")), "Content-Type", "application/json")
	if a.status != 404 || !strings.HasPrefix(a.body, `{"error_code":40401,`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a = h.call("POST", "/subscriptions", `{`, "Content-Type", "application/json"); a.status != 400 || !strings.HasPrefix(a.body, `{"error_code":400,`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	h.call("POST", "/subscriptions", `{}`, "Content-Type", "application/vnd.kafka.v2+json").want(t, 415, `{"error_code":415,"message":"HTTP 415 Unsupported Media Type"}`)
	h.call("POST", "/subscriptions", strings.Repeat(" ", 300<<10), "Content-Type", "application/json").want(t, 413, `{"error_code":413,"message":"The request body is larger than the limit of 262144 bytes."}`)
}

func TestRedisDownIs503AndProduceGoesOn(t *testing.T) {
	redis := backend.RedisServer(t)
	store, err := subscriptions.OpenStore(subscriptions.Config{RedisURL: redis.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	h := overKafka(t, func(_ *Config, n *Needs) {
		admin := n.Topics.(*kafka.Admin)
		registry, err := subscriptions.NewRegistry(subscriptions.Needs{Store: store, Topics: admin, Offsets: admin, Commits: n.Commits.(*kafka.Offsets), Guard: openGuard{}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n.Subscriptions, n.Store = registry, store
	})
	topic := h.broker.Topic(t, "orders", 1)
	redis.Stop(t)
	for _, call := range [][3]string{{"GET", "/subscriptions", ""}, {"GET", "/subscriptions/sub_a", ""}, {"DELETE", "/subscriptions/sub_a", ""},
		{"POST", "/subscriptions", fmt.Sprintf(`{"source":{"topics":[%q]},"endpoint":{"url":"https://example.com/"}}`, topic)}} {
		began := time.Now()
		a := h.call(call[0], call[1], call[2], "Content-Type", "application/json")
		if took := time.Since(began); a.status != 503 || !strings.HasPrefix(a.body, `{"error_code":50321,`) || a.header.Get("Retry-After") == "" || took > 5*time.Second {
			t.Errorf("%s %s: %d %s after %s", call[0], call[1], a.status, a.body, took)
		}
	}
	if a := h.call("POST", "/topics/"+topic, `{"records":[{}]}`); a.status != 200 {
		t.Errorf("produce: %d %s", a.status, a.body)
	}
	h.call("GET", "/__gtg", "").want(t, 200, "OK")
	h.srv.checks.look(t.Context())
	if a := h.call("GET", "/__health", ""); !strings.Contains(a.body, `"id":"redis-reachable","name":"Redis is reachable","ok":false,"severity":2`) {
		t.Errorf("health: %s", a.body)
	}
}

func TestATakenPortFailsAtTheStart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := Default()
	c.Listen = ln.Addr().String()
	s, err := New(c, Needs{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(); err == nil || !strings.Contains(err.Error(), c.Listen) {
		t.Errorf("listen: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop of what never served: %v", err)
	}
}
