package stream

import (
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/sluicegate/sluice"
)

// output writes to the connection: whole frames, each write one chunk of the HTTP response (RFC 9112, 7.1) unless the
// client speaks HTTP/1.0. Shared bytes go out as they are, in one writev.
type output struct {
	conn     net.Conn
	chunked  bool
	deadline time.Duration
	metrics  *metrics

	parts  [][]byte // room for the chunk head, frames, room for id and chunk end
	iov    net.Buffers
	size   int   // of the frames
	since  int64 // unix ns: when the newest frame was published; 0: history
	own    []byte
	text   []byte
	bytes  int64
	broken bool // a write failed, so the client may have half a frame
}

// onePiece is the most that is handed to the socket under one deadline: a record of megabytes may take its time as
// long as it moves.
const onePiece = 128 << 10

// scratch is an empty buffer for frames of this stream, until the next write.
func (o *output) scratch() []byte { return o.text[:0] }

// begin starts to gather a write.
func (o *output) begin() {
	o.parts, o.size, o.since = append(o.parts[:0], nil), 0, 0
}

func (o *output) add(frames []byte) {
	o.parts = append(o.parts, frames)
	o.size += len(frames)
}

// flush writes what was gathered. If ids do not stand in the frames, the final line end of the last one is left out and
// the id follows: the shared bytes stay untouched.
func (o *output) flush(c *sluice.Cursor, idsInFrames bool) error {
	b := o.own[:0]
	if !idsInFrames {
		last := &o.parts[len(o.parts)-1]
		*last = (*last)[:len(*last)-1]
		o.size--
		b = append(appendID(b, c), '\n')
	}
	id := len(b)
	err := o.chunk(b, id)
	if err == nil && o.since > 0 {
		o.metrics.delivery.Observe(time.Duration(time.Now().UnixNano() - o.since).Seconds())
	}
	return err
}

// write writes frames of this stream.
func (o *output) write(frames []byte) error {
	o.begin()
	o.keep(frames)
	o.add(frames)
	return o.chunk(o.own[:0], 0)
}

// first writes the head of the response and the first frames together. The buffers for it are the largest that an idle
// stream ever needs, so it keeps none of them.
func (o *output) first(head, frames []byte) error {
	o.begin()
	o.add(frames)
	err := o.chunkAfter(head, nil, 0)
	o.own, o.text, o.parts = nil, nil, nil
	return err
}

// last writes the last frames, which may be none, and ends the response in order.
func (o *output) last(frames []byte) error {
	var err error
	if len(frames) > 0 {
		err = o.write(frames)
	}
	if err == nil && o.chunked {
		err = o.send([][]byte{[]byte("0\r\n\r\n")}, 5)
	}
	return err
}

// keep keeps the grown scratch buffer, but not a giant.
func (o *output) keep(b []byte) {
	if cap(b) <= 4<<10 {
		o.text = b
	}
}

func (o *output) chunk(b []byte, id int) error { return o.chunkAfter(nil, b, id) }

// chunkAfter puts the chunk's head before the gathered parts and the id, which b holds up to id, and the chunk's end
// after them, and writes all of it after head.
func (o *output) chunkAfter(head, b []byte, id int) error {
	total := o.size + id
	if o.chunked {
		b = append(b, '\r', '\n')
	}
	tail := len(b)
	b = append(b, head...)
	if o.chunked {
		b = append(strconv.AppendInt(b, int64(total), 16), '\r', '\n')
	}
	o.own = b
	o.parts[0] = b[tail:]
	if tail > 0 {
		o.parts = append(o.parts, b[:tail])
	}
	return o.send(o.parts, total+len(b)-id)
}

var joined = sync.Pool{New: func() any { b := make([]byte, 0, writeBytes+1<<10); return &b }}

// send hands the parts to the socket. A *net.TCPConn takes them in one system call; for anything else, TLS for one,
// they are joined, or each would be a record of its own.
func (o *output) send(parts [][]byte, size int) error {
	o.bytes += int64(size)
	o.metrics.bytes.Add(float64(size))
	o.metrics.writes.Inc()
	if size > onePiece {
		return o.sendPieces(parts)
	}
	if err := o.conn.SetWriteDeadline(time.Now().Add(o.deadline)); err != nil {
		o.broken = true
		return err
	}
	var err error
	if _, tcp := o.conn.(*net.TCPConn); tcp && len(parts) > 1 {
		o.iov = parts
		_, err = o.iov.WriteTo(o.conn)
		clear(parts) // keep no segment alive
	} else {
		b := joined.Get().(*[]byte)
		*b = (*b)[:0]
		for _, p := range parts {
			*b = append(*b, p...)
		}
		_, err = o.conn.Write(*b)
		joined.Put(b)
		clear(parts)
	}
	o.broken = o.broken || err != nil
	return err
}

func (o *output) sendPieces(parts [][]byte) error {
	for _, p := range parts {
		for len(p) > 0 {
			piece := p[:min(len(p), onePiece)]
			p = p[len(piece):]
			err := o.conn.SetWriteDeadline(time.Now().Add(o.deadline))
			if err == nil {
				_, err = o.conn.Write(piece)
			}
			if err != nil {
				o.broken = true
				return err
			}
		}
	}
	clear(parts)
	return nil
}
