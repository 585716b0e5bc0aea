package httpapi

import (
	"bytes"

	"github.com/gofiber/fiber/v2"
)

// framingGuard refuses requests on whose length two servers could disagree, before anything else looks at them
// (RFC 9112, 6.3 and 11.2: request smuggling). fasthttp still serves Content-Length beside Transfer-Encoding: chunked,
// and then takes the rest for a request of its own. What it refuses is answered and the connection is closed.
func framingGuard(c *fiber.Ctx) error {
	header := &c.Request().Header
	var framing, hosts, lines int
	for line := range bytes.Lines(header.RawHeaders()) {
		if line[0] == ' ' || line[0] == '\t' || !bytes.HasSuffix(line, []byte("\r\n")) { // obs-fold, bare LF
			return errFraming
		}
		if lines++; lines > maxHeaders+1 { // the empty line counts
			return errHeaderTooLarge
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("host")):
			hosts++
		case bytes.EqualFold(name, []byte("content-length")):
			framing++
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			framing++
			if !bytes.EqualFold(bytes.TrimSpace(value), []byte("chunked")) || !header.IsHTTP11() {
				return errFraming
			}
		}
	}
	if framing > 1 || hosts > 1 || (hosts == 0 && header.IsHTTP11()) {
		return errFraming
	}
	if crossSite(c) {
		return errCrossSite
	}
	return c.Next()
}

// maxHeaders is how many header lines a request may have; their bytes are bounded by headerBytes.
const maxHeaders = 100

// crossSite finds what another web site makes a browser send (Fetch Metadata, W3C): a body without a media type needs
// no preflight, and it would be taken for records.
func crossSite(c *fiber.Ctx) bool {
	switch c.Method() {
	case fiber.MethodGet, fiber.MethodHead, fiber.MethodOptions:
		return false
	}
	return c.Get("Sec-Fetch-Site") == "cross-site"
}
