package httpapi

import (
	"errors"
	"net"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice/stream"
)

var typeEvents = media{name: "text/event-stream"}

// eventRoutes are the streams (sse.md 1). Their errors are application/json whatever Accept says: an EventSource shows
// none of them, and everybody else reads JSON.
func (s *Server) eventRoutes() []route {
	speaks := speech{noun: eventStream, typ: typeJSON.name}
	return []route{
		{"GET", "/topics/:topic/events", speaks, s.streamTopic},
		{"GET", "/events", speaks, s.streamTopics},
	}
}

func (s *Server) streamTopic(c *fiber.Ctx) error {
	topic, err := topicName(c)
	if err != nil {
		return err
	}
	return s.stream(c, topic)
}

func (s *Server) streamTopics(c *fiber.Ctx) error { return s.stream(c, "") }

// stream checks the request, takes a place for it and gives its connection away. A HEAD passes every check and takes
// nothing.
func (s *Server) stream(c *fiber.Ctx, topic string) error {
	if c.Request().Header.ContentLength() > 0 || len(c.Request().Header.Peek(fiber.HeaderTransferEncoding)) > 0 {
		return errFraming // a GET with a body; nobody will read it
	}
	accept := c.Get(fiber.HeaderAccept)
	if _, _, ok := choose(accept, []media{typeEvents}); !ok {
		return errNotAcceptable
	}
	req, err := stream.Parse(queryOf(c, topic), time.Now())
	if err != nil {
		return err
	}
	req.ID = of(c).id
	req.Address = remoteIP(c)
	req.Unchunked = !c.Request().Header.IsHTTP11()

	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	st, err := s.needs.Streams.Admit(ctx, req)
	if err != nil {
		return s.refuseStream(c, req, accept, err)
	}
	eventHead(c)
	if c.Method() == fiber.MethodHead {
		st.Release()
	}
	s.hijack(c, func(conn net.Conn, head []byte) { st.Serve(conn, head) })
	return nil
}

// refuseStream answers a refusal as its reader understands it. A real status would stop an EventSource for good, so a
// transient one is told in a stream, unless the client says that it knows better.
func (s *Server) refuseStream(c *fiber.Ctx, req stream.Request, accept string, err error) error {
	r, ok := errors.AsType[*stream.Refusal](err)
	if !ok {
		return err
	}
	if r.Code == 0 {
		c.Status(fiber.StatusNoContent)
		return nil
	}
	if !r.Transient || req.Strict || !strings.Contains(strings.ToLower(accept), typeEvents.name) {
		return err
	}
	of(c).cause = err
	eventHead(c)
	c.Context().SetConnectionClose()
	c.Response().SetBodyRaw(r.Events())
	return nil
}

// eventHead sets the headers of a stream: nothing on the way may keep, change or hold back what comes.
func eventHead(c *fiber.Ctx) {
	h := &c.Response().Header
	c.Status(fiber.StatusOK)
	h.SetContentType(typeEvents.name)
	h.Set(fiber.HeaderCacheControl, "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set(fiber.HeaderXContentTypeOptions, "nosniff")
}

// queryOf copies what the request says. fiber's c.Query gives one value of a name; topics are repeated.
func queryOf(c *fiber.Ctx, topic string) stream.Query {
	q := stream.Query{Topic: topic, LastEventID: strings.Clone(c.Get("Last-Event-ID"))}
	for name, value := range c.Context().QueryArgs().All() {
		q.Parameters = append(q.Parameters, stream.Parameter{Name: string(name), Value: string(value)})
	}
	return q
}

// streamFailure is the row of a refusal. The room numbers its refusals itself, for events carry the numbers too.
func streamFailure(err error) *failure {
	r, ok := errors.AsType[*stream.Refusal](err)
	if !ok {
		return nil
	}
	f := &failure{status: r.Status(), code: r.Code, message: r.Msg}
	if r.Transient {
		f.retryAfter = r.RetryAfter()
	}
	return f
}
