package webhook

import "time"

// Class is what an attempt means for its record and its subscription.
type Class byte

// The classes.
const (
	S Class = 'S' // success
	E Class = 'E' // endpoint fault: not charged to the record, feeds the breaker
	R Class = 'R' // record fault that may pass: charged, the schedule goes on
	C Class = 'C' // client error: charged, short schedule, then dead letter
	P Class = 'P' // permanent: dead letter now
	T Class = 'T' // throttled: not charged, pauses the subscription
	G Class = 'G' // gateway fault, ours: not charged, again soon
	X Class = 'X' // stop the subscription
)

// String is the letter.
func (c Class) String() string { return string(rune(c)) }

// Charged reports whether the attempt counts against the record's retry budget.
func (c Class) Charged() bool { return c == R || c == C }

// Fault is why there was no status line, or why there was no request at all. The zero Fault means that Status counts.
// Its text is the reason code.
type Fault string

// The faults, by whose they are.
const (
	// NoFault says that there is a status.
	NoFault Fault = ""

	// Protocol and the following lie between us and the endpoint. It is a malformed response, an HTTP/2 protocol error, or
	// too many headers.
	Protocol       Fault = "protocol"
	TimeoutConnect Fault = "timeout_connect"
	TimeoutTLS     Fault = "timeout_tls"
	TimeoutHeaders Fault = "timeout_headers"
	ConnRefused    Fault = "conn_refused"
	ConnReset      Fault = "conn_reset"
	Unreachable    Fault = "unreachable"
	DNS            Fault = "dns" // NXDOMAIN, SERVFAIL, nothing in time
	TLS            Fault = "tls"
	Certificate    Fault = "certificate" // expired, wrong host, unknown issuer
	BlockedAddress Fault = "blocked_address"

	// Transform and the following are the record's: it does not fit.
	Transform    Fault = "transform"
	Encode       Fault = "encode" // the format cannot carry the value, a header is not representable
	Decode       Fault = "decode"
	Oversize     Fault = "oversize"
	CrashSuspect Fault = "crash_suspect" // the third panic on one record

	// Shutdown and the following are ours. It is also a rebalance that cancelled the flight.
	Shutdown         Fault = "shutdown"
	ProxyDown        Fault = "proxy"
	ResolverDown     Fault = "resolver" // for all names, not for this one
	Exhausted        Fault = "resources"
	OAuthDown        Fault = "oauth"
	RegistryDown     Fault = "registry"
	SecretUnreadable Fault = "secret_unreadable"
	Panic            Fault = "panic"
)

// Facts is everything the table looks at. The sender fills the first three; the rest is history that only the
// dispatcher has, and its zero value reads a single exchange for itself.
type Facts struct {
	Status    int   // of the final response, 0 without one
	Fault     Fault // takes precedence over Status, except after a 2xx, which the sender does not report a fault for
	BodyBytes int   // of the request: 413 is final for a large body only

	Only404    bool          // every request of the breaker's window got 404: the path is wrong, not the entity
	RetryGone  bool          // breaker.on_gone is "retry"
	BlockedFor time.Duration // how long the guard has been refusing this endpoint without a break
}

const (
	largeBody      = 64 << 10       // 413 for a larger body is the endpoint's limit, not its mood
	blockedForGood = 24 * time.Hour // then a blocked address stops the subscription
)

// Classify is the whole table of classes: pure, total, the one place where an exchange gets its meaning. The reason is
// from a closed set. Two rules stand outside, because they compare records: a 410 stops a subscription only when it is
// confirmed by another record or after 60 s, and E becomes R for a record when another one of the subscription
// succeeded since its previous attempt.
func Classify(f Facts) (Class, string) {
	if f.Fault != NoFault {
		return classOfFault(f), string(f.Fault)
	}
	switch s := f.Status; {
	case s >= 200 && s <= 299:
		return S, "delivered"
	case s >= 300 && s <= 399:
		return C, "redirect" // 304 too; never followed
	case s == 401, s == 403, s == 407:
		return E, "auth"
	case s == 404 && f.Only404:
		return E, "not_found"
	case s == 404:
		return R, "not_found"
	case s == 408, s == 409, s == 423, s == 425:
		return R, "not_ready"
	case s == 410 && f.RetryGone:
		return C, "gone"
	case s == 410:
		return X, "gone"
	case s == 413 && f.BodyBytes > largeBody:
		return P, "too_large"
	case s == 413:
		return C, "too_large"
	case s == 429:
		return T, "throttled"
	case s >= 400 && s <= 499:
		return C, "client_error"
	case s == 501, s == 505, s >= 506 && s <= 511:
		return C, "client_error" // the endpoint will not learn this method or version by waiting
	case s >= 502 && s <= 504, s >= 520 && s <= 530:
		return E, "unavailable"
	case s >= 500 && s <= 599:
		return R, "server_error"
	}
	return R, string(Protocol) // a final 1xx, or a number that is no status
}

func classOfFault(f Facts) Class {
	switch f.Fault {
	case Protocol, TimeoutConnect, TimeoutTLS, TimeoutHeaders:
		return R
	case ConnRefused, ConnReset, Unreachable, DNS, TLS, Certificate:
		return E
	case BlockedAddress:
		if f.BlockedFor >= blockedForGood {
			return X
		}
		return E
	case Transform, Encode, Decode, Oversize, CrashSuspect:
		return P
	}
	return G // ours, and what nobody has thought of: better tried again than held against a record
}
