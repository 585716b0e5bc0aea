package conformance

import (
	"maps"
	"slices"
	"strings"
)

// classic is every path of v1 and v2 with its methods. {t} is a topic, {p} a partition, {g} a group, {i} the path of an
// instance.
var classic = []struct{ path, methods string }{
	{"/", "GET POST"},
	{"/brokers", "GET"},
	{"/topics", "GET"},
	{"/topics/{t}", "GET POST"},
	{"/topics/{t}/partitions", "GET"},
	{"/topics/{t}/partitions/{p}", "GET POST"},
	{"/topics/{t}/partitions/{p}/offsets", "GET"},
	{"/topics/{t}/partitions/{p}/messages", "GET"},
	{"/topics/{t}/partitions/{p}/records", "GET"},
	{"/consumers/{g}", "POST"},
	{"{i}", "DELETE"},
	{"{i}/subscription", "GET POST DELETE"},
	{"{i}/assignments", "GET POST"},
	{"{i}/records", "GET"},
	{"{i}/offsets", "GET POST"},
	{"{i}/positions", "POST"},
	{"{i}/positions/beginning", "POST"},
	{"{i}/positions/end", "POST"},
	{"{i}/topics/{t}", "GET"},
}

// allowed is what Allow must list for such methods: HEAD comes with GET, OPTIONS always.
func allowed(methods string) map[string]bool {
	all := map[string]bool{"OPTIONS": true}
	for m := range strings.FieldsSeq(methods) {
		all[m] = true
		if m == "GET" {
			all["HEAD"] = true
		}
	}
	return all
}

// listed is the elements of a header that is a list.
func listed(header string) map[string]bool {
	all := map[string]bool{}
	for m := range strings.SplitSeq(header, ",") {
		all[strings.TrimSpace(m)] = true
	}
	return all
}

func names(set map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(set)), ", ") }
