package httpapi

import (
	"slices"
	"strings"

	"github.com/sluicegate/sluice/formats"
)

// version is the API version an answer speaks; v3 has paths of its own and never meets these.
type version byte

const (
	noVersion version = iota
	v1
	v2
)

// media is a media type of the classic API: what a body holds and which version it speaks.
type media struct {
	name    string
	format  string // embedded format: "binary", "json", …; "" where the type names none
	version version
}

// The types that name no embedded format.
var (
	typeV1    = media{"application/vnd.kafka.v1+json", "", v1}
	typeV2    = media{"application/vnd.kafka.v2+json", "", v2}
	typeKafka = media{"application/vnd.kafka+json", "", noVersion}
	typeJSON  = media{"application/json", "", noVersion}
)

// offer is the media types of one server: an unknown format is an unknown type, and formats with schemas are known only
// beside a registry.
type offer struct {
	embedded         []media          // of each embedded format
	bodies           map[string]media // what a request body may have (rest-api.md 2.2)
	plainV1, plainV2 []media          // what every route but the reads offers, best first
	bare             int              // how many of those name no embedded format; they come first
}

var (
	offerPlain   = offerOf(false, true)
	offerSchemas = offerOf(true, true)
)

// offerOf is what a server knows with or without a registry, and with or without version 2.
func offerOf(schemas, withV2 bool) *offer {
	all := []formats.Format{formats.Binary, formats.JSON, formats.Text}
	if schemas {
		all = append(all, formats.Avro, formats.JSONSchema, formats.Protobuf)
	}
	return newOffer(all, withV2)
}

// newOffer lists the types of each format: v1 had binary, json and avro, v2 has all.
func newOffer(all []formats.Format, withV2 bool) *offer {
	o := &offer{bodies: map[string]media{"application/octet-stream": {"application/octet-stream", "", noVersion}}}
	for _, f := range all {
		if f == formats.Binary || f == formats.JSON || f == formats.Avro {
			o.embedded = append(o.embedded, media{"application/vnd.kafka." + f.String() + ".v1+json", f.String(), v1})
		}
		if withV2 {
			o.embedded = append(o.embedded, media{"application/vnd.kafka." + f.String() + ".v2+json", f.String(), v2})
		}
	}
	for _, f := range all {
		o.embedded = append(o.embedded, media{"application/vnd.kafka." + f.String() + "+json", f.String(), noVersion})
	}
	first, second := []media{typeV1, typeV2, typeKafka, typeJSON}, []media{typeV2, typeV1, typeKafka, typeJSON}
	if !withV2 {
		first = []media{typeV1, typeKafka, typeJSON}
		second = first
	}
	for _, m := range slices.Concat(first, o.embedded) {
		o.bodies[m.name] = m
	}
	o.plainV1, o.plainV2, o.bare = o.order(first, v1), o.order(second, v2), len(first)
	return o
}

// mediaRange is one element of Accept, or a Content-Type: RFC 9110, 8.3.1 and 12.5.1.
type mediaRange struct {
	name    string // type/subtype in lower case; may be */* or type/*
	charset string // lower case
	q       int    // thousandths
}

// parseMedia reads one media type or range with its parameters. Unknown parameters are allowed and ignored.
func parseMedia(s string) (r mediaRange, ok bool) {
	r.q = 1000
	name, rest, more := strings.Cut(s, ";")
	name = strings.Trim(name, " \t")
	typ, sub, slash := strings.Cut(name, "/")
	if !slash || !isToken(typ) || !isToken(sub) || (typ == "*" && sub != "*" && !strings.EqualFold(sub, "json")) {
		return r, false
	}
	r.name = strings.ToLower(name)
	if r.name == "*/json" { // old clients say so
		r.name = typeJSON.name
	}
	for more {
		var value string
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" { // a trailing semicolon is harmless
			break
		}
		var eq bool
		var param string
		param, rest, eq = strings.Cut(rest, "=")
		if !eq || !isToken(param) {
			return r, false
		}
		if value, rest, ok = paramValue(rest); !ok {
			return r, false
		}
		rest = strings.TrimLeft(rest, " \t")
		if rest != "" && rest[0] != ';' {
			return r, false
		}
		more = rest != ""
		rest = strings.TrimPrefix(rest, ";")
		switch strings.ToLower(param) {
		case "q":
			if r.q, ok = parseQ(value); !ok {
				return r, false
			}
		case "charset":
			r.charset = strings.ToLower(value)
		}
	}
	return r, true
}

// paramValue takes a token or a quoted string off the front of s.
func paramValue(s string) (value, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '"':
				return b.String(), s[i+1:], true
			case '\\':
				if i++; i == len(s) {
					return "", "", false
				}
			}
			b.WriteByte(s[i])
		}
		return "", "", false
	}
	end := strings.IndexAny(s, "; \t")
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:], isToken(s[:end])
}

// parseQ reads a weight of RFC 9110, 12.4.2 in thousandths. The leading zero may be missing: Java's HttpURLConnection says
// q=.2 in each request whose program names no type.
func parseQ(s string) (int, bool) {
	if len(s) > 1 && s[0] == '.' {
		s = "0" + s
	}
	if len(s) == 0 || len(s) > 5 || (s[0] != '0' && s[0] != '1') || (len(s) > 1 && s[1] != '.') {
		return 0, false
	}
	q, digit := int(s[0]-'0')*1000, 100
	for i := 2; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		q, digit = q+int(s[i]-'0')*digit, digit/10
	}
	return q, q <= 1000
}

func isToken[T string | []byte](s T) bool {
	for i := range len(s) {
		b := s[i]
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, b) >= 0 {
			return false
		}
	}
	return len(s) > 0
}

// splitList cuts a header's list at its commas, those inside quotes excepted.
func splitList(s string, each func(string)) {
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == ',' && !quoted:
			each(s[start:i])
			start = i + 1
		}
	}
	each(s[start:])
}
