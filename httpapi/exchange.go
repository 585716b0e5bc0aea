package httpapi

import (
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// exchange is what is known about one request while it is served.
type exchange struct {
	id       string // X-Request-Id
	method   string // as sent; the router may have been shown another
	route    string // path of the table, "" where none matched
	noun     noun
	start    time.Time
	bodyRead bool   // nothing of the body is left on the connection
	sent     []byte // the body, where it may be wanted once more
	sentRoom lease  // of sent
	types    *offer
	negotiation
	cause error // what went wrong, for the log alone
}

// offers is the media types of this server.
func (x *exchange) offers() *offer {
	if x.types == nil { // fasthttp failed before the server was asked
		return offerPlain
	}
	return x.types
}

type exchangeKey struct{}

// of is the exchange of a request. Where fasthttp failed before any middleware ran there is none yet.
func of(c *fiber.Ctx) *exchange {
	if x, ok := c.Locals(exchangeKey{}).(*exchange); ok {
		return x
	}
	x := &exchange{id: requestID(c.Request().Header.Peek(fiber.HeaderXRequestID)), start: time.Now(), method: strings.Clone(c.Method())}
	c.Locals(exchangeKey{}, x)
	c.Set(fiber.HeaderXRequestID, x.id)
	return x
}

// observe surrounds every request: its id, its one line in the log, its metrics, and what remains of a panic.
func (s *Server) observe(c *fiber.Ctx) error {
	x := of(c)
	x.types = s.types
	if sent, ok := c.Locals(unknownMethod{}).(string); ok {
		x.method = sent
	}
	if conn, ok := c.Context().Conn().(*clientConn); ok {
		conn.linger.Store(false)
	}
	s.cors(c)
	if err := s.guarded(c); err != nil {
		s.answerError(c, err)
	}
	if x.unread(c) {
		s.closeAfterwards(c)
	}
	if s.draining.Load() {
		c.Context().SetConnectionClose()
	}
	if len(c.Response().Header.Peek(fiber.HeaderCacheControl)) == 0 { // answers without a body do not come through send
		c.Set(fiber.HeaderCacheControl, "no-store")
	}
	x.sentRoom.release()
	s.compress(c)
	s.record(c, x)
	return nil
}

func (s *Server) guarded(c *fiber.Ctx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.log.Error("panic in a handler", slog.String("transaction_id", of(c).id), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			c.Context().SetConnectionClose() // nobody knows how much of the body was read
			err = errInternal
		}
	}()
	return s.guard(c)
}

var uuids = regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`)

// record writes the access line (operations-and-security.md 2.5) and counts. Headers go by an allow-list, and values of
// the query that look like credentials are left out.
func (s *Server) record(c *fiber.Ctx, x *exchange) {
	took := time.Since(x.start)
	status := c.Response().StatusCode()
	route := x.route
	if route == "" {
		route = "none"
	}
	method, code := boundedMethod(x.method), strconv.Itoa(status)
	s.metrics.requests.WithLabelValues(route, method, code).Inc()
	s.metrics.seconds.WithLabelValues(route, method, code).Observe(took.Seconds())

	level := slog.LevelInfo
	if status >= 500 {
		level = slog.LevelWarn
	}
	ctx := c.Context()
	if !s.log.Enabled(ctx, level) {
		return
	}
	uri := redactedURI(string(c.Request().Header.RequestURI()))
	attrs := make([]slog.Attr, 0, 14)
	attrs = append(attrs,
		slog.Int64("responsetime", took.Milliseconds()), slog.String("host", remoteIP(c)), slog.String("method", x.method),
		slog.String("transaction_id", x.id), slog.String("uri", uri), slog.String("protocol", string(c.Request().Header.Protocol())),
		slog.Int("status", status), slog.Int("size", sizeOf(c.Response())),
		slog.String("userAgent", strings.Clone(c.Get(fiber.HeaderUserAgent))),
		loggedHeaders(c))
	if referer := c.Get(fiber.HeaderReferer); referer != "" {
		attrs = append(attrs, slog.String("referer", redactedURI(referer)))
	}
	if ids := uuids.FindAllString(uri, -1); ids != nil {
		attrs = append(attrs, slog.String("uuid", strings.Join(ids, ",")))
	}
	if x.cause != nil && status >= 500 {
		attrs = append(attrs, slog.String("error", x.cause.Error()))
	}
	s.log.LogAttrs(ctx, level, "", attrs...)
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
		kept = append(kept, slog.String("X-Original-Request-URL", redactedURI(v)))
	}
	return slog.Attr{Key: "headers", Value: slog.GroupValue(kept...)}
}

// plainQuery are the parameters whose values may stand in a log. The rest are named without their values.
var plainQuery = map[string]bool{
	"timeout": true, "max_bytes": true, "async": true, "offset": true, "count": true, "timestamp": true, "limit": true,
	"from": true, "topic": true, "partition": true, "partitions": true, "state": true, "form": true, "data": true, "mode": true,
}

func redactedURI(uri string) string {
	path, query, has := strings.Cut(uri, "?")
	if at := strings.LastIndexByte(path, '@'); at >= 0 && strings.Contains(path, "://") { // userinfo of an absolute URL
		path = path[:strings.Index(path, "://")+3] + path[at+1:]
	}
	if !has {
		return strings.Clone(path)
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
