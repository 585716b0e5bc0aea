package httpapi

import (
	"bytes"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
)

// hijack takes the connection of a request over: serve gets it, in a goroutine of its own, together with the head of
// the response as it stands. From then on nobody but serve counts, bounds or closes the connection.
//
//   - Without HijackSetNoResponse, "Connection: close" makes fasthttp answer an empty body and never call the function.
//   - The function returns at once, so that fasthttp frees its reader and context.
//   - The wrapper's reader goes back to a pool then; reading through it would read another client's bytes. So the bare
//     connection is used, and what the client has sent beyond its request is gone.
//   - Nothing of c may be used in serve. Headers that a middleware adds after this are not in the head.
//   - If fasthttp fails before the function runs, serve is never called.
func (s *Server) hijack(c *fiber.Ctx, serve func(conn net.Conn, head []byte)) {
	h := &c.Response().Header
	if c.Request().Header.IsHTTP11() {
		h.SetContentLength(-1) // chunked
	} else {
		h.SetContentLength(-2) // until close
		h.Del(fiber.HeaderTransferEncoding)
	}
	h.SetConnectionClose()
	if c.Method() == fiber.MethodHead {
		return
	}
	head := bytes.Clone(h.Header())
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(wrapped net.Conn) {
		conn := wrapped
		if w, ok := conn.(interface{ UnsafeConn() net.Conn }); ok {
			conn = w.UnsafeConn()
		}
		if ours, ok := conn.(*clientConn); ok {
			conn = ours.takeOver()
		}
		_ = conn.SetDeadline(time.Time{}) // those of the request are over
		go serve(conn, head)
	})
}
