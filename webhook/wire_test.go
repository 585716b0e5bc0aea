package webhook

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

var update = flag.Bool("update", false, "write the golden files anew")

// wire is a request as text: sorted headers, blank line, body. The random half of a new traceparent is masked.
func wire(t *testing.T, d Delivery) (text string, header http.Header, body []byte) {
	t.Helper()
	r, fault, err := newRequest(d, "Sluice/1.0.0")
	if err != nil {
		return fmt.Sprintf("%s: %v\n", fault, err), nil, nil
	}
	h := r.signed(d.Now)
	var lines []string
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	text = strings.Join(lines, "\n") + "\n\n" + string(r.body)
	return regexp.MustCompile(`(traceparent: 00-[0-9a-f]{32})-[0-9a-f]{16}-00`).ReplaceAllString(text, "$1-<random>-00"), h, r.body
}

func TestGoldenBytes(t *testing.T) {
	json := []byte(`{"id":12345678901234567890, "n": 1.0}`)
	h := func(name, value string) sluice.Header { return sluice.Header{Name: name, Value: []byte(value)} }
	ce := []sluice.Header{h("ce_specversion", "1.0"), h("ce_id", "A 1"), h("ce_source", "/shop/é"), h("ce_type", "com.example.paid"), h("ce_time", "2026-01-02T03:04:05Z"), h("ce_tenant", `"x"`), h("content-type", "text/plain; charset=utf-8")}
	structured := []byte(`{"specversion":"1.0","id":"7","source":"/s","type":"t","subject":"x","n":5,"ok":true,"nothing":null,"data": {"big":12345678901234567890} }`)
	zero := record([]byte("k"), json)
	zero.Timestamp = time.Time{}
	for name, r := range map[string]*sluice.Record{
		"json":           record([]byte("customer-42"), json),
		"tombstone":      record([]byte("customer-42"), nil),
		"empty-value":    record(nil, []byte{}),
		"binary-value":   record([]byte{0xff, 0}, []byte{0, 1, 0xff, 0xfe}, h("Content-Type", "application/octet-stream")),
		"cloudevent":     record([]byte("k"), []byte("paid"), ce...),
		"ce-tombstone":   record([]byte("k"), nil, ce...),
		"structured":     record([]byte("k"), structured, h("content-type", "application/cloudevents+json; charset=utf-8")),
		"ce-base64":      record(nil, []byte(`{"specversion":"1.0","id":"7","source":"/s","type":"t","datacontenttype":"image/png","data_base64":"AP8="}`), h("content-type", "application/cloudevents+json")),
		"ce-text":        record(nil, []byte(`{"specversion":"1.0","id":"7","source":"/s","type":"t","datacontenttype":"text/plain","data":"a\nb"}`), h("content-type", "application/cloudevents+json")),
		"ce-broken":      record(nil, []byte(`{"specversion":"1.0","id":"7"}`), h("content-type", "application/cloudevents+json")),
		"bad-type":       record(nil, json, h("content-type", "text/plain\r\nx: y")),
		"traced":         record(nil, json, h("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), h("tracestate", "a=b")),
		"key-percent":    record([]byte(`50% "off"`), json),
		"key-space":      record([]byte(" k"), json),
		"key-empty":      record([]byte{}, json),
		"key-unicode":    record([]byte("Zürich"), json),
		"key-long":       record(bytes.Repeat([]byte("k"), 2049), json),
		"key-2k":         record(bytes.Repeat([]byte("k"), 2048), []byte("1")),
		"zero-timestamp": zero,
	} {
		for _, format := range []string{subscriptions.FormatBinary, subscriptions.FormatRaw, subscriptions.FormatStandard} {
			text, _, _ := wire(t, delivery(t, "https://api.example.com/hooks", format, r))
			path := filepath.Join("testdata", name+"."+format+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("%s in %s is\n%s\nwant\n%s", name, format, text, want)
			}
		}
	}
}

// receive sends d to a server of the test and returns what arrived there.
func receive(t *testing.T, d func(url string) Delivery) (header http.Header, body []byte, o Outcome) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r.Body)
		header, body = r.Header, b.Bytes()
	}))
	defer server.Close()
	o = sender(t, devGuard(t)).Send(t.Context(), d(server.URL+"/hook?token=s3cret"))
	return header, body, o
}

// The published library accepts our signature: for each live secret, and for none other.
func TestSignaturesVerifyWithTheStandardLibrary(t *testing.T) {
	older, newer := subscriptions.NewSecret(), subscriptions.NewSecret()
	for _, format := range []string{subscriptions.FormatBinary, subscriptions.FormatRaw, subscriptions.FormatStandard} {
		for _, value := range [][]byte{[]byte(`{"a":1}`), nil, {}, []byte("not json")} {
			header, body, o := receive(t, func(url string) Delivery {
				d := delivery(t, url, format, record([]byte("k"), value))
				d.Now = time.Now()
				d.Subscription.Signing.Secrets = []subscriptions.SigningSecret{{Secret: newer}, {Secret: older, ExpiresAt: subscriptions.Time{Time: d.Now.Add(time.Hour)}}, {Secret: subscriptions.NewSecret(), ExpiresAt: subscriptions.Time{Time: d.Now}}}
				return d
			})
			if o.Class != S || o.Status != 200 {
				t.Fatalf("%+v", o)
			}
			if n := len(strings.Fields(header.Get("webhook-signature"))); n != 2 {
				t.Errorf("%d signatures for two live secrets", n)
			}
			for secret, good := range map[string]bool{older.Reveal(): true, newer.Reveal(): true, subscriptions.NewSecret().Reveal(): false} {
				w, err := standardwebhooks.NewWebhook(secret)
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Verify(body, header); (err == nil) != good {
					t.Errorf("%s %q: %v", format, value, err)
				}
			}
		}
	}
}

