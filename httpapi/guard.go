package httpapi

import (
	"bytes"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// guard refuses what no handler should see. A body in chunks that a handler might leave where it is, is read here: else
// nobody would judge its framing before the answer.
func (s *Server) guard(c *fiber.Ctx) error {
	if err := headFault(&c.Request().Header); err != nil {
		return err
	}
	if crossSite(c) && !s.cfg.CORS.allows(c.Get(fiber.HeaderOrigin)) {
		return errCrossSite
	}
	if c.Request().Header.ContentLength() == -1 {
		switch c.Method() {
		case fiber.MethodPost, fiber.MethodPut, fiber.MethodPatch:
		default:
			if _, err := s.kept(c); err != nil {
				return err
			}
		}
	}
	return c.Next()
}

// headFault finds requests on whose length two servers could disagree (RFC 9112, 6.3 and 11.2: request smuggling).
// framing.go ends most of them earlier, from the bytes; this looks at what fasthttp made of them, and it would serve
// Content-Length beside Transfer-Encoding: chunked and take the rest for a request of its own.
func headFault(header *fasthttp.RequestHeader) error {
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
			if !bytes.EqualFold(bytes.Trim(value, " \t\r\n"), []byte("chunked")) || !header.IsHTTP11() {
				return errFraming
			}
		}
	}
	if framing > 1 || hosts > 1 || (hosts == 0 && header.IsHTTP11()) {
		return errFraming
	}
	return nil
}

// maxHeaders is how many header lines a request may have; their bytes are bounded by Config.MaxHeader.
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
