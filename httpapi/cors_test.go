package httpapi

import (
	"strings"
	"testing"
)

func TestWithoutCORSNoHeaderOfIt(t *testing.T) {
	w := start(t)
	for _, method := range []string{"GET", "OPTIONS"} {
		a := w.call(method, "/topics", "", "Origin", "https://a.example", "Access-Control-Request-Method", "POST")
		for name := range a.header {
			if strings.HasPrefix(name, "Access-Control") || name == "Vary" && a.header.Get(name) == "Origin" {
				t.Errorf("%s: %s", method, name)
			}
		}
	}
	w.call("POST", "/topics/orders", `{"records":[]}`, "Origin", "https://a.example", "Sec-Fetch-Site", "cross-site").want(t, 403, `{"error_code":403,"message":"HTTP 403 Forbidden"}`)
}

func TestCORSLetsTheListedOriginsIn(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.CORS.Origins = []string{"https://a.example", "http://b.example:8080"} })
	for _, path := range []string{"/topics", "/nope", "/topics/nosuch"} { // on errors too
		a := w.call("GET", path, "", "Origin", "https://a.example")
		if a.header.Get("Access-Control-Allow-Origin") != "https://a.example" || a.header.Get("Access-Control-Allow-Credentials") != "true" ||
			a.header.Get("Access-Control-Expose-Headers") != "X-Request-Id" || !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: %v", path, a.header)
		}
	}
	for _, origin := range []string{"https://evil.example", "https://a.example.evil", "null", "http://a.example", "https://a.example:443"} {
		a := w.call("GET", "/topics", "", "Origin", origin)
		if a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Access-Control-Allow-Credentials") != "" || !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: %v", origin, a.header)
		}
	}
	const record = `{"records":[{"value":"dg=="}]}`
	if a := w.call("POST", "/topics/orders", record, "Origin", "http://b.example:8080", "Sec-Fetch-Site", "cross-site"); a.status != 200 {
		t.Errorf("an allowed origin's produce: %d %s", a.status, a.body)
	}
	if a := w.call("POST", "/topics/orders", record, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); a.status != 403 {
		t.Errorf("a foreign origin's produce: %d %s", a.status, a.body)
	}
}

// The preflight is the same for every topic, and for those that do not exist.
func TestPreflight(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.CORS.Origins = []string{"https://a.example"} })
	for _, path := range []string{"/topics/orders", "/topics/nosuch"} {
		a := w.call("OPTIONS", path, "", "Origin", "https://a.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
		if a.status != 204 || a.header.Get("Allow") == "" || a.header.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST" || a.header.Get("Access-Control-Max-Age") != "600" ||
			a.header.Get("Access-Control-Allow-Headers") != "Authorization, Last-Event-ID, Cache-Control, Content-Type, X-Request-Id" || a.header.Get("Access-Control-Allow-Origin") != "https://a.example" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	if a := w.call("OPTIONS", "/topics", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"); a.status != 204 || a.header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("a foreign origin: %d %v", a.status, a.header)
	}
	w = start(t, func(c *Config, _ *Needs) {
		c.CORS = CORSConfig{Origins: []string{"*"}, Methods: []string{"GET", "DELETE"}, Headers: []string{"X-Mine"}}
	})
	a := w.call("OPTIONS", "/topics", "", "Origin", "https://anybody.example", "Access-Control-Request-Method", "DELETE")
	if a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Access-Control-Allow-Credentials") != "" || a.header.Get("Access-Control-Allow-Methods") != "GET, DELETE" || a.header.Get("Access-Control-Allow-Headers") != "X-Mine" {
		t.Errorf("everybody: %v", a.header)
	}
}

func TestOriginsMustBeExact(t *testing.T) {
	for origin, ok := range map[string]bool{
		"https://a.example": true, "http://localhost:3000": true, "*": true,
		"https://*.example": false, "https://a.example/": false, "a.example": false, "null": false, "https://a.example/x": false, "https://u@a.example": false, "": false,
	} {
		if err := (CORSConfig{Origins: []string{origin}}).validate(); (err == nil) != ok {
			t.Errorf("%q: %v", origin, err)
		}
	}
	if (CORSConfig{Origins: []string{"*", "https://a.example"}}).validate() == nil || (CORSConfig{Headers: []string{"a b"}}).validate() == nil {
		t.Error("taken")
	}
}
