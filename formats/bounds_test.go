package formats

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

// allocated is what f allocates in all, and what of it is still alive when f's result is.
func allocated(f func() any) (total, alive int) {
	var before, after, kept runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	result := f()
	runtime.ReadMemStats(&after)
	runtime.GC()
	runtime.ReadMemStats(&kept)
	runtime.KeepAlive(result)
	return int(after.TotalAlloc - before.TotalAlloc), int(kept.HeapAlloc) - int(before.HeapAlloc)
}

// allocatedSoFar is cheap enough for a fuzzer, whose own part is in it.
func allocatedSoFar() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// repeated is a text of about size bytes; %[1]d in each is its number.
func repeated(size int, head, each, tail string) string {
	var b strings.Builder
	b.WriteString(head)
	for n := 0; b.Len()+len(each)+len(tail) < size; n++ {
		b.WriteString(strings.ReplaceAll(each, "%[1]d", fmt.Sprint(n)))
	}
	return b.String() + tail
}

const proto3, proto2 = `syntax = "proto3";`, `syntax = "proto2";`

// hostileSchemas are texts that grow: in what a library makes of them, or in the time it takes.
var hostileSchemas = map[string]struct {
	format           Format
	most             int // bytes, a little above what its bounds let through
	head, each, tail string
}{
	"messages":                 {Protobuf, 155000, proto3, "message A%[1]d{}", ""},
	"fields":                   {Protobuf, 155000, proto3 + "message A{", "int32 a%[1]d=1%[1]d;", "}"},
	"maps":                     {Protobuf, 103000, proto3 + "message A{", "map<int32,A>a%[1]d=1%[1]d;", "}"},
	"oneofs":                   {Protobuf, 103000, proto3 + "message A{", "oneof a%[1]d{A b%[1]d=1%[1]d;}", "}"},
	"groups":                   {Protobuf, 155000, proto2 + "message A{", "optional group A%[1]d=1%[1]d{}", "}"},
	"options":                  {Protobuf, 50000, proto3 + "message A{option (x)={", "a:1 ", "};}"},
	"options in options":       {Protobuf, 50000, proto3 + "message A{option (x)={", "a<b<c<>>> ", "};}"},
	"semicolons":               {Protobuf, 50000, proto3 + "message A{}", ";", ""},
	"comments":                 {Protobuf, 140000, proto3 + "message A{}", "//\n", ""},
	"lines":                    {Protobuf, 1048000, proto3 + "message A{}", "\n", ""},
	"a package with dots":      {Protobuf, 400, proto3 + "package a", ".a", ";message A{}"},
	"a long package":           {Protobuf, 66000, proto3 + "package " + strings.Repeat("a", 500) + ";", "message A%[1]d{}", ""},
	"a long name":              {Protobuf, 60000, proto3 + "message " + strings.Repeat("A", 50_000) + "{", "message A%[1]d{}", "}"},
	"imports":                  {Protobuf, 17000, proto3, `import "a%[1]d";`, "message A{}"},
	"schemas":                  {JSONSchema, 25000, `{"anyOf":[{}`, `,{}`, `]}`},
	"schemas that fail":        {JSONSchema, 103000, `{"anyOf":[{}`, `,{"type":5}`, `]}`},
	"schemas in schemas":       {JSONSchema, 78000, `{"anyOf":[{}`, "," + strings.Repeat(`{"not":`, 90) + "{}" + strings.Repeat("}", 90), "]}"},
	"properties":               {JSONSchema, 103000, `{"properties":{"a":{}`, `,"a%[1]d":{}`, `}}`},
	"references":               {JSONSchema, 190000, `{"anyOf":[{}`, `,{"$ref":"#/anyOf/%[1]d"}`, `]}`},
	"ids":                      {JSONSchema, 15000, `{"$id":"http://a/` + strings.Repeat("a/", 450) + `","anyOf":[{}`, `,{"$id":"a%[1]d"}`, `]}`},
	"a long property":          {JSONSchema, 60000, `{"properties":{"` + strings.Repeat("a", 50_000) + `":{"anyOf":[{}`, ",{}", "]}}}"},
	"constants":                {JSONSchema, 233000, `{"const":[[]`, `,[]`, `]}`},
	"large numbers":            {JSONSchema, 155000, `{"anyOf":[{}`, `,{"minimum":1e400}`, `]}`},
	"a long expression":        {JSONSchema, 16000, `{"pattern":"`, `a*`, `"}`},
	"Unicode classes":          {JSONSchema, 400, `{"pattern":"`, `\\pL`, `"}`},
	"repetitions":              {JSONSchema, 4000, `{"anyOf":[{}`, `,{"pattern":"%[1]d(a{30}){30}"}`, `]}`},
	"names with an expression": {JSONSchema, 2700, `{"patternProperties":{"a":{}`, `,"%[1]d(a{30}){30}":{}`, `}}`},
	"Avro fields":              {Avro, 1048000, `{"type":"record","name":"A","fields":[{"name":"a","type":"int"}`, `,{"name":"a%[1]d","type":["int"]}`, `]}`},
	"Avro records":             {Avro, 1048000, `["int"`, `,{"type":"record","name":"A%[1]d","fields":[]}`, `]`},
	"a long namespace":         {Avro, 1048000, `{"type":"record","name":"A","namespace":"` + strings.Repeat("a", 990) + `","fields":[{"name":"a","type":"int"}`, `,{"name":"a%[1]d","type":{"type":"enum","name":"B%[1]d","symbols":[]}}`, `]}`},
	"what Avro overlooks":      {Avro, 1048000, `{"type":"int","x":[[]`, `,{"":0}`, `]}`},
}

