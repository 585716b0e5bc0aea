package httpapi

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// The base path is for a router that hands requests on with its own prefix in front. Every path is served with it and
// without it: probes, replicas and clients inside know nothing of the router. Whoever called with it is answered with
// it: base_uri, Location.
//
// Clients differ in what they do with the path of base_uri. Some call it as it is; others put the prefix of the address
// they were given in front, a second time. So the prefix counts however often it comes.

// prefixed marks a request that came with the base path. The router sees it without.
type prefixed struct{}

// headerReplicaPrefixed tells another replica that the client called with the base path. It says nothing that the client
// could not have said itself.
const headerReplicaPrefixed = "Sluice-Replica-Prefixed"

// stripBasePath takes the base path off a canonical path.
func stripBasePath(ctx *fasthttp.RequestCtx, base string) {
	path := ctx.URI().PathOriginal()
	rest, came := path, false
	for {
		after, ok := bytes.CutPrefix(rest, []byte(base))
		if !ok || len(after) > 0 && after[0] != '/' {
			break
		}
		rest, came = after, true
	}
	if !came {
		return
	}
	if len(rest) == 0 {
		rest = []byte("/")
	}
	ctx.SetUserValue(prefixed{}, true)
	ctx.URI().SetPathBytes(bytes.Clone(rest))
}

// basePath is what stands before the paths of links in the answer to c.
func (s *Server) basePath(c *fiber.Ctx) string {
	came, _ := c.Locals(prefixed{}).(bool)
	if s.cfg.BasePath == "" || !came && c.Get(headerReplicaPrefixed) == "" {
		return ""
	}
	return s.cfg.BasePath
}

func (c Config) validateBasePath() error {
	if c.BasePath == "" {
		return nil
	}
	u, err := url.Parse(c.BasePath)
	if err != nil || u.Path != c.BasePath || !strings.HasPrefix(c.BasePath, "/") || string(canonicalPath([]byte(c.BasePath))) != c.BasePath || c.BasePath == "/" ||
		strings.ContainsAny(c.BasePath, "%:*") {
		return fmt.Errorf("base-path must look like /__kafka-rest-proxy-msk: a slash in front, none at the end, no query, nothing encoded")
	}
	first, _, _ := strings.Cut(c.BasePath[1:], "/")
	if slices.Contains(firstSegments, first) {
		return fmt.Errorf("base-path must not begin with /%s, which is a path of the API", first)
	}
	return nil
}

// firstSegments are the beginnings of the API's own paths, those of v3 included.
var firstSegments = []string{
	"__api", "__build-info", "__gtg", "__health", "__live", "__ping", "brokers", "build-info", "consumers", "events",
	"kafka", "metrics", "subscriptions", "topics", "v3",
}
