package conformance

import (
	"strings"
	"testing"
)

// httpRules is rest-api.md 1.1.
func httpRules(t *testing.T, s *server) {
	topic := s.kafka.Topic(t, "c11", 2)
	notFound := want{status: 404, code: 404, message: "HTTP 404 Not Found"}
	s.rows(t, []row{
		{"trailing slash", request{method: "GET", path: "/topics/" + topic + "/partitions/"}, want{status: 200}},
		{"unknown path", request{method: "GET", path: "/nosuch"}, notFound},
		{"a longer unknown path", request{method: "GET", path: "/topics/" + topic + "/nosuch"}, notFound},
		{"case of the path", request{method: "GET", path: "/Topics"}, notFound},
		{"partition that is no number", request{method: "GET", path: "/topics/" + topic + "/partitions/foo"}, notFound},
	})
	s.row(t, "no body is fine", func(t *testing.T) {
		a := s.expect(t, request{method: "POST", path: "/"}, want{status: 200, json: `{}`, typ: bareV1})
		if strings.Contains(a.header.Get("Content-Type"), "charset") {
			s.differ(t, "the type has a charset")
		}
	})
}
