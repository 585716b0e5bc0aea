package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// ours is what no legacy name can say.
var ours = []string{"--redis-url=redis://r:6379/0", "--auth=none", "--allow-no-auth"}

// oldParse is parse, with what it makes of the legacy names.
func oldParse(t *testing.T, args ...string) (*cli, *legacySettings, error) {
	t.Helper()
	verb, verbs, err := parse(t.Context(), args)
	if err != nil {
		return nil, nil, err
	}
	var old *legacySettings
	if _, err := verb.Call(func(l *legacySettings) { old = l }); err != nil {
		t.Fatal(err)
	}
	return verbs, old, nil
}

// propertiesFile is a file of that text, under a name that errors must show.
func propertiesFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kafka-rest.properties")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The FT deployments start as they are (rest-api.md 10), once the brokers are named.
func TestTheOldDeploymentsStartAsTheyAre(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		file string
		want func(*cli) []any
		is   []any
	}{
		"container": {
			env: map[string]string{
				"RP_ZOOKEEPER_CONNECT": "zk:2181", "RP_FETCH_MESSAGE_MAX_BYTES": "16777216", "RP_CONSUMER_REQUEST_MAX_BYTES": "17825792",
				"RP_MAX_REQUEST_SIZE": "17825792", "KAFKAREST_HEAP_OPTS": "-Xmx1g", "KAFKA_ADDRESS": "msk-1:9092,msk-2:9092",
			},
			want: func(c *cli) []any {
				s := c.Serve
				return []any{s.Kafka.Brokers, s.Kafka.FetchMaxBytes, s.Consumers.RequestMaxBytes, s.Kafka.MaxRecordBytes, s.HTTP.MaxBodyBytes}
			},
			is: []any{"[msk-1:9092 msk-2:9092]", 16777216, 17825792, 17825792, 25165824},
		},
		"hosts": {
			file: "id=host-7\nport=8080\nacks=all\nbootstrap.servers=PLAINTEXT://k1:9092, PLAINTEXT://k2:9092\nmax.request.size=17825792\n",
			want: func(c *cli) []any {
				s := c.Serve
				return []any{s.Consumers.ID, s.HTTP.Listen, s.Kafka.ProduceAcks, s.Kafka.Brokers}
			},
			is: []any{"host-7", ":8080", "all", "[k1:9092 k2:9092]"},
		},
		"later": {
			env: map[string]string{
				"KAFKA_REST_ID": "delivery", "KAFKA_REST_LISTENERS": "http://0.0.0.0:8082", "KAFKA_REST_HOST_NAME": "kafka-rest-proxy-msk:8080",
				"KAFKA_REST_FETCH_MIN_BYTES": "1", "KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS": "10000", "KAFKA_REST_CONSUMER_THREADS": "-1",
				"KAFKA_REST_CONSUMER_INSTANCE_TIMEOUT_MS": "30000", "KAFKA_REST_MAX_POLL_RECORDS": "50", "KAFKA_REST_BOOTSTRAP_SERVERS": "k:9092",
			},
			want: func(c *cli) []any {
				s := c.Serve
				return []any{s.Consumers.ID, s.HTTP.Listen, s.HTTP.Pull.HostName, s.Consumers.FetchMinBytes, s.Consumers.RequestTimeout, s.Consumers.InstanceTimeout, s.Kafka.Brokers}
			},
			is: []any{"delivery", "0.0.0.0:8082", "kafka-rest-proxy-msk:8080", 1, "10s", "30s", "[k:9092]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			clean(t, c.env)
			args := append([]string{"serve"}, ours...)
			if c.file != "" {
				args = append(args, "--kafka-rest-properties", propertiesFile(t, c.file))
			}
			verbs, _, err := oldParse(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			for n, got := range c.want(verbs) {
				if fmt.Sprint(got) != fmt.Sprint(c.is[n]) {
					t.Errorf("%d: %v, want %v", n, got, c.is[n])
				}
			}
		})
	}
}

