package httpapi

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// allRoutes is the table with every need there.
func allRoutes() []string {
	kafka := newFakeKafka()
	s := &Server{cfg: Default(), needs: Needs{Topics: kafka, Producer: kafka, Kafka: kafka, Store: &fakeStore{}}}
	needs := reflect.ValueOf(&s.needs).Elem()
	for i := range needs.NumField() {
		if f := needs.Field(i); f.Kind() == reflect.Pointer && f.IsNil() {
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	var all []string
	parameter := regexp.MustCompile(`:(\w+)`)
	for _, r := range s.routes() {
		all = append(all, r.method+" "+parameter.ReplaceAllString(r.path, "{$1}"))
	}
	slices.Sort(all)
	return all
}

func TestTheAPIDocumentListsWhatTheRouterServes(t *testing.T) {
	w := start(t)
	a := w.call("GET", "/__api", "")
	if a.status != 200 || a.body != string(openAPI) {
		t.Fatalf("%d", a.status)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(a.body))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var listed []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			listed = append(listed, method+" "+path)
		}
	}
	slices.Sort(listed)
	served := allRoutes()
	for _, r := range served {
		if !slices.Contains(listed, r) {
			t.Errorf("openapi.yaml lacks %s", r)
		}
	}
	for _, r := range listed {
		if !slices.Contains(served, r) {
			t.Errorf("openapi.yaml promises %s, which nobody serves", r)
		}
	}
}

func TestTheAPIDocumentNamesTheAddressOfTheEdge(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.Build.Version = "1.2.3" })
	for header, want := range map[string]string{
		"https://upp-prod.ft.com/__kafka-rest-proxy-msk/__api": "https://upp-prod.ft.com/__kafka-rest-proxy-msk",
		"http://a.ft.com:8080/__api":                           "https://a.ft.com:8080/",
		"https://a.ft.com":                                     "https://a.ft.com/",
	} {
		a := w.call("GET", "/__api", "", "X-Original-Request-URL", header)
		if !strings.Contains(a.body, "\n  - url: "+want+"\n") || !strings.Contains(a.body, "\n  version: 1.2.3\n") {
			t.Errorf("%s: %.600s", header, a.body)
		}
		if _, err := openapi3.NewLoader().LoadFromData([]byte(a.body)); err != nil {
			t.Errorf("%s: %v", header, err)
		}
	}
	for _, header := range []string{"nonsense", "https://a b/", "https://a/\"}/__api", "https://u:p@a/x: y/__api"} {
		if a := w.call("GET", "/__api", "", "X-Original-Request-URL", header); a.body != string(openAPI) && strings.Contains(a.body, "p@") {
			t.Errorf("%s: %.600s", header, a.body)
		}
	}
}
