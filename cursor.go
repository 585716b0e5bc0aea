package sluice

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"time"
)

// Cursor is a reader's position in one or more topics: the next offset of every partition it follows. Clients of a
// stream hold it as text, opaque and unsigned, since it only names positions in topics they may read anyway.
//
// The text is base64url without padding over
//
//	byte      high nibble version 1; low nibble flags: 1 bounded, 2 limited, 4 timed, 8 ended
//	[2] uvarint  matching records still to send
//	[4] uvarint  unix seconds
//	uvarint   topics; then per topic, ascending by name tag:
//	  4 bytes   name tag
//	  4 bytes   log tag
//	  uvarint   partitions the topic had
//	  uvarint   partitions listed; then, ascending, each:
//	    uvarint   partition - previous partition - 1 (the one before the first is -1)
//	    uvarint   next offset
//	    [1] uvarint  end offset - next offset
//	2 bytes   CRC-32C of all before, its low 16 bits, big-endian
//
// The first nibble and the checksum stay what they are in every later version, so that a release tells a newer cursor
// from garbage.
type Cursor struct {
	Bounded bool // each partition has an End
	Limited bool // Left counts
	Ended   bool // of a finished read: nothing is left to resume
	Left    uint64
	Time    time.Time // in whole seconds; zero: the cursor is not timed
	Topics  []TopicCursor

	raw []byte // room for the next encoding
}

// TopicCursor is the part of a Cursor that concerns one topic.
type TopicCursor struct {
	Name       NameTag
	Log        LogTag
	Count      int32 // the partitions the topic had: one that is not listed was not followed if it lies below, else is new
	Partitions []PartitionCursor
}

// PartitionCursor is the next offset of one partition. End counts in a Bounded cursor, and is not below Next.
type PartitionCursor struct {
	Number    int32
	Next, End int64
}

// NameTag stands for a topic's name in a cursor.
type NameTag [4]byte

// LogTag stands for one life of a topic: one that was created again, or has the same name on another cluster, has
// another.
type LogTag [4]byte

// NameTagOf is the first 4 bytes of SHA-256(topic).
func NameTagOf(topic string) (t NameTag) {
	sum := sha256.Sum256([]byte(topic))
	copy(t[:], sum[:])
	return t
}

// LogTagOf is the first 4 bytes of SHA-256(cluster id, 00, topic id), the topic id left out where the broker has none.
func LogTagOf(clusterID string, id TopicID) (t LogTag) {
	b := append([]byte(clusterID), 0)
	if id != (TopicID{}) {
		b = append(b, id[:]...)
	}
	sum := sha256.Sum256(b)
	copy(t[:], sum[:])
	return t
}

// What ParseCursor answers besides a cursor.
var (
	ErrMalformedCursor = errors.New("malformed cursor")
	ErrNewerCursor     = errors.New("cursor of a newer release")
)

const (
	cursorVersion = 1

	flagBounded = 1
	flagLimited = 2
	flagTimed   = 4
	flagEnded   = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sort brings topics and partitions into the order that the text needs.
func (c *Cursor) Sort() {
	slices.SortFunc(c.Topics, func(a, b TopicCursor) int { return bytes.Compare(a.Name[:], b.Name[:]) })
	for _, t := range c.Topics {
		slices.SortFunc(t.Partitions, func(a, b PartitionCursor) int { return cmp.Compare(a.Number, b.Number) })
	}
}

// AppendText appends the cursor's text to dst. The topics and partitions must be sorted. Only one goroutine may encode
// a cursor at a time: the cursor keeps the buffer.
func (c *Cursor) AppendText(dst []byte) ([]byte, error) {
	head := byte(cursorVersion << 4)
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{c.Bounded, flagBounded}, {c.Limited, flagLimited}, {!c.Time.IsZero(), flagTimed}, {c.Ended, flagEnded}} {
		if f.set {
			head |= f.bit
		}
	}
	b := c.raw[:0]
	b = append(b, head)
	if c.Limited {
		b = binary.AppendUvarint(b, c.Left)
	}
	if !c.Time.IsZero() {
		b = binary.AppendUvarint(b, uint64(c.Time.Unix()))
	}
	b = binary.AppendUvarint(b, uint64(len(c.Topics)))
	for i := range c.Topics {
		t := &c.Topics[i]
		b = append(b, t.Name[:]...)
		b = append(b, t.Log[:]...)
		b = binary.AppendUvarint(b, uint64(t.Count))
		b = binary.AppendUvarint(b, uint64(len(t.Partitions)))
		before := int32(-1)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			b = binary.AppendUvarint(b, uint64(p.Number-before-1))
			b = binary.AppendUvarint(b, uint64(p.Next))
			if c.Bounded {
				b = binary.AppendUvarint(b, uint64(p.End-p.Next))
			}
			before = p.Number
		}
	}
	b = binary.BigEndian.AppendUint16(b, uint16(crc32.Checksum(b, castagnoli)))
	c.raw = b
	return base64.RawURLEncoding.AppendEncode(dst, b), nil
}

