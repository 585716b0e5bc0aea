package stream

import (
	"strconv"
	"time"

	"github.com/sluicegate/sluice"
)

// The frames below belong to one stream, or to none; those of records are in envelope.go. A comment line never has a
// blank line after it, and retry stands only in frames with data: a blank line without data makes readers report an
// empty event.

var heartbeat = []byte(":\n")

// reason says why a gap is there, or why a stream ends: closed sets, also used as labels.
type reason string

const (
	retention reason = "retention" // the log starts above
	truncated reason = "truncated" // the log ends below: an unclean election
	otherLog  reason = "other-log" // the topic was created again, or it is another cluster
	tooLarge  reason = "too-large" // one record above the limit
	deleted   reason = "deleted"   // the topic is gone
)

// unknown is the loss of a gap that cannot be counted.
const unknown int64 = -1

// gap announces that [from, to) of a partition is not in the stream. lost is an upper bound of the records.
type gap struct {
	p              sluice.Partition
	from, to, lost int64
	reason         reason
}

// append appends the event without id and blank line.
func (g gap) append(dst []byte) []byte {
	dst = append(dst, "event: gap\ndata: {\"topic\":"...)
	dst = appendString(dst, g.p.Topic)
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(g.p.Number), 10)
	dst = append(dst, `,"from":`...)
	dst = strconv.AppendInt(dst, g.from, 10)
	dst = append(dst, `,"to":`...)
	dst = strconv.AppendInt(dst, g.to, 10)
	dst = append(dst, `,"lost":`...)
	if g.lost == unknown {
		dst = append(dst, "null"...)
	} else {
		dst = strconv.AppendInt(dst, g.lost, 10)
	}
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, g.reason...)
	return append(dst, "\"}\n"...)
}

// progress is where a stream stands.
type progress struct {
	live    bool
	resumed bool
	behind  int64 // records, at most
	scanned int64 // records passed
	sent    int64
}

// append appends the event without id and blank line.
func (p progress) append(dst []byte) []byte {
	dst = append(dst, "event: progress\ndata: {\"state\":\""...)
	if p.live {
		dst = append(dst, "live"...)
	} else {
		dst = append(dst, "catching-up"...)
	}
	dst = append(dst, `","resumed":`...)
	dst = strconv.AppendBool(dst, p.resumed)
	dst = append(dst, `,"behind":`...)
	dst = strconv.AppendInt(dst, p.behind, 10)
	dst = append(dst, `,"scanned":`...)
	dst = strconv.AppendInt(dst, p.scanned, 10)
	dst = append(dst, `,"sent":`...)
	dst = strconv.AppendInt(dst, p.sent, 10)
	return append(dst, ",\"filter_errors\":0}\n"...)
}

// appendReconnect appends the whole event of a planned close but its id.
func appendReconnect(dst []byte, why string, retry time.Duration) []byte {
	dst = appendRetry(dst, retry)
	dst = append(dst, "event: reconnect\ndata: {\"reason\":\""...)
	dst = append(dst, why...)
	return append(dst, "\"}\n"...)
}

// appendError appends the whole event that ends a stream. It has no id: the client keeps its last.
func appendError(dst []byte, r *Refusal) []byte {
	dst = append(dst, "event: error\ndata: {\"error_code\":"...)
	dst = strconv.AppendInt(dst, int64(r.Code), 10)
	dst = append(dst, `,"message":`...)
	dst = appendString(dst, r.Msg)
	dst = append(dst, `,"retriable":`...)
	dst = strconv.AppendBool(dst, r.Transient)
	return append(dst, "}\n\n"...)
}

// appendRetry appends the line that tells how long to wait before the next connect. A frame with data must follow.
func appendRetry(dst []byte, d time.Duration) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, d.Milliseconds(), 10)
	return append(dst, '\n')
}

// appendID appends the id line.
func appendID(dst []byte, c *sluice.Cursor) []byte {
	dst = append(dst, "id: "...)
	dst, _ = c.AppendText(dst) // it has no way to fail
	return append(dst, '\n')
}
