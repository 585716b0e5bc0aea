package subscriptions

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

const minimal = `{"source":{"topics":["orders"]},"endpoint":{"url":"https://example.com/hook"}}`

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	var f faults
	s, err := parseDraft([]byte(minimal), &f)
	if err != nil || len(f.list) > 0 {
		t.Fatal(err, f.list)
	}
	if s.Source.StartFrom != "latest" || s.Endpoint.Timeout.Std() != 15*time.Second || s.Verification != "none" ||
		s.Payload.Format != "cloudevents-binary" || s.Delivery.Ordering != "key" || s.Delivery.MaxInFlight != 32 || s.State != "active" {
		t.Errorf("defaults: %+v", s)
	}
	if got := fmt.Sprint(s.Retry.Schedule); got != "[0s 5s 5m 30m 2h 5h 10h 14h 20h 24h]" {
		t.Errorf("default schedule %s", got)
	}
	if key := s.Signing.Secrets[0].Secret.Key(); len(key) != 32 {
		t.Errorf("a generated secret has %d bytes", len(key))
	}
}

func TestEveryAcceptedFieldIsRead(t *testing.T) {
	var f faults
	s, err := parseDraft([]byte(`{"name":"crm","source":{"topics":["orders","users"],"start_from":"offsets","start_offsets":{"orders":{"0":6,"1":0},"users":{"0":1}}},
		"endpoint":{"url":"http://hooks:8080/x?y=z","timeout":"1m"},"verification":"none",
		"signing":{"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},"payload":{"format":"raw"},
		"delivery":{"ordering":"partition","max_in_flight":1024},"retry":{"schedule":["0s","1m30s","1d"]}}`), &f)
	if err != nil || len(f.list) > 0 {
		t.Fatal(err, f.list)
	}
	if s.Name != "crm" || !slices.Equal(s.Source.Topics, []string{"orders", "users"}) || s.Source.StartOffsets["orders"][0] != 6 ||
		s.Endpoint.URL != "http://hooks:8080/x?y=z" || s.Endpoint.Timeout.Std() != time.Minute || s.Payload.Format != "raw" ||
		s.Delivery != (Delivery{"partition", 1024}) || fmt.Sprint(s.Retry.Schedule) != "[0s 1m30s 24h]" ||
		s.Signing.Secrets[0].Secret.Reveal() != "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" {
		t.Errorf("%+v", s)
	}
}

// Every fault of a document is reported, with its path, in one answer.
func TestAllFaultsAtOnce(t *testing.T) {
	var f faults
	_, err := parseDraft([]byte(`{"name":"a\u0007b","name":"x","description":"no","source":{"topics":["orders","orders","__consumer_offsets","sluice.dlq","a/b",7],
		"start_from":"yesterday","start_timestamp":"2026-01-01T00:00:00Z","isolation":"read_committed"},
		"endpoint":{"url":"https://user@example.com/#f","timeout":"61s","method":"PUT"},"verification":"options",
		"signing":{"secret":"whsec_short","schemes":["v1"]},"payload":{"format":"ftmsg-http"},
		"delivery":{"ordering":"global","max_in_flight":1.5,"rate_limit":null},"retry":{"schedule":["0s","1w","6d","2d"],"max_age":"1h"},"filters":[]}`), &f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range f.list {
		got = append(got, one.Path)
	}
	slices.Sort(got)
	want := []string{"delivery.max_in_flight", "delivery.ordering", "delivery.rate_limit", "description", "endpoint.method", "endpoint.timeout", "endpoint.url",
		"filters", "name", "name", "payload.format", "retry.max_age", "retry.schedule", "retry.schedule[1]", "signing.schemes", "signing.secret",
		"source.isolation", "source.start_from", "source.start_timestamp", "source.topics[1]", "source.topics[2]", "source.topics[3]", "source.topics[4]", "source.topics[5]", "verification"}
	if !slices.Equal(got, want) {
		t.Errorf("faults at\n%s\nwant\n%s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

func TestSingleFaults(t *testing.T) {
	for body, path := range map[string]string{
		`{}`: "endpoint.url",
		`{"source":[],"endpoint":{"url":"https://example.com"}}`:                                                                              "source",
		`{"source":{"topics":"orders"},"endpoint":{"url":"https://example.com"}}`:                                                             "source.topics",
		`{"source":{"topics":["orders"]},"endpoint":{"url":null}}`:                                                                            "endpoint.url",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"ftp://example.com"}}`:                                                             "endpoint.url",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"/hook"}}`:                                                                         "endpoint.url",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https:example.com"}}`:                                                             "endpoint.url",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://bücher.example"}}`:                                                        "endpoint.url",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://a/` + strings.Repeat("x", 2048) + `"}}`:                                   "endpoint.url",
		`{"source":{"topics":["orders"],"start_from":"timestamp"},"endpoint":{"url":"https://a.example"}}`:                                    "source.start_timestamp",
		`{"source":{"topics":["orders"],"start_from":"offsets"},"endpoint":{"url":"https://a.example"}}`:                                      "source.start_offsets.orders",
		`{"source":{"topics":["orders"],"start_from":"offsets","start_offsets":{"orders":{"01":1}}},"endpoint":{"url":"https://a.example"}}`:  "source.start_offsets.orders.01",
		`{"source":{"topics":["orders"],"start_from":"offsets","start_offsets":{"orders":{"1":-1}}},"endpoint":{"url":"https://a.example"}}`:  "source.start_offsets.orders.1",
		`{"source":{"topics":["orders"],"start_from":"offsets","start_offsets":{"orders":{},"x":{}}},"endpoint":{"url":"https://a.example"}}`: "source.start_offsets.x",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://a.example"},"retry":{"schedule":[]}}`:                                     "retry.schedule",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://a.example"},"delivery":{"max_in_flight":0}}`:                              "delivery.max_in_flight",
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://a.example"},"name":"` + strings.Repeat("é", 129) + `"}`:                   "name",
	} {
		var f faults
		if _, err := parseDraft([]byte(body), &f); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if !f.has(path) {
			t.Errorf("%s: no fault at %s: %v", body, path, f.list)
		}
	}
}

