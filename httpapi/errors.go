package httpapi

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/subscriptions"
)

// failure is one row of the table of errors (rest-api.md 1.4, webhooks.md 2.1): the only place where a status, an
// error_code and a message meet. Handlers return errors of the rooms, or one of the rows below.
type failure struct {
	status     int
	code       int
	message    string
	detail     string
	retryAfter time.Duration
	closing    bool // the connection cannot be used again
	faults     []subscriptions.Field
}

func (f *failure) Error() string { return strconv.Itoa(f.code) + ": " + f.message }

// because is the same row with the optional third field of the body.
func (f failure) because(format string, args ...any) *failure {
	f.detail = fmt.Sprintf(format, args...)
	return &f
}

// saying is the same row with another message.
func (f failure) saying(format string, args ...any) *failure {
	f.message = fmt.Sprintf(format, args...)
	return &f
}

// The rows that HTTP itself knows. fasthttp's and fiber's own texts are never shown: they quote the request.
var (
	errBadRequest       = &failure{status: 400, code: 400, message: "HTTP 400 Bad Request"}
	errFraming          = &failure{status: 400, code: 400, message: "HTTP 400 Bad Request", closing: true}
	errCrossSite        = &failure{status: 403, code: 403, message: "HTTP 403 Forbidden"}
	errNotFound         = &failure{status: 404, code: 404, message: "HTTP 404 Not Found"}
	errMethodNotAllowed = &failure{status: 405, code: 405, message: "HTTP 405 Method Not Allowed"}
	errNotAcceptable    = &failure{status: 406, code: 406, message: "HTTP 406 Not Acceptable"}
	errRequestTimeout   = &failure{status: 408, code: 408, message: "HTTP 408 Request Timeout", closing: true}
	errStale            = &failure{status: 412, code: 41201, message: "The subscription was changed: If-Match names another revision."}
	errTooLarge         = &failure{status: 413, code: 413, closing: true}
	errUnsupportedMedia = &failure{status: 415, code: 415, message: "HTTP 415 Unsupported Media Type"}
	errHeaderTooLarge   = &failure{status: 431, code: 431, message: "HTTP 431 Request Header Fields Too Large", closing: true}
	errInvalid          = &failure{status: 422, code: 422}
	errInternal         = &failure{status: 500, code: 500, message: "Internal Server Error"}
	errBudget           = &failure{status: 503, code: 503, message: "The memory budget for request bodies is used up.", retryAfter: time.Second, closing: true}
)

// The rows of the classic API that no Kind stands for.
var (
	errUnknownTopic     = &failure{status: 404, code: 40401, message: "Topic not found."}
	errUnknownPartition = &failure{status: 404, code: 40402, message: "Partition not found."}
	errOtherTopics      = &failure{status: 409, code: 40901, message: "Consumer cannot subscribe the the specified target because it has already subscribed to other topics."}
	errNoKeySchema      = &failure{status: 422, code: 42201, message: "Request includes keys but does not include key schema"}
	errNoValueSchema    = &failure{status: 422, code: 42202, message: "Request includes values but does not include value schema"}
	errOtherFormat      = &failure{status: 406, code: 40601, message: "The requested embedded data format does not match the deserializer for this consumer instance"}
)

// misfit is a value that its schema does not take; v1 knew no schemas but Avro's.
func misfit(v version, why string) *failure {
	what := "Object"
	if v == v1 {
		what = "Avro"
	}
	return &failure{status: 422, code: 42203, message: "Conversion of JSON to " + what + " failed: " + why}
}

// nouns of the API in whose words a Kind is told: the classic API calls a missing instance 40403, the subscription API
// a missing subscription 40411.
type noun byte

const (
	classic noun = iota
	instances
	subscription
	eventStream
)

// row says how a Kind is answered: an empty text takes the error's own words, a trailing space is put before them.
type row struct {
	status, code int
	text         string
}

// kinds is the table for every noun; exceptions are what some nouns say instead.
var kinds = map[sluice.Kind]row{
	sluice.Malformed:      {400, 400, ""},
	sluice.Invalid:        {422, 422, ""},
	sluice.BadSetting:     {422, 42204, "Invalid consumer configuration: "},
	sluice.OutOfBounds:    {422, 40001, "Invalid consumer configuration. It does not abide by the constraints: "},
	sluice.BadSchema:      {422, 42205, "Invalid schema: "},
	sluice.TooLarge:       {413, 413, ""},
	sluice.Unauthorized:   {401, 40101, ""},
	sluice.Forbidden:      {403, 40301, ""},
	sluice.NotFound:       {404, 404, "HTTP 404 Not Found"},
	sluice.UnknownTopic:   {404, 40401, "Topic not found."},
	sluice.UnknownPart:    {404, 40402, "Partition not found."},
	sluice.NoLeader:       {404, 40404, "Leader not available."},
	sluice.OutOfRange:     {500, 50002, "Kafka error: "},
	sluice.SchemaLookup:   {408, 40801, "Schema registration or lookup failed"},
	sluice.Conflict:       {409, 409, ""},
	sluice.IllegalState:   {409, 40903, "Illegal state: "},
	sluice.StaleSession:   {500, 50003, "Retriable Kafka error: "},
	sluice.Retriable:      {500, 50003, "Retriable Kafka error: "},
	sluice.OutcomeUnknown: {500, 50003, "Retriable Kafka error: "},
	sluice.Rejected:       {500, 50002, "Kafka error: "},
	sluice.Unavailable:    {503, 50302, ""},
	sluice.StoreDown:      {503, 503, ""},
	sluice.Overloaded:     {503, 503, ""},
	sluice.Internal:       {500, 500, "Internal Server Error"},
}

