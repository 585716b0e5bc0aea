package httpapi

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// CORSConfig says which web sites' scripts may call (sse.md 4.4, WHATWG Fetch). Without an origin there is no header of
// it and a browser keeps foreign pages out.
type CORSConfig struct {
	Origins []string `name:"cors-allow-origins" env:"SLUICE_CORS_ALLOW_ORIGINS" placeholder:"ORIGIN,..." help:"Web sites whose scripts may call, exactly as a browser says them, e.g. https://www.example.com; * for all of them, without credentials."`
	Methods []string `name:"cors-methods" env:"SLUICE_CORS_METHODS" placeholder:"METHOD,..." help:"What they may call by, if not GET, HEAD and POST."`
	Headers []string `name:"cors-headers" env:"SLUICE_CORS_HEADERS" placeholder:"NAME,..." help:"What headers they may send, if not Authorization, Last-Event-ID, Cache-Control, Content-Type and X-Request-Id."`
}

func (o CORSConfig) validate() error {
	for _, origin := range o.Origins {
		u, err := url.Parse(origin)
		switch {
		case origin == "*" && len(o.Origins) > 1:
			return errors.New("cors-allow-origins: * is everybody; leave the others out")
		case origin == "*":
		case err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.Contains(origin, "*"):
			return errors.New("cors-allow-origins must be exact, as in https://www.example.com:8443, without a path and without patterns; or *")
		}
	}
	for _, name := range slices.Concat(o.Methods, o.Headers) {
		if !isToken(name) {
			return errors.New("cors-methods and cors-headers must be names, several separated by commas")
		}
	}
	return nil
}

// allows says whether scripts of an origin may call; "" is no origin.
func (o CORSConfig) allows(origin string) bool {
	return origin != "" && (slices.Contains(o.Origins, origin) || o.everybody())
}

func (o CORSConfig) everybody() bool { return len(o.Origins) == 1 && o.Origins[0] == "*" }

// cors lets the scripts of an allowed origin read the answer, whatever it will be. The origin is never reflected unless
// it is on the list, and a cache must not give one site's answer to another.
func (s *Server) cors(c *fiber.Ctx) {
	o := s.cfg.CORS
	if len(o.Origins) == 0 {
		return
	}
	origin := c.Get(fiber.HeaderOrigin)
	if !o.everybody() {
		c.Response().Header.Add(fiber.HeaderVary, fiber.HeaderOrigin)
	}
	if !o.allows(origin) {
		return
	}
	if o.everybody() {
		c.Set(fiber.HeaderAccessControlAllowOrigin, "*")
	} else {
		c.Set(fiber.HeaderAccessControlAllowOrigin, strings.Clone(origin))
		c.Set(fiber.HeaderAccessControlAllowCredentials, "true")
	}
	c.Set(fiber.HeaderAccessControlExposeHeaders, "X-Request-Id")
}

// preflight answers the question that a browser asks by OPTIONS before a call that is not simple. It is the same for
// every path: it tells nothing about topics.
func (s *Server) preflight(c *fiber.Ctx) {
	o := s.cfg.CORS
	if c.Get(fiber.HeaderAccessControlRequestMethod) == "" || !o.allows(c.Get(fiber.HeaderOrigin)) {
		return
	}
	methods, headers := o.Methods, o.Headers
	if len(methods) == 0 {
		methods = []string{"GET", "HEAD", "POST"}
	}
	if len(headers) == 0 {
		headers = []string{"Authorization", "Last-Event-ID", "Cache-Control", "Content-Type", "X-Request-Id"}
	}
	c.Set(fiber.HeaderAccessControlAllowMethods, strings.Join(methods, ", "))
	c.Set(fiber.HeaderAccessControlAllowHeaders, strings.Join(headers, ", "))
	c.Set(fiber.HeaderAccessControlMaxAge, "600")
}
