package httpapi

import (
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// parseContentType is the type of a request body (rest-api.md 2.2); none at all counts as application/json. A charset
// other than UTF-8 is refused: the body is parsed as JSON.
func (o *offer) parseContentType(header string) (media, bool) {
	if strings.TrimSpace(header) == "" {
		return typeJSON, true
	}
	r, ok := parseMedia(header)
	if !ok || (r.charset != "" && r.charset != "utf-8" && r.charset != "us-ascii") {
		return media{}, false
	}
	m, ok := o.bodies[r.name]
	return m, ok
}

// plain is what every route but the reads offers, best first, when rules 2 to 5 of rest-api.md 2.1 gave version v.
func (o *offer) plain(v version) []media {
	if v == v2 {
		return o.plainV2
	}
	return o.plainV1
}

func (o *offer) order(bare []media, v version) []media {
	offers := slices.Clone(bare)
	for _, other := range []bool{false, true} {
		for _, m := range o.embedded {
			if (m.version != v) == other {
				offers = append(offers, m)
			}
		}
	}
	return offers
}

// read is what a read offers: the instance's format in version v first. others are the types of other formats: to
// ask for nothing else is 406/40601.
func (o *offer) read(format string, v version) (offers, others []media) {
	for _, other := range []bool{false, true} {
		for _, m := range o.embedded {
			if m.format == format && (m.version != v) == other {
				offers = append(offers, m)
			}
		}
	}
	for _, m := range o.embedded {
		if m.format != format {
			others = append(others, m)
		}
	}
	return append(offers, o.plain(v)[:o.bare]...), others
}

// choose picks from offers by Accept (rest-api.md 2.3): for each offer the weight of the most specific range that
// matches it; the highest wins, then an exact match over a wildcard, then the order of the offers. exact says that no
// wildcard was at work. An absent Accept takes the first offer.
func choose(accept string, offers []media) (m media, exact, ok bool) {
	if strings.TrimSpace(accept) == "" {
		return offers[0], false, true
	}
	var room [8]mediaRange
	ranges := room[:0]
	splitList(accept, func(element string) {
		if r, parsed := parseMedia(element); parsed {
			ranges = append(ranges, r)
		}
	})
	best := 0
	for _, offer := range offers {
		q, specific := 0, 0 // 1 is */*, 2 application/*, 3 the type itself
		for _, r := range ranges {
			s := matches(r.name, offer.name)
			if s > specific || (s == specific && s > 0 && r.q > q) {
				q, specific = r.q, s
			}
		}
		if q > best || (q == best && q > 0 && specific == 3 && !exact) {
			m, exact, ok, best = offer, specific == 3, true, q
		}
	}
	return m, exact, ok
}

func matches(have, offer string) int {
	switch have {
	case offer:
		return 3
	case "application/*":
		return 2
	case "*/*":
		return 1
	}
	return 0
}

// negotiation is the outcome of rest-api.md 2: how to read the body and how to answer.
type negotiation struct {
	request media // type of the body; typeJSON if none was named
	badType bool  // the body's type is none of rest-api.md 2.2
	answer  media // type of the response
	version version
}

// negotiate settles both directions for a route that offers the plain order. known is what rules 3 and 4 gave:
// the version of the instance or of the path. The answer is set on failure too: errors are rendered in it.
func negotiate(c *fiber.Ctx, known version) (negotiation, error) {
	n, err := negotiateBody(c, known)
	offers := of(c).offers().plain(n.version)
	m, exact, ok := choose(accept(c), offers)
	if !ok {
		n.answer = offers[0]
		if err == nil {
			err = errNotAcceptable
		}
		return n, err
	}
	n.answer = m
	if exact && m.version != noVersion {
		n.version = m.version
	}
	return n, err
}

// negotiateRead settles both directions for a read of an instance of that format and version, or of no instance, where
// a type without a format means binary.
func negotiateRead(c *fiber.Ctx, format string, known version) (negotiation, error) {
	n, err := negotiateBody(c, known)
	if err != nil {
		return n, err // a read without a body never gets here
	}
	offers, others := of(c).offers().read(format, n.version)
	m, exact, ok := choose(accept(c), offers)
	if !ok {
		n.answer = offers[0]
		if _, _, ok := choose(accept(c), others); ok {
			return n, errOtherFormat
		}
		return n, errNotAcceptable
	}
	n.answer = m
	if exact && m.version != noVersion {
		n.version = m.version
	}
	return n, nil
}

// negotiateBody applies rules 2 to 5 of rest-api.md 2.1. On GET and DELETE no Content-Type is a reason to refuse, nor is
// one without a body.
func negotiateBody(c *fiber.Ctx, known version) (n negotiation, err error) {
	m, ok := of(c).offers().parseContentType(string(c.Request().Header.ContentType()))
	if !ok {
		m = typeJSON
		if hasBody(c) && c.Method() != fiber.MethodGet && c.Method() != fiber.MethodHead && c.Method() != fiber.MethodDelete {
			err = errUnsupportedMedia
		}
	}
	n = negotiation{request: m, badType: !ok, version: m.version}
	if n.version == noVersion {
		n.version = known
	}
	if n.version == noVersion {
		n.version = v1
	}
	return n, err
}

func hasBody(c *fiber.Ctx) bool {
	n := c.Request().Header.ContentLength()
	return n > 0 || n == -1
}

func accept(c *fiber.Ctx) string {
	all := c.Request().Header.PeekAll(fiber.HeaderAccept)
	switch len(all) {
	case 0:
		return ""
	case 1:
		return string(all[0])
	}
	var b strings.Builder
	for i, one := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(one)
	}
	return b.String()
}
