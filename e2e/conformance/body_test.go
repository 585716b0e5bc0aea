package conformance

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The limits of rest-api.md 1.2, in bytes.
const (
	bodyLimit   = 24 << 20
	recordLimit = 16 << 20
)

// spaces is n bytes of white space, which JSON may have anywhere between its tokens.
func spaces(n int) string { return strings.Repeat(" ", n) }

// bodies is rest-api.md 1.2.
func bodies(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c12", 1, "max.message.bytes=20971520")
	produce := "/topics/" + topic
	post := func(body string, headers ...string) request {
		r := request{method: "POST", path: produce, body: body, header: map[string]string{}}
		for i := 0; i+1 < len(headers); i += 2 {
			r.header[headers[i]] = headers[i+1]
		}
		return r
	}
	tooLarge := want{status: 413, code: 413, like: ".*25165824.*"}
	written := want{status: 200, json: okSlots}
	damaged := want{status: 400, code: 400, like: ".+"}

	s.rows(t, []row{
		{"a body of exactly 24 MiB", post(oneRecord + spaces(bodyLimit-len(oneRecord))), written},
		{"one byte more", post(oneRecord + spaces(bodyLimit+1-len(oneRecord))), tooLarge},
		{"one byte more in chunks", request{method: "POST", path: produce, stream: strings.NewReader(oneRecord + spaces(bodyLimit+1-len(oneRecord)))}, tooLarge},
		{"the limit is that of consumers too", request{method: "POST", path: "/consumers/g", body: spaces(bodyLimit + 1)}, tooLarge},

		{"gzip", post(zipped(t, oneRecord), "Content-Encoding", "gzip"), written},
		{"x-gzip", post(zipped(t, oneRecord), "Content-Encoding", "x-gzip"), written},
		{"gzip of two members", post(zipped(t, oneRecord[:7])+zipped(t, oneRecord[7:]), "Content-Encoding", "gzip"), written},
		{"gzip of 1 MiB", post(zipped(t, oneRecord+spaces(1<<20)), "Content-Encoding", "gzip"), written},
		{"identity", post(oneRecord, "Content-Encoding", "identity"), written},
		{"gzip that inflates beyond the limit", post(zipped(t, oneRecord+spaces(bodyLimit+1)), "Content-Encoding", "gzip"), tooLarge},
		{"gzip that is none", post(oneRecord, "Content-Encoding", "gzip"), damaged},
		{"gzip that is cut off", post(zipped(t, oneRecord)[:25], "Content-Encoding", "gzip"), damaged},
		{"gzip with a wrong checksum", post(spoiled(zipped(t, oneRecord)), "Content-Encoding", "gzip"), damaged},
		{"deflate", post(deflated(t, oneRecord), "Content-Encoding", "deflate"), unsupported},
		{"br", post(oneRecord, "Content-Encoding", "br"), unsupported},
		{"two encodings", post(oneRecord, "Content-Encoding", "gzip, gzip"), unsupported},

		{"JSON of 500 levels", request{method: "POST", path: produce, contentType: jsonV2, body: nested(500)}, written},
		{"JSON of 501 levels", request{method: "POST", path: produce, contentType: jsonV2, body: nested(501)}, want{status: 422, code: 422, like: ".*500.*"}},
		{"JSON of a million levels", request{method: "POST", path: produce, contentType: jsonV2, body: nested(1 << 20)}, want{status: 422, code: 422, like: ".*500.*"}},
	})
	tooLargeOnTheWire(t, s, produce)
	largeRecords(t, s)
	answersInGzip(t, s)
}

// nested is a produce in json whose document is so many levels deep: three of them surround the value.
func nested(levels int) string {
	n := levels - 3
	return `{"records":[{"value":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}]}`
}

