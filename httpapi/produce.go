package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
)

func (s *Server) produceTopic(c *fiber.Ctx) error {
	return s.produce(c, sluice.AnyPartition)
}

func (s *Server) producePartition(c *fiber.Ctx) error {
	number, err := partitionNumber(c)
	if err != nil && !errors.Is(err, errUnknownPartition) {
		return err
	}
	if err != nil {
		number = 1<<31 - 1 // the topic is looked at first
	}
	return s.produce(c, number)
}

// produce is rest-api.md 4. Faults of the request refuse it whole and nothing is written; faults of a record cost its
// slot alone.
func (s *Server) produce(c *fiber.Ctx, path int32) error {
	x := of(c)
	if x.badType {
		return errUnsupportedMedia
	}
	if err := s.cfg.API.servesFormat(c.Method(), x.route, x.request.format); err != nil {
		return err
	}
	topic, err := topicName(c)
	if err != nil {
		return err
	}
	later, err := flag(c, "async")
	if err != nil {
		return err
	}
	body, err := s.body(c)
	if err != nil {
		return err
	}
	b := batches.Get().(*batch)
	b.path, b.later, b.lease, b.held = path, later, &body.lease, body.lease.held
	b.format, _ = s.format(x.request.format) // "" is binary
	if err := s.prepare(c, topic, b, body); err != nil {
		b.release()
		body.release()
		return err
	}
	if later {
		s.writeLater(topic, x.id, b, body)
		return noContent(c)
	}
	receipts, clean, err := s.write(topic, b)
	if err == nil {
		s.answerProduce(c, topic, b, receipts)
	}
	b.giveBack(body, clean)
	return err
}

// giveBack ends a batch and its body. Where it is not clean a batch on its way to Kafka may still read the body: the
// outcome of a record is unknown, so the memory must not be used again.
func (b *batch) giveBack(body *payload, clean bool) {
	if !clean {
		body.forget()
		return
	}
	b.release()
	body.release()
}

// prepare parses, and finds what refuses the request whole.
func (s *Server) prepare(c *fiber.Ctx, topic string, b *batch, body *payload) error {
	if err := b.parse(body.bytes); err != nil {
		return err
	}
	if b.path != sluice.AnyPartition || len(b.records) == 0 || b.later || b.format.NeedsSchema() {
		if err := s.checkTarget(topic, b); err != nil {
			return err
		}
	}
	if b.format.NeedsSchema() {
		if err := s.encodeBatch(topic, b, of(c).version); err != nil {
			return err
		}
	}
	if len(b.records) == 0 {
		return s.refuseAll(c, topic, b)
	}
	return nil
}

// write produces. clean says that nobody reads the records any more.
func (s *Server) write(topic string, b *batch) (receipts []sluice.Receipt, clean bool, err error) {
	receipts, err = s.needs.Producer.Produce(s.requests, topic, b.records)
	switch kind := sluice.KindOf(err); {
	case kind == sluice.UnknownTopic:
		return nil, true, errUnknownTopic.because("%s", howToCreate(topic))
	case err != nil: // those of these kinds say that nothing was attempted
		return nil, kind == sluice.Unavailable || kind == sluice.Overloaded, err
	case len(receipts) != len(b.records):
		return nil, false, fmt.Errorf("produce to %q: %d receipts for %d records", topic, len(receipts), len(b.records))
	}
	for _, r := range receipts {
		if r.Err != nil && sluice.KindOf(r.Err) == sluice.OutcomeUnknown {
			return receipts, false, nil
		}
	}
	return receipts, true, nil
}

// checkTarget finds what refuses the request whole before anything is written: a topic or a partition of the path that
// does not exist. An unknown topic that the producer may create is left to the producer; one that it may not gets no
// subject in the schema registry, and no 204 of a write that comes later.
func (s *Server) checkTarget(topic string, b *batch) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	t, err := s.needs.Topics.Topic(ctx, topic)
	switch {
	case sluice.KindOf(err) == sluice.UnknownTopic:
		if len(b.records) == 0 || ((b.later || b.format.NeedsSchema()) && !s.needs.AutoCreate) {
			return errUnknownTopic.because("%s", howToCreate(topic))
		}
		return nil
	case err != nil:
		return err
	case b.path != sluice.AnyPartition && int(b.path) >= len(t.Partitions):
		return errUnknownPartition.because("Topic %s has %s.", topic, plural(len(t.Partitions), "partition"))
	}
	return nil
}

func howToCreate(topic string) string {
	return "Topic " + topic + " does not exist. Create it with Kafka's own tool (kafka-topics.sh --bootstrap-server … --create --topic " + topic +
		" --partitions 3), or let a produce create it: SLUICE_AUTO_CREATE_TOPICS=true."
}

