package httpapi

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/formats"
)

const browsePatience = 100 * time.Millisecond // of messages, for records that are not there yet (rest-api.md 8)

var errTwoStarts = &failure{status: 400, code: 400, message: "Either `offset` or `timestamp` query parameters must be set."}

// browse reads a partition without an instance. messages (v1) gives one record unless told otherwise and hardly waits;
// records (v2) gives what fits and waits like an instance.
func (s *Server) browse(known version) fiber.Handler {
	return func(c *fiber.Ctx) error {
		n, err := negotiateBrowse(c, known)
		of(c).negotiation = n
		if err != nil {
			return err
		}
		format := formats.Binary
		if named, ok := s.format(n.answer.format); ok {
			format = named
		}
		if err := s.cfg.API.servesFormat(fiber.MethodGet, of(c).route, format.String()); err != nil {
			return err
		}
		look, at, err := lookOf(c, known)
		if err != nil {
			return err
		}
		ctx, stop := s.whileThere(c)
		defer stop()
		look.Decodes = s.decodable(ctx, format)
		records, err := s.lookUp(ctx, look, at)
		if err != nil {
			return err
		}
		return s.deliver(c, records, nil, format, func(bool) {})
	}
}

// lookOf reads path and query. at is nil where the query names no time.
func lookOf(c *fiber.Ctx, known version) (l consumers.Look, at *time.Time, err error) {
	topic, err := topicName(c)
	if err != nil {
		return l, nil, err
	}
	part, err := partitionNumber(c)
	if err != nil {
		return l, nil, err
	}
	l.Partition = sluice.Partition{Topic: topic, Number: part, Isolation: sluice.ReadUncommitted}
	if given(c, "offset") && given(c, "timestamp") {
		return l, nil, errTwoStarts
	}
	if l.From, err = number(c, "offset"); err != nil {
		return l, nil, err
	}
	if given(c, "timestamp") {
		t, ok := parseTime(c.Query("timestamp"))
		if ms, err := strconv.ParseInt(c.Query("timestamp"), 10, 64); err == nil && ms >= 0 && ms <= lastTimestamp {
			t, ok = time.UnixMilli(ms), true
		}
		if !ok {
			return l, nil, errBadRequest.saying("The query parameter timestamp must be an ISO 8601 time or milliseconds since 1970.")
		}
		at = &t
	}
	count, err := number(c, "count")
	switch {
	case err != nil:
		return l, nil, err
	case given(c, "count") && count < 1:
		return l, nil, errBadRequest.saying("The query parameter count must be at least 1.")
	case !given(c, "count") && known == v1:
		count = 1
	}
	l.Count = int(min(count, math.MaxInt32))
	if l.Timeout, l.MaxBytes, err = readLimits(c); known == v1 {
		l.Timeout = browsePatience
	} else if l.Timeout == 0 {
		l.Timeout = time.Second
	}
	return l, at, err
}

func (s *Server) lookUp(ctx context.Context, l consumers.Look, at *time.Time) ([]*sluice.Record, error) {
	asking, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	topic, err := s.needs.Topics.Topic(asking, l.Partition.Topic)
	if err != nil {
		return nil, err
	}
	if int(l.Partition.Number) >= len(topic.Partitions) {
		return nil, errUnknownPartition
	}
	if at != nil {
		var some bool
		if l.From, some, err = s.needs.Consumers.LookFrom(asking, l.Partition, *at); err != nil || !some {
			return nil, err
		}
	}
	reading, done := context.WithTimeout(ctx, l.Timeout+lookupPatience)
	defer done()
	records, err := s.needs.Consumers.Browse(reading, l)
	switch {
	case sluice.KindOf(err) == sluice.OutOfRange:
		return nil, &sluice.Error{Kind: sluice.OutOfRange, Msg: "Fetch response contains an error code: 1", Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka did not answer in time.", Err: err}
	case errors.Is(err, context.Canceled):
		return nil, &sluice.Error{Kind: sluice.Overloaded, Msg: "This replica is stopping."}
	}
	return records, err
}

// negotiateBrowse is negotiateRead where Accept alone says the format.
func negotiateBrowse(c *fiber.Ctx, known version) (negotiation, error) {
	n, err := negotiateBody(c, known)
	if err != nil {
		return n, err
	}
	offers, others := of(c).offers().read("binary", n.version)
	m, exact, ok := choose(accept(c), append(offers, others...))
	if !ok {
		n.answer = offers[0]
		return n, errNotAcceptable
	}
	n.answer = m
	if exact && m.version != noVersion {
		n.version = m.version
	}
	return n, nil
}
