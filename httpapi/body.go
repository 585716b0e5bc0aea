package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"
)

// payload is a request's body in memory of its own: handlers decode it in place. It is given back with release, when
// nobody looks at any part of it any more, or with forget, when somebody still might.
type payload struct {
	bytes []byte
	lease lease
	limit int // of len(bytes)
}

const (
	pooledBytes = 1 << 20 // larger buffers go back to the garbage collector
	firstBytes  = 16 << 10
)

var payloads = sync.Pool{New: func() any { return new(payload) }}

func (p *payload) release() {
	p.lease.release()
	if cap(p.bytes) <= pooledBytes {
		*p = payload{bytes: p.bytes[:0]}
		payloads.Put(p)
	}
}

func (p *payload) forget() {
	p.bytes = nil
	p.lease.release()
}

// body reads the whole body: never with c.Body(), which inflates without a limit. What is too large is refused from
// Content-Length before a byte is read; memory is reserved before it is used.
func (s *Server) body(c *fiber.Ctx) (*payload, error) { return s.bodyWithin(c, s.cfg.MaxBodyBytes) }

// bodyWithin is body with a limit of the caller's.
func (s *Server) bodyWithin(c *fiber.Ctx, limit int) (*payload, error) {
	x := of(c)
	if x.keeps && x.sent == nil {
		x.keeps = false
		if _, err := s.kept(c); err != nil {
			return nil, err
		}
	}
	p := payloads.Get().(*payload)
	p.lease, p.limit = lease{from: s.budget}, limit
	if x.sent != nil { // read before, by the guard or for another replica that did not want it
		if err := p.lease.grow(int64(len(x.sent))); err != nil {
			p.release()
			return nil, err
		}
		p.bytes = append(p.bytes[:0], x.sent...)
		return p, nil
	}
	length := int64(c.Request().Header.ContentLength())
	stream := c.Context().RequestBodyStream()
	if length == 0 || length == -2 || stream == nil { // -2: no framing, so no body
		x.bodyRead = true
		return p, nil
	}
	var err error
	switch encoding := strings.ToLower(strings.TrimSpace(c.Get(fiber.HeaderContentEncoding))); {
	case length > int64(limit):
		err = tooLarge(limit)
	case encoding == "" || encoding == "identity":
		err = p.fill(stream, length)
	case encoding == "gzip" || encoding == "x-gzip":
		err = p.inflate(stream)
	default:
		err = errUnsupportedMedia
	}
	if err != nil {
		p.release()
		return nil, err
	}
	x.bodyRead = true
	return p, nil
}

func tooLarge(limit int) error {
	return errTooLarge.saying("The request body is larger than the limit of %d bytes.", limit)
}

// fill reads r to its end. size is what to expect, or -1.
func (p *payload) fill(r io.Reader, size int64) error {
	if size < 0 {
		size = firstBytes
	}
	if err := p.lease.grow(size); err != nil {
		return err
	}
	if int64(cap(p.bytes)) <= size { // one to spare, so that the end shows without growing
		p.bytes = make([]byte, 0, size+1)
	}
	var ended bool
	var err error
	p.bytes, ended, err = readInto(p.bytes, r)
	switch {
	case len(p.bytes) > p.limit:
		return tooLarge(p.limit)
	case ended || err != nil:
		return err
	}
	return p.gather(r)
}

// readInto fills room and says whether r ended in it.
func readInto(room []byte, r io.Reader) (_ []byte, ended bool, err error) {
	for len(room) < cap(room) {
		n, err := r.Read(room[len(room):cap(room)])
		room = room[:len(room)+n]
		if err == io.EOF {
			return room, true, nil
		}
		if err != nil {
			return room, false, readFailure(err)
		}
	}
	return room, false, nil
}

// A body of unknown length is gathered in pieces that are used again: what is refused in the end, a bomb above all,
// leaves no garbage. Buffers that double would leave three times the limit for each.
const pieceBytes = 256 << 10

type gathered [pieceBytes]byte

var gatherings = sync.Pool{New: func() any { return new(gathered) }}

// gather reads on where fill has no more room.
func (p *payload) gather(r io.Reader) error {
	var rooms []*gathered
	defer func() {
		for _, room := range rooms {
			gatherings.Put(room)
		}
	}()
	for begun := int64(cap(p.bytes)); ; {
		if err := p.lease.grow(begun + int64(len(rooms)+1)*pieceBytes); err != nil {
			return err
		}
		room := gatherings.Get().(*gathered)
		rooms = append(rooms, room)
		got, ended, err := readInto(room[:0], r)
		size := len(p.bytes) + (len(rooms)-1)*pieceBytes + len(got)
		switch {
		case size > p.limit:
			return tooLarge(p.limit)
		case err != nil:
			return err
		case ended:
			return p.join(rooms, size)
		}
	}
}

// join makes one of what was gathered. For a moment it is there twice.
func (p *payload) join(rooms []*gathered, size int) error {
	if err := p.lease.grow(p.lease.held + int64(size)); err != nil {
		return err
	}
	whole := append(make([]byte, 0, size), p.bytes...)
	for _, room := range rooms {
		whole = append(whole, room[:min(pieceBytes, size-len(whole))]...)
	}
	p.bytes = whole
	p.lease.shrink(int64(size))
	return nil
}

// inflate reads a gzip body of any number of members. The limit counts what comes in and what comes out: members may be
// empty.
func (p *payload) inflate(r io.Reader) error {
	in := &counter{r: r, limit: p.limit}
	z, err := gzip.NewReader(in)
	if err != nil {
		return gzipFailure(in, err)
	}
	return p.fill(&inflater{z: z, in: in}, -1)
}

type inflater struct {
	z  *gzip.Reader
	in *counter
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.z.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, gzipFailure(i.in, err)
	}
	return n, err
}

// counter counts and limits what it reads, and keeps the error of the connection apart from those of gzip.
type counter struct {
	r     io.Reader
	n     int64
	limit int
	err   error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if c.n > int64(c.limit) {
		c.err = tooLarge(c.limit)
		return n, c.err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

func gzipFailure(in *counter, err error) error {
	if in.err != nil {
		return readFailure(in.err)
	}
	f := errBadRequest.saying("The body is not valid gzip.")
	f.closing = true
	_ = err // its text says nothing that the caller could use
	return f
}

// readFailure tells a client that was too slow from one that broke the framing or left. The rest of the body cannot be
// found any more, so the connection ends.
func readFailure(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	netErr, isNet := errors.AsType[net.Error](err)
	if errors.Is(err, os.ErrDeadlineExceeded) || (isNet && netErr.Timeout()) {
		return errRequestTimeout
	}
	return errFraming
}

// empty says that a body holds nothing but white space.
func (p *payload) empty() bool { return len(bytes.TrimSpace(p.bytes)) == 0 }
