package formats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox"
)

const (
	pairProto = `syntax = "proto3"; package ft; import "google/protobuf/timestamp.proto";
		message Pair { int64 big_number = 1; string name = 2; Kind kind = 3; repeated int32 list = 4; optional string maybe = 5; google.protobuf.Timestamp at = 6; bytes raw = 7; map<string,bool> flags = 8;
			message Inner { bool yes = 1; } Inner inner = 9; }
		message Other { string word = 1; message Deep { uint64 n = 1; } }
		enum Kind { NONE = 0; SOME = 1; }`
	pairJSONSchema = `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"name":{"type":"string"}},"additionalProperties":true}`
)

var namedSchemas = map[Format]string{Avro: orderAvro, JSONSchema: pairJSONSchema, Protobuf: pairProto}

func embedded(t testing.TB) *sandbox.Registry {
	t.Helper()
	s, err := sandbox.StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func client(t testing.TB, urls ...string) *Registry {
	t.Helper()
	r, err := New(Config{RegistryURL: urls}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func text(s string) Named { return Named{Text: &s} }

func id(n int) Named {
	wide := int64(n)
	return Named{ID: &wide}
}

// registries are ours and one that others wrote.
func registries(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sandbox", func(t *testing.T) { test(t, embedded(t).URL) })
	t.Run("srfake", func(t *testing.T) {
		fake := srfake.New()
		t.Cleanup(fake.Close)
		test(t, fake.URL())
	})
}

func TestASchemaIsFoundByTextAndById(t *testing.T) {
	registries(t, func(t *testing.T, url string) {
		r := client(t, url)
		for f, schema := range namedSchemas {
			subject := "orders-" + f.String()
			first, err := r.ForWriting(t.Context(), f, subject, text(schema))
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			other := client(t, url) // knows nothing yet
			again, err := other.ForWriting(t.Context(), f, subject, id(first.ID()))
			if err != nil || again.ID() != first.ID() {
				t.Fatalf("%s by id: %v", f, err)
			}
			if twice, err := other.ForWriting(t.Context(), f, subject, text(schema)); err != nil || twice.ID() != first.ID() {
				t.Fatalf("%s by text again: %v", f, err)
			}
		}
	})
}

func TestSchemasThatAreNotTheSubjects(t *testing.T) {
	registries(t, func(t *testing.T, url string) {
		r := client(t, url)
		made, err := r.ForWriting(t.Context(), Avro, "orders-value", text(`"string"`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.ForWriting(t.Context(), Avro, "others-value", text(`"long"`)); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			format Format
			named  Named
			why    string
		}{
			"unknown id":       {Avro, id(4711), "there is no schema with id 4711"},
			"negative id":      {Avro, id(-1), "there is no schema with id -1"},
			"absurd id":        {Avro, id(1 << 40), "there is no schema with id 1099511627776"},
			"another subject":  {Avro, id(made.ID()), fmt.Sprintf("schema %d is not registered under subject others-value", made.ID())},
			"another type":     {Protobuf, id(made.ID()), fmt.Sprintf("schema %d is of type AVRO", made.ID())},
			"no avro":          {Avro, text(`{"type":"nosuch"}`), "type nosuch is not defined"},
			"no JSON":          {Avro, text(`{`), "Invalid JSON: expected a field name at byte 1"},
			"no JSON Schema":   {JSONSchema, text(`{"type":5}`), ""},
			"a far $ref":       {JSONSchema, text(`{"$ref":"http://127.0.0.1:1/x.json"}`), ""},
			"a file":           {JSONSchema, text(`{"$ref":"file:///etc/hostname"}`), ""},
			"no proto":         {Protobuf, text(`message {`), ""},
			"an import":        {Protobuf, text(`syntax="proto3"; import "/etc/hostname"; message A {}`), ""},
			"no message":       {Protobuf, text(`syntax="proto3"; enum A { B = 0; }`), "it defines no message"},
			"a very long text": {Avro, text(`"` + strings.Repeat("a", maxSchema) + `"`), "it is larger than 1048576 bytes"},
		} {
			_, err := r.ForWriting(t.Context(), c.format, "others-value", c.named)
			e, ok := errors.AsType[*sluice.Error](err)
			if !ok || e.Kind != sluice.BadSchema || (c.why != "" && e.Msg != c.why) || e.Msg == "" {
				t.Errorf("%s: %v, want %q", name, err, c.why)
			}
		}
	})
}

func TestARegistryThatIsDownOrSlowIsToldWithinItsBound(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	after := func(status int, wait time.Duration) func(*http.Request) (int, time.Duration) {
		return func(*http.Request) (int, time.Duration) { return status, wait }
	}
	for name, c := range map[string]struct {
		trouble func(*http.Request) (int, time.Duration) // nil: nobody listens
		detail  string
	}{
		"down":    {nil, "The schema registry could not be reached in time."},
		"slow":    {after(0, time.Minute), "The schema registry could not be reached in time."},
		"broken":  {after(500, 0), "The schema registry answered 500: Error in the backend data store"},
		"refuses": {after(409, 0), "The schema registry answered 409: Error in the backend data store"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := "http://" + closed.Addr().String()
			if c.trouble != nil {
				s := embedded(t)
				s.Trouble(c.trouble)
				url = s.URL
			}
			r := client(t, url)
			var callers sync.WaitGroup
			try := func(how string, call func() error) {
				callers.Go(func() {
					begun := time.Now()
					e, ok := errors.AsType[*sluice.Error](call())
					if took := time.Since(begun); !ok || e.Kind != sluice.SchemaLookup || e.Detail != c.detail || took > Patience+2*time.Second {
						t.Errorf("%s: %v after %s", how, e, took)
					}
				})
			}
			try("by text", func() error { _, err := r.ForWriting(t.Context(), Avro, "orders-value", text(`"string"`)); return err })
			try("by id", func() error { _, err := r.ForWriting(t.Context(), Avro, "orders-value", id(1)); return err })
			try("reading", func() error {
				out, err := r.Reader(t.Context(), Avro).Append([]byte("keep"), []byte{0, 0, 0, 0, 2, 2, 'a'})
				if string(out) != "keep" {
					t.Errorf("reading: %s", out)
				}
				return err
			})
			callers.Wait()
		})
	}
}

func TestAShortTroubleOfTheRegistryIsNotSeen(t *testing.T) {
	s := embedded(t)
	var asked atomic.Int32
	s.Trouble(func(*http.Request) (int, time.Duration) {
		if asked.Add(1) < attempts {
			return 503, 0
		}
		return 0, 0
	})
	if _, err := client(t, s.URL).ForWriting(t.Context(), Avro, "orders-value", text(`"string"`)); err != nil || asked.Load() != attempts {
		t.Errorf("%v after %d", err, asked.Load())
	}
	asked.Store(0)
	s.Trouble(func(*http.Request) (int, time.Duration) { asked.Add(1); return 422, 0 })
	if _, err := client(t, s.URL).ForWriting(t.Context(), Avro, "orders-value", text(`"long"`)); err == nil || asked.Load() != 1 {
		t.Errorf("what was refused was asked %d times: %v", asked.Load(), err)
	}
}

func TestWhatIsKnownWorksWithoutTheRegistryAndIsAskedForOnce(t *testing.T) {
	s := embedded(t)
	var asked atomic.Int32
	s.Trouble(func(*http.Request) (int, time.Duration) { asked.Add(1); return 0, 50 * time.Millisecond })
	r := client(t, s.URL)
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			made, err := r.ForWriting(t.Context(), Avro, "orders-value", text(`"string"`))
			if err != nil {
				t.Error(err)
				return
			}
			b, err := made.Encode(t.Context(), []byte(`"a"`))
			if err != nil {
				t.Error(err)
				return
			}
			if out, err := r.Reader(t.Context(), Avro).Append(nil, b); err != nil || string(out) != `"a"` {
				t.Errorf("%s %v", out, err)
			}
			if _, err := r.ForWriting(t.Context(), Avro, "orders-value", id(made.ID())); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if n := asked.Load(); n != 3 { // registered, by id, member of the subject
		t.Errorf("asked %d times", n)
	}
	s.Trouble(func(*http.Request) (int, time.Duration) { return 500, 0 })
	if _, err := r.ForWriting(t.Context(), Avro, "orders-value", text(`"string"`)); err != nil {
		t.Errorf("by text: %v", err)
	}
	if out, err := r.Reader(t.Context(), Avro).Append(nil, []byte{0, 0, 0, 0, 1, 2, 'b'}); err != nil || string(out) != `"b"` {
		t.Errorf("reading: %s %v", out, err)
	}
}

func TestTheSecondAddressHelps(t *testing.T) {
	if _, err := client(t, "http://127.0.0.1:1", embedded(t).URL).ForWriting(t.Context(), Avro, "orders-value", text(`"string"`)); err != nil {
		t.Error(err)
	}
}

func TestWhatASchemaRefersToIsFound(t *testing.T) {
	fake := srfake.New()
	t.Cleanup(fake.Close)
	c, err := sr.NewClient(sr.URLs(fake.URL()))
	if err != nil {
		t.Fatal(err)
	}
	r := client(t, fake.URL())
	for _, one := range []struct {
		typ             sr.SchemaType
		format          Format
		base, name      string
		root, in, wrong string
	}{
		{sr.TypeAvro, Avro, `{"type":"enum","name":"a.State","symbols":["ON"]}`, "a.State", `{"type":"record","name":"R","fields":[{"name":"s","type":"a.State"}]}`, `{"s":"ON"}`, `{"s":"OFF"}`},
		{sr.TypeJSON, JSONSchema, `{"type":"integer"}`, "base.json", `{"type":"array","items":{"$ref":"base.json"}}`, `[1,2]`, `["a"]`},
		{sr.TypeProtobuf, Protobuf, `syntax="proto3"; package a; message B { string x = 1; }`, "a/b.proto", `syntax="proto3"; import "a/b.proto"; message R { a.B b = 1; }`, `{"b":{"x":"y"}}`, `{"b":1}`},
	} {
		base, root := "base-"+one.format.String(), one.format.String()+"-value"
		if _, err := c.RegisterSchema(t.Context(), base, sr.Schema{Type: one.typ, Schema: one.base}, -1, -1); err != nil {
			t.Fatal(err)
		}
		n, err := c.RegisterSchema(t.Context(), root, sr.Schema{Type: one.typ, Schema: one.root, References: []sr.SchemaReference{{Name: one.name, Subject: base, Version: 1}}}, -1, -1)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.ForWriting(t.Context(), one.format, root, id(n))
		if err != nil {
			t.Errorf("%s: %v", one.format, err)
			continue
		}
		b, err := s.Encode(t.Context(), []byte(one.in))
		if err != nil {
			t.Errorf("%s: %v", one.format, err)
			continue
		}
		if out, err := r.Reader(t.Context(), one.format).Append(nil, b); err != nil || string(out) != one.in {
			t.Errorf("%s: %s %v", one.format, out, err)
		}
		if b, err := s.Encode(t.Context(), []byte(one.wrong)); sluice.KindOf(err) != sluice.Invalid {
			t.Errorf("%s: %s became % x (%v)", one.format, one.wrong, b, err)
		}
	}
}

func TestUserAndPasswordReachTheRegistryAndNoError(t *testing.T) {
	fake := srfake.New(srfake.WithAuth("Basic bWU6c2VjcmV0"))
	t.Cleanup(fake.Close)
	if _, err := client(t, strings.Replace(fake.URL(), "http://", "http://me:secret@", 1)).ForWriting(t.Context(), Avro, "a", text(`"string"`)); err != nil {
		t.Error(err)
	}
	_, err := client(t, strings.Replace(fake.URL(), "http://", "http://me:hidden@", 1)).ForWriting(t.Context(), Avro, "a", text(`"string"`))
	if e, ok := errors.AsType[*sluice.Error](err); !ok || e.Kind != sluice.SchemaLookup || strings.Contains(err.Error()+e.Detail, "hidden") {
		t.Errorf("%v", err)
	}
	for _, bad := range [][]string{{"me:hidden"}, {"ftp://me:hidden@h"}, {"http://"}, {"http://a/?x=hidden"}, {"http://a", "http://me:hidden@b"}, {"http://me:hidden@a b"}} {
		if err := (Config{RegistryURL: bad}).Validate(); err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := (Config{RegistryURL: []string{"http://a:8081", "https://b/registry/"}}).Validate(); err != nil {
		t.Error(err)
	}
}
