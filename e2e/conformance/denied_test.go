package conformance

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// denied is 40301: a gateway whose user Kafka lets see one topic, and neither write nor read it.
func denied(t *testing.T, s *server) {
	if !s.ours || s.kafka.Name != backend.Kafka41 {
		s.row(t, "40301", func(t *testing.T) { s.notRun(t, "needs a Kafka with users and their rights; runs on kafka41") })
		return
	}
	seen, hidden := s.kafka.Topic(t, "c14-seen", 1), s.kafka.Topic(t, "c14-hidden", 1)
	s.grant(t, kmsg.ACLResourceTypeTopic, seen, kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationDescribe)
	s.grant(t, kmsg.ACLResourceTypeTopic, "sluice.", kmsg.ACLResourcePatternTypePrefixed, kmsg.ACLOperationAll)
	s.grant(t, kmsg.ACLResourceTypeGroup, "sluice.", kmsg.ACLResourcePatternTypePrefixed, kmsg.ACLOperationAll)
	s.grant(t, kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationIdempotentWrite)
	host, port, err := net.SplitHostPort(s.kafka.Brokers[0])
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	asAlice := &server{url: start(t, []string{net.JoinHostPort(host, fmt.Sprint(number+20000))}, // where kafka-local.sh has its users
		"SLUICE_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT", "SLUICE_KAFKA_SASL_MECHANISM=PLAIN", "SLUICE_KAFKA_SASL_USER=alice", "SLUICE_KAFKA_SASL_PASSWORD=alice-secret").URL,
		kafka: s.kafka, ours: true, report: s.report}
	refused := want{status: 403, code: 40301, like: ".+", typ: bareV1}
	asAlice.rows(t, []row{
		{"40301 of metadata", request{method: "GET", path: "/topics/" + hidden}, refused},
		{"40301 of a produce to a hidden topic", request{method: "POST", path: "/topics/" + hidden, body: oneRecord}, refused},
		{"40301 in a slot", request{method: "POST", path: "/topics/" + seen, body: oneRecord},
			want{status: 403, typ: bareV1, json: `{"offsets":[{"partition":null,"offset":null,"error_code":40301,"error":"<any>"}],"key_schema_id":null,"value_schema_id":null}`}},
		{"40301 in some slots", request{method: "POST", path: "/topics/" + seen, body: `{"records":[{"value":"YQ=="},{"value":"?"},{"value":"YQ==","partition":7}]}`},
			want{status: 403, typ: bareV1, json: slots(`{"partition":null,"offset":null,"error_code":40301,"error":"<any>"}`, bad(422, "Record value contains invalid base64 encoding"), bad(40402, "Partition not found."))}},
		{"40301 of a read", request{method: "GET", path: "/topics/" + seen + "/partitions/0/messages", accept: bareV1}, refused},
	})
	s.row(t, "40301 of a group", func(t *testing.T) {
		i := asAlice.create(t, "", quick, bareV1)
		asAlice.expect(t, request{method: "GET", path: i.path + "/topics/" + seen, accept: bareV1}, refused)
	})
}

// grant lets alice do something until the end of the test.
func (s *server) grant(t *testing.T, kind kmsg.ACLResourceType, name string, pattern kmsg.ACLResourcePatternType, operation kmsg.ACLOperation) {
	t.Helper()
	const alice = "User:alice"
	admin, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	one := kmsg.NewCreateACLsRequestCreation()
	one.ResourceType, one.ResourceName, one.ResourcePatternType = kind, name, pattern
	one.Principal, one.Host, one.Operation, one.PermissionType = alice, "*", operation, kmsg.ACLPermissionTypeAllow
	ask := kmsg.NewPtrCreateACLsRequest()
	ask.Creations = append(ask.Creations, one)
	answer, err := ask.RequestWith(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(answer.Results[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		filter := kmsg.NewDeleteACLsRequestFilter()
		principal := alice
		filter.ResourceType, filter.ResourceName, filter.ResourcePatternType = kind, &name, pattern
		filter.Principal, filter.Operation, filter.PermissionType = &principal, operation, kmsg.ACLPermissionTypeAllow
		remove := kmsg.NewPtrDeleteACLsRequest()
		remove.Filters = append(remove.Filters, filter)
		if _, err := remove.RequestWith(context.Background(), admin); err != nil {
			t.Log(err)
		}
	})
}
