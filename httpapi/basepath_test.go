package httpapi

import (
	"net/url"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

const under = "/__kafka-rest-proxy-msk"

// Every path is there with the base path and without, and links lead back the way the request came (rest-api.md 14, R2).
func TestBasePath(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.BasePath = under })
	for path, status := range map[string]int{
		"/topics": 200, under + "/topics": 200, under + "/topics/": 200, under + "//topics": 200, "/" + under + "/topics": 200,
		under: 200, under + "/": 200, "/": 200, under + "/__gtg": 200, "/__gtg": 200, under + under + "/topics": 200,
		"/%5F_kafka%2Drest-proxy-msk/topics": 200, under + "/topics/orders": 200, under + "/topics/nosuch": 404,
		under + "x/topics": 404, under + "/nope": 404, "/nope" + under + "/topics": 404, "/__KAFKA-rest-proxy-msk/topics": 404,
	} {
		if a := w.call("GET", path, ""); a.status != status {
			t.Errorf("%s: %d, want %d", path, a.status, status)
		}
	}
	if a := w.call("DELETE", under+"/topics", ""); a.status != 405 || a.header.Get("Allow") == "" {
		t.Errorf("another method: %d %v", a.status, a.header)
	}
	if a := w.call("GET", under+"/__api", ""); !strings.Contains(a.body, "\n  - url: "+under+"\n") {
		t.Errorf("the API document: %.300s", a.body)
	}
	if a := w.call("GET", "/__api", ""); !strings.Contains(a.body, "\n  - url: /\n") {
		t.Errorf("the API document: %.300s", a.body)
	}
}

func TestBaseURIUnderABasePath(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*Config)
		prefix  string
		headers []string
		want    string
	}{
		"with it":            {nil, under, []string{"Host", "h"}, "http://h" + under},
		"by another replica": {nil, "", []string{"Host", "h", headerReplicaPrefixed, "1"}, "http://h" + under},
		"without it":         {nil, "", []string{"Host", "h"}, "http://h"},
		"relative":           {func(c *Config) { c.Pull.BaseURI = "relative" }, under, nil, under},
		"configured":         {func(c *Config) { c.Pull.BaseURL = "https://a/b" }, under, nil, "https://a/b"},
		"advertised":         {func(c *Config) { c.Pull.AdvertisedListeners = []string{"http://a:1"} }, under, nil, "http://a:1" + under},
		"advertised, whole":  {func(c *Config) { c.Pull.AdvertisedListeners = []string{"http://a:1/x"} }, under, nil, "http://a:1/x"},
		"host.name":          {func(c *Config) { c.Pull.HostName = "a:1" }, under, nil, "http://a:1" + under},
		"forwarded":          {nil, under, []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "public"}, "https://public" + under},
		"stripped and said":  {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, "", []string{"Host", "h", "X-Forwarded-Prefix", under}, "http://h" + under},
		"said, not doubled":  {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, under, []string{"Host", "h", "X-Forwarded-Prefix", under + "/"}, "http://h" + under},
		"one in another":     {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, under, []string{"Host", "h", "X-Forwarded-Prefix", "/outer"}, "http://h/outer" + under},
		"said, not wanted":   {nil, "", []string{"Host", "h", "X-Forwarded-Prefix", under}, "http://h"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pullers(t, func(cfg *Config, _ *consumers.Config) {
				cfg.BasePath = under
				if c.change != nil {
					c.change(cfg)
				}
			})
			p.want(200, `{"instance_id":"i","base_uri":"`+c.want+`/consumers/g/instances/i"}`, "POST", c.prefix+"/consumers/g", `{"id":"i"}`, c.headers...)
		})
	}
}

// Some clients call the path of base_uri as it is, others put the prefix of their address in front of it once more; a
// client behind a router that strips knows nothing of it. All of them read, commit and delete.
func TestEveryClientFindsItsInstanceUnderABasePath(t *testing.T) {
	p := pullers(t, func(cfg *Config, _ *consumers.Config) { cfg.BasePath = under })
	topic := p.k.Topic(t, "t", 1)
	for name, c := range map[string]struct{ created, before string }{
		"the path as it is":         {under, ""},
		"its own prefix in front":   {under, under},
		"behind a stripping router": {"", ""},
		"and with the prefix":       {"", under},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.want(200, "*", "POST", c.created+"/consumers/"+backend.Unique("g"), `{"auto.offset.reset":"smallest","auto.commit.enable":"false"}`)
			_, rest, _ := strings.Cut(a.body, `"base_uri":"`)
			base, err := url.Parse(strings.TrimSuffix(rest, `"}`))
			if err != nil {
				t.Fatal(err)
			}
			path := c.before + base.Path
			p.want(200, "*", "GET", path+"/topics/"+topic, "", "Accept", "application/json")
			p.want(200, "*", "POST", path+"/offsets", "")
			p.want(204, "", "DELETE", path, "")
		})
	}
}

func TestABasePathThatHidesTheAPIIsRefused(t *testing.T) {
	for path, ok := range map[string]bool{
		"": true, under: true, "/a/b": true, "/a.b-c~d": true,
		"/": false, "a": false, "/a/": false, "//a": false, "/a//b": false, "/a?b": false, "/a%20b": false, "/topics": false, "/consumers/x": false,
		"/v3": false, "/__gtg": false, "/:a": false, "/a*": false, "http://a/b": false,
	} {
		c := Default()
		c.BasePath = path
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// The list of what a base path may not begin with is that of the routes.
func TestFirstSegmentsAreThoseOfTheRoutes(t *testing.T) {
	have := map[string]bool{}
	for _, s := range firstSegments {
		have[s] = true
	}
	for _, row := range allRoutes() {
		_, path, _ := strings.Cut(row, " /")
		if first, _, _ := strings.Cut(path, "/"); first != "" && !have[first] {
			t.Errorf("%s is not on the list", first)
		}
	}
}