var exceptions = map[noun]map[sluice.Kind]row{
	instances: {
		sluice.NotFound: {404, 40403, "Consumer instance not found."},
		sluice.Conflict: {409, 40902, "Consumer with specified consumer ID already exists in the specified consumer group."},
	},
	subscription: {
		sluice.Invalid:    {422, 42210, ""},
		sluice.NotFound:   {404, 40411, "Subscription not found."},
		sluice.Conflict:   {409, 40912, ""},
		sluice.NoLeader:   {500, 50003, ""},
		sluice.Retriable:  {500, 50003, ""},
		sluice.StoreDown:  {503, 50321, ""},
		sluice.Overloaded: {429, 42911, ""},
	},
}

// Retry-After where the error has no advice of its own.
var patience = map[sluice.Kind]time.Duration{
	sluice.Unavailable: 5 * time.Second,
	sluice.StoreDown:   5 * time.Second,
	sluice.Overloaded:  time.Second,
}

// failureOf finds the row of an error. An error without a Kind, and one that nobody foresaw, is ours: the caller learns
// no more than that.
func failureOf(n noun, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if e, ok := errors.AsType[*subscriptions.Invalid](err); ok {
		return definitionFailure(e)
	}
	if f := streamFailure(err); f != nil {
		return f
	}
	if e, ok := errors.AsType[*sluice.Error](err); ok {
		return kindFailure(n, e)
	}
	if e, ok := errors.AsType[*fiber.Error](err); ok {
		return fiberFailure(e.Code)
	}
	return errInternal
}

func kindFailure(n noun, e *sluice.Error) *failure {
	r, ok := exceptions[n][e.Kind]
	if !ok {
		if r, ok = kinds[e.Kind]; !ok {
			return errInternal
		}
	}
	f := &failure{status: r.status, code: r.code, message: r.text, detail: e.Detail, retryAfter: e.RetryAfter}
	switch {
	case r.text == "":
		f.message = e.Msg
	case r.text[len(r.text)-1] == ' ':
		f.message += e.Msg
	}
	if f.retryAfter == 0 {
		f.retryAfter = patience[e.Kind]
	}
	return f
}

// fiberFailure keeps the status of an error that fiber or fasthttp raised, and none of its words.
func fiberFailure(status int) *failure {
	switch status {
	case fiber.StatusNotFound:
		return errNotFound
	case fiber.StatusMethodNotAllowed:
		return errMethodNotAllowed
	case fiber.StatusRequestTimeout:
		return errRequestTimeout
	case fiber.StatusRequestEntityTooLarge:
		return errTooLarge.saying("HTTP 413 Request Entity Too Large")
	case fiber.StatusRequestHeaderFieldsTooLarge:
		return errHeaderTooLarge
	case fiber.StatusBadRequest, fiber.StatusBadGateway: // fiber calls any other network error 502
		return errFraming
	}
	return errInternal
}

// slot is what a produce says of one record that failed (rest-api.md 4.3): the bare text, no status.
func slot(err error) (code int, text string) {
	e, ok := errors.AsType[*sluice.Error](err)
	if !ok {
		return 50002, errInternal.message
	}
	switch e.Kind {
	case sluice.UnknownTopic, sluice.UnknownPart:
		return kinds[e.Kind].code, kinds[e.Kind].text
	case sluice.Unauthorized, sluice.Forbidden, sluice.Invalid, sluice.Malformed:
		return kinds[e.Kind].code, e.Msg
	case sluice.Retriable, sluice.OutcomeUnknown, sluice.NoLeader, sluice.Unavailable, sluice.Overloaded, sluice.StaleSession:
		return 50003, e.Msg
	case sluice.Internal:
		return 50002, errInternal.message
	}
	return 50002, e.Msg
}

// definitionFailure is the row of a definition that breaks rules: all its faults at once. A refusal by the address
// guard has a code of its own and one text for every cause (webhooks.md 2.1).
func definitionFailure(e *subscriptions.Invalid) *failure {
	f := &failure{status: 422, code: 42210, message: "One or more fields are invalid.", faults: e.Fields}
	if e.Refused {
		f.code, f.message = 42211, "The endpoint's address or port is not allowed."
	}
	return f
}
