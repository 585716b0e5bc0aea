package conformance

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// the answers that HTTP itself gives
var (
	notFound      = want{status: 404, code: 404, message: "HTTP 404 Not Found"}
	notAllowed    = want{status: 405, code: 405, message: "HTTP 405 Method Not Allowed"}
	notAcceptable = want{status: 406, code: 406, message: "HTTP 406 Not Acceptable"}
	unsupported   = want{status: 415, code: 415, message: "HTTP 415 Unsupported Media Type"}

	unknownTopic     = want{status: 404, code: 40401, message: "Topic not found."}
	unknownPartition = want{status: 404, code: 40402, message: "Partition not found."}
	unknownInstance  = want{status: 404, code: 40403, message: "Consumer instance not found."}
)

const oneRecord = `{"records":[{"value":"Zm9v"}]}` // foo

// okSlots is the answer to one record that was written.
const okSlots = `{"offsets":[{"partition":"<any>","offset":"<any>","error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`

// httpRules is rest-api.md 1.1.
func httpRules(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c11", 2)
	i := s.create(t, "", `{"format":"binary"}`, bareV2).path
	s.expect(t, request{method: "POST", path: i + "/assignments", contentType: bareV2, body: fmt.Sprintf(`{"partitions":[{"topic":%q,"partition":0}]}`, topic)}, want{status: 204})
	position := fmt.Sprintf(`{"partitions":[{"topic":%q,"partition":0}]}`, topic)
	get := func(path string) request { return request{method: "GET", path: path} }
	badParameter := func(name string) want { return want{status: 400, code: 400, like: ".*" + name + ".*"} }

	s.rows(t, []row{
		{"case of the path", get("/Topics"), notFound},
		{"trailing slash", get("/topics/" + topic + "/partitions/"), want{status: 200, typ: bareV1}},
		{"trailing slash on topics", get("/topics/"), want{status: 200}},
		{"trailing slash on produce", request{method: "POST", path: "/topics/" + topic + "/", body: oneRecord}, want{status: 200}},
		{"double slash in front", get("//topics"), want{status: 200}},
		{"double slash inside", get("/topics//" + topic + "//partitions/0"), want{status: 200}},
		{"double slash before beginning", request{method: "POST", path: i + "/positions//beginning", contentType: bareV2, body: position}, want{status: 204}},
		{"a segment is decoded", get("/topics/" + strings.Replace(topic, "c", "%63", 1)), want{status: 200}},
		{"a segment is decoded once", get("/topics/" + strings.Replace(topic, "c", "%2563", 1)), unknownTopic},
		{"an encoded slash is no slash", get("/topics%2F" + topic), notFound},
		{"a plus is a plus", get("/topics/a+b"), unknownTopic},

		{"unknown path", get("/nosuch"), notFound},
		{"unknown path below a topic", get("/topics/" + topic + "/nosuch"), notFound},
		{"partition that is no integer", get("/topics/" + topic + "/partitions/foo"), notFound},
		{"offsets of a partition that is no integer", get("/topics/" + topic + "/partitions/1.5/offsets"), notFound},
		{"produce to a partition that is no integer", request{method: "POST", path: "/topics/" + topic + "/partitions/foo", body: oneRecord}, notFound},
		{"consumers", get("/consumers"), notFound},
		{"GET of a group", get("/consumers/g"), notAllowed},
		{"unknown path below an instance", get(i + "/nosuch"), notFound},
		{"unknown path below no instance", get("/consumers/nosuch/instances/nosuch/nosuch"), notFound},

		{"max_bytes that is no number", get(i + "/records?max_bytes=abc"), badParameter("max_bytes")},
		{"timeout that is no number", get(i + "/records?timeout=1s"), badParameter("timeout")},
		{"offset that is no number", get("/topics/" + topic + "/partitions/0/messages?offset=x"), badParameter("offset")},
		{"count that is no number", get("/topics/" + topic + "/partitions/0/messages?count=1.5"), badParameter("count")},
		{"an unknown parameter", get("/topics?nosuch=1&max_bytes=abc"), want{status: 200}},

		{"POST without a body", request{method: "POST", path: "/"}, want{status: 200, json: `{}`, typ: bareV1}},
		{"POST in chunks", request{method: "POST", path: "/topics/" + topic, stream: strings.NewReader(oneRecord)}, want{status: 200, json: okSlots}},
		{"GET with a body", request{method: "GET", path: "/topics", contentType: plainJSON, body: `{}`}, want{status: 200}},
		{"GET with a body of another type", request{method: "GET", path: "/topics", contentType: "text/plain", body: "x"}, want{status: 200}},
		{"GET of records with the type of another version", request{method: "GET", path: "/topics", contentType: bareV2}, want{status: 200, typ: bareV2}},
		{"DELETE with another type", request{method: "DELETE", path: i + "/subscription", contentType: "text/plain"}, want{status: 204}},
		{"no CORS headers", request{method: "GET", path: "/topics", header: map[string]string{"Origin": "https://example.com"}},
			want{status: 200, header: map[string]string{"Access-Control-Allow-Origin": "", "Access-Control-Allow-Credentials": ""}}},

		{"create is not for caches", request{method: "POST", path: "/consumers/" + backend.Unique("group")}, want{status: 200, header: noStore}},
		{"a read is not for caches", get(i + "/records"), want{status: 409, header: noStore}},
		{"204 is not for caches", request{method: "DELETE", path: i + "/subscription"}, want{status: 204, header: noStore}},
		{"an error is not for caches", request{method: "DELETE", path: "/consumers/nosuch/instances/nosuch"}, want{status: 404, header: noStore}},
	})
	everyPath(t, s, topic, i)
	onTheWire(t, s, topic)
}

