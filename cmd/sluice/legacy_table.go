package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

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

func brokers(value string, _ legacyProperties) ([]string, error) {
	var all []string
	for address := range strings.SplitSeq(value, ",") {
		address = strings.TrimSpace(address)
		if _, rest, scheme := strings.Cut(address, "://"); scheme {
			address = rest
		}
		if address != "" {
			all = append(all, address)
		}
	}
	return []string{strings.Join(all, ",")}, nil
}

func listener(value string, _ legacyProperties) ([]string, error) {
	listeners, err := list(value, nil)
	if err != nil {
		return nil, err
	}
	if strings.Contains(listeners[0], ",") {
		return nil, errors.New("names several addresses; Sluice serves one")
	}
	u, err := url.Parse(listeners[0])
	switch {
	case err != nil || u.Host == "" || u.Scheme == "":
		return nil, errors.New("must look like http://0.0.0.0:8082")
	case strings.EqualFold(u.Scheme, "https"):
		return nil, errors.New("asks for HTTPS, which Sluice does not serve yet: let TLS end in front of it, and name http here")
	case !strings.EqualFold(u.Scheme, "http"):
		return nil, errors.New("must be of http; named listeners do not exist here")
	case u.Port() == "":
		return nil, errors.New("must have a port, as in http://0.0.0.0:8082")
	}
	return []string{u.Host}, nil
}

func port(value string, _ legacyProperties) ([]string, error) {
	if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 65535 {
		return nil, errors.New("must be a port")
	}
	return []string{":" + value}, nil
}

// list takes the blanks out that Java allows around commas.
func list(value string, _ legacyProperties) ([]string, error) {
	var all []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return []string{strings.Join(all, ",")}, nil
}

func truth(value string, _ legacyProperties) ([]string, error) {
	switch value = strings.ToLower(value); value {
	case "true", "false":
		return []string{value}, nil
	}
	return nil, errors.New("must be true or false")
}

func upper(value string, _ legacyProperties) ([]string, error) {
	return []string{strings.ToUpper(value)}, nil
}

// between moves what is out of bounds to the bound: the old server took it, so it must not stop the new one.
func between(least, most int64) func(string, legacyProperties) ([]string, error) {
	return func(value string, _ legacyProperties) ([]string, error) {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("is %q; it must be a whole number", value)
		}
		return []string{strconv.FormatInt(min(max(n, least), most), 10)}, nil
	}
}

// recordSize is the limit of a record, and one for the body in which a record of that size fits as base64 where the
// usual one is too small: the old server had none.
func recordSize(value string, _ legacyProperties) ([]string, error) {
	limits, err := between(1<<10, 64<<20)(value, nil)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(limits[0])
	body := n/3*4 + 1<<20
	if err != nil || body <= 24<<20 {
		return []string{limits[0], ""}, err
	}
	return []string{limits[0], strconv.Itoa(body)}, nil
}

func acks(value string, _ legacyProperties) ([]string, error) {
	switch value {
	case "all", "-1", "0", "1":
		return []string{"all"}, nil
	}
	return nil, errors.New("must be all, -1, 0 or 1")
}

// registry puts user and password into the addresses, where the old proxy had them apart.
func registry(value string, all legacyProperties) ([]string, error) {
	addresses, err := list(value, nil)
	if err != nil {
		return nil, err
	}
	info, apart := all["schema.registry.basic.auth.user.info"]
	if !apart || info.value == "" {
		return addresses, nil
	}
	user, password, _ := strings.Cut(info.value, ":")
	var full []string
	for address := range strings.SplitSeq(addresses[0], ",") {
		u, err := url.Parse(address)
		if err != nil {
			return nil, errors.New("must be addresses like http://registry:8081")
		}
		u.User = url.UserPassword(user, password)
		full = append(full, strings.ReplaceAll(u.String(), ",", "%2C")) // commas part the addresses
	}
	return []string{strings.Join(full, ",")}, nil
}

