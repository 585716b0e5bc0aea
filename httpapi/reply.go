package httpapi

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"

	"github.com/sluicegate/sluice/subscriptions"
)

// errorBody is what every error of every API looks like (rest-api.md 1.4, webhooks.md 2.1).
type errorBody struct {
	Code    int                   `json:"error_code"`
	Message string                `json:"message"`
	Detail  string                `json:"detail,omitempty"`
	Fields  []subscriptions.Field `json:"fields,omitempty"`
}

// answerError renders err in the negotiated media type.
func (s *Server) answerError(c *fiber.Ctx, err error) {
	x := of(c)
	x.cause = err
	f := failureOf(x.noun, err)
	allow := bytes.Clone(c.Response().Header.Peek(fiber.HeaderAllow))
	c.Response().ResetBody()
	c.Status(f.status)
	if len(allow) > 0 {
		c.Response().Header.SetBytesV(fiber.HeaderAllow, allow)
	}
	if x.answer.name == "" {
		n, _ := negotiate(c, noVersion)
		x.answer = n.answer
	}
	if f.retryAfter > 0 {
		setRetryAfter(c, f.retryAfter)
	}
	if f.closing || x.unread(c) {
		s.closeAfterwards(c)
	}
	body, _ := encode(errorBody{f.code, shortened(f.message), shortened(f.detail), f.faults}) // strings and ints: cannot fail
	s.send(c, f.status, x.answer.name, body)
}

// mostText bounds what an answer repeats of a request, in bytes: a value that is not allowed may be megabytes.
const mostText = 1 << 10

func shortened(text string) string {
	if len(text) <= mostText {
		return text
	}
	cut := mostText
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// unread says that a large body was left where it is: the client must be able to read the answer while it still sends.
func (x *exchange) unread(c *fiber.Ctx) bool {
	n := c.Request().Header.ContentLength()
	return (n > 64<<10 || n == -1) && !x.bodyRead
}

// closeAfterwards ends the connection behind this answer, gently: see clientConn.Close.
func (s *Server) closeAfterwards(c *fiber.Ctx) {
	c.Context().SetConnectionClose()
	if conn, ok := c.Context().Conn().(*clientConn); ok {
		conn.linger.Store(true)
	}
}

// send is every answer with a body. API answers are not for caches, and what a browser makes of them is not for it to
// guess.
func (s *Server) send(c *fiber.Ctx, status int, contentType string, body []byte) {
	sendHead(c, status, contentType)
	c.Response().SetBodyRaw(body)
}

// sendCopy is send for a body whose memory the caller uses again.
func (s *Server) sendCopy(c *fiber.Ctx, status int, contentType string, body []byte) {
	sendHead(c, status, contentType)
	c.Response().SetBody(body)
}

func sendHead(c *fiber.Ctx, status int, contentType string) {
	c.Status(status)
	h := &c.Response().Header
	h.SetContentType(contentType)
	h.Set(fiber.HeaderXContentTypeOptions, "nosniff")
	h.Set(fiber.HeaderCacheControl, "no-store")
}

// setRetryAfter rounds up to whole seconds.
func setRetryAfter(c *fiber.Ctx, d time.Duration) {
	c.Set(fiber.HeaderRetryAfter, strconv.Itoa(int((d+time.Second-1)/time.Second)))
}

// sendJSON encodes v in the negotiated media type.
func (s *Server) sendJSON(c *fiber.Ctx, status int, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	s.send(c, status, of(c).answer.name, body)
	return nil
}

// encode writes compact JSON without HTML escaping and without encoding/json's final line feed.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// gzipFrom is the size from which compressing is worth it (rest-api.md 1.2).
const gzipFrom = 1 << 10

var gzips = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	return w
}}

// compress gzips a finished answer where the client allows it. Streams are left alone.
func (s *Server) compress(c *fiber.Ctx) {
	r := c.Response()
	if !s.cfg.Gzip || r.IsBodyStream() || len(r.Body()) < gzipFrom || r.StatusCode() == fiber.StatusNoContent || len(r.Header.Peek(fiber.HeaderContentEncoding)) > 0 {
		return
	}
	r.Header.Add(fiber.HeaderVary, fiber.HeaderAcceptEncoding)
	if !acceptsGzip(c.Get(fiber.HeaderAcceptEncoding)) {
		return
	}
	body := r.Body()
	out := bytes.NewBuffer(make([]byte, 0, len(body)/2))
	w := gzips.Get().(*gzip.Writer)
	defer gzips.Put(w)
	w.Reset(out)
	if _, err := w.Write(body); err != nil || w.Close() != nil { // a bytes.Buffer does not fail
		return
	}
	r.Header.Set(fiber.HeaderContentEncoding, "gzip")
	r.SetBodyRaw(out.Bytes())
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3). None at all means plain: old clients cannot inflate.
func acceptsGzip(header string) bool {
	ok := false
	for element := range strings.SplitSeq(header, ",") {
		name, param, _ := strings.Cut(element, ";")
		weight := 1000
		if q, has := strings.CutPrefix(strings.ToLower(strings.TrimSpace(param)), "q="); has {
			var valid bool
			if weight, valid = parseQ(strings.TrimSpace(q)); !valid {
				continue
			}
		}
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"):
			return weight > 0
		case name == "*":
			ok = weight > 0
		}
	}
	return ok
}
