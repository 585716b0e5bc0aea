package conformance

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

const (
	badReset    = "Invalid consumer configuration: Invalid value %s for configuration auto.offset.reset: String must be one of: latest, earliest, none"
	badSetting  = "Invalid consumer configuration: .+"
	outOfBounds = `Invalid consumer configuration\. It does not abide by the constraints: .*%s.*`
)

// creating is rest-api.md 5.1.
func creating(t *testing.T, s *server) {
	group := "/consumers/" + backend.Unique("c51")
	post := func(body string) request {
		return request{method: "POST", path: group, contentType: bareV2, body: body}
	}
	made := want{status: 200, typ: bareV2, json: `{"instance_id":"<any>","base_uri":"<any>"}`, header: map[string]string{"Cache-Control": "no-store"}}
	refused := func(code int, like string) want { return want{status: 422, typ: bareV2, code: code, like: like} }
	table := []row{
		{"no body", request{method: "POST", path: group}, want{status: 200, typ: bareV1, json: `{"instance_id":"<any>","base_uri":"<any>"}`}},
		{"no body, v2", post(""), made},
		{"empty object", post("{}"), made},
		{"not JSON", post("{"), want{status: 400, code: 400, typ: bareV2, like: ".+"}},
		{"an array", post(`["id"]`), want{status: 400, code: 400, typ: bareV2, like: ".+"}},
		{"unknown field", post(`{"color":"red"}`), want{status: 422, code: 422, message: "Unrecognized field: color"}},
		{"letter case of a field", post(`{"Format":"json"}`), want{status: 422, code: 422, message: "Unrecognized field: Format"}},
		{"duplicate field", post(`{"format":"json","format":"json"}`), want{status: 422, code: 422, message: "Duplicate field: format"}},
		{"null is absent", post(`{"id":null,"format":null,"auto.offset.reset":null,"auto.commit.enable":null,"fetch.min.bytes":null,"consumer.request.timeout.ms":null,"isolation.level":null}`), made},
		{"format no string", post(`{"format":{}}`), want{status: 400, code: 400, like: ".+"}},
		{"format unknown", post(`{"format":"xml"}`), want{status: 422, code: 422, message: "Invalid format type."}},
		{"format empty", post(`{"format":""}`), want{status: 422, code: 422, message: "Invalid format type."}},
		{"auto.offset.reset unknown", post(`{"auto.offset.reset":"x"}`), want{status: 422, code: 42204, message: fmt.Sprintf(badReset, "x")}},
		{"auto.offset.reset unknown, v1", request{method: "POST", path: group, contentType: bareV1, body: `{"auto.offset.reset":"x"}`}, want{status: 422, code: 42204, typ: bareV1, message: fmt.Sprintf(badReset, "x")}},
		{"topic.metadata.refresh.interval.ms ignored", post(`{"topic.metadata.refresh.interval.ms":"5"}`), made},
		{"isolation.level unknown", post(`{"isolation.level":"x"}`), refused(42204, badSetting)},
		{"group reserved", request{method: "POST", path: "/consumers/sluice.topic.x", contentType: bareV2}, refused(42204, badSetting)},
		{"group of 255 bytes", request{method: "POST", path: "/consumers/" + backend.Unique(strings.Repeat("g", 200))[:200] + strings.Repeat("x", 55), contentType: bareV2}, made},
		{"group of 256 bytes", request{method: "POST", path: "/consumers/" + strings.Repeat("g", 256), contentType: bareV2}, refused(42204, badSetting)},
		{"group with a control character", request{method: "POST", path: "/consumers/a%07b", contentType: bareV2}, refused(42204, badSetting)},
		{"group with a slash", request{method: "POST", path: "/consumers/a%2Fb", contentType: bareV2}, refused(42204, badSetting)},
		{"id of 256 bytes", post(`{"id":"` + strings.Repeat("i", 256) + `"}`), refused(42204, badSetting)},
		{"id empty", post(`{"id":""}`), refused(42204, badSetting)},
		{"id with a slash", post(`{"id":"a/b"}`), refused(42204, badSetting)},
		{"id with a control character", post(`{"id":"a\u0007"}`), refused(42204, badSetting)},
	}
	for _, f := range []string{"binary", "json", "text", "BINARY", "Json"} {
		table = append(table, row{"format " + f, post(`{"format":"` + f + `"}`), made})
	}
	for _, r := range []string{"latest", "earliest", "smallest", "largest", "none"} {
		for _, typ := range []string{bareV1, bareV2} {
			table = append(table, row{"auto.offset.reset " + r + " " + typ[len(typ)-7:len(typ)-5], request{method: "POST", path: group, contentType: typ, body: `{"auto.offset.reset":"` + r + `"}`}, want{status: 200, typ: typ}})
		}
	}
	for _, name := range []string{"auto.commit.enable", "enable.auto.commit"} {
		for _, v := range []string{`"true"`, `"false"`, `true`, `false`} {
			table = append(table, row{name + " " + v, post(`{"` + name + `":` + v + `}`), made})
		}
		table = append(table, row{name + " maybe", post(`{"` + name + `":"maybe"}`), refused(42204, badSetting)})
		table = append(table, row{name + " 1", post(`{"` + name + `":1}`), refused(42204, badSetting)})
	}
	bounds := map[string]string{"fetch.min.bytes": "fetch.min.bytes", "responseMinBytes": "fetch.min.bytes", "consumer.request.timeout.ms": "consumer.request.timeout.ms", "requestWaitMs": "consumer.request.timeout.ms"}
	for _, name := range []string{"fetch.min.bytes", "responseMinBytes"} {
		for _, v := range []string{"-1", "0", "1", `"5"`, "10000000", `"10000000"`} {
			table = append(table, row{name + " " + v, post(`{"` + name + `":` + v + `}`), made})
		}
		for _, v := range []string{"-2", "10000001", `"-2"`, `"x"`, "1.5"} {
			table = append(table, row{name + " " + v, post(`{"` + name + `":` + v + `}`), refused(40001, fmt.Sprintf(outOfBounds, bounds[name]))})
		}
	}
	for _, name := range []string{"consumer.request.timeout.ms", "requestWaitMs"} {
		for _, v := range []string{"1", `"10000"`, "2147483647"} {
			table = append(table, row{name + " " + v, post(`{"` + name + `":` + v + `}`), made})
		}
		for _, v := range []string{"0", "-1", "2147483648", `"x"`} {
			table = append(table, row{name + " " + v, post(`{"` + name + `":` + v + `}`), refused(40001, fmt.Sprintf(outOfBounds, bounds[name]))})
		}
	}
	for _, level := range []string{"read_uncommitted", "read_committed"} {
		table = append(table, row{"isolation.level " + level, post(`{"isolation.level":"` + level + `"}`), made})
	}
	s.rows(t, table)
	for _, f := range []string{"avro", "jsonschema", "protobuf", "AVRO"} {
		s.row(t, "format "+f, func(t *testing.T) {
			if s.registry == "" {
				s.notRun(t, "needs a schema registry")
			}
			s.expect(t, post(`{"format":"`+f+`"}`), made)
		})
	}
	s.row(t, "schema formats without a registry", func(t *testing.T) {
		own := s.own(t)
		for _, f := range []string{"avro", "jsonschema", "protobuf"} {
			own.expect(t, post(`{"format":"`+f+`"}`), want{status: 422, code: 422, message: "Invalid format type."})
		}
	})
	s.row(t, "generated id", func(t *testing.T) {
		var ids []string
		for range 20 { // any number of instances in a group
			i := s.create(t, "c51", "", bareV2)
			id := i.path[strings.LastIndexByte(i.path, '/')+1:]
			if !regexp.MustCompile(`^rest-consumer-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) || strings.Contains(strings.Join(ids, " "), id) {
				s.differ(t, "instance_id %q", id)
			}
			ids = append(ids, id)
		}
	})
	s.row(t, "generated id with the server's own", func(t *testing.T) {
		own := s.own(t, "SLUICE_ID=london")
		if i := own.create(t, "", "", bareV2); !strings.Contains(i.path, "/instances/rest-consumer-london-") {
			s.differ(t, "instance_id in %q", i.path)
		}
	})
	s.row(t, "id, name and both", func(t *testing.T) {
		for body, id := range map[string]string{`{"id":"a"}`: "a", `{"name":"b"}`: "b", `{"name":"c","id":"d"}`: "d", `{"id":5}`: "5", `{"id":null,"name":"e"}`: "e"} {
			if i := s.create(t, "", body, bareV2); !strings.HasSuffix(i.path, "/instances/"+id) {
				s.differ(t, "%s made %s", body, i.path)
			}
		}
	})
	s.row(t, "id taken", func(t *testing.T) {
		i := s.create(t, "", `{"id":"one"}`, bareV2)
		taken := want{status: 409, code: 40902, message: "Consumer with specified consumer ID already exists in the specified consumer group."}
		s.expect(t, request{method: "POST", path: "/consumers/" + i.group, contentType: bareV2, body: `{"id":"one"}`}, taken)
		s.expect(t, request{method: "POST", path: "/consumers/" + i.group, contentType: bareV1, body: `{"name":"one"}`}, taken)
		s.create(t, "", `{"id":"one"}`, bareV2) // in another group
	})
}

// oneRegistry is rest-api.md 5.2.
func oneRegistry(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c52", 1)
	s.fill(t, topic, 0, "a", "b", "c")
	s.row(t, "v2 calls on an instance of v1", func(t *testing.T) {
		i := s.create(t, "", quick, bareV1)
		i.subscribe(t, topic)
		i.expect(t, "GET", "/subscription", "", want{status: 200, typ: bareV2, json: topicList(topic)})
		i.texts(t, "?max_bytes=1", "a")
		i.expect(t, "POST", "/positions", offsetsOf(topic, 0, 2, ""), want{status: 204})
		i.texts(t, "", "c")
		i.expect(t, "POST", "/offsets", "", want{status: 200, body: "[]"})
		s.wantCommitted(t, i.group, topic, 0, 3)
	})
	s.row(t, "v1 calls on an instance of v2", func(t *testing.T) {
		i := s.create(t, "", quick, bareV2)
		eventually(t, 20*time.Second, "the records", func() bool {
			a := s.expect(t, request{method: "GET", path: i.path + "/topics/" + topic, accept: bareV1}, want{status: 200})
			return strings.Contains(string(a.body), `"offset":2`)
		})
		s.expect(t, request{method: "POST", path: i.path + "/offsets", accept: bareV1}, want{status: 200, typ: bareV1,
			json: fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":2,"committed":2}]`, topic)})
		i.expect(t, "DELETE", "", "", want{status: 204})
	})
	for _, c := range []struct{ name, contentType, accept, version string }{
		{"created with v1 in Content-Type", bareV1, "", bareV1},
		{"created with v2 in Content-Type", jsonV2, "", bareV2},
		{"created with v2 in Accept", "", bareV2, bareV2},
		{"created with v1 in Accept", plainJSON, bareV1, bareV1},
		{"created without a version", plainJSON, plainJSON, bareV1},
	} {
		s.row(t, c.name, func(t *testing.T) {
			a := s.expect(t, request{method: "POST", path: "/consumers/" + backend.Unique("c52"), contentType: c.contentType, accept: c.accept}, want{status: 200})
			i := s.madeBy(t, a)
			s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, body: "[]", typ: c.version})
			s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, body: "[]", typ: c.version})
			s.expect(t, request{method: "DELETE", path: i.path}, want{status: 204})
		})
	}
	for _, call := range []struct{ method, path, body string }{
		{"GET", "/subscription", ""}, {"POST", "/subscription", topicList(topic)}, {"DELETE", "/subscription", ""}, {"GET", "/assignments", ""}, {"POST", "/assignments", places(topic, 0)},
	} {
		s.row(t, "no version, made v2 by "+call.method+call.path, func(t *testing.T) {
			i := s.create(t, "", `{}`, plainJSON)
			s.ask(t, request{method: call.method, path: i.path + call.path, body: call.body, contentType: plainJSON})
			s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, body: "[]", typ: bareV2})
		})
	}
	s.row(t, "no version, made v2 by a read", func(t *testing.T) {
		i := s.create(t, "", `{}`, plainJSON)
		s.expect(t, request{method: "GET", path: i.path + "/records"}, want{status: 409, code: 40903, like: "Illegal state: .+"})
		s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, body: "[]", typ: bareV2})
	})
	s.row(t, "no version, kept v1 by a v1 read", func(t *testing.T) {
		i := s.create(t, "", `{"consumer.request.timeout.ms":"50"}`, plainJSON)
		s.expect(t, request{method: "GET", path: i.path + "/topics/" + topic}, want{status: 200, typ: binaryV1})
		s.ask(t, request{method: "GET", path: i.path + "/subscription"})
		s.expect(t, request{method: "POST", path: i.path + "/offsets"}, want{status: 200, typ: bareV1})
	})
	// An auto.commit.enable left unset follows the final version: v1 does not commit by itself, v2 does.
	s.row(t, "auto commit by version", func(t *testing.T) {
		const options = `{"auto.offset.reset":"earliest","consumer.request.timeout.ms":"10000"}`
		i := s.create(t, "", options, plainJSON)
		i.subscribe(t, topic)
		i.texts(t, "", "a", "b", "c")
		i.expect(t, "DELETE", "", "", want{status: 204})
		s.wantCommitted(t, i.group, topic, 0, 3)
		i = s.create(t, "", options, plainJSON)
		s.expect(t, request{method: "GET", path: i.path + "/topics/" + topic}, want{status: 200, typ: binaryV1})
		i.expect(t, "DELETE", "", "", want{status: 204})
		s.wantCommitted(t, i.group, topic, 0, -1)
	})
}