// The largest that a bound lets through, of each sort, costs no more than a request may; and what stays in the cache is
// counted for what it is.
func TestHostileSchemaTexts(t *testing.T) {
	for f, text := range namedSchemas { // what libraries make once
		if _, _, err := compile(f, text, nil); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range hostileSchemas {
		size, refused, why := maxSchema, 0, ""
		for {
			text := repeated(size, c.head, c.each, c.tail)
			var err error
			var cost int
			begun := time.Now()
			total, alive := allocated(func() any {
				var made codec
				made, cost, err = compile(c.format, text, nil)
				return made
			})
			if took := time.Since(begun); total > 256<<20 || took > 30*time.Second {
				t.Errorf("%s: %d bytes took %s and %d KiB", name, len(text), took, total>>10)
			}
			if err == nil && alive > cost+(1<<20) {
				t.Errorf("%s: %d bytes keep %d KiB alive, counted as %d", name, len(text), alive>>10, cost>>10)
			}
			if !strings.Contains(said(err), " than ") || size < 100 {
				t.Logf("%-26s %7d bytes: %6d KiB, %5d alive, counted as %5d, %s (%d above: %s)", name, len(text), total>>10, alive>>10, cost>>10, time.Since(begun).Round(time.Millisecond), refused, why)
				break
			}
			if refused, why = len(text), said(err); sluice.KindOf(err) != sluice.BadSchema {
				t.Errorf("%s: %v", name, err)
			}
			if size == maxSchema {
				size = c.most * 5 / 4
			}
			size = size * 4 / 5
		}
	}
}

// What was too much for the bounds there were.
func TestSchemaTextsAreRefusedBeforeALibrarySeesThem(t *testing.T) {
	nested := func(open, middle, end string, n int) string {
		return strings.Repeat(open, n) + middle + strings.Repeat(end, n)
	}
	for name, c := range map[string]struct {
		format     Format
		text, want string
	}{
		"messages in messages": {Protobuf, strings.Repeat("message A{", 64<<10), "it is nested deeper than 100 levels"},
		"options in options":   {Protobuf, proto3 + "message A{option (x)=" + nested("{a:", "1", "}", 200) + ";}", "it is nested deeper than 100 levels"},
		"behind a comment":     {Protobuf, "/* \" */ // '\n" + `option a = "\"{{/*";` + strings.Repeat("message A{", 200), "it is nested deeper than 100 levels"},
		"schemas in schemas":   {JSONSchema, nested(`{"not":`, "{}", "}", 200), "it is nested deeper than 100 levels"},
		"Avro in Avro":         {Avro, nested(`{"type":"array","items":`, `"int"`, "}", 200), "it is nested deeper than 100 levels"},
		"an expression":        {JSONSchema, `{"pattern":"` + strings.Repeat("a", 400<<10) + `"}`, "a regular expression is longer than 16384 bytes"},
		"a property's":         {JSONSchema, `{"patternProperties":{"` + strings.Repeat("a", 400<<10) + `":{}}}`, "a regular expression is longer than 16384 bytes"},
		"a number":             {JSONSchema, `{"minimum":1e999999}`, "a number has a power of ten above 400"},
		"a tiny number":        {JSONSchema, `{"enum":[1E-999999]}`, "a number has a power of ten above 400"},
		"a long number":        {JSONSchema, `{"const":` + strings.Repeat("1", 1000) + `}`, "a number has more than 800 digits"},
		"an id":                {JSONSchema, `{"$id":"http://a/` + strings.Repeat("a", 1000) + `"}`, "its $id is longer than 1000 bytes"},
		"a name":               {Avro, `{"type":"fixed","size":1,"name":"` + strings.Repeat("a", 1001) + `"}`, "a name is longer than 1000 bytes"},
	} {
		var err error
		total, _ := allocated(func() any { _, _, err = compile(c.format, c.text, nil); return nil })
		if sluice.KindOf(err) != sluice.BadSchema || said(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if total > 8<<20 {
			t.Errorf("%s: %d KiB", name, total>>10)
		}
	}
	large := strings.Repeat(" ", maxSchema-2) + `{}`
	if _, _, err := compile(JSONSchema, `{}`, []reference{{"a", large}, {"b", large}, {"c", large}, {"d", large}}); said(err) != "it and what it refers to are larger than 4194304 bytes" {
		t.Errorf("many references: %v", err)
	}
}

// Numbers and expressions come with records too, where the schema asks for a look at them.
func TestWhatAJSONSchemaMustNotCompare(t *testing.T) {
	c, _, err := compile(JSONSchema, `{"items":{"minimum":0,"format":"regex"}}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{
		`[1e400,-0.5e-3,"a{1000}"]`:                `at '/1': minimum: got -0.0005, want 0`, // looked at, and refused for that alone
		`[0,1e999999]`:                             "a number has a power of ten above 400",
		`[{"a":1e-99999999999}]`:                   "a number has a power of ten above 400",
		`["` + strings.Repeat("a", 20<<10) + `"]`:  "a regular expression is longer than 16384 bytes",
		`["` + strings.Repeat(`\\pL`, 1000) + `"]`: "a regular expression has more than 100 Unicode classes",
		`["(a{30}){30}"]`:                          "",
	} {
		var err error
		total, _ := allocated(func() any { _, err = c.encode(nil, []byte(value)); return nil })
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) || total > 4<<20 {
			t.Errorf("%.40s: %v, %d KiB", value, err, total>>10)
		}
	}
}

// A caller who sends a new schema with each request fills the memory up to its bound and no further, however small the
// texts are of which a library makes megabytes.
func TestNewSchemasDoNotFillTheMemory(t *testing.T) {
	r := client(t, embedded(t).URL)
	_, alive := allocated(func() any {
		for n := range 60 {
			schema := repeated(1800, fmt.Sprintf(`{"patternProperties":{"%d":{}`, n), `,"%[1]d(a{30}){30}":{}`, `}}`)
			if _, err := r.ForWriting(t.Context(), JSONSchema, "many-value", text(schema)); err != nil {
				t.Fatal(err)
			}
		}
		return r
	})
	if alive > keptBytes+(8<<20) || r.registered.cost > keptBytes || r.registered.order.Len() == 60 {
		t.Errorf("%d schemas are kept in %d KiB, counted as %d", r.registered.order.Len(), alive>>10, r.registered.cost>>10)
	}
}

func TestASchemaWaitsWhileOthersAreCompiled(t *testing.T) {
	r := client(t, embedded(t).URL)
	used, err := r.ForWriting(t.Context(), Avro, "x-value", text(`"string"`))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.compiling.Acquire(t.Context(), compilers); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.ForWriting(short, Avro, "x-value", text(`"long"`)); sluice.KindOf(err) != sluice.Overloaded {
		t.Errorf("a new text: %v", err)
	}
	short, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.ForWriting(short, Avro, "x-value", id(used.ID())); sluice.KindOf(err) != sluice.Overloaded {
		t.Errorf("a new id: %v", err)
	}
	if again, err := r.ForWriting(t.Context(), Avro, "x-value", text(`"string"`)); err != nil || again != used {
		t.Errorf("one in use: %v", err)
	}
	r.compiling.Release(compilers)
	if _, err := r.ForWriting(t.Context(), Avro, "x-value", text(`"long"`)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Any text of a schema: no panic, and no more than what its bounds allow for texts as short as a fuzzer's.
func fuzzSchema(f *testing.F, format Format) {
	for _, c := range hostileSchemas {
		if c.format == format {
			f.Add(repeated(200, c.head, c.each, c.tail))
		}
	}
	f.Add(namedSchemas[format])
	f.Fuzz(func(t *testing.T, text string) {
		begun, before := time.Now(), allocatedSoFar()
		_, _, err := compile(format, text, nil)
		total := allocatedSoFar() - before
		if took := time.Since(begun); total > 64<<20 || took > 5*time.Second {
			t.Fatalf("%d bytes took %s and %d KiB: %v", len(text), took, total>>10, err)
		}
		if err != nil && sluice.KindOf(err) != sluice.BadSchema {
			t.Fatal(err)
		}
	})
}

func FuzzAvroSchema(f *testing.F)     { fuzzSchema(f, Avro) }
func FuzzJSONSchema(f *testing.F)     { fuzzSchema(f, JSONSchema) }
func FuzzProtobufSchema(f *testing.F) { fuzzSchema(f, Protobuf) }