func tooLargeOnTheWire(t *testing.T, s *server, produce string) {
	tooLarge := want{status: 413, code: 413, like: ".*25165824.*", header: map[string]string{"Connection": "close"}}
	asked := request{method: "POST", path: produce, body: "(announced only)"}
	s.row(t, "413 comes at the beginning of the body", func(t *testing.T) { // not before it: a server may have read a buffer
		w := s.dial(t)
		w.send(t, "POST", produce, []string{fmt.Sprintf("Content-Length: %d", bodyLimit+1)}, spaces(64<<10))
		s.compare(t, w.answer(t, asked), tooLarge)
	})
	s.row(t, "413 in place of 100", func(t *testing.T) {
		w := s.dial(t)
		w.send(t, "POST", produce, []string{fmt.Sprintf("Content-Length: %d", bodyLimit+1), "Expect: 100-continue"}, "")
		s.compare(t, w.answer(t, asked), want{status: 413, code: 413, like: tooLarge.like})
	})
	s.row(t, "a client that sends on can read the 413", func(t *testing.T) {
		const all = 40 << 20
		w := s.dial(t)
		w.send(t, "POST", produce, []string{fmt.Sprintf("Content-Length: %d", all)}, "")
		if _, err := io.WriteString(w.conn, spaces(all)); err != nil {
			s.differ(t, "the connection was cut while the client was sending: %v", err)
			return
		}
		s.compare(t, w.answer(t, asked), tooLarge)
	})
}

// largeRecords are the two limits of one record: it costs its slot and nothing else.
func largeRecords(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c12-large", 1, "max.message.bytes=20971520")
	largest := bytes.Repeat([]byte("0123456789abcdef"), recordLimit/16)
	s.row(t, "a record of 16 MiB goes through produce and read", func(t *testing.T) {
		s.expect(t, request{method: "POST", path: "/topics/" + topic, body: `{"records":[{"value":"` + base64.StdEncoding.EncodeToString(largest) + `"}]}`},
			want{status: 200, json: `{"offsets":[{"partition":0,"offset":0,"error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`})
		if in := s.inKafka(t, topic, 0, 0, 1)[0]; !bytes.Equal(in.Value, largest) {
			s.differ(t, "%d bytes in Kafka are not the ones produced", len(in.Value))
		}
		i := s.create(t, "", `{"format":"binary","auto.offset.reset":"smallest","consumer.request.timeout.ms":"20000"}`, bareV1).path
		for _, path := range []string{"/topics/" + topic + "/partitions/0/messages?offset=0", i + "/topics/" + topic} {
			a := s.expect(t, request{method: "GET", path: path}, want{status: 200, typ: binaryV1})
			var got []struct{ Value []byte }
			a.into(t, &got)
			if len(got) != 1 || !bytes.Equal(got[0].Value, largest) {
				s.differ(t, "%v: %d records, not the one of 16 MiB", a.asked, len(got))
			}
		}
	})
	s.row(t, "a larger one costs its slot", func(t *testing.T) {
		larger := base64.StdEncoding.EncodeToString(append(largest, 'x'))
		a := s.expect(t, request{method: "POST", path: "/topics/" + topic, body: `{"records":[{"value":"YQ=="},{"value":"` + larger + `"},{"value":"Yg=="}]}`},
			want{status: 200, json: `{"offsets":[{"partition":0,"offset":"<any>","error_code":null,"error":null},{"partition":null,"offset":null,"error_code":50002,"error":"<any>"},{"partition":0,"offset":"<any>","error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`})
		if !strings.Contains(string(a.body), fmt.Sprint(recordLimit)) {
			s.differ(t, "%v: the text does not name the limit of %d bytes", a, recordLimit)
		}
		in := s.inKafka(t, topic, 0, 1, 2)
		if string(in[0].Value)+string(in[1].Value) != "ab" {
			s.differ(t, "in Kafka are %q and %q, not the neighbours", in[0].Value, in[1].Value)
		}
	})
	s.row(t, "key and value count together", func(t *testing.T) {
		half, more := base64.StdEncoding.EncodeToString(largest[:recordLimit/2]), base64.StdEncoding.EncodeToString(largest[:recordLimit/2+1])
		for _, c := range []struct{ key, want string }{
			{half, okSlots},
			{more, `{"offsets":[{"partition":null,"offset":null,"error_code":50002,"error":"<any>"}],"key_schema_id":null,"value_schema_id":null}`},
		} {
			s.expect(t, request{method: "POST", path: "/topics/" + topic, body: `{"records":[{"key":"` + c.key + `","value":"` + half + `"}]}`}, want{status: 200, json: c.want})
		}
	})
	s.row(t, "the topic's own limit costs a slot", func(t *testing.T) {
		narrow := s.kafka.Topic(t, "c12-narrow", 1, "max.message.bytes=2000")
		noise := base64.StdEncoding.EncodeToString(largest[:4000])
		a := s.expect(t, request{method: "POST", path: "/topics/" + narrow, body: `{"records":[{"value":"YQ=="},{"value":"` + noise + `"},{"value":"Yg=="}]}`},
			want{status: 200, json: `{"offsets":[{"partition":0,"offset":"<any>","error_code":null,"error":null},{"partition":null,"offset":null,"error_code":50002,"error":"<any>"},{"partition":0,"offset":"<any>","error_code":null,"error":null}],"key_schema_id":null,"value_schema_id":null}`})
		if in := s.inKafka(t, narrow, 0, 0, 2); string(in[0].Value)+string(in[1].Value) != "ab" {
			s.differ(t, "%v: in Kafka are %q and %q, not the neighbours", a, in[0].Value, in[1].Value)
		}
	})
}