// flag > SLUICE_* > --config > KAFKA_REST_* > RP_* > KAFKA_ADDRESS > the properties file > default
func TestWhoWinsOverLegacyNames(t *testing.T) {
	file := propertiesFile(t, "bootstrap.servers=file:1\nconsumer.request.timeout.ms=1001\n")
	yaml := settings(t, "consumer-request-timeout: 1004\nkafka-brokers: [yaml:1]\n")
	for _, c := range []struct {
		env     map[string]string
		args    []string
		timeout string
		brokers string
	}{
		{nil, nil, "1.001s", "[file:1]"},
		{map[string]string{"KAFKA_ADDR": "addr:1"}, nil, "1.001s", "[addr:1]"},
		{map[string]string{"KAFKA_ADDRESS": "address:1", "KAFKA_ADDRESSES": "addresses:1"}, nil, "1.001s", "[address:1]"},
		{map[string]string{"KAFKA_ADDRESS": "address:1", "RP_BOOTSTRAP_SERVERS": "rp:1", "RP_CONSUMER_REQUEST_TIMEOUT_MS": "1002"}, nil, "1.002s", "[rp:1]"},
		{map[string]string{"RP_CONSUMER_REQUEST_TIMEOUT_MS": "1002", "KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS": "1003"}, nil, "1.003s", "[file:1]"},
		{map[string]string{"KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS": "1003"}, []string{"--config", yaml}, "1.004s", "[yaml:1]"},
		{map[string]string{"SLUICE_CONSUMER_REQUEST_TIMEOUT": "1005", "KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS": "1003"}, []string{"--config", yaml}, "1.005s", "[yaml:1]"},
		{map[string]string{"SLUICE_CONSUMER_REQUEST_TIMEOUT": "1005"}, []string{"--consumer-request-timeout=1006", "--kafka-brokers=flag:1"}, "1.006s", "[flag:1]"},
		{map[string]string{"KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS": ""}, nil, "1.001s", "[file:1]"},
	} {
		t.Run("", func(t *testing.T) {
			clean(t, c.env)
			verbs, _, err := oldParse(t, slices.Concat([]string{"serve", "--kafka-rest-properties", file}, ours, c.args)...)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(verbs.Serve.Consumers.RequestTimeout, verbs.Serve.Kafka.Brokers); got != c.timeout+" "+c.brokers {
				t.Errorf("%v %v: %s, want %s %s", c.env, c.args, got, c.timeout, c.brokers)
			}
		})
	}
}

