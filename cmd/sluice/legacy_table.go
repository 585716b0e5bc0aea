package main

import "strings"

// The table of rest-api.md 10: what the properties of the classic proxy are here. docs/operations.md shows it, and a
// test holds the two together.

// legacyRow is one property. The settings that it becomes are named by their flags; the first row that gives a setting
// wins.
type legacyRow struct {
	property string
	settings []string
	convert  func(value string, all legacyProperties) ([]string, error) // a text for each setting, "" for none; nil: as it is
	note     string                                                     // for docs/operations.md
	secret   bool                                                       // its value is never shown
	empty    bool                                                       // an empty value means something
	part     bool                                                       // the convert of another row makes it a part of the setting
}

var legacyRows = append([]legacyRow{
	{property: "bootstrap.servers", settings: []string{"kafka-brokers"}, convert: brokers, note: "also `KAFKA_ADDRESS`, `KAFKA_ADDRESSES`, `KAFKA_ADDR`; `PLAINTEXT://` and the like in front of a broker is taken off"},
	{property: "listeners", settings: []string{"listen"}, convert: listener, note: "one, of http"},
	{property: "port", settings: []string{"listen"}, convert: port},
	{property: "id", settings: []string{"id"}},
	{property: "advertised.listeners", settings: []string{"advertised-listeners"}, convert: list, note: "where `SLUICE_BASE_URL` does not say it"},
	{property: "host.name", settings: []string{"host-name"}, note: "where neither of these says it"},
	{property: "consumer.request.timeout.ms", settings: []string{"consumer-request-timeout"}, convert: between(1, 1<<31)},
	{property: "consumer.request.max.bytes", settings: []string{"consumer-request-max-bytes"}},
	{property: "consumer.instance.timeout.ms", settings: []string{"consumer-instance-timeout"}},
	{property: "fetch.min.bytes", settings: []string{"consumer-fetch-min-bytes"}},
	{property: "consumer.fetch.min.bytes", settings: []string{"consumer-fetch-min-bytes"}},
	{property: "fetch.message.max.bytes", settings: []string{"kafka-fetch-max-bytes"}, convert: between(64<<10, 1<<30), note: "at least 65536"},
	{property: "consumer.fetch.max.bytes", settings: []string{"kafka-fetch-max-bytes"}, convert: between(64<<10, 1<<30), note: "at least 65536"},
	{property: "max.request.size", settings: []string{"max-record-bytes", "max-body-bytes"}, convert: recordSize, note: "at most 64 MiB; the body's limit grows with it"},
	{property: "producer.max.request.size", settings: []string{"max-record-bytes", "max-body-bytes"}, convert: recordSize, note: "as above"},
	{property: "acks", settings: []string{"produce-acks"}, convert: acks, note: "0 and 1 become all"},
	{property: "producer.acks", settings: []string{"produce-acks"}, convert: acks, note: "as above"},
	{property: "producer.delivery.timeout.ms", settings: []string{"produce-timeout"}, convert: between(1000, 600_000), note: "between 1000 and 600000"},
	{property: "compression.enable", settings: []string{"gzip"}, convert: truth},
	{property: "schema.registry.url", settings: []string{"schema-registry-url"}, convert: registry},
	{property: "schema.registry.basic.auth.user.info", settings: []string{"schema-registry-url"}, convert: userInfo, secret: true, part: true, note: "goes into the addresses of `schema.registry.url`"},
	{property: "schema.registry.basic.auth.credentials.source", convert: oneOf("USER_INFO", "URL"), note: "`USER_INFO` and `URL`; others stop the start"},
	{property: "access.control.allow.origin", settings: []string{"cors-allow-origins"}, convert: list},
	{property: "access.control.allow.methods", settings: []string{"cors-methods"}, convert: list},
	{property: "access.control.allow.headers", settings: []string{"cors-headers"}, convert: list},
	{property: "api.v2.enable", settings: []string{"api-v2"}, convert: truth},
	{property: "api.endpoints.allowlist", settings: []string{"api-allow"}, convert: list},
	{property: "api.endpoints.blocklist", settings: []string{"api-block"}, convert: list},
	{property: "shutdown.graceful.ms", settings: []string{"shutdown-grace"}},
	{property: "idle.timeout.ms", settings: []string{"idle-timeout"}, convert: between(180_000, 1<<40), note: "at least 180000"},
	{property: "max.request.header.size", settings: []string{"max-header-bytes"}, convert: between(4<<10, 1<<20), note: "at least 4096"},
	{property: "authentication.method", settings: []string{"auth"}, convert: authentication, note: "`NONE`; anything else stops the start"},
	{property: "ssl.client.authentication", convert: oneOf("NONE"), note: "`NONE`; anything else stops the start"},
	{property: "ssl.client.auth", convert: oneOf("false"), note: "`false`; anything else stops the start"},
	{property: "kafka.rest.resource.extension.class", convert: extension, note: "without effect; one for security stops the start"},
}, clientRows()...)

