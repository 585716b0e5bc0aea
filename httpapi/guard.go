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
	var framing, hosts int
	for line := range bytes.Lines(header.RawHeaders()) {
		if line[0] == ' ' || line[0] == '\t' || !bytes.HasSuffix(line, []byte("\r\n")) { // obs-fold, bare LF
			return errFraming
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
	return c.Next()
}
