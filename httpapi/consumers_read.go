package httpapi

import (
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/klauspost/compress/gzip"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/formats"
)

const (
	goneEvery   = 250 * time.Millisecond // how often a held read looks whether its client is still there
	streamAbove = 1 << 20                // answers with more bytes of keys and values are never whole in memory
)

// errGone is for the log and the metrics alone: nobody is there to read it. 499 is nginx's number for it.
var errGone = &failure{status: 499, code: 499, message: "The client has left.", closing: true}

// readRecords holds the request until there are records (rest-api.md 5.7, 7.3). They count as delivered when the whole
// answer was written to the connection.
func (s *Server) readRecords(c *fiber.Ctx) error {
	i, known, err := s.instance(c, makesV2)
	if err != nil {
		of(c).negotiation, _ = negotiate(c, known) // the missing instance comes first
		return err
	}
	return s.read(c, i, known, i.Read)
}

// readTopic is the read of v1: the first one subscribes to the topic (rest-api.md 6.1). What is wrong is told in this
// order: instance, format, topic, subscription.
func (s *Server) readTopic(c *fiber.Ctx) error {
	i, known, err := s.instance(c, anyVersion)
	if err != nil {
		of(c).negotiation, _ = negotiate(c, known)
		return err
	}
	i.SpeakV1()
	return s.read(c, i, known, func(ctx context.Context, w consumers.Want) (*consumers.Answer, error) {
		topic, err := topicName(c)
		if err != nil {
			return nil, err
		}
		look, cancel := context.WithTimeout(ctx, lookupPatience)
		defer cancel()
		if _, err := s.needs.Topics.Topic(look, topic); err != nil {
			return nil, err
		}
		a, err := i.ReadTopic(ctx, topic, w)
		if errors.Is(err, consumers.ErrOtherTopics) {
			err = errOtherTopics
		}
		return a, err
	})
}

func (s *Server) read(c *fiber.Ctx, i *consumers.Instance, known version, read func(context.Context, consumers.Want) (*consumers.Answer, error)) error {
	n, err := negotiateRead(c, i.Format(), known)
	of(c).negotiation = n
	if err != nil {
		return err
	}
	if err := s.cfg.API.servesFormat(fiber.MethodGet, of(c).route, i.Format()); err != nil {
		return err
	}
	timeout, maxBytes, err := readLimits(c)
	if err != nil {
		return err
	}
	format, _ := s.format(i.Format()) // it was checked at the creation
	ctx, stop := s.whileThere(c)
	a, err := read(ctx, consumers.Want{Timeout: timeout, MaxBytes: maxBytes, Decodes: s.decodable(ctx, format)})
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		return &sluice.Error{Kind: sluice.Overloaded, Msg: "This replica is stopping."}
	case err != nil:
		return err
	}
	settle := func(ok bool) {
		if ok {
			a.Settled()
		} else {
			a.Lost()
		}
	}
	if at, _ := c.Locals(seatingKey{}).(seating); at.forwarded {
		settle = s.receiptWanted(c, a)
	}
	return s.deliver(c, a.Records, a.Err, format, settle)
}

// readLimits are the parameters that every read has.
func readLimits(c *fiber.Ctx) (timeout time.Duration, maxBytes int, err error) {
	ms, err := number(c, "timeout")
	if err != nil {
		return 0, 0, err
	}
	most, err := number(c, "max_bytes")
	return time.Duration(min(max(ms, 0), 1<<31)) * time.Millisecond, int(min(max(most, 0), 1<<31-1)), err
}

// whileThere is a context that ends when the client leaves, with the function that ends the watch. fasthttp does not tell.
func (s *Server) whileThere(c *fiber.Ctx) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(s.requests)
	conn, ok := c.Context().Conn().(*clientConn)
	if !ok {
		return ctx, func() { cancel(nil) }
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		look := time.NewTicker(goneEvery)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				if conn.Gone() {
					cancel(errGone)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-watched }
}

// decodable tells whether a record can be shown in a format; nil says that all can.
func (s *Server) decodable(ctx context.Context, format formats.Format) func(*sluice.Record) error {
	if format == formats.Binary {
		return nil
	}
	f := s.shower(ctx, format)
	var room []byte
	return func(r *sluice.Record) error {
		for _, b := range [][]byte{r.Key, r.Value} {
			out, err := f.Append(room[:0], b)
			if err != nil {
				return err
			}
			room = out[:0]
		}
		return nil
	}
}