// Every row does what it says: the value arrives in the setting, or the start stops and names the place.
func TestWhatPropertiesBecome(t *testing.T) {
	const pem = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"
	for _, c := range []struct {
		text string
		got  func(*cli) any
		want any // an error if it is one
	}{
		{"listeners=http://:9001", func(c *cli) any { return c.Serve.HTTP.Listen }, ":9001"},
		{"listeners=http://a:1\nport=7", func(c *cli) any { return c.Serve.HTTP.Listen }, "a:1"},
		{"port=7", func(c *cli) any { return c.Serve.HTTP.Listen }, ":7"},
		{"advertised.listeners = http://a:1 , https://b:2", func(c *cli) any { return c.Serve.HTTP.Pull.AdvertisedListeners }, "[http://a:1 https://b:2]"},
		{"fetch.min.bytes=-1", func(c *cli) any { return c.Serve.Consumers.FetchMinBytes }, -1},
		{"consumer.request.max.bytes=1234", func(c *cli) any { return c.Serve.Consumers.RequestMaxBytes }, 1234},
		{"fetch.message.max.bytes=1", func(c *cli) any { return c.Serve.Kafka.FetchMaxBytes }, 65536},
		{"max.request.size=2147483647", func(c *cli) any { return []int{c.Serve.Kafka.MaxRecordBytes, c.Serve.HTTP.MaxBodyBytes} }, "[67108864 90527060]"},
		{"max.request.size=1048576", func(c *cli) any { return []int{c.Serve.Kafka.MaxRecordBytes, c.Serve.HTTP.MaxBodyBytes} }, "[1048576 25165824]"},
		{"acks=1", func(c *cli) any { return c.Serve.Kafka.ProduceAcks }, "all"},
		{"producer.acks=-1", func(c *cli) any { return c.Serve.Kafka.ProduceAcks }, "all"},
		{"producer.delivery.timeout.ms=45000", func(c *cli) any { return c.Serve.Kafka.ProduceTimeout }, "45s"},
		{"compression.enable=FALSE", func(c *cli) any { return c.Serve.HTTP.Gzip }, false},
		{"schema.registry.url=http://r1:8081, http://r2:8081", func(c *cli) any { return c.Serve.Formats.RegistryURL }, "[http://r1:8081 http://r2:8081]"},
		{"schema.registry.url=https://r\nschema.registry.basic.auth.credentials.source=USER_INFO\nschema.registry.basic.auth.user.info=key:p@ss,word",
			func(c *cli) any { return c.Serve.Formats.RegistryURL }, "[https://key:p%40ss%2Cword@r]"},
		{"access.control.allow.origin=https://a.ft.com,https://b.ft.com\naccess.control.allow.methods=GET,DELETE\naccess.control.allow.headers=x-y",
			func(c *cli) any { return c.Serve.HTTP.CORS }, "{[https://a.ft.com https://b.ft.com] [GET DELETE] [x-y]}"},
		{"api.v2.enable=false", func(c *cli) any { return c.Serve.HTTP.API.V2 }, false},
		{"api.endpoints.blocklist=api.v2.consumers.*,api.v3.topics.delete", func(c *cli) any { return c.Serve.HTTP.API.Block }, "[api.v2.consumers.* api.v3.topics.delete]"},
		{"api.endpoints.allowlist=api.v2.topics.list", func(c *cli) any { return c.Serve.HTTP.API.Allow }, "[api.v2.topics.list]"},
		{"shutdown.graceful.ms=1500", func(c *cli) any { return c.Serve.ShutdownGrace }, "1.5s"},
		{"idle.timeout.ms=30000", func(c *cli) any { return c.Serve.HTTP.IdleTimeout }, "3m0s"},
		{"idle.timeout.ms=600000", func(c *cli) any { return c.Serve.HTTP.IdleTimeout }, "10m0s"},
		{"max.request.header.size=8192", func(c *cli) any { return c.Serve.HTTP.MaxHeader }, 8192},
		{"authentication.method=NONE", func(c *cli) any { return c.Serve.Auth }, "none"},
		{"client.security.protocol=sasl_ssl\nclient.sasl.mechanism=SCRAM-SHA-512\nclient.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n  username=\"u\" password=\"p\";\nclient.ssl.endpoint.identification.algorithm=",
			func(c *cli) any {
				s := c.Serve.Kafka.Security
				return []any{s.Protocol, s.Mechanism, s.User, s.Password, s.VerifyHost}
			}, "[SASL_SSL SCRAM-SHA-512 u p false]"},
		{"producer.security.protocol=SASL_PLAINTEXT\nproducer.sasl.jaas.config=x.PlainLoginModule required username=u password=p;",
			func(c *cli) any { return c.Serve.Kafka.Security.Mechanism }, "PLAIN"},
		{"client.security.protocol=SSL\nclient.ssl.truststore.location=/etc/ca.pem\nclient.ssl.keystore.type=PEM\nclient.ssl.keystore.location=/etc/own",
			func(c *cli) any {
				s := c.Serve.Kafka.Security
				return []string{s.CAFile, s.CertFile, s.KeyFile}
			}, "[/etc/ca.pem /etc/own /etc/own]"},
		{"client.security.protocol=SSL\nclient.ssl.truststore.certificates=-----BEGIN CERTIFICATE----- \\\n TUlJ \\\n -----END CERTIFICATE-----",
			func(c *cli) any { return c.Serve.Kafka.Security.CA }, pem},

		{"#\nconsumer.request.timeout.ms=soon", nil, refused{2, "soon"}},
		{"\nconsumer.instance.timeout.ms=1", nil, refused{2, "consumer-instance-timeout must be"}},
		{"id=a/b\nhost.name=x", nil, refused{1, "no slash"}},
		{"listeners=https://0.0.0.0:8443", nil, refused{1, "HTTPS"}},
		{"listeners=http://a:1,http://b:2", nil, refused{1, "several"}},
		{"authentication.method=BASIC\nauthentication.realm=R", nil, refused{1, "BASIC"}},
		{"ssl.keystore.location=/x.jks", nil, refused{1, "HTTPS listener"}},
		{"ssl.client.authentication=REQUIRED", nil, refused{1, "REQUIRED"}},
		{"client.ssl.keystore.location=/x.jks", nil, refused{1, "Java keystore"}},
		{"consumer.ssl.truststore.location=/x", nil, "[/x]"},
		{"client.ssl.truststore.type=JKS\nclient.ssl.truststore.location=/x", nil, refused{2, "type JKS"}},
		{"client.sasl.mechanism=GSSAPI", nil, refused{1, "GSSAPI"}},
		{"client.sasl.jaas.config=x.Krb5LoginModule required password=hunter2;", nil, refused{1, "Kerberos"}},
		{"client.sasl.jaas.config=x.PlainLoginModule required username=u password=hunter2;", nil, refused{1, "SASL_SSL"}},
		{"client.sasl.login.callback.handler.class=X", nil, refused{1, "Java class"}},
		{"access.control.allow.origin=https://*.ft.com", nil, refused{1, "exact"}},
		{"api.endpoints.blocklist=api.v2.topic.list", nil, refused{1, "no operation"}},
		{"acks=2", nil, refused{1, "must be all"}},
		{"compression.enable=yes", nil, refused{1, "true or false"}},
		{"client.security.protocol=TLS", nil, refused{1, "must be one of"}},
		{"confluent.rest.auth.propagate.method=SSL", nil, refused{1, "security plugin"}},
		{"kafka.rest.resource.extension.class=io.confluent.kafkarest.security.KafkaRestSecurityResourceExtension", nil, refused{1, "plugin"}},
		{"schema.registry.basic.auth.user.info=a:hunter2", nil, refused{1, "schema.registry.url"}},
		{"id=x\nname=\\u12", nil, refused{2, "hexadecimal"}},
	} {
		t.Run(strings.ReplaceAll(c.text, "/", "_"), func(t *testing.T) {
			clean(t, map[string]string{"SLUICE_KAFKA_BROKERS": "k:1"})
			path := propertiesFile(t, c.text+"\n")
			args := []string{"serve", "--kafka-rest-properties", path, "--redis-url=redis://r:6379/0", "--allow-no-auth"}
			if !strings.Contains(c.text, "authentication.method=NONE") {
				args = append(args, "--auth=none")
			}
			verbs, _, err := oldParse(t, args...)
			if r, ok := c.want.(refused); ok {
				if want := fmt.Sprintf("%s:%d: ", path, r.line); err == nil || !strings.HasPrefix(reason(err), want) || !strings.Contains(reason(err), r.says) || strings.Contains(reason(err), "hunter2") {
					t.Errorf("%v, want %s… %s", err, want, r.says)
				}
				return
			}
			if c.got == nil { // a plain path, without TLS: the two do not fit together
				if err == nil || !strings.Contains(err.Error(), "did you mean SSL") {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.got(verbs); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

type refused struct {
	line int
	says string
}

// A variable is named as it was set.
func TestAVariableAtFaultIsNamed(t *testing.T) {
	for variable, value := range map[string]string{
		"KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS": "soon", "RP_CONSUMER_INSTANCE_TIMEOUT_MS": "1", "KAFKA_REST_AUTHENTICATION_METHOD": "BASIC",
		"RP_SSL_KEYSTORE_LOCATION": "/etc/x.jks", "KAFKA_REST_CLIENT_SSL_TRUSTSTORE_LOCATION": "x.p12", "KAFKA_REST_PORT": "eight",
	} {
		t.Run(variable, func(t *testing.T) {
			clean(t, map[string]string{variable: value, "KAFKA_ADDRESS": "k:1"})
			if _, _, err := oldParse(t, append([]string{"serve"}, ours...)...); err == nil || !strings.HasPrefix(reason(err), variable) {
				t.Error(err)
			}
		})
	}
}

func TestNoBrokersAnyMoreFromZooKeeper(t *testing.T) {
	clean(t, map[string]string{"RP_ZOOKEEPER_CONNECT": "zk:2181"})
	if _, _, err := oldParse(t, append([]string{"serve"}, ours...)...); err == nil || !strings.Contains(err.Error(), "SLUICE_KAFKA_BROKERS") || !strings.Contains(err.Error(), "zookeeper.connect") {
		t.Error(err)
	}
}

// The start says what became of everything, once, and shows no secret.
func TestTheStartReportsWhatBecameOfLegacyNames(t *testing.T) {
	path := propertiesFile(t, strings.Join([]string{
		"bootstrap.servers=k:1", "zookeeper.connect=zk", "api.v3.enable=true", "made.up=1", "producer.linger.ms=5", "max.poll.records=7",
		"client.security.protocol=SASL_PLAINTEXT", "client.sasl.jaas.config=x.PlainLoginModule required username=u password=hunter2;",
		"schema.registry.url=http://u:hunter2@r", "id=file", "idle.timeout.ms=30000", "gzip.none=", "compression.enable=true", "port=1", "listeners=http://a:2",
	}, "\n"))
	clean(t, map[string]string{
		"RP_ID": "rp", "KAFKA_REST_LOG4J_ROOT_LOGLEVEL": "WARN", "KAFKA_REST_HEAP_OPTS": "-Xmx1g", "KAFKAREST_HEAP_OPTS": "-Xmx1g", "RP_ZOO": "1",
		"KAFKA_REST_PROXY_MSK_PORT": "tcp://10.0.0.1:8080", "KAFKA_REST_PORT": "tcp://10.0.0.1:8080", "KAFKA_REST_SERVICE_HOST": "10.0.0.1", "KAFKA_ADDRESS_BOOK": "x",
		"SLUICE_GZIP": "false",
	})
	_, old, err := oldParse(t, append([]string{"serve", "--kafka-rest-properties", path}, ours...)...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	old.report(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	at := func(line int, name string) string { return fmt.Sprintf("\"%s:%d: %s\"", path, line, name) }
	want := []string{
		`level=INFO msg="legacy setting" legacy=` + at(1, "bootstrap.servers") + ` setting=kafka-brokers value=k:1`,
		`level=INFO msg="legacy setting" legacy=` + at(15, "listeners") + ` setting=listen value=a:2`,
		`level=INFO msg="legacy setting" legacy=RP_ID setting=id value=rp`,
		`level=WARN msg="legacy setting is overridden" legacy=` + at(13, "compression.enable") + ` setting=gzip by=SLUICE_GZIP`,
		`level=INFO msg="legacy setting" legacy=` + at(9, "schema.registry.url") + ` setting=schema-registry-url value=http://r`,
		`level=INFO msg="legacy setting" legacy=` + at(11, "idle.timeout.ms") + ` setting=idle-timeout value=180000`,
		`level=INFO msg="legacy setting" legacy=` + at(7, "client.security.protocol") + ` setting=kafka-security-protocol value=SASL_PLAINTEXT`,
		`level=INFO msg="legacy setting" legacy=` + at(8, "client.sasl.jaas.config") + ` setting=kafka-sasl-user value=[redacted]`,
		`level=INFO msg="legacy setting" legacy=` + at(8, "client.sasl.jaas.config") + ` setting=kafka-sasl-password value=[redacted]`,
		`level=INFO msg="legacy setting" legacy=` + at(8, "client.sasl.jaas.config") + ` setting=kafka-sasl-mechanism value=[redacted]`,
		`level=WARN msg="legacy setting is overridden" legacy=` + at(10, "id") + ` by=RP_ID`,
		`level=WARN msg="legacy setting is overridden" legacy=` + at(14, "port") + ` by=` + at(15, "listeners"),
		`level=WARN msg="legacy settings without effect" names="[KAFKAREST_HEAP_OPTS KAFKA_REST_HEAP_OPTS KAFKA_REST_LOG4J_ROOT_LOGLEVEL max.poll.records producer.linger.ms zookeeper.connect]"`,
		`level=WARN msg="legacy settings of what Sluice does not have yet, without effect" names=[api.v3.enable]`,
		`level=WARN msg="unknown legacy settings, without effect" names="[RP_ZOO made.up]"`,
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Each row becomes settings that exist, and no name stands in two lists.
func TestTheTableOfLegacyNamesIsSound(t *testing.T) {
	verbs := &cli{}
	parser, err := kong.New(verbs, durations, kong.BindTo(t.Context(), (*context.Context)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	flags := allServeFlags(parser.Model)
	seen := map[string]bool{}
	for _, row := range legacyRows {
		if seen[row.property] {
			t.Errorf("%s stands twice", row.property)
		}
		seen[row.property] = true
		for _, name := range row.settings {
			if flags[name] == nil {
				t.Errorf("%s becomes %s, which is no setting", row.property, name)
			}
		}
		if slices.ContainsFunc(legacyWithout, func(pattern string) bool { return matches(pattern, row.property) }) {
			t.Errorf("%s has a row and stands in the list of those without effect", row.property)
		}
	}
}

// The environment of images: ___ is a dash, __ an underscore.
func TestNamesOfVariables(t *testing.T) {
	for variable, want := range map[string]string{"CONSUMER_REQUEST_TIMEOUT_MS": "consumer.request.timeout.ms", "A__B": "a_b", "A___B_C": "a-b.c"} {
		if got := propertyName(variable); got != want {
			t.Errorf("%s is %s, want %s", variable, got, want)
		}
	}
}

// dev takes nothing from its surroundings; migrate and healthcheck take what concerns them.
func TestWhoReadsLegacyNames(t *testing.T) {
	clean(t, map[string]string{"KAFKA_ADDRESS": "k:1", "SLUICE_REDIS_URL": "redis://r:6379/0", "KAFKA_REST_LISTENERS": "http://0.0.0.0:9999"})
	if verbs, err := parsed(t, "dev"); err != nil || verbs.Dev.Listen != "127.0.0.1:8082" {
		t.Errorf("dev: %+v, %v", verbs, err)
	}
	if verbs, err := parsed(t, "healthcheck"); err != nil || verbs.Healthcheck.Listen != "0.0.0.0:9999" {
		t.Errorf("healthcheck: %+v, %v", verbs, err)
	}
	if verbs, err := parsed(t, "migrate"); err != nil || !slices.Equal(verbs.Migrate.Kafka.Brokers, []string{"k:1"}) {
		t.Errorf("migrate: %+v, %v", verbs, err)
	}
}
