package httpapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// APIConfig takes parts of the API away. What is taken away is answered like a path that does not exist.
type APIConfig struct {
	V2    bool     `name:"api-v2" env:"SLUICE_API_V2" default:"true" negatable:"" help:"Serve version 2 of the classic API; without it the paths that only it has are unknown, and so are its media types."`
	Allow []string `name:"api-allow" env:"SLUICE_API_ALLOW" placeholder:"NAME,..." help:"Serve these operations only, e.g. api.v2.topics.list or api.v2.consumers.*; docs/operations.md lists them. Probes and metrics are always served."`
	Block []string `name:"api-block" env:"SLUICE_API_BLOCK" placeholder:"NAME,..." help:"Serve all operations but these."`
}

// operationNames are the operations by the names that api.endpoints.allowlist and .blocklist of the classic proxy have
// for them, and names of the same build for what that one does not have. A name that ends in a dash is one of several:
// the format follows. What is not here is for operators: probes, metrics, the API document.
var operationNames = map[string]string{
	"GET /":  "api.v2.root.get",
	"POST /": "api.v2.root.post",

	"GET /brokers":                           "api.v2.brokers.list",
	"GET /topics":                            "api.v2.topics.list",
	"GET /topics/:topic":                     "api.v2.topics.get",
	"GET /topics/:topic/partitions":          "api.v2.partitions.list",
	"GET " + partitionPath:                   "api.v2.partitions.get",
	"GET " + partitionPath + "/offsets":      "api.v2.partitions.get-offsets",
	"POST /topics/:topic":                    "api.v2.produce-to-topic.-",
	"POST " + partitionPath:                  "api.v2.produce-to-partition.-",
	"GET " + partitionPath + "/messages":     "api.v2.partitions.consume-",
	"GET " + partitionPath + "/records":      "api.v2.partitions.consume-",
	"POST /consumers/:group":                 "api.v2.consumers.create",
	"DELETE " + instancePattern:              "api.v2.consumers.delete",
	"POST " + instancePattern + "/offsets":   "api.v2.consumers.commit-offsets",
	"GET " + instancePattern + "/offsets":    "api.v2.consumers.get-committed-offsets",
	"GET " + instancePattern + "/records":    "api.v2.consumers.consume-",
	"POST " + instancePattern + "/positions": "api.v2.consumers.seek-to-offset",

	"GET " + instancePattern + "/topics/:topic":        "api.v2.consumers.consume-",
	"POST " + instancePattern + "/subscription":        "api.v2.consumers.subscribe",
	"GET " + instancePattern + "/subscription":         "api.v2.consumers.get-subscription",
	"DELETE " + instancePattern + "/subscription":      "api.v2.consumers.unsubscribe",
	"POST " + instancePattern + "/assignments":         "api.v2.consumers.assign",
	"GET " + instancePattern + "/assignments":          "api.v2.consumers.get-assignments",
	"POST " + instancePattern + "/positions/beginning": "api.v2.consumers.seek-to-beginning",
	"POST " + instancePattern + "/positions/end":       "api.v2.consumers.seek-to-end",

	"GET /subscriptions":        "api.subscriptions.list",
	"POST /subscriptions":       "api.subscriptions.create",
	"GET /subscriptions/:id":    "api.subscriptions.get",
	"DELETE /subscriptions/:id": "api.subscriptions.delete",
	"GET /topics/:topic/events": "api.events.follow-topic",
	"GET /events":               "api.events.follow-topics",
}

const (
	partitionPath   = "/topics/:topic/partitions/:partition"
	instancePattern = "/consumers/:group/instances/:instance"
)

// onlyV2Has are the paths that only version 2 of the classic API has (rest-api.md 2.1 rule 4).
var onlyV2Has = []string{
	"GET " + partitionPath + "/offsets", "GET " + partitionPath + "/records",
	"POST " + instancePattern + "/subscription", "GET " + instancePattern + "/subscription", "DELETE " + instancePattern + "/subscription",
	"POST " + instancePattern + "/assignments", "GET " + instancePattern + "/assignments",
	"POST " + instancePattern + "/positions", "POST " + instancePattern + "/positions/beginning", "POST " + instancePattern + "/positions/end",
	"GET " + instancePattern + "/records", "GET " + instancePattern + "/offsets",
}

// formatSuffixes are the formats as the names of operations say them.
var formatSuffixes = map[string]string{
	"": "binary", "binary": "binary", "json": "json", "avro": "avro", "jsonschema": "json-schema", "protobuf": "protobuf", "text": "text",
}

// allOperations are all names, formats included, in order.
func allOperations() []string {
	var all []string
	for _, name := range operationNames {
		stem, several := strings.CutSuffix(name, "-")
		if !several {
			all = append(all, name)
			continue
		}
		for _, suffix := range formatSuffixes {
			all = append(all, withFormat(stem, suffix))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// withFormat is consume-binary, and produce-to-topic.binary.
func withFormat(stem, suffix string) string {
	if strings.HasSuffix(stem, ".") {
		return stem + suffix
	}
	return stem + "-" + suffix
}

// validate refuses a name that nothing has: a misspelt one would leave open what it was to close. Those of v3 are
// accepted, for none of v3 is served.
func (a APIConfig) validate() error {
	all := allOperations()
	for _, name := range slices.Concat(a.Allow, a.Block) {
		if strings.HasPrefix(name, "api.v3.") {
			continue
		}
		if !slices.ContainsFunc(all, func(operation string) bool { return names(name, operation) }) {
			return fmt.Errorf("api-allow, api-block: %q is no operation; there are %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

// names says whether a name of a list means the operation. "api.v2.topics.*" means all that begin so.
func names(name, operation string) bool {
	if stem, all := strings.CutSuffix(name, "*"); all && strings.HasSuffix(stem, ".") {
		return strings.HasPrefix(operation, stem)
	}
	return name == operation
}

// serves says whether an operation is there.
func (a APIConfig) serves(operation string) bool {
	listed := func(list []string) bool {
		return slices.ContainsFunc(list, func(name string) bool { return names(name, operation) })
	}
	return (len(a.Allow) == 0 || listed(a.Allow)) && !listed(a.Block)
}

// has says whether a row of the table is there, in one format at least.
func (a APIConfig) has(method, path string) bool {
	row := method + " " + path
	if !a.V2 && slices.Contains(onlyV2Has, row) {
		return false
	}
	name, named := operationNames[row]
	stem, several := strings.CutSuffix(name, "-")
	if !several {
		return !named || a.serves(name)
	}
	return slices.ContainsFunc(slices.Collect(maps.Values(formatSuffixes)), func(suffix string) bool { return a.serves(withFormat(stem, suffix)) })
}

// servesFormat is errNotFound where the row is there, but not in that format.
func (a APIConfig) servesFormat(method, path, format string) error {
	if len(a.Allow) == 0 && len(a.Block) == 0 {
		return nil
	}
	if stem, several := strings.CutSuffix(operationNames[method+" "+path], "-"); several && !a.serves(withFormat(stem, formatSuffixes[format])) {
		return errNotFound
	}
	return nil
}
