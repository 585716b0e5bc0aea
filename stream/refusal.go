package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/sluicegate/sluice"
)

// Refusal is why there is no stream, or no more of it. Code is the error_code of the wire, which events carry too; its
// first three digits are the HTTP status. A Refusal that is Transient may be told to an EventSource only in a stream:
// any other answer stops it for good.
type Refusal struct {
	Code      int // 0: the cursor is that of a finished read, which 204 says without a body
	Msg       string
	Transient bool
	Err       error // for the log alone
}

func (r *Refusal) Error() string {
	s := strconv.Itoa(r.Code) + ": " + r.Msg
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s
}

func (r *Refusal) Unwrap() error { return r.Err }

// Status is the HTTP status of the refusal where it is not told in a stream.
func (r *Refusal) Status() int {
	if r.Code == 0 {
		return 204
	}
	return r.Code / 100
}

const (
	codeParameter    = 40021
	codeMalformedID  = 40023
	codeOtherTopics  = 40024
	codePartitions   = 40025
	codeUnknownTopic = 40401
	codeUnknownPart  = 40402
	codeOutOfRange   = 40910
	codeTooMany      = 42901
	codeNoKafka      = 50302
	codeDraining     = 50311
	codeFull         = 50312
	codeCatchingUp   = 50313
	codeNewerID      = 50314
)

// RetryAfter is the advice of a transient refusal: while a replica drains another one is near, and a burst of connects
// is over soon; a full replica stays full for a while.
func (r *Refusal) RetryAfter() time.Duration {
	switch {
	case r.Code == codeDraining:
		return between(time.Second, 5*time.Second)
	case r.Code == codeTooMany && r.Msg == msgTooManyConnects:
		return between(time.Second, 10*time.Second)
	}
	return between(30*time.Second, 45*time.Second)
}

const msgTooManyConnects = "Too many connects."

// Events is the whole body of a transient refusal for a client that reads an event stream: it has no id, so the client
// keeps the one it has.
func (r *Refusal) Events() []byte {
	b := appendRetry(nil, r.RetryAfter())
	return appendError(b, r)
}

func between(least, most time.Duration) time.Duration {
	return least + time.Duration(rand.Int64N(int64(most-least)+1))
}

func refuse(code int, msg string) *Refusal { return &Refusal{Code: code, Msg: msg} }

func refuseForNow(code int, msg string) *Refusal {
	return &Refusal{Code: code, Msg: msg, Transient: true}
}

// invalid is a parameter's refusal. must completes the sentence, "must be latest, earliest, timestamp or offsets".
func invalid(name, must string) *Refusal {
	return refuse(codeParameter, fmt.Sprintf("Invalid parameter %q: %s.", quoted(name), must))
}

// quoted cuts what is quoted from a request at 64 characters.
func quoted(s string) string {
	n := 0
	for i := range s {
		if n == 64 {
			return s[:i]
		}
		n++
	}
	return s
}

func outOfRange(p sluice.Partition, offset int64, r sluice.Range) *Refusal {
	return refuse(codeOutOfRange, fmt.Sprintf("Offset %d of %s is out of range [%d, %d].", offset, p, r.Start, r.End))
}

// refusalOf turns what the rooms below answer into what a client is told.
func refusalOf(err error) error {
	if _, ok := errors.AsType[*Refusal](err); ok {
		return err
	}
	switch sluice.KindOf(err) {
	case sluice.UnknownTopic:
		return &Refusal{Code: codeUnknownTopic, Msg: "Topic not found.", Err: err}
	case sluice.UnknownPart:
		return &Refusal{Code: codeUnknownPart, Msg: "Partition not found.", Err: err}
	case sluice.Unavailable, sluice.NoLeader, sluice.Retriable, sluice.Overloaded:
		return &Refusal{Code: codeNoKafka, Msg: "Kafka is not available.", Transient: true, Err: err}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &Refusal{Code: codeNoKafka, Msg: "Kafka is not available.", Transient: true, Err: err}
	}
	return err
}