// answersInGzip are the rules of Content-Encoding.
func answersInGzip(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c12-gzip", 1)
	value := strings.Repeat("compressible ", 200)
	s.intoKafka(t, topic, kgo.Record{Value: []byte(value), Timestamp: time.UnixMilli(1)}, kgo.Record{Value: []byte("small"), Timestamp: time.UnixMilli(1)})
	large, small := "/topics/"+topic+"/partitions/0/messages?offset=0", "/topics/"+topic+"/partitions/0/messages?offset=1"
	get := func(path, accept string) request {
		return request{method: "GET", path: path, header: map[string]string{"Accept-Encoding": accept}}
	}
	packed := want{status: 200, header: map[string]string{"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}}
	plain := want{status: 200, header: map[string]string{"Content-Encoding": ""}}
	s.rows(t, []row{
		{"gzip is accepted", get(large, "gzip"), packed},
		{"gzip among others", get(large, "deflate, gzip;q=0.5, br"), packed},
		{"anything is accepted", get(large, "*"), packed},
		{"a small answer stays plain", get(small, "gzip"), plain},
		{"no Accept-Encoding", request{method: "GET", path: large}, plain},
		{"gzip is refused", get(large, "gzip;q=0"), plain},
		{"only br", get(large, "br"), plain},
		{"204 has no encoding", request{method: "OPTIONS", path: "/topics", header: map[string]string{"Accept-Encoding": "gzip"}}, want{status: 204, header: map[string]string{"Content-Encoding": ""}}},
	})
	s.row(t, "what is packed is the same", func(t *testing.T) {
		a := s.ask(t, get(large, "gzip"))
		z, err := gzip.NewReader(bytes.NewReader(a.body))
		if err != nil {
			t.Fatalf("%v: %v", a, err)
		}
		body, err := io.ReadAll(z)
		if b := s.ask(t, request{method: "GET", path: large}); err != nil || !bytes.Equal(body, b.body) {
			s.differ(t, "gzip holds %s (%v), and the plain answer %s", short(body), err, short(b.body))
		}
	})
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// spoiled has another checksum than its content.
func spoiled(member string) string {
	b := []byte(member)
	b[len(b)-8] ^= 0xff // CRC-32 stands before the length (RFC 1952, 2.3.1)
	return string(b)
}

func deflated(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