func TestWhatIsNoDocumentIsMalformed(t *testing.T) {
	for _, body := range []string{"", "[]", "null", `"x"`, "{", minimal + "x", minimal + "{}", "{\"name\":\"\xff\"}", `{"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, strings.Repeat(`{"a":`, 20_000)} {
		var f faults
		if _, err := parseDraft([]byte(body), &f); sluice.KindOf(err) != sluice.Malformed {
			t.Errorf("%.40q: %v", body, err)
		}
	}
	var f faults
	if _, err := parseDraft([]byte(minimal+strings.Repeat(" ", 256<<10)), &f); sluice.KindOf(err) != sluice.TooLarge {
		t.Errorf("a document above 256 KiB: %v", err)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": 0, "0": -1, "": -1, "5": -1, "5x": -1, "-5s": -1, "+5s": -1, "1.5s": -1, "\t5s": -1, "s": -1, "1h30m": 90 * time.Minute,
		"500ms": 500 * time.Millisecond, "2d": 48 * time.Hour, "1s1s": 2 * time.Second, "30s1m": 90 * time.Second, "9223372036s": 9223372036 * time.Second,
		"9223372037s": -1, "9223372036s1s": -1, "106752d": -1, "99999999999999999999s": -1, "1m0ms": time.Minute} {
		d, err := ParseDuration(text)
		if (err == nil) != (want >= 0) || (err == nil && d.Std() != want) {
			t.Errorf("%q: %v, %v", text, d, err)
		}
		if err != nil {
			continue
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Errorf("%q prints as %q, which is %v, %v", text, d, back, err)
		}
	}
}

func FuzzDraft(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(`{"source":{"topics":["a"],"start_from":"offsets","start_offsets":{"a":{"0":1}}},"retry":{"schedule":["1d"]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var faulty faults
		s, err := parseDraft(body, &faulty)
		if err != nil || len(faulty.list) > 0 {
			return
		}
		s.ID, s.Revision = "sub_x", 1
		raw, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode("sub_x", raw); err != nil {
			t.Fatalf("accepted, stored, and not readable: %v", err)
		}
	})
}

func TestInvalidHasItsKind(t *testing.T) {
	err := error(&Invalid{Fields: []Field{{"endpoint.url", "is required"}}})
	if sluice.KindOf(fmt.Errorf("create: %w", err)) != sluice.Invalid {
		t.Error("an *Invalid is not of Kind Invalid")
	}
	if _, ok := errors.AsType[*Invalid](err); !ok {
		t.Error("an *Invalid is not found by its type")
	}
}
