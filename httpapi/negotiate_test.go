package httpapi

import (
	"mime"
	"strings"
	"testing"
)

func TestAcceptChoosesTheAnswersType(t *testing.T) {
	w := start(t)
	const kafkaV1, kafkaV2, kafka, plain = "application/vnd.kafka.v1+json", "application/vnd.kafka.v2+json", "application/vnd.kafka+json", "application/json"
	for _, c := range []struct{ contentType, accept, want string }{
		{"", "", kafkaV1},
		{"", "*/*", kafkaV1},
		{"", "application/*", kafkaV1},
		{"", plain, plain},
		{"", "*/json", plain},
		{"", "APPLICATION/JSON", plain},
		{"", "application/vnd.kafka.v1+json, application/vnd.kafka+json; q=0.9, application/json; q=0.8", kafkaV1},
		{"", "application/vnd.kafka.v2+json, application/json, */*", kafkaV2},
		{"", "application/json, */*", plain}, // exact beats wildcard at the same weight
		{"", "application/json;q=0.5, */*", kafkaV1},
		{"", "application/json;q=0.5, */*;q=0.1", plain},
		{"", "application/vnd.kafka.v1+json;q=0, */*", kafkaV2},
		{"", "application/vnd.kafka+json, application/vnd.kafka.v2+json", kafkaV2}, // server order
		{"", "application/vnd.kafka.binary.v2+json", "application/vnd.kafka.binary.v2+json"},
		{"", "application/vnd.kafka.json.v1+json;q=0.2, text/html", "application/vnd.kafka.json.v1+json"},
		{"", "not parsed, application/json", plain},
		{"", "*/baz, application/json;q=0.1", plain},
		{"", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", kafkaV1}, // Java's HttpURLConnection, where nobody says
		{"", "application/json;q=.5, application/vnd.kafka+json;q=.75", kafka},
		{kafkaV2, "", kafkaV2},
		{"application/vnd.kafka.json.v2+json", "", kafkaV2},
		{"application/vnd.kafka.json.v2+json", "*/*", kafkaV2},
		{kafkaV2, kafkaV1, kafkaV1},
		{kafkaV1, kafkaV2, kafkaV2},
		{plain, "", kafkaV1},
		{"application/vnd.kafka+json", "*/*", kafkaV1},
		{"", kafka, kafka},
	} {
		a := w.call("GET", "/topics", "", "Content-Type", c.contentType, "Accept", c.accept)
		if got := a.header.Get("Content-Type"); got != c.want || a.status != 200 {
			t.Errorf("Content-Type %q, Accept %q: %d %q, want %q", c.contentType, c.accept, a.status, got, c.want)
		}
	}
	for _, accept := range []string{"text/plain", "application/octet-stream", "*/baz", "application/json;q=0", "application/vnd.kafka.v3+json", ";", "application/json;q=2", "application/json;q=.", "application/json;q=.1234"} {
		a := w.call("GET", "/topics", "", "Accept", accept)
		a.want(t, 406, `{"error_code":406,"message":"HTTP 406 Not Acceptable"}`)
		if got := a.header.Get("Content-Type"); got != kafkaV1 {
			t.Errorf("Accept %q: error in %q", accept, got)
		}
	}
	a := w.call("POST", "/topics/orders", "x", "Content-Type", "text/plain", "Accept", kafkaV2)
	if got := a.header.Get("Content-Type"); a.status != 415 || got != kafkaV2 {
		t.Errorf("415 in %q", got)
	}
	if got := w.call("GET", "/topics/nope", "", "Accept", plain).header.Get("Content-Type"); got != plain {
		t.Errorf("404 in %q", got)
	}
}

func TestReadsOfferTheirOwnFormat(t *testing.T) {
	names := func(all []media) (s []string) {
		for _, m := range all {
			s = append(s, strings.TrimSuffix(strings.TrimPrefix(m.name, "application/"), "+json"))
		}
		return s
	}
	offers, others := offerPlain.read("binary", v2)
	if got := strings.Join(names(offers), " "); got != "vnd.kafka.binary.v2 vnd.kafka.binary.v1 vnd.kafka.binary vnd.kafka.v2 vnd.kafka.v1 vnd.kafka json" {
		t.Errorf("offers: %s", got)
	}
	if got := strings.Join(names(others), " "); got != "vnd.kafka.json.v1 vnd.kafka.json.v2 vnd.kafka.text.v2 vnd.kafka.json vnd.kafka.text" {
		t.Errorf("others: %s", got)
	}
	for accept, want := range map[string]string{
		"":                              "application/vnd.kafka.binary.v2+json",
		"application/vnd.kafka.v2+json": "application/vnd.kafka.v2+json",
		"application/vnd.kafka.json.v2+json, application/json;q=0.5": "application/json",
		"application/vnd.kafka.json.v2+json":                         "",
	} {
		if m, _, _ := choose(accept, offers); m.name != want {
			t.Errorf("%q: %q, want %q", accept, m.name, want)
		}
	}
}

// The judge of the parser is mime.ParseMediaType: what it takes as a type of two tokens, so do we, and with the same
// name and charset.
func FuzzMediaType(f *testing.F) {
	for _, seed := range []string{"application/json", "application/json; charset=utf-8", `a/b;c="d\"e";q=0.5`, "*/*;q=0", "text/plain ;x=y", "a/b;", "*/json"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, ok := parseMedia(in)
		if !ok {
			return
		}
		if r.q < 0 || r.q > 1000 || strings.Count(r.name, "/") != 1 {
			t.Fatalf("%q: %+v", in, r)
		}
		name, params, err := mime.ParseMediaType(in)
		if err != nil {
			return // it refuses repeated parameters, for one
		}
		if r.name != name && !(name == "*/json" && r.name == "application/json") {
			t.Fatalf("%q: %q, want %q", in, r.name, name)
		}
		if want := strings.ToLower(params["charset"]); r.charset != want && !strings.Contains(in, "*") && !strings.Contains(in, `\`) {
			t.Fatalf("%q: charset %q, want %q", in, r.charset, want)
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add("application/json, */*;q=0.1")
	f.Fuzz(func(t *testing.T, in string) {
		m, exact, ok := choose(in, offerSchemas.plainV2)
		if ok == (m.name == "") || (exact && !ok) {
			t.Fatalf("%q: %+v %v %v", in, m, exact, ok)
		}
	})
}

func TestGzipAnswers(t *testing.T) {
	w := start(t)
	for i := range 200 {
		w.kafka.topics["a-topic-with-a-long-name-"+strings.Repeat("x", i%50)] = 1
	}
	for header, want := range map[string]string{"gzip": "gzip", "gzip;q=0": "", "*": "gzip", "identity": "", "br, gzip;q=0.5": "gzip", "": "", "*;q=0": ""} {
		got := w.raw("GET /topics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: " + header + "\r\n\r\n")
		if zipped := strings.Contains(got, "Content-Encoding: gzip\r\n"); zipped != (want != "") {
			t.Errorf("Accept-Encoding %q: gzip %v", header, zipped)
		}
		if !strings.Contains(got, "Vary: Accept-Encoding\r\n") {
			t.Errorf("Accept-Encoding %q: no Vary", header)
		}
	}
	if got := w.raw("GET /topics/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"); strings.Contains(got, "Content-Encoding") {
		t.Error("a short answer was compressed")
	}
	if a := w.call("GET", "/topics", ""); !strings.HasPrefix(a.body, `["__consumer_offsets","a-topic`) {
		t.Errorf("%.100s", a.body)
	}
}