// userInfo is read by registry.
func userInfo(value string, all legacyProperties) ([]string, error) {
	switch {
	case !strings.Contains(value, ":"):
		return nil, errors.New("must be user:password")
	case all["schema.registry.url"].value == "":
		return nil, errors.New("is for the addresses of schema.registry.url, which is not set; with SLUICE_SCHEMA_REGISTRY_URL they stand in it")
	}
	return []string{""}, nil
}

// oneOf is a property that may only say what Sluice does anyway.
func oneOf(harmless ...string) func(string, legacyProperties) ([]string, error) {
	return func(value string, _ legacyProperties) ([]string, error) {
		for _, v := range harmless {
			if strings.EqualFold(value, v) {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("is %q, which Sluice cannot do; only %s", value, strings.Join(harmless, " and "))
	}
}

func authentication(value string, _ legacyProperties) ([]string, error) {
	if strings.EqualFold(value, "NONE") {
		return []string{"none"}, nil
	}
	return nil, fmt.Errorf("is %q: Sluice has no login yet, and would serve everybody; take it out only if everybody who reaches the port may do everything", value)
}

func extension(value string, _ legacyProperties) ([]string, error) {
	if strings.Contains(strings.ToLower(value), "security") {
		return nil, errors.New("names a plugin for security, which does not exist here; take it out only if everybody who reaches the port may do everything")
	}
	return nil, nil
}

func mechanism(value string, _ legacyProperties) ([]string, error) {
	switch value = strings.ToUpper(value); value {
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		return []string{value}, nil
	}
	return nil, fmt.Errorf("is %q; Sluice logs in by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", value)
}

// jaas gives the mechanism as well, where its own property, which comes first, does not.
func jaas(value string, _ legacyProperties) ([]string, error) {
	l, err := parseJAAS(value)
	if err != nil {
		return nil, err
	}
	if l.module == "PlainLoginModule" {
		return []string{l.user, l.password, "PLAIN"}, nil
	}
	return []string{l.user, l.password, ""}, nil
}

// pemFile takes a file in PEM. Java's default is a keystore of its own sort, told by the name where no type is given.
func pemFile(typeProperty string) func(string, legacyProperties) ([]string, error) {
	return func(value string, all legacyProperties) ([]string, error) {
		kind := all[typeProperty].value
		switch ext := strings.ToLower(filepath.Ext(value)); {
		case strings.EqualFold(kind, "PEM"):
		case kind != "":
			return nil, fmt.Errorf("is a keystore of type %s; Sluice reads PEM: `keytool -exportcert -rfc` and `openssl pkcs12 -nodes` make it", kind)
		case ext == ".jks" || ext == ".p12" || ext == ".pfx" || ext == ".keystore" || ext == ".truststore" || ext == ".bcfks":
			return nil, errors.New("is a Java keystore; Sluice reads PEM: `keytool -exportcert -rfc` and `openssl pkcs12 -nodes` make it")
		}
		return []string{value}, nil
	}
}

// pemText gives each block lines of its own: Java takes them on one line as well, as a properties file joins them.
func pemText(value string, _ legacyProperties) ([]string, error) {
	blocks := pemBlock.FindAllStringSubmatch(value, -1)
	if blocks == nil {
		return nil, errors.New("must be text in PEM")
	}
	var b strings.Builder
	for _, block := range blocks {
		fmt.Fprintf(&b, "-----BEGIN %s-----\n%s\n-----END %s-----\n", block[1], strings.Join(strings.Fields(block[2]), "\n"), block[1])
	}
	return []string{b.String()}, nil
}

var pemBlock = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END [A-Z0-9 ]+-----`)

func twice(convert func(string, legacyProperties) ([]string, error)) func(string, legacyProperties) ([]string, error) {
	return func(value string, all legacyProperties) ([]string, error) {
		one, err := convert(value, all)
		if err != nil {
			return nil, err
		}
		return []string{one[0], one[0]}, nil
	}
}

func hostCheck(value string, _ legacyProperties) ([]string, error) {
	switch strings.ToLower(value) {
	case "":
		return []string{"false"}, nil
	case "https":
		return []string{"true"}, nil
	}
	return nil, errors.New("must be https or empty")
}