// clientRows are the settings of the Kafka clients that say how brokers are reached. The classic proxy has a client of
// each sort; here one setting is for all, and the first prefix that has it wins.
func clientRows() (rows []legacyRow) {
	for _, prefix := range []string{"client.", "admin.", "producer.", "consumer."} {
		for _, row := range []legacyRow{
			{property: "security.protocol", settings: []string{"kafka-security-protocol"}, convert: upper},
			{property: "sasl.mechanism", settings: []string{"kafka-sasl-mechanism"}, convert: mechanism, note: "`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`"},
			{property: "sasl.jaas.config", settings: []string{"kafka-sasl-user", "kafka-sasl-password", "kafka-sasl-mechanism"}, convert: jaas, secret: true, note: "`PlainLoginModule` or `ScramLoginModule`"},
			{property: "ssl.truststore.location", settings: []string{"kafka-tls-ca-file"}, convert: pemFile(prefix + "ssl.truststore.type"), note: "PEM; a Java keystore stops the start"},
			{property: "ssl.truststore.certificates", settings: []string{"kafka-tls-ca"}, convert: pemText},
			{property: "ssl.truststore.type", convert: oneOf("PEM"), note: "`PEM`; others stop the start"},
			{property: "ssl.keystore.location", settings: []string{"kafka-tls-cert-file", "kafka-tls-key-file"}, convert: twice(pemFile(prefix + "ssl.keystore.type")), note: "PEM, certificate and key in one file; a Java keystore stops the start"},
			{property: "ssl.keystore.certificate.chain", settings: []string{"kafka-tls-cert"}, convert: pemText},
			{property: "ssl.keystore.key", settings: []string{"kafka-tls-key"}, convert: pemText, secret: true},
			{property: "ssl.keystore.type", convert: oneOf("PEM"), note: "`PEM`; others stop the start"},
			{property: "ssl.endpoint.identification.algorithm", settings: []string{"kafka-tls-verify-host"}, convert: hostCheck, empty: true, note: "empty: not checked"},
		} {
			row.property = prefix + row.property
			rows = append(rows, row)
		}
	}
	return rows
}

// legacyWithout are the properties that mean nothing here, some by what they begin with. They are named once.
var legacyWithout = []string{
	"zookeeper.connect", "client.zk.session.timeout.ms", "client.init.timeout.ms", "client.timeout.ms", "consumer.threads", "producer.threads",
	"consumer.iterator.timeout.ms", "consumer.iterator.backoff.ms", "max.poll.records", "consumer.max.poll.records", "simpleconsumer.pool.size.max",
	"simpleconsumer.pool.timeout.ms", "thread.pool.min", "thread.pool.max", "request.queue.capacity*", "metrics.*", "metric.reporters", "request.logger.name",
	"debug", "jmx.*", "api.v3.produce.response.thread.pool.size", "api.v3.produce.rate.limit.cache.expiry.ms",
	"null.request.body.always.publishes.empty.record", "response.http.headers.config", "response.mediatype.*", "http2.enabled", "csrf.*", "dos.filter.*",
	"nosniff.prevention.enable", "access.control.skip.options", "reject.options.request", "confluent.telemetry.*",
	"authentication.realm", "authentication.roles", "authentication.skip.paths", "ssl.cipher.suites", "ssl.enabled.protocols", "ssl.protocol",
	"ssl.provider", "ssl.keymanager.algorithm", "ssl.trustmanager.algorithm", "ssl.endpoint.identification.algorithm",
}

// legacyLater are the properties of what Sluice does not do yet: a limit or an API that somebody may count on. They are
// named in a warning of their own.
var legacyLater = []string{
	"api.v3.*", "confluent.resource.name.authority", "streaming.connection.max.duration.*", "rate.limit.*", "producer.rate.limit.*",
}

// legacyClients are the other settings of Java's Kafka clients: tuning, which Sluice does not leave to its users.
var legacyClients = []string{"client.*", "admin.*", "producer.*", "consumer.*"}

// brokerVariables are the names that other services have for the brokers, the weakest first.
var brokerVariables = []string{"KAFKA_ADDR", "KAFKA_ADDRESSES", "KAFKA_ADDRESS"}

// legacyRefused are the properties that ask for protection that would be missing. They stop the start.
var legacyRefused = []struct{ pattern, reason string }{
	{"ssl.*", "asks for an HTTPS listener, which Sluice does not have yet: let TLS end in front of it, and take the ssl.* properties out"},
	{"authentication.*", "asks for a login, which Sluice does not have yet; take it out only if everybody who reaches the port may do everything"},
	{"confluent.rest.auth.*", "asks for Confluent's security plugin, which does not exist here; take it out only if everybody who reaches the port may do everything"},
	{"listener.name.*", "asks for a listener of its own with TLS; Sluice has one, without"},
	{"schema.registry.ssl.*", "asks for certificates towards the schema registry, which Sluice cannot show yet; the system's authorities are used"},
	{"schema.registry.bearer.*", "asks for a token towards the schema registry, which Sluice cannot show yet"},
	{"*.sasl.oauthbearer.*", "asks for OAuth towards Kafka, which Sluice does not have yet"},
	{"*.callback.handler.class", "names a Java class that would log in; use PLAIN or SCRAM"},
	{"*.sasl.login.class", "names a Java class that would log in; use PLAIN or SCRAM"},
	{"*.ssl.engine.factory.class", "names a Java class that would make TLS; use PEM files"},
}

// legacyEnvironment are the variables of the classic proxy's start scripts and images; they are no properties. So are
// those that Kubernetes makes out of a Service whose name begins so.
var legacyEnvironment = []string{"LOG4J*", "TOOLS_LOG4J*", "HEAP_OPTS", "JMX_*", "HOME", "OPTS", "JVM_*", "LOG_DIR", "GC_LOG_*", "CUB_*", "DEBUG", "CLASSPATH"}

// matches says whether a name is meant by a pattern, in which * stands for any text at the beginning or the end.
func matches(pattern, name string) bool {
	if rest, ok := strings.CutSuffix(pattern, "*"); ok {
		if middle, both := strings.CutPrefix(rest, "*"); both {
			return strings.Contains(name, middle)
		}
		return strings.HasPrefix(name, rest)
	}
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, rest)
	}
	return name == pattern
}