// madeBy is the instance in the answer of a create call.
func (s *server) madeBy(t *testing.T, a answer) instance {
	t.Helper()
	var made struct {
		ID   string `json:"instance_id"`
		Base string `json:"base_uri"`
	}
	a.into(t, &made)
	group, err := url.PathUnescape(strings.TrimPrefix(a.asked.path, "/consumers/"))
	if err != nil || made.ID == "" || made.Base == "" {
		t.Fatalf("%v: %v", a, err)
	}
	i := instance{s, group, "/consumers/" + url.PathEscape(group) + "/instances/" + url.PathEscape(made.ID)}
	t.Cleanup(func() { i.forget(t) })
	return i
}

// baseURI is rest-api.md 5.3, as far as it can be seen from outside.
func baseURI(t *testing.T, s *server) {
	// based wants an instance's base_uri to begin so; where nothing is asked for, with what the request said.
	based := func(t *testing.T, s *server, group string, header map[string]string, wanted string) {
		t.Helper()
		a := s.expect(t, request{method: "POST", path: "/consumers/" + url.PathEscape(group), contentType: bareV1, header: header}, want{status: 200})
		var made struct {
			ID   string `json:"instance_id"`
			Base string `json:"base_uri"`
		}
		a.into(t, &made)
		escaped := strings.ReplaceAll(url.PathEscape(group), "+", "%2B")
		if wanted += "/consumers/" + escaped + "/instances/" + made.ID; made.Base != wanted {
			s.differ(t, "base_uri %q, want %q", made.Base, wanted)
		}
		s.madeBy(t, a) // deleted in the end
	}
	forwarded := map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "proxy.example.com", "X-Forwarded-Port": "8443", "X-Forwarded-Prefix": "/__kafka-rest-proxy"}
	for _, c := range []struct {
		name, group string
		header      map[string]string
		want        string
	}{
		{"as asked", "c53", nil, s.url},
		{"Host: kafka", "c53", map[string]string{"Host": "kafka"}, "http://kafka"},
		{"Host with a port", "c53", map[string]string{"Host": "proxy:8080"}, "http://proxy:8080"},
		{"a colon stays", "c53:a", nil, s.url},
		{"a plus is escaped", "c53+a", nil, s.url},
		{"a space is escaped", "c53 a", nil, s.url},
		{"X-Forwarded, its prefix ignored", "c53", forwarded, "https://proxy.example.com:8443"},
		{"X-Forwarded-Host with a port", "c53", map[string]string{"X-Forwarded-Host": "proxy.example.com:81"}, "http://proxy.example.com:81"},
		{"X-Forwarded-Proto alone", "c53", map[string]string{"X-Forwarded-Proto": "https", "Host": "kafka"}, "https://kafka"},
		{"Forwarded", "c53", map[string]string{"Forwarded": `for=192.0.2.1;proto=https;host="proxy.example.com:8443"`}, "https://proxy.example.com:8443"},
		{"Forwarded before X-Forwarded", "c53", map[string]string{"Forwarded": "proto=https;host=one.example.com", "X-Forwarded-Host": "two.example.com"}, "https://one.example.com"},
	} {
		s.row(t, c.name, func(t *testing.T) { based(t, s, c.group, c.header, c.want) })
	}
	s.row(t, "leads to the instance", func(t *testing.T) {
		for _, name := range []string{"c53 +:é", "c53"} {
			a := s.expect(t, request{method: "POST", path: "/consumers/" + url.PathEscape(name), contentType: bareV2, body: `{"id":"` + backend.Unique("a + b:é") + `"}`}, want{status: 200})
			var made struct {
				Base string `json:"base_uri"`
			}
			a.into(t, &made)
			s.madeBy(t, a)
			path, ok := strings.CutPrefix(made.Base, s.url)
			if !ok {
				s.notRun(t, "the server says it can be reached under another address")
			}
			// As it stands, and as clients that unescape a query first make it.
			unescaped, err := url.QueryUnescape(path)
			if err != nil {
				t.Fatal(err)
			}
			again, err := url.Parse(s.url + strings.ReplaceAll(unescaped, " ", "%20"))
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []string{path, again.EscapedPath()} {
				s.expect(t, request{method: "GET", path: at + "/subscription"}, want{status: 200, json: `{"topics":[]}`})
			}
		}
	})
	for _, c := range []struct {
		name     string
		settings []string
		header   map[string]string
		want     string // {address} is the gateway's own, {port} its port
	}{
		{"SLUICE_BASE_URL", []string{"SLUICE_BASE_URL=https://rest.example.com:8443/kafka/"}, forwarded, "https://rest.example.com:8443/kafka"},
		{"relative", []string{"SLUICE_BASE_URI=relative"}, forwarded, ""},
		{"prefix of the proxy", []string{"SLUICE_BASE_URI_PREFIX=forwarded"}, forwarded, "https://proxy.example.com:8443/__kafka-rest-proxy"},
		{"no proxy trusted", []string{"SLUICE_TRUSTED_PROXIES=192.0.2.0/24"}, forwarded, "http://{address}"},
		{"host.name with a port", []string{"KAFKA_REST_HOST_NAME=kafka-rest-proxy-msk:8080"}, forwarded, "http://kafka-rest-proxy-msk:8080"},
		{"host.name, asked with a port", []string{"KAFKA_REST_HOST_NAME=rest"}, nil, "http://rest:{port}"},
		{"host.name, asked without a port", []string{"RP_HOST_NAME=rest"}, map[string]string{"Host": "kafka"}, "http://rest"},
		{"advertised.listeners", []string{"KAFKA_REST_ADVERTISED_LISTENERS=https://a.example.com:1,http://b.example.com:2", "KAFKA_REST_HOST_NAME=rest"}, forwarded, "http://b.example.com:2"},
	} {
		s.row(t, c.name, func(t *testing.T) {
			t.Parallel()
			own := s.own(t, c.settings...)
			at := strings.TrimPrefix(own.url, "http://")
			based(t, own, "c53", c.header, strings.NewReplacer("{address}", at, "{port}", at[strings.LastIndexByte(at, ':')+1:]).Replace(c.want))
		})
	}
}
