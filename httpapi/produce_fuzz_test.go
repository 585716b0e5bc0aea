package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/formats"
)

// FuzzProduceBody holds the parser to encoding/json: what we take is valid JSON and holds the same records; what we
// call a syntax error is one. What encoding/json lets through (duplicates, letter case, broken UTF-8) we may refuse.
func FuzzProduceBody(f *testing.F) {
	for _, seed := range []string{
		`{"records":[{"key":"a2V5","value":"dmFsdWU=","partition":0,"timestamp":1,"headers":[{"key":"h","value":"eA=="}]}]}`,
		`{"records":[{"value":{"a":[1,2.50,"\u00e4"]}},{},{"key":null}],"key_schema":null}`,
		`{"records":[]}`, `{"records":null}`, `null`, `{"records":[{"partition":"7"}]} `, `{"records":[{"value":1,"value":2}]}`,
		`{"records":[{"timestamp":"2021-02-05T19:14:42Z"}]}`, `{"value_schema_id":"1","records":[{"headers":null}]}`,
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, asJSON bool) {
		format := formats.Binary
		if asJSON {
			format = formats.JSON
		}
		b := &batch{path: 3, format: format, lease: &lease{from: &budget{limit: 1 << 30}}}
		err := b.parse(bytes.Clone(in))
		if err != nil {
			var syntax *sluice.Error
			if errors.As(err, &syntax) && syntax.Kind == sluice.Malformed && !strings.Contains(syntax.Msg, " must be ") && json.Valid(in) {
				t.Fatalf("%q is valid JSON: %v", in, err)
			}
			return
		}
		var judge struct {
			Records []struct {
				Key, Value json.RawMessage
			} `json:"records"`
		}
		if err := json.Unmarshal(in, &judge); err != nil {
			t.Fatalf("%q was taken: %v", in, err)
		}
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
			if diff := cmp.Diff([][]byte{judged(t, want.Key, asJSON), judged(t, want.Value, asJSON)}, [][]byte{got.Key, got.Value}, cmpopts.IgnoreTypes()); diff != "" {
				t.Fatalf("%q, record %d:\n%s", in, i, diff)
			}
			if got.Partition < 0 {
				t.Fatalf("%q, record %d: partition %d", in, i, got.Partition)
			}
		}
	})
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
