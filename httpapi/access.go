package httpapi

import (
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"
)

// outcome is what the metrics tell requests apart by. All three are bounded: rows of the table, known methods, statuses
// that we send.
type outcome struct {
	route, method string
	status        int
}

type tallies struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// tallies finds the metrics of an outcome. Finding them by their labels costs as much as all that they count, so what
// was found is kept.
func (m *metrics) tallies(o outcome) tallies {
	m.mu.RLock()
	t, ok := m.known[o]
	m.mu.RUnlock()
	if ok {
		return t
	}
	code := strconv.Itoa(o.status)
	t = tallies{m.requests.WithLabelValues(o.route, o.method, code), m.seconds.WithLabelValues(o.route, o.method, code)}
	m.mu.Lock()
	m.known[o] = t
	m.mu.Unlock()
	return t
}

// record writes the access line (operations-and-security.md 2.5) and counts. Headers go by an allow-list, and values of
// the query that look like credentials are left out.
func (s *Server) record(c *fiber.Ctx, x *exchange) {
	now := time.Now()
	took := now.Sub(x.start)
	status := c.Response().StatusCode()
	route := x.route
	if route == "" {
		route = "none"
	}
	t := s.metrics.tallies(outcome{route, boundedMethod(x.method), status})
	t.requests.Inc()
	t.seconds.Observe(took.Seconds())

	level := slog.LevelInfo
	if status >= 500 {
		level = slog.LevelWarn
	}
	ctx := c.Context()
	if !s.log.Enabled(ctx, level) {
		return
	}
	uri := redactedURI(string(c.Request().Header.RequestURI()))
	var room [14]slog.Attr
	attrs := append(room[:0],
		slog.Int64("responsetime", took.Milliseconds()), slog.String("host", remoteIP(c)), slog.String("method", x.method),
		slog.String("transaction_id", x.id), slog.String("uri", uri), slog.String("protocol", protocol(c)),
		slog.Int("status", status), slog.Int("size", sizeOf(c.Response())),
		slog.String("userAgent", strings.Clone(c.Get(fiber.HeaderUserAgent))),
		loggedHeaders(c))
	if referer := c.Get(fiber.HeaderReferer); referer != "" {
		attrs = append(attrs, slog.String("referer", strings.Clone(redactedURI(referer))))
	}
	if ids := uuidsIn(uri); ids != "" {
		attrs = append(attrs, slog.String("uuid", ids))
	}
	if x.cause != nil && status >= 500 {
		attrs = append(attrs, slog.String("error", x.cause.Error()))
	}
	line := slog.NewRecord(now, level, "", 0) // without the caller's place, which costs more than it says
	line.AddAttrs(attrs...)
	_ = s.log.Handler().Handle(ctx, line) // as slog does
}

func protocol(c *fiber.Ctx) string {
	if c.Request().Header.IsHTTP11() {
		return "HTTP/1.1"
	}
	return string(c.Request().Header.Protocol())
}

var uuids = regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`)

// uuidsIn is the UUIDs of a URI, joined with commas.
func uuidsIn(uri string) string {
	if strings.Count(uri, "-") < 4 {
		return ""
	}
	return strings.Join(uuids.FindAllString(uri, -1), ",")
}

// sizeOf is the length of a finished answer. To ask a stream for it would read the stream.
func sizeOf(r *fasthttp.Response) int {
	if r.IsBodyStream() {
		return -1
	}
	return len(r.Body())
}

func boundedMethod(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}

func remoteIP(c *fiber.Ctx) string {
	if tcp, ok := c.Context().RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	host, _, err := net.SplitHostPort(c.Context().RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// loggedHeaders is an allow-list: whatever else a client sends may be a credential.
func loggedHeaders(c *fiber.Ctx) slog.Attr {
	kept := make([]slog.Attr, 0, 5)
	for _, name := range []string{"Content-Type", "Accept", "Host", "X-Forwarded-For"} {
		if v := c.Get(name); v != "" {
			kept = append(kept, slog.String(name, strings.Clone(v)))
		}
	}
	if v := c.Get("X-Original-Request-URL"); v != "" {
		kept = append(kept, slog.String("X-Original-Request-URL", strings.Clone(redactedURI(v))))
	}
	return slog.Attr{Key: "headers", Value: slog.GroupValue(kept...)}
}

// plainQuery are the parameters whose values may stand in a log. The rest are named without their values.
var plainQuery = map[string]bool{
	"timeout": true, "max_bytes": true, "async": true, "offset": true, "count": true, "timestamp": true, "limit": true,
	"from": true, "topic": true, "partition": true, "partitions": true, "state": true, "form": true, "data": true, "mode": true,
}

// redactedURI may share the memory of uri.
func redactedURI(uri string) string {
	path, query, has := strings.Cut(uri, "?")
	if at := strings.LastIndexByte(path, '@'); at >= 0 && strings.Contains(path, "://") { // userinfo of an absolute URL
		path = path[:strings.Index(path, "://")+3] + path[at+1:]
	}
	if !has {
		return path
	}
	var b strings.Builder
	b.WriteString(path)
	separator := byte('?')
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		b.WriteByte(separator)
		separator = '&'
		b.WriteString(name)
		if plain, err := url.QueryUnescape(name); err == nil && plainQuery[plain] {
			b.WriteByte('=')
			b.WriteString(value)
		}
	}
	return b.String()
}