// deliver writes records, or the error that stands for them, and calls settle once with whether the last byte reached
// the client's connection.
func (s *Server) deliver(c *fiber.Ctx, records []*sluice.Record, failed error, format formats.Format, settle func(ok bool)) error {
	body := &recordsBody{records: records, format: s.shower(s.requests, format), version: of(c).version, extras: s.cfg.Pull.RecordExtras}
	size := 0
	for _, r := range records {
		size += r.Size()
	}
	l := &lease{from: s.budget} // records of an answer live until the client has them, whatever the log forgets
	if err := l.grow(int64(size)); err != nil {
		settle(false)
		return &sluice.Error{Kind: sluice.Overloaded, Msg: "The memory budget is used up."}
	}
	settled := func(ok bool) {
		l.release()
		settle(ok && (body.ended || failed != nil)) // a stream that broke off was written without an error as well
	}
	conn, ok := c.Context().Conn().(*clientConn)
	if !ok || c.Method() == fiber.MethodHead { // an answer without a body delivers nothing
		settled(false)
	} else if conn.Gone() { // since the last look at it: the socket would take the answer, and nobody have it
		settled(false)
		return errGone
	} else {
		// A write deadline of the handler's makes fasthttp flush at once; clientConn has finer ones of its own.
		if err := c.Context().SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
			settled(false)
			return err
		}
		conn.whenSettled(settled)
	}
	if failed != nil {
		return failed
	}
	if size <= streamAbove {
		whole, err := body.whole(size)
		if err != nil {
			return err
		}
		s.send(c, fiber.StatusOK, of(c).answer.name, whole)
		return nil
	}
	sendHead(c, fiber.StatusOK, of(c).answer.name)
	var stream io.Reader = body
	if s.cfg.Gzip {
		c.Response().Header.Add(fiber.HeaderVary, fiber.HeaderAcceptEncoding)
		if acceptsGzip(c.Get(fiber.HeaderAcceptEncoding)) {
			c.Response().Header.Set(fiber.HeaderContentEncoding, "gzip")
			stream = newDeflated(body)
		}
	}
	c.Context().SetBodyStream(stream, -1)
	return nil
}

// recordsBody is the JSON array of an answer, encoded as it is read: one record at a time.
type recordsBody struct {
	records []*sluice.Record
	format  shower
	version version
	extras  bool

	begun bool
	ended bool
	room  *[]byte // borrowed; nil before the first piece
	rest  []byte  // of room, not read yet
}

// bodyPiece is what is written at once, in bytes: each costs two system calls.
const bodyPiece = 128 << 10

var bodyRooms = sync.Pool{New: func() any {
	room := make([]byte, 0, bodyPiece+16<<10)
	return &room
}}

