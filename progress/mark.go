package progress

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/sluicegate/sluice"
)

// MaxMetadata is how many characters Kafka takes with an offset by default (offset.metadata.max.bytes): 4,096 are
// accepted and 4,097 refused, on 4.1 and 2.8 alike.
const MaxMetadata = 4096

const (
	prefix     = "1:"
	version    = 1
	maxMinutes = 16_383 // two bytes as uvarint
	oneByte    = 127    // the largest uvarint of one byte

	flagClean   = 1
	flagSuspect = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Mark is what a commit says of a lane beside its ledger.
type Mark struct {
	Clean     bool   // handed over with nothing in flight; set by the last commit of a release, cleared by the next
	Tag       uint32 // of the topic's UUID, see TopicTag
	Term      uint64 // one more than the predecessor's, at every takeover
	Writer    uint32 // random per takeover
	SeekEpoch uint64 // grows with every seek
	Unclean   uint64 // takeovers without the clean flag while the low watermark stood here
	Suspect   int64  // offset of the record that may kill the process, sluice.NoOffset if none
	At        time.Time
	Pages     []Page
}

// Page names parked records that no longer fit the metadata: a record of the topic sluice.parked.
type Page struct {
	Number    uint64
	Partition int32 // of sluice.parked
	Offset    int64 // in it
	Lowest    int64 // the lowest source offset in the page, as far as it lies below the low watermark
	Earliest  time.Time
}

// TopicTag tells a topic from a later one of the same name: the CRC-32C of its UUID.
func TopicTag(id sluice.TopicID) uint32 { return crc32.Checksum(id[:], castagnoli) }

// HolesWithin is how many holes a lane may have where a broker takes fewer than MaxMetadata characters.
func HolesWithin(limit int) int { return max(1, MaxHoles*min(limit, MaxMetadata)/MaxMetadata) }

// Encode writes the metadata of a commit at l.Low(), at most limit characters: "1:" and, as base64url without padding,
//
//	u8 version = 1 · u8 flags (1 clean, 2 suspect) · 4 B topic tag · uvarint term · 4 B writer · uvarint seek epoch
//	uvarint unclean takeovers · [uvarint suspect − low] · uvarint unix minutes now
//	uvarint number of runs · lengths of hole, done, hole, … runs from low, up to the last offset done or with attempts
//	per hole: uvarint attempts · if attempts > 0: uvarint minutes since the first attempt, at most 16,383
//	uvarint number of pages · per page: uvarint number, partition, offset, low − lowest, minutes until its earliest
//	4 B CRC-32C of all before
//
// Whole numbers of four bytes are big-endian. The worst of MaxHoles holes over MaxSpan offsets with 48 pages is 3,005
// bytes, 4,009 characters. What is longer all the same (a broker with a smaller limit) is clamped, never refused:
// first the minutes, then the attempts, then the highest runs. Each of these makes a record younger or repeats a
// delivery; none loses one. Where nothing fits at all the metadata is empty.
func (m Mark) Encode(l *Ledger, limit int) string {
	runs, holes := l.runs()
	limit = min(limit, MaxMetadata)
	minutes, attempts := maxMinutes, maxMinutes
	for {
		raw := m.append(nil, l.Low(), runs, holes, minutes, attempts)
		if len(prefix)+base64.RawURLEncoding.EncodedLen(len(raw)) <= limit {
			return prefix + base64.RawURLEncoding.EncodeToString(raw)
		}
		switch {
		case minutes > oneByte:
			minutes = oneByte
		case attempts > oneByte:
			attempts = oneByte
		case len(runs) > 0:
			if len(runs)%2 == 1 { // a hole run is the last: its holes go with it
				holes = holes[:len(holes)-int(runs[len(runs)-1])]
			}
			runs = runs[:len(runs)-1]
		default:
			return ""
		}
	}
}

func (m Mark) append(b []byte, low int64, runs []uint64, holes []Hole, maxMinutes, maxAttempts int) []byte {
	flags := byte(0)
	if m.Clean {
		flags |= flagClean
	}
	if m.Suspect >= low {
		flags |= flagSuspect
	}
	b = append(b, version, flags)
	b = binary.BigEndian.AppendUint32(b, m.Tag)
	b = binary.AppendUvarint(b, m.Term)
	b = binary.BigEndian.AppendUint32(b, m.Writer)
	b = binary.AppendUvarint(b, m.SeekEpoch)
	b = binary.AppendUvarint(b, m.Unclean)
	if flags&flagSuspect != 0 {
		b = binary.AppendUvarint(b, uint64(m.Suspect-low))
	}
	now := minutesOf(m.At)
	b = binary.AppendUvarint(b, uint64(now))
	b = binary.AppendUvarint(b, uint64(len(runs)))
	for _, length := range runs {
		b = binary.AppendUvarint(b, length)
	}
	for _, h := range holes {
		b = binary.AppendUvarint(b, uint64(min(h.Attempts, maxAttempts)))
		if h.Attempts > 0 {
			b = binary.AppendUvarint(b, uint64(min(max(now-minutesOf(h.First), 0), int64(maxMinutes))))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(m.Pages)))
	for _, p := range m.Pages {
		b = binary.AppendUvarint(b, p.Number)
		b = binary.AppendUvarint(b, uint64(p.Partition))
		b = binary.AppendUvarint(b, uint64(p.Offset))
		b = binary.AppendUvarint(b, uint64(max(low-p.Lowest, 0)))
		b = binary.AppendUvarint(b, uint64(max(minutesOf(p.Earliest)-now, 0)))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func minutesOf(t time.Time) int64 { return max(t.Unix()/60, 0) }

// ErrForeign says that metadata is empty or was written by somebody else: a reset with Kafka's own tools leaves none.
var ErrForeign = errors.New("progress: metadata is not ours")

var errDamaged = errors.New("progress: metadata is damaged")

// Decode reads what Encode wrote with the offset low. With an error the ledger is the one to go on with: it begins at
// low and knows of nothing done above it. The error is ErrForeign where the metadata never was ours.
func Decode(low int64, metadata string) (Mark, *Ledger, error) {
	none := Mark{Suspect: sluice.NoOffset}
	if len(metadata) < len(prefix) || metadata[:len(prefix)] != prefix {
		return none, NewLedger(low), ErrForeign
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(metadata[len(prefix):])
	if err != nil || len(raw) < 4 {
		return none, NewLedger(low), errDamaged
	}
	body := raw[:len(raw)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(raw[len(body):]) {
		return none, NewLedger(low), errDamaged
	}
	r := reader{rest: body}
	m, l := r.mark(low)
	if r.bad || len(r.rest) > 0 {
		return none, NewLedger(low), errDamaged
	}
	return m, l, nil
}

// reader takes numbers off the front; after the first that is missing or absurd it is bad and gives zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) mark(low int64) (Mark, *Ledger) {
	m := Mark{Suspect: sluice.NoOffset}
	if r.byte() != version || low < 0 || low > 1<<61 {
		r.bad = true
	}
	flags := r.byte()
	m.Clean = flags&flagClean != 0
	m.Tag = r.uint32()
	m.Term = r.uvarint(1 << 62)
	m.Writer = r.uint32()
	m.SeekEpoch = r.uvarint(1 << 62)
	m.Unclean = r.uvarint(1 << 62)
	if flags&flagSuspect != 0 {
		m.Suspect = low + int64(r.uvarint(1<<48))
	}
	now := int64(r.uvarint(1 << 40))
	m.At = time.Unix(now*60, 0).UTC()

	runs := make([]uint64, r.uvarint(2*MaxMetadata))
	holes, span := 0, uint64(0)
	for i := range runs {
		runs[i] = r.uvarint(1 << 48)
		if span += runs[i]; runs[i] == 0 || span > 1<<60 {
			r.bad = true
		}
		if i%2 == 0 {
			if holes += int(min(runs[i], MaxMetadata+1)); holes > MaxMetadata {
				r.bad = true
			}
		}
		if r.bad {
			return m, nil
		}
	}
	attempts, first := make([]int, holes), make([]time.Time, holes)
	for i := range attempts {
		if attempts[i] = int(r.uvarint(maxMinutes)); attempts[i] > 0 {
			first[i] = time.Unix((now-int64(r.uvarint(maxMinutes)))*60, 0).UTC()
		}
	}
	m.Pages = make([]Page, r.uvarint(MaxMetadata))
	for i := range m.Pages {
		m.Pages[i] = Page{
			Number:    r.uvarint(1 << 62),
			Partition: int32(r.uvarint(1 << 30)),
			Offset:    int64(r.uvarint(1 << 62)),
			Lowest:    low - int64(r.uvarint(1<<62)),
			Earliest:  time.Unix((now+int64(r.uvarint(1<<40)))*60, 0).UTC(),
		}
		if r.bad {
			return m, nil
		}
	}
	if len(m.Pages) == 0 {
		m.Pages = nil
	}
	if r.bad {
		return m, nil
	}
	return m, restore(low, runs, attempts, first)
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) uint32() uint32 {
	if len(r.rest) < 4 {
		r.bad, r.rest = true, nil
		return 0
	}
	v := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return v
}

// uvarint is the next number, which is damage when it is above most.
func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > most {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
