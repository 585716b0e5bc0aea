package httpapi

import (
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
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
	keeps    bool   // the body will be wanted once more if the instance moves meanwhile
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
