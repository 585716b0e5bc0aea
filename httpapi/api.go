package httpapi

import (
	"bytes"
	_ "embed"
	"net/url"
	"regexp"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// openAPI describes every route of this build; a test compares it with the table.
//
//go:embed openapi.yaml
var openAPI []byte

// document serves the API file as it is. The edge names the address that the client asked in a header: then the file
// tells that server and this version (operations-and-security.md 2.3).
func (s *Server) document(c *fiber.Ctx) error {
	file := openAPI
	server, named := originalServer(c.Get("X-Original-Request-URL"))
	if named {
		file = bytes.Replace(file, []byte("\n  - url: /\n"), []byte("\n  - url: "+server+"\n"), 1)
		if semverForm.MatchString(s.cfg.Build.Version) {
			file = bytes.Replace(file, []byte("\n  version: 0.0.0\n"), []byte("\n  version: "+s.cfg.Build.Version+"\n"), 1)
		}
	}
	if base := s.basePath(c); base != "" && !named { // nobody in front has said more
		file = bytes.Replace(file, []byte("\n  - url: /\n"), []byte("\n  - url: "+base+"\n"), 1)
	}
	s.send(c, fiber.StatusOK, "application/yaml", file)
	return nil
}

// harmless is what may stand in the YAML file without quotes.
var harmless = regexp.MustCompile(`^https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~/-]*)?$`)

func originalServer(header string) (string, bool) {
	u, err := url.Parse(header)
	if err != nil || u.Host == "" {
		return "", false
	}
	base, has := strings.CutSuffix(strings.TrimSuffix(u.Path, "/"), "/__api")
	if !has || base == "" {
		base = "/"
	}
	server := "https://" + u.Host + base
	return server, harmless.MatchString(server)
}