// The SDK of CloudEvents reads what we send in binary mode, attributes and bytes.
func TestBinaryModeIsReadByTheCloudEventsSDK(t *testing.T) {
	value := []byte(`{"id":12345678901234567890}`)
	header, body, _ := receive(t, func(url string) Delivery {
		return delivery(t, url, subscriptions.FormatBinary, record([]byte("Zürich 50%"), value))
	})
	message := cehttp.NewMessage(header, readCloser{bytes.NewReader(body)})
	if message.ReadEncoding() != binding.EncodingBinary {
		t.Fatalf("encoding %v: %v", message.ReadEncoding(), header)
	}
	e, err := binding.ToEvent(context.Background(), message)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Validate(); err != nil {
		t.Fatal(err)
	}
	// The SDK leaves the percent-encoding of the HTTP binding (3.1.3.2) to its user.
	if e.ID() != "3-104857" || e.Source() != "/kafka/prod/orders.v1" || e.Type() != "org.apache.kafka.record" || decoded(t, e.Subject()) != "Zürich 50%" ||
		!e.Time().Equal(time.UnixMilli(1795409232118)) || e.DataContentType() != "application/json" || !bytes.Equal(e.Data(), value) ||
		e.Extensions()["partitionkey"] != e.Subject() || e.Extensions()["sequence"] != "00000000000000104857" {
		t.Errorf("%v", e)
	}
}

// An event that is one already comes through with its own attributes.
func TestEventsKeepTheirAttributes(t *testing.T) {
	header, body, _ := receive(t, func(url string) Delivery {
		return delivery(t, url, subscriptions.FormatBinary, record(nil, []byte(`{"specversion":"1.0","id":"ü","source":"/s","type":"t","level":7,"data":[1]}`), sluice.Header{Name: "content-type", Value: []byte("application/cloudevents+json")}))
	})
	e, err := binding.ToEvent(context.Background(), cehttp.NewMessage(header, readCloser{bytes.NewReader(body)}))
	if err != nil || decoded(t, e.ID()) != "ü" || e.Source() != "/s" || e.Type() != "t" || e.Extensions()["level"] != "7" || string(e.Data()) != "[1]" {
		t.Errorf("%v %v", e, err)
	}
}

func decoded(t *testing.T, s string) string {
	t.Helper()
	text, err := url.PathUnescape(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

func TestIDAndAttemptAreStableWhereTheyMust(t *testing.T) {
	var first, second map[string][]string // in lower case, as on the wire
	_, first, _ = wire(t, delivery(t, "https://a.example", subscriptions.FormatRaw, record(nil, []byte("1"))))
	d := delivery(t, "https://b.example", subscriptions.FormatStandard, record(nil, []byte("1")))
	d.Subscription.ID, d.Attempt, d.Now = "sub_other", 7, now.Add(time.Hour)
	_, second, _ = wire(t, d)
	if a, b := first["webhook-id"], second["webhook-id"]; !slices.Equal(a, b) {
		t.Errorf("the id of one record is %v and %v", a, b)
	}
	if second["sluice-attempt"][0] != "7" || first["webhook-timestamp"][0] == second["webhook-timestamp"][0] {
		t.Error("attempt or timestamp did not move")
	}
	if a, b := first["traceparent"][0][:36], second["traceparent"][0][:36]; a != b {
		t.Errorf("attempts of one record are in traces %s and %s", a, b)
	}
}

func TestOversizeIsTheRecordsFault(t *testing.T) {
	for size, want := range map[int]Fault{1 << 20: NoFault, 1<<20 + 1: Oversize} {
		if _, fault, _ := newRequest(delivery(t, "https://a.example", subscriptions.FormatRaw, record(nil, make([]byte, size))), "x"); fault != want {
			t.Errorf("%d bytes: %q, want %q", size, fault, want)
		}
	}
}

// No record whatsoever may produce a header that net/http or a proxy reads differently.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("k"), []byte("{}"), "content-type", []byte("application/json"))
	f.Add([]byte("\xff\n"), []byte{}, "ce_id", []byte("x\r\ny"))
	f.Add([]byte("k"), []byte(`{"specversion":"1.0","id":"1","source":"/","type":"t","x":"é"}`), "content-type", []byte("application/cloudevents+json"))
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte) {
		for _, format := range []string{subscriptions.FormatBinary, subscriptions.FormatRaw, subscriptions.FormatStandard} {
			r, fault, err := newRequest(delivery(t, "https://a.example", format, record(key, value, sluice.Header{Name: name, Value: header}, sluice.Header{Name: "ce_specversion", Value: []byte("1.0")},
				sluice.Header{Name: "ce_source", Value: []byte("/")}, sluice.Header{Name: "ce_type", Value: []byte("t")}, sluice.Header{Name: "ce_id", Value: []byte("1")})), "x")
			if err != nil {
				if class, _ := Classify(Facts{Fault: fault}); class != P {
					t.Errorf("%q is %v: the record's fault must be P", fault, class)
				}
				continue
			}
			for name, values := range r.signed(now) {
				if len(values) != 1 || !printable(values[0]) || strings.ContainsAny(name, " :\r\n") {
					t.Errorf("%s has the header %q: %q", format, name, values)
				}
			}
		}
	})
}