// refuseAll answers a request of which every record has a content fault: the first one, as a plain error.
func (s *Server) refuseAll(c *fiber.Ctx, topic string, b *batch) error {
	first := b.faults[0]
	s.countFailed(of(c).id, topic, b.size, b.size, first.code, first.text)
	return (&failure{status: errInvalid.status, code: first.code, message: first.text}).because("records[%d].%s; all %s of the request have such a fault, nothing was written.", first.slot, first.field, plural(b.size, "record"))
}

// tally is what became of the slots, for the status.
type tally struct {
	failed, unauthorized, forbidden, retriable, noPartition, content int
	code                                                             int // of the first failed slot
	text                                                             string
	retryAfter                                                       time.Duration
}

func (t *tally) add(code int, text string) {
	if t.failed++; t.failed == 1 {
		t.code, t.text = code, text
	}
	switch {
	case code == 40101:
		t.unauthorized++
	case code == 40301:
		t.forbidden++
	case code == 50003:
		t.retriable++
	case code == 40402:
		t.noPartition++
	case code == 422 || code/100 == 422:
		t.content++
	}
}

// status is rest-api.md 4.4. Classic clients compare with 200 and cannot see a failure inside it: that is what strict
// is for.
func (t *tally) status(strict bool, size int) int {
	switch {
	case t.unauthorized > 0:
		return fiber.StatusUnauthorized
	case t.forbidden > 0:
		return fiber.StatusForbidden
	case !strict || t.failed < size:
		return fiber.StatusOK
	case t.retriable > 0:
		return fiber.StatusServiceUnavailable
	case t.noPartition == size:
		return fiber.StatusNotFound
	case t.content == size:
		return fiber.StatusUnprocessableEntity
	}
	return fiber.StatusInternalServerError
}

// answerProduce writes the answer of rest-api.md 4.3: one slot per record, in the order of the request.
func (s *Server) answerProduce(c *fiber.Ctx, topic string, b *batch, receipts []sluice.Receipt) {
	var room [512]byte
	out := append(room[:0], `{"offsets":[`...)
	var t tally
	faults := b.faults
	for slotNumber := range b.size {
		if slotNumber > 0 {
			out = append(out, ',')
		}
		if len(faults) > 0 && faults[0].slot == slotNumber {
			t.add(faults[0].code, faults[0].text)
			out = appendFailed(out, faults[0].code, faults[0].text)
			faults = faults[1:]
			continue
		}
		r := receipts[0]
		receipts = receipts[1:]
		if r.Err != nil {
			code, text := slot(r.Err)
			if e, ok := errors.AsType[*sluice.Error](r.Err); ok {
				t.retryAfter = max(t.retryAfter, e.RetryAfter)
			}
			t.add(code, text)
			out = appendFailed(out, code, text)
			continue
		}
		out = append(out, `{"partition":`...)
		out = strconv.AppendInt(out, int64(r.Partition), 10)
		out = append(out, `,"offset":`...)
		out = strconv.AppendInt(out, r.Offset, 10)
		out = append(out, `,"error_code":null,"error":null}`...)
	}
	out = appendSchemaID(append(out, `],"key_schema_id":`...), b.keySchema)
	out = appendSchemaID(append(out, `,"value_schema_id":`...), b.valueSchema)
	strict := s.cfg.ProduceStatus == "strict"
	status := t.status(strict, b.size)
	if t.failed > 0 {
		s.countFailed(of(c).id, topic, t.failed, b.size, t.code, t.text)
		if strict && t.failed == b.size {
			out = append(out, `,"error_code":`...)
			out = strconv.AppendInt(out, int64(t.code), 10)
			out = append(out, `,"message":`...)
			out = appendString(out, t.text)
		}
	}
	if status == fiber.StatusServiceUnavailable {
		setRetryAfter(c, max(t.retryAfter, time.Second))
	}
	out = append(out, '}')
	s.sendCopy(c, status, of(c).answer.name, out)
}

func appendFailed(out []byte, code int, text string) []byte {
	out = append(out, `{"partition":null,"offset":null,"error_code":`...)
	out = strconv.AppendInt(out, int64(code), 10)
	out = append(out, `,"error":`...)
	out = appendString(out, text)
	return append(out, '}')
}

// appendString writes a JSON string. Almost every text is plain.
func appendString(out []byte, text string) []byte {
	for i := range len(text) {
		if b := text[i]; b < 0x20 || b >= 0x7f || b == '"' || b == '\\' {
			encoded, _ := encode(text) // strings always encode
			return append(out, encoded...)
		}
	}
	out = append(out, '"')
	out = append(out, text...)
	return append(out, '"')
}

// countFailed makes failed records visible, also where the client sees 200.
func (s *Server) countFailed(id, topic string, failed, size int, code int, text string) {
	s.metrics.failed.WithLabelValues(strconv.Itoa(code)).Add(float64(failed))
	s.log.Warn("records of a produce failed", slog.String("event", "Produce"), slog.String("transaction_id", id), slog.String("topic", topic),
		slog.Int("failed", failed), slog.Int("records", size), slog.Int("error_code", code), slog.String("error", text))
}
