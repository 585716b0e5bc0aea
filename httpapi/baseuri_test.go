package httpapi

import (
	"net/url"
	"strings"
	"testing"

	"github.com/sluicegate/sluice/consumers"
)

func TestBaseURI(t *testing.T) {
	p := pullers(t)
	port := p.addr[strings.LastIndexByte(p.addr, ':'):]
	for name, c := range map[string]struct {
		change  func(*Config)
		group   string
		headers []string
		want    string
	}{
		"plain":        {nil, "g", nil, p.url + "/consumers/g/instances/i"},
		"host":         {nil, "g", []string{"Host", "kafka"}, "http://kafka/consumers/g/instances/i"},
		"colon, plus":  {nil, "a:b+c", []string{"Host", "kafka:8080"}, "http://kafka:8080/consumers/a:b%2Bc/instances/i"},
		"configured":   {func(c *Config) { c.Pull.BaseURL = "https://example.com/kafka/" }, "g", nil, "https://example.com/kafka/consumers/g/instances/i"},
		"relative":     {func(c *Config) { c.Pull.BaseURI = "relative" }, "g", nil, "/consumers/g/instances/i"},
		"advertised":   {func(c *Config) { c.Pull.AdvertisedListeners = []string{"https://a", "http://b:1/x"} }, "g", nil, "http://b:1/x/consumers/g/instances/i"},
		"host.name":    {func(c *Config) { c.Pull.HostName = "proxy:8080" }, "g", nil, "http://proxy:8080/consumers/g/instances/i"},
		"bare":         {func(c *Config) { c.Pull.HostName = "proxy" }, "g", []string{"Host", "kafka"}, "http://proxy/consumers/g/instances/i"},
		"bare, port":   {func(c *Config) { c.Pull.HostName = "proxy" }, "g", nil, "http://proxy" + port + "/consumers/g/instances/i"},
		"forwarded":    {nil, "g", []string{"Forwarded", `for=1.2.3.4;proto=https;host="public:8443", for=5.6.7.8`}, "https://public:8443/consumers/g/instances/i"},
		"x-forwarded":  {nil, "g", []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "public", "X-Forwarded-Port", "443", "X-Forwarded-Prefix", "/p"}, "https://public/consumers/g/instances/i"},
		"x-port":       {nil, "g", []string{"X-Forwarded-Host", "public", "X-Forwarded-Port", "8443"}, "http://public:8443/consumers/g/instances/i"},
		"prefix":       {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, "g", []string{"Host", "h", "X-Forwarded-Prefix", "/p/"}, "http://h/p/consumers/g/instances/i"},
		"untrusted":    {func(c *Config) { c.Pull.TrustedProxies = []string{"10.1.2.3"} }, "g", []string{"Host", "h", "X-Forwarded-Host", "evil"}, "http://h/consumers/g/instances/i"},
		"not an host":  {nil, "g", []string{"Host", "h", "X-Forwarded-Host", "evil/path"}, "http://h/consumers/g/instances/i"},
		"not a prefix": {func(c *Config) { c.Pull.BaseURIPrefix = "forwarded" }, "g", []string{"Host", "h", "X-Forwarded-Prefix", "//evil"}, "http://h/consumers/g/instances/i"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change != nil {
				own := pullers(t, func(cfg *Config, _ *consumers.Config) { c.change(cfg) })
				c.want = strings.Replace(c.want, port, own.addr[strings.LastIndexByte(own.addr, ':'):], 1)
				own.want(200, `{"instance_id":"i","base_uri":"`+c.want+`"}`, "POST", "/consumers/"+c.group, `{"id":"i"}`, c.headers...)
				return
			}
			p.want(200, `{"instance_id":"i","base_uri":"`+c.want+`"}`, "POST", "/consumers/"+c.group, `{"id":"i"}`, c.headers...)
			p.want(204, "", "DELETE", "/consumers/"+url.PathEscape(c.group)+"/instances/i", "")
		})
	}
}