// String is the cursor's text.
func (c *Cursor) String() string {
	b, _ := c.AppendText(nil) // it has no way to fail
	return string(b)
}

// ParseCursor reads a cursor's text. It is strict: the same position has one text only, and anything else is
// ErrMalformedCursor. A version that this release does not know is ErrNewerCursor: another replica may know it.
func ParseCursor(text string) (Cursor, error) {
	if strings.ContainsAny(text, "\r\n") { // the decoder would skip them
		return Cursor{}, ErrMalformedCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 4 {
		return Cursor{}, ErrMalformedCursor
	}
	b, sum := b[:len(b)-2], binary.BigEndian.Uint16(b[len(b)-2:])
	if uint16(crc32.Checksum(b, castagnoli)) != sum {
		return Cursor{}, ErrMalformedCursor
	}
	if b[0]>>4 > cursorVersion {
		return Cursor{}, ErrNewerCursor
	}
	r := cursorReader{b: b[1:]}
	c := r.cursor(b[0] & 0x0f)
	if b[0]>>4 != cursorVersion || r.bad || len(r.b) > 0 {
		return Cursor{}, ErrMalformedCursor
	}
	return c, nil
}

// cursorReader takes a cursor apart; bad is set by whatever breaks a rule, and stays.
type cursorReader struct {
	b   []byte
	bad bool
}

func (r *cursorReader) cursor(flags byte) (c Cursor) {
	c.Bounded, c.Limited, c.Ended = flags&flagBounded != 0, flags&flagLimited != 0, flags&flagEnded != 0
	if c.Limited {
		c.Left = r.uvarint(math.MaxUint64)
	}
	if flags&flagTimed != 0 {
		c.Time = time.Unix(int64(r.uvarint(1<<40)), 0)
	}
	topics := r.uvarint(uint64(len(r.b) / 10)) // a topic takes 10 bytes or more: no count makes us reserve memory
	for i := uint64(0); i < topics && !r.bad; i++ {
		t := r.topic(c.Bounded)
		if i > 0 && bytes.Compare(c.Topics[i-1].Name[:], t.Name[:]) >= 0 {
			r.bad = true
		}
		c.Topics = append(c.Topics, t)
	}
	return c
}

func (r *cursorReader) topic(bounded bool) (t TopicCursor) {
	r.bytes(t.Name[:])
	r.bytes(t.Log[:])
	t.Count = int32(r.uvarint(math.MaxInt32))
	listed := r.uvarint(uint64(len(r.b) / 2))
	if !r.bad {
		t.Partitions = make([]PartitionCursor, 0, listed)
	}
	before := int64(-1)
	for ; listed > 0 && !r.bad; listed-- {
		number := before + 1 + int64(r.uvarint(math.MaxInt32))
		p := PartitionCursor{Number: int32(number), Next: int64(r.uvarint(math.MaxInt64))}
		if bounded {
			p.End = p.Next + int64(r.uvarint(uint64(math.MaxInt64-p.Next)))
		}
		r.bad = r.bad || number > math.MaxInt32
		t.Partitions = append(t.Partitions, p)
		before = number
	}
	return t
}

func (r *cursorReader) bytes(into []byte) {
	if len(r.b) < len(into) {
		r.bad = true
		return
	}
	r.b = r.b[copy(into, r.b):]
}

// uvarint reads a number of at most limit, in its shortest form.
func (r *cursorReader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}