var noStore = map[string]string{"Cache-Control": "no-store"}

// everyPath asks each path of the API in the ways in which all are alike.
func everyPath(t *testing.T, s *server, topic, instance string) {
	fill := strings.NewReplacer("{t}", topic, "{p}", "0", "{g}", "g", "{i}", instance)
	for _, r := range classic {
		path := fill.Replace(r.path)
		allow := func(t *testing.T, a answer) {
			if got := listed(a.header.Get("Allow")); !maps.Equal(got, allowed(r.methods)) {
				s.differ(t, "%v: Allow: %s, want %s", a.asked, a.header.Get("Allow"), names(allowed(r.methods)))
			}
		}
		s.row(t, "OPTIONS "+r.path, func(t *testing.T) {
			allow(t, s.expect(t, request{method: "OPTIONS", path: path}, want{status: 204}))
		})
		s.row(t, "PUT "+r.path, func(t *testing.T) {
			allow(t, s.expect(t, request{method: "PUT", path: path}, notAllowed))
		})
		if !strings.Contains(r.methods, "GET") || strings.HasSuffix(r.path, "/records") || strings.HasSuffix(r.path, "}/topics/{t}") {
			continue // reads have no HEAD worth comparing: the GET before it took the records
		}
		s.row(t, "HEAD "+r.path, func(t *testing.T) {
			a := s.ask(t, request{method: "GET", path: path})
			length := fmt.Sprint(len(a.body))
			if r.path == "/topics" { // other parts make topics meanwhile
				length = "*"
			}
			s.expect(t, request{method: "HEAD", path: path}, want{status: a.status, typ: a.header.Get("Content-Type"), header: map[string]string{"Content-Length": length}})
		})
	}
}

// onTheWire is what no HTTP library shows.
func onTheWire(t *testing.T, s *server, topic string) {
	produce := request{method: "POST", path: "/topics/" + topic, body: oneRecord}
	length := fmt.Sprintf("Content-Length: %d", len(oneRecord))
	s.row(t, "POST with neither length nor chunks", func(t *testing.T) {
		w := s.dial(t)
		w.send(t, "POST", "/", nil, "")
		s.compare(t, w.answer(t, request{method: "POST", path: "/"}), want{status: 200, json: `{}`})
	})
	s.row(t, "Expect: 100-continue", func(t *testing.T) {
		w := s.dial(t)
		w.send(t, "POST", produce.path, []string{length, "Expect: 100-continue"}, "")
		s.compare(t, w.answer(t, produce), want{status: 100})
		if _, err := w.conn.Write([]byte(oneRecord)); err != nil {
			t.Fatal(err)
		}
		s.compare(t, w.answer(t, produce), want{status: 200, json: okSlots})
	})
	s.row(t, "a connection is used again after an error and after 204", func(t *testing.T) {
		w := s.dial(t)
		for _, r := range []struct {
			method, path string
			want         want
		}{{"GET", "/nosuch", notFound}, {"OPTIONS", "/topics", want{status: 204}}, {"GET", "/topics", want{status: 200}}} {
			w.send(t, r.method, r.path, nil, "")
			s.compare(t, w.answer(t, request{method: r.method, path: r.path}), r.want)
		}
	})
	s.row(t, "two requests at once are answered in their order", func(t *testing.T) {
		w := s.dial(t)
		w.send(t, "GET", "/nosuch", nil, "")
		w.send(t, "GET", "/topics", nil, "")
		s.compare(t, w.answer(t, request{method: "GET", path: "/nosuch"}), notFound)
		s.compare(t, w.answer(t, request{method: "GET", path: "/topics"}), want{status: 200})
	})
	s.row(t, "an idle connection stays open for 180 s", func(t *testing.T) {
		if os.Getenv("TEST_LONG") == "" {
			s.notRun(t, "waits for three minutes, runs with TEST_LONG=1")
		}
		w := s.dial(t)
		w.patience(t, 5*time.Minute)
		w.send(t, "GET", "/topics", nil, "")
		w.answer(t, request{method: "GET", path: "/topics"})
		select {
		case <-time.After(179 * time.Second):
		case <-t.Context().Done():
		}
		w.send(t, "GET", "/topics", nil, "")
		s.compare(t, w.answer(t, request{method: "GET", path: "/topics"}), want{status: 200})
	})
	s.row(t, "HTTP 1.0", func(t *testing.T) {
		w := s.dial(t)
		if _, err := fmt.Fprintf(w.conn, "GET %s/topics HTTP/1.0\r\n\r\n", w.prefix); err != nil {
			t.Fatal(err)
		}
		a := w.answer(t, request{method: "GET", path: "/topics"})
		s.compare(t, a, want{status: 200, typ: bareV1})
		if !bytes.HasPrefix(a.body, []byte("[")) {
			s.differ(t, "%v: %v is no list", a.asked, a)
		}
	})
}
