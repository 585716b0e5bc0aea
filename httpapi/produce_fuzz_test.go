package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/formats"
)

// FuzzProduceBody holds the parser to encoding/json: what we take is valid JSON and holds the same records, what we
// call a syntax error is one. encoding/json lets duplicates, other letter case and broken UTF-8 through; a walk over its
// tokens finds those, and none may be taken.
func FuzzProduceBody(f *testing.F) {
	for _, seed := range []string{
		`{"records":[{"key":"a2V5","value":"dmFsdWU=","partition":0,"timestamp":1,"headers":[{"key":"h","value":"eA=="}]}]}`,
		`{"records":[{"value":{"a":[1,2.50,"\u00e4"]}},{},{"key":null}],"key_schema":null}`,
		`{"records":[]}`, `{"records":null}`, `null`, `{"records":[{"partition":"7"}]} `, `{"records":[{"value":1,"value":2}]}`,
		`{"records":[{"timestamp":"2021-02-05T19:14:42Z"}]}`, `{"value_schema_id":"1","records":[{"headers":null}]}`,
		`{"records":[{"headers":[{"key":"a","value":"YQ=="},{"key":"a","value":null},{"key":"\u00e4"}]}]}`, `{"records":[{"\u0076alue":1}],"Records":[]}`, `{"records":[{"headers":[{"key":"\ud800"}]}]}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	for _, list := range [][]string{mustTake, mustRefuse, slices.Collect(maps.Keys(undecided))} {
		for _, value := range list {
			if len(value) < 2000 { // small seeds keep the fuzzer quick
				f.Add([]byte(`{"records":[{"value":`+value+`},{"key":`+value+`}]}`), true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, asJSON bool) {
		format := formats.Binary
		if asJSON {
			format = formats.JSON
		}
		b := &batch{path: 3, format: format, lease: &lease{from: &budget{limit: 1 << 30}}}
		before := allocated()
		err := b.parse(bytes.Clone(in))
		if grown := allocated() - before; grown > 256<<10+uint64(3*len(in))+8*uint64(b.lease.held) {
			t.Fatalf("%q: %d bytes were allocated, %d are paid for", in, grown, b.lease.held)
		}
		if err != nil {
			var syntax *sluice.Error
			if errors.As(err, &syntax) && syntax.Kind == sluice.Malformed && !strings.Contains(syntax.Msg, " must be ") && json.Valid(in) {
				t.Fatalf("%q is valid JSON: %v", in, err)
			}
			return
		}
		if twice, err := namedTwice(tokens(in), ""); err != nil || twice != "" || !utf8.Valid(in) {
			t.Fatalf("%q was taken: %q twice, %v", in, twice, err)
		}
		judge := judgedBody(t, in)
		if len(judge.Records) != b.size || len(b.records)+len(b.faults) != b.size {
			t.Fatalf("%q: %d records and %d faults of %d, want %d", in, len(b.records), len(b.faults), b.size, len(judge.Records))
		}
		faults, records := b.faults, b.records
		for i, want := range judge.Records {
			if len(faults) > 0 && faults[0].slot == i {
				faults = faults[1:]
				continue
			}
			got := records[0]
			records = records[1:]
			if diff := cmp.Diff([][]byte{judged(t, want.Key, asJSON), judged(t, want.Value, asJSON)}, [][]byte{got.Key, got.Value}); diff != "" {
				t.Fatalf("%q, record %d:\n%s", in, i, diff)
			}
			for _, content := range [][]byte{got.Key, got.Value} {
				if lone := bytes.Contains(bytes.ToLower(content), []byte(`\ud`)); !asJSON || lone || content == nil {
					continue // encoding/json makes one name of all lone surrogates
				}
				if twice, err := namedTwice(tokens(content), "json"); twice != "" || err != nil {
					t.Fatalf("%q, record %d was taken: %s (%v)", in, i, twice, err)
				}
			}
			if got.Partition != judgedPartition(want.Partition) || len(got.Headers) != len(want.Headers) {
				t.Fatalf("%q, record %d: partition %d, %d headers", in, i, got.Partition, len(got.Headers))
			}
			for n, h := range want.Headers {
				if got.Headers[n].Name != h.Key || !bytes.Equal(got.Headers[n].Value, h.Value) || (got.Headers[n].Value == nil) != (h.Value == nil) {
					t.Fatalf("%q, record %d: header %d is %q", in, i, n, got.Headers[n])
				}
			}
		}
	})
}

type judgedRecords struct {
	Records []struct {
		Key, Value, Partition json.RawMessage
		Headers               []struct {
			Key   string
			Value []byte
		}
	} `json:"records"`
}

// judgedBody is what encoding/json reads. A header value that is no base64 costs its record with us and the document
// with it, so those are taken out first.
func judgedBody(t *testing.T, in []byte) (judge judgedRecords) {
	t.Helper()
	if json.Unmarshal(in, &judge) == nil {
		return judge
	}
	var bare struct {
		Records []struct{ Key, Value, Partition json.RawMessage } `json:"records"`
	}
	if err := json.Unmarshal(in, &bare); err != nil {
		t.Fatalf("%q was taken: %v", in, err)
	}
	t.Skip("a header's value is no base64")
	return judge
}

func judgedPartition(raw json.RawMessage) int32 {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return 3
	}
	n, _ := new(big.Int).SetString(text, 10)
	if n == nil || !n.IsInt64() {
		return 1<<31 - 1
	}
	return int32(min(n.Int64(), 1<<31-1))
}

func tokens(in []byte) *json.Decoder {
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	return d
}

// namedTwice walks over the next value and returns the first name that stands twice in one object, or that no field of
// that place has. Keys and values in a request are walked over; on their own they are the place json.
func namedTwice(d *json.Decoder, place string) (string, error) {
	known := map[string]string{"": " records key_schema value_schema key_schema_id value_schema_id ", "records": " key value partition timestamp headers ", "records headers": " key value "}
	token, err := d.Token()
	if err != nil {
		return "", err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return "", nil
	}
	seen := map[string]bool{}
	for d.More() {
		inner := place
		if open == '{' {
			token, err := d.Token()
			if err != nil {
				return "", err
			}
			name, _ := token.(string)
			fields, ours := known[place]
			if ours && (seen[name] || !strings.Contains(fields, " "+name+" ")) || place == "json" && seen[name] {
				return name + " of " + place, nil
			}
			seen[name] = true
			if place != "json" {
				inner = strings.TrimSpace(place + " " + name)
			}
		}
		if twice, err := namedTwice(d, inner); twice != "" || err != nil {
			return twice, err
		}
	}
	_, err = d.Token()
	return "", err
}

// judged is what encoding/json makes of a key or a value.
func judged(t *testing.T, raw json.RawMessage, asJSON bool) []byte {
	switch {
	case raw == nil || string(raw) == "null":
		return nil
	case asJSON:
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var b []byte
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatalf("%q was taken for base64: %v", raw, err)
	}
	return b
}

func BenchmarkParseProduce(b *testing.B) {
	for name, value := range map[string]string{"1 KiB": strings.Repeat("QUJD", 340), "1 MiB": strings.Repeat("QUJD", 340_000)} {
		body := []byte(`{"records":[{"key":"Y3VzdG9tZXItNDI=","value":"` + value + `"}]}`)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			room := make([]byte, len(body))
			budget := &budget{limit: 1 << 30}
			for b.Loop() {
				copy(room, body)
				l := lease{from: budget}
				one := batches.Get().(*batch)
				one.path, one.lease = sluice.AnyPartition, &l
				if err := one.parse(room); err != nil || len(one.records) != 1 {
					b.Fatal(err)
				}
				l.release()
				one.release()
			}
		})
	}
}
