package webhook

import (
	"testing"
	"time"
)

// row is one line of the table of classes.
type row struct {
	facts  Facts
	class  Class
	reason string
}

func table() []row {
	rows := []row{
		{Facts{Status: 101}, R, "protocol"}, {Facts{Status: 100}, R, "protocol"}, {Facts{}, R, "protocol"}, {Facts{Status: 600}, R, "protocol"}, {Facts{Status: 999}, R, "protocol"},
		{Facts{Status: 401}, E, "auth"}, {Facts{Status: 403}, E, "auth"}, {Facts{Status: 407}, E, "auth"},
		{Facts{Status: 404}, R, "not_found"}, {Facts{Status: 404, Only404: true}, E, "not_found"},
		{Facts{Status: 408}, R, "not_ready"}, {Facts{Status: 409}, R, "not_ready"}, {Facts{Status: 423}, R, "not_ready"}, {Facts{Status: 425}, R, "not_ready"},
		{Facts{Status: 410}, X, "gone"}, {Facts{Status: 410, RetryGone: true}, C, "gone"},
		{Facts{Status: 413, BodyBytes: 64 << 10}, C, "too_large"}, {Facts{Status: 413, BodyBytes: 64<<10 + 1}, P, "too_large"},
		{Facts{Status: 429}, T, "throttled"},
		{Facts{Fault: Protocol}, R, "protocol"}, {Facts{Fault: TimeoutConnect}, R, "timeout_connect"}, {Facts{Fault: TimeoutTLS}, R, "timeout_tls"}, {Facts{Fault: TimeoutHeaders}, R, "timeout_headers"},
		{Facts{Fault: ConnRefused}, E, "conn_refused"}, {Facts{Fault: ConnReset}, E, "conn_reset"}, {Facts{Fault: Unreachable}, E, "unreachable"},
		{Facts{Fault: DNS}, E, "dns"}, {Facts{Fault: TLS}, E, "tls"}, {Facts{Fault: Certificate}, E, "certificate"},
		{Facts{Fault: BlockedAddress}, E, "blocked_address"}, {Facts{Fault: BlockedAddress, BlockedFor: 23 * time.Hour}, E, "blocked_address"}, {Facts{Fault: BlockedAddress, BlockedFor: 24 * time.Hour}, X, "blocked_address"},
		{Facts{Fault: Transform}, P, "transform"}, {Facts{Fault: Encode}, P, "encode"}, {Facts{Fault: Decode}, P, "decode"}, {Facts{Fault: Oversize}, P, "oversize"}, {Facts{Fault: CrashSuspect}, P, "crash_suspect"},
		{Facts{Fault: Shutdown}, G, "shutdown"}, {Facts{Fault: ProxyDown}, G, "proxy"}, {Facts{Fault: ResolverDown}, G, "resolver"}, {Facts{Fault: Exhausted}, G, "resources"},
		{Facts{Fault: OAuthDown}, G, "oauth"}, {Facts{Fault: RegistryDown}, G, "registry"}, {Facts{Fault: SecretUnreadable}, G, "secret_unreadable"}, {Facts{Fault: Panic}, G, "panic"},
	}
	add := func(from, to int, class Class, reason string) {
		for status := from; status <= to; status++ {
			rows = append(rows, row{Facts{Status: status}, class, reason})
		}
	}
	add(200, 299, S, "delivered")
	add(300, 399, C, "redirect")
	for _, status := range []int{400, 402, 405, 406, 411, 412, 414, 415, 416, 417, 418, 421, 422, 424, 426, 428, 431, 444, 451, 499, 501, 505, 506, 507, 508, 509, 510, 511} {
		add(status, status, C, "client_error")
	}
	add(502, 504, E, "unavailable")
	add(520, 530, E, "unavailable")
	add(500, 500, R, "server_error")
	add(512, 519, R, "server_error")
	add(531, 599, R, "server_error")
	return rows
}

func TestTheWholeTableOfClasses(t *testing.T) {
	seen := map[int]bool{}
	for _, r := range table() {
		if class, reason := Classify(r.facts); class != r.class || reason != r.reason {
			t.Errorf("%+v is %v %q, want %v %q", r.facts, class, reason, r.class, r.reason)
		}
		seen[r.facts.Status] = true
		if r.class.Charged() != (r.class == R || r.class == C) {
			t.Errorf("%v is charged: %v", r.class, r.class.Charged())
		}
	}
	for status := 200; status <= 599; status++ {
		if class, _ := Classify(Facts{Status: status}); !seen[status] && class != C {
			t.Errorf("%d is not in the table and is %v: only client errors may be unnamed", status, class)
		}
	}
}
