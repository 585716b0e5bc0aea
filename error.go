package sluice

import (
	"errors"
	"time"
)

// Kind says what sort of failure an Error is. httpapi/errors.go alone turns kinds into HTTP statuses and codes.
type Kind string

const (
	Internal       Kind = "internal"        // ours; the caller sees "Internal Server Error"
	Malformed      Kind = "malformed"       // the request does not parse: 400
	Invalid        Kind = "invalid"         // it parses and breaks a rule: 422
	BadSetting     Kind = "bad_setting"     // an option of a consumer instance has no such value
	OutOfBounds    Kind = "out_of_bounds"   // an option of a consumer instance lies outside its bounds
	TooLarge       Kind = "too_large"       // a body or a record above its limit
	Unauthorized   Kind = "unauthorized"    // Kafka did not accept our credentials
	Forbidden      Kind = "forbidden"       // Kafka or the ACL denies it
	NotFound       Kind = "not_found"       // a subscription, an instance, a path
	UnknownTopic   Kind = "unknown_topic"   // no such topic
	UnknownPart    Kind = "unknown_part"    // the topic has no such partition
	NoLeader       Kind = "no_leader"       // the partition has no leader now
	OutOfRange     Kind = "out_of_range"    // the offset lies outside the log
	Conflict       Kind = "conflict"        // not in this state
	IllegalState   Kind = "illegal_state"   // an instance is not subscribed, a partition not assigned
	StaleSession   Kind = "stale_session"   // a commit of a member or generation that Kafka does not know any more
	Retriable      Kind = "retriable"       // Kafka refused; it may work later; surely nothing was written
	OutcomeUnknown Kind = "outcome_unknown" // the record may or may not be in the log
	Rejected       Kind = "rejected"        // Kafka refused for good
	Unavailable    Kind = "unavailable"     // no broker could be reached in time
	StoreDown      Kind = "store_down"      // Redis could not be reached in time
	BadSchema      Kind = "bad_schema"      // a schema that does not parse, that nobody knows, or of another subject
	SchemaLookup   Kind = "schema_lookup"   // the schema registry refused, or did not answer in time
	Overloaded     Kind = "overloaded"      // a budget of our own is used up; RetryAfter says when to come back
)

// Error is a failure with a kind and words that are safe to show. Msg is for the caller; Err, the cause, goes to the
// log alone.
type Error struct {
	Kind       Kind
	Msg        string
	Detail     string        // optional; what else would help the caller
	RetryAfter time.Duration // Unavailable, Overloaded; zero: no advice
	Err        error
}

// Error is for logs: the kind, the words and the cause.
func (e *Error) Error() string {
	s := string(e.Kind) + ": " + e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first Error in err's chain, Internal if it has none, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