func (b *recordsBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.ended {
			return 0, io.EOF
		}
		if err := b.more(bodyPiece); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// WriteTo writes the pieces as they are made. Of what it reads, fasthttp would make an HTTP chunk and a system call for
// each 4 KiB.
func (b *recordsBody) WriteTo(w io.Writer) (written int64, err error) {
	for len(b.rest) > 0 || !b.ended {
		if len(b.rest) == 0 {
			if err := b.more(bodyPiece); err != nil {
				return written, err
			}
		}
		n, err := w.Write(b.rest)
		b.rest = b.rest[n:]
		if written += int64(n); err != nil {
			return written, err
		}
	}
	return written, nil
}

// SupportsBodyWriteTo tells fasthttp to use WriteTo (fasthttp.BodyWriterTo).
func (*recordsBody) SupportsBodyWriteTo() bool { return true }

// Close gives the room back; fasthttp calls it when the answer was written or could not be.
func (b *recordsBody) Close() error {
	if b.room != nil && cap(*b.room) <= pooledBytes {
		bodyRooms.Put(b.room)
	}
	b.room, b.rest = nil, nil
	return nil
}

// whole is the array at once, of records of size bytes.
func (b *recordsBody) whole(size int) ([]byte, error) {
	const around = 128 // bytes of a record's JSON beside its key and value, mostly
	room := make([]byte, 0, size/3*4+around*(len(b.records)+1))
	b.room = &room
	err := b.more(math.MaxInt)
	return b.rest, err
}

// more makes the next piece, of so many bytes and the rest of a record.
func (b *recordsBody) more(piece int) (err error) {
	if b.room == nil {
		b.room = bodyRooms.Get().(*[]byte)
	}
	out := (*b.room)[:0]
	if !b.begun {
		out = append(out, '[')
	}
	for len(out) < piece && len(b.records) > 0 {
		if b.begun {
			out = append(out, ',')
		}
		b.begun = true
		if out, err = b.record(out, b.records[0]); err != nil {
			return err
		}
		b.records = b.records[1:]
	}
	b.begun = true
	if len(b.records) == 0 {
		out = append(out, ']')
		b.ended = true
	}
	*b.room, b.rest = out, out
	return nil
}

// record writes the shape of rest-api.md 7.3, in v1 that of 6.1.
func (b *recordsBody) record(out []byte, r *sluice.Record) (_ []byte, err error) {
	out = append(out, `{"topic":`...)
	out = appendString(out, r.Topic)
	out = append(out, `,"key":`...)
	if out, err = b.format.Append(out, r.Key); err != nil {
		return nil, err
	}
	out = append(out, `,"value":`...)
	if out, err = b.format.Append(out, r.Value); err != nil {
		return nil, err
	}
	out = append(out, `,"partition":`...)
	out = strconv.AppendInt(out, int64(r.Partition), 10)
	out = append(out, `,"offset":`...)
	out = strconv.AppendInt(out, r.Offset, 10)
	if b.version == v2 && b.extras {
		if out, err = appendExtras(out, r); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

func appendExtras(out []byte, r *sluice.Record) (_ []byte, err error) {
	if !r.Timestamp.IsZero() {
		out = append(out, `,"timestamp":`...)
		out = strconv.AppendInt(out, r.Timestamp.UnixMilli(), 10)
	}
	for n, h := range r.Headers {
		if n == 0 {
			out = append(out, `,"headers":[`...)
		} else {
			out = append(out, ',')
		}
		out = append(out, `{"key":`...)
		out = appendString(out, h.Name)
		out = append(out, `,"value":`...)
		if out, err = formats.Binary.Append(out, h.Value); err != nil {
			return nil, err
		}
		out = append(out, '}')
	}
	if len(r.Headers) > 0 {
		out = append(out, ']')
	}
	return out, nil
}

// deflated compresses a reader while it is read.
type deflated struct {
	from  *recordsBody
	z     *gzip.Writer
	out   pieces
	piece []byte
	done  bool
}

// pieces collects what the compressor writes.
type pieces struct{ b []byte }

func (p *pieces) Write(b []byte) (int, error) {
	p.b = append(p.b, b...)
	return len(b), nil
}

func newDeflated(from *recordsBody) *deflated {
	d := &deflated{from: from, piece: make([]byte, bodyPiece)}
	d.z = gzips.Get().(*gzip.Writer)
	d.z.Reset(&d.out)
	return d
}

func (d *deflated) Read(p []byte) (int, error) {
	for len(d.out.b) == 0 {
		if d.done {
			return 0, io.EOF
		}
		n, err := d.from.Read(d.piece)
		if n > 0 {
			if _, err := d.z.Write(d.piece[:n]); err != nil {
				return 0, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			d.done = true
			if err := d.z.Close(); err != nil {
				return 0, err
			}
		case err != nil:
			return 0, err
		}
	}
	n := copy(p, d.out.b)
	d.out.b = d.out.b[:copy(d.out.b, d.out.b[n:])]
	return n, nil
}

// WriteTo writes full pieces, for the reason that recordsBody has.
func (d *deflated) WriteTo(w io.Writer) (written int64, err error) {
	piece := make([]byte, bodyPiece)
	for {
		n, err := io.ReadFull(d, piece)
		if n > 0 {
			m, err := w.Write(piece[:n])
			if written += int64(m); err != nil {
				return written, err
			}
		}
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return written, nil
		case err != nil:
			return written, err
		}
	}
}

// SupportsBodyWriteTo tells fasthttp to use WriteTo (fasthttp.BodyWriterTo).
func (*deflated) SupportsBodyWriteTo() bool { return true }

// Close gives the compressor back; fasthttp calls it when the answer was written or could not be.
func (d *deflated) Close() error {
	if d.z != nil {
		gzips.Put(d.z)
		d.z = nil
	}
	return d.from.Close()
}
