package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// What the classic proxy never knew and has to be said beside its own configuration.
func besidesLegacy(t *testing.T) []string {
	return []string{"SLUICE_REDIS_URL=" + backend.Redis(t), "SLUICE_AUTH=none", "SLUICE_ALLOW_NO_AUTH=true"}
}

// shipped is kafka-rest.properties as Confluent ships it, filled in as its documentation shows.
func shipped(brokers []string, port int) string {
	prefixed := "PLAINTEXT://" + strings.Join(brokers, ", PLAINTEXT://")
	return fmt.Sprintf(`#
# Copyright 2018 Confluent Inc.
#

id=kafka-rest-test-server
#schema.registry.url=http://localhost:8081
zookeeper.connect=localhost:2181
bootstrap.servers=%s
listeners = http://127.0.0.1:%d

! how long an empty read is held
consumer.request.timeout.ms : 1500
consumer.threads=50
fetch.min.bytes = -1
max.request.size = 1048576
access.control.allow.origin = https://tools.example.com, \
    https://other.example.com
idle.timeout.ms=30000
#
# Configure interceptor classes for sending consumer and producer metrics to Confluent Control Center
#consumer.interceptor.classes=io.confluent.monitoring.clients.interceptor.MonitoringConsumerInterceptor
made.up.by.somebody=1
producer.interceptor.classes=io.confluent.monitoring.clients.interceptor.MonitoringProducerInterceptor
`, prefixed, port)
}

// A service that has only the classic proxy's configuration is served: by the file that Confluent ships, or by the
// variables of its image. The log says what became of each name.
func TestTheClassicConfigurationServes(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	file := filepath.Join(t.TempDir(), "kafka-rest.properties")
	for name, c := range map[string]struct {
		env  func(port int) []string
		args []string
		id   string
		says []string // of the log
	}{
		"the shipped file": {
			env: func(port int) []string {
				if err := os.WriteFile(file, []byte(shipped(k.Brokers, port)), 0o600); err != nil {
					t.Error(err)
				}
				return []string{"KAFKA_REST_LISTENERS=", "RP_CONSUMER_REQUEST_TIMEOUT_MS=1200"}
			},
			args: []string{"--kafka-rest-properties", file},
			id:   "rest-consumer-kafka-rest-test-server-",
			says: []string{
				`"legacy":"` + file + `:5: id","setting":"id","value":"kafka-rest-test-server"`, `"setting":"consumer-request-timeout","value":"1200"`,
				`"legacy":"RP_CONSUMER_REQUEST_TIMEOUT_MS"`, `"setting":"idle-timeout","value":"180000"`,
				`"legacy settings without effect","names":["consumer.threads","producer.interceptor.classes","zookeeper.connect"]`, `"unknown legacy settings, without effect","names":["made.up.by.somebody"]`,
			},
		},
		"the image's variables": {
			env: func(port int) []string {
				return []string{
					"KAFKA_REST_BOOTSTRAP_SERVERS=PLAINTEXT://" + strings.Join(k.Brokers, ",PLAINTEXT://"), fmt.Sprintf("KAFKA_REST_LISTENERS=http://127.0.0.1:%d", port),
					"KAFKA_REST_HOST_NAME=kafka-rest-proxy-msk:8080", "KAFKA_REST_ID=delivery", "KAFKA_REST_MAX_REQUEST_SIZE=1048576", "KAFKA_REST_FETCH_MIN_BYTES=1",
					"KAFKA_REST_CONSUMER_REQUEST_TIMEOUT_MS=1200", "KAFKA_REST_CONSUMER_THREADS=-1", "KAFKA_REST_MAX_POLL_RECORDS=50", "KAFKA_REST_AUTHENTICATION_METHOD=NONE",
					"KAFKA_REST_ACCESS_CONTROL_ALLOW_ORIGIN=https://tools.example.com", "KAFKA_REST_LOG4J_ROOT_LOGLEVEL=WARN", "KAFKA_REST_HEAP_OPTS=-Xmx1g",
					"KAFKA_REST_PORT=tcp://10.0.0.1:8080", "KAFKA_REST_PROXY_MSK_SERVICE_HOST=10.0.0.1",
				}
			},
			id: "rest-consumer-delivery-",
			says: []string{
				`"legacy":"KAFKA_REST_HOST_NAME","setting":"host-name","value":"kafka-rest-proxy-msk:8080"`,
				`"legacy settings without effect","names":["KAFKA_REST_CONSUMER_THREADS","KAFKA_REST_HEAP_OPTS","KAFKA_REST_LOG4J_ROOT_LOGLEVEL","KAFKA_REST_MAX_POLL_RECORDS"]`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			topic := k.Topic(t, "legacy", 1)
			port := backend.FreePort(t)
			base := fmt.Sprintf("http://127.0.0.1:%d", port)
			r, err := peers.Start(ctx, binary, base, slices.Concat(besidesLegacy(t), c.env(port)), append([]string{"serve"}, c.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range c.says {
				if !strings.Contains(r.Log(), line) {
					t.Errorf("the start does not say %s:\n%s", line, r.Log())
				}
			}

			var made struct {
				ID   string `json:"instance_id"`
				Base string `json:"base_uri"`
			}
			if err := peers.Call(ctx, http.MethodPost, base+"/consumers/"+backend.Unique("g"), "application/json", []byte(`{"auto.offset.reset":"smallest"}`), http.StatusOK, &made); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(made.ID, c.id) {
				t.Errorf("instance %s, want %s…", made.ID, c.id)
			}
			if strings.Contains(name, "variables") && !strings.HasPrefix(made.Base, "http://kafka-rest-proxy-msk:8080/consumers/") {
				t.Errorf("base_uri %s", made.Base)
			}
			_, path, _ := strings.Cut(made.Base, "/consumers/")
			began := time.Now() // an empty read lasts as long as the file says, joining included
			read(t, base+"/consumers/"+path+"/topics/"+topic)
			if took := time.Since(began); took < 1100*time.Millisecond {
				t.Errorf("an empty read lasted %s", took)
			}
			large := `{"records":[{"value":"` + strings.Repeat("AAAA", 1<<20/3+10) + `"},{"value":"dg=="}]}` // above 1 MiB raw, and one that fits
			answer := post(t, base+"/topics/"+topic, large, map[string]string{"Origin": "https://tools.example.com"})
			if !strings.Contains(answer.body, "the limit is 1048576 bytes") || !strings.Contains(answer.body, `"partition":0,"offset":`) {
				t.Errorf("produce: %s", answer.body)
			}
			if got := answer.header.Get("Access-Control-Allow-Origin"); got != "https://tools.example.com" {
				t.Errorf("Access-Control-Allow-Origin %q", got)
			}
			eventually(t, 20*time.Second, "the record is read", func() bool {
				return strings.Contains(read(t, base+"/consumers/"+path+"/topics/"+topic), `"value":"dg=="`)
			})
			if err := r.Stop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is wrong, and what would leave open what was closed, stops the start with a line that names the place.
func TestAClassicConfigurationThatCannotBeMeantStops(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	file := filepath.Join(t.TempDir(), "kafka-rest.properties")
	brokers := "bootstrap.servers=" + strings.Join(k.Brokers, ",") + "\n"
	for name, c := range map[string]struct {
		text string
		env  []string
		says []string
	}{
		"a wrong value":        {brokers + "# comment\nconsumer.request.timeout.ms=soon\n", nil, []string{file + ":3: consumer.request.timeout.ms", "soon"}},
		"out of bounds":        {brokers + "consumer.instance.timeout.ms=1\n", nil, []string{file + ":2: consumer.instance.timeout.ms", "consumer-instance-timeout must be at least 1s"}},
		"a login":              {brokers + "authentication.method=BASIC\n", nil, []string{file + ":2: authentication.method", "BASIC", "everybody"}},
		"a variable's login":   {brokers, []string{"KAFKA_REST_AUTHENTICATION_METHOD=BASIC"}, []string{"KAFKA_REST_AUTHENTICATION_METHOD", "BASIC"}},
		"HTTPS":                {brokers + "listeners=https://0.0.0.0:8443\nssl.keystore.location=/etc/x.jks\n", nil, []string{file + ":3: ssl.keystore.location", "HTTPS"}},
		"a Java keystore":      {brokers + "client.ssl.truststore.location=/etc/x.jks\n", nil, []string{file + ":2: client.ssl.truststore.location", "Java keystore", "PEM"}},
		"no brokers":           {"zookeeper.connect=zk:2181\n", nil, []string{"SLUICE_KAFKA_BROKERS", "zookeeper.connect"}},
		"a broken escape":      {"id=\\u00\n", nil, []string{file + ":1: "}},
		"a secret is not told": {brokers + "client.sasl.jaas.config=x.PlainLoginModule required username=u password=hunter2;\n", nil, []string{file + ":2: client.sasl.jaas.config", "SASL_SSL"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "serve", "--listen=127.0.0.1:0", "--kafka-rest-properties", file)
			cmd.Env = slices.Concat(os.Environ(), besidesLegacy(t), c.env)
			out, err := cmd.CombinedOutput()
			line := strings.TrimSpace(string(out))
			if err == nil || ctx.Err() != nil || strings.Contains(line, "\n") || strings.Contains(line, "hunter2") || !strings.HasPrefix(line, "sluice: ") {
				t.Fatalf("%v: %s", err, out)
			}
			for _, word := range c.says {
				if !strings.Contains(line, word) {
					t.Errorf("%q is not in: %s", word, line)
				}
			}
		})
	}
}

// A produce makes its topic where that was asked for, and nowhere else.
func TestTopicsAreMadeOnlyWhereThatWasAskedFor(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t)}
	without, with := g.replica(t), g.replica(t, "--auto-create-topics")
	topic := backend.Unique("made")
	const body = `{"records":[{"key":"aw==","value":"dg=="}]}`
	if a := post(t, without.URL+"/topics/"+topic, body, nil); a.status != http.StatusNotFound || !strings.Contains(a.body, `"error_code":40401`) {
		t.Errorf("without: %d %s", a.status, a.body)
	}
	if a := post(t, with.URL+"/topics/"+topic, body, nil); a.status != http.StatusOK || !strings.Contains(a.body, `"error_code":null`) {
		t.Errorf("with: %d %s", a.status, a.body)
	}
	if a := post(t, with.URL+"/topics/not%20a%20topic", body, nil); a.status != http.StatusNotFound {
		t.Errorf("a name that no topic can have: %d %s", a.status, a.body)
	}
	k.Delete(t, topic)
}

// Everything works under the base path of a router that does not strip it: the classic API on any replica, the push API,
// streams.
func TestServingUnderABasePath(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic := k.Topic(t, "under", 1)
	hook := collector(t, nil)
	g := gateway{brokers: k.Brokers, redis: backend.Redis(t), ports: []int{hook.Port}}
	const prefix = "/__kafka-rest-proxy-msk"
	args := []string{"--base-path", prefix, "--replica-secret", "sixteen bytes or more", "--cors-allow-origins", "https://tools.example.com"}
	r, other := g.replica(t, args...), g.replica(t, args...)
	base := r.URL + prefix

	a := post(t, base+"/subscriptions", fmt.Sprintf(`{"name":"under","source":{"topics":[%q],"start_from":"earliest"},"endpoint":{"url":%q},"signing":{"secret":%q},"payload":{"format":"raw"}}`, topic, hook.URL, peers.Secret()), nil)
	if location := a.header.Get("Location"); a.status != http.StatusCreated || !strings.HasPrefix(location, prefix+"/subscriptions/") {
		t.Fatalf("%d %s, Location %s", a.status, a.body, location)
	}
	if err := peers.Call(t.Context(), http.MethodGet, r.URL+a.header.Get("Location"), "", nil, http.StatusOK, nil); err != nil {
		t.Error(err)
	}
	if got := post(t, base+"/topics/"+topic, `{"records":[{"value":"dg=="}]}`, nil); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	eventually(t, 30*time.Second, "the webhook has the record", func() bool { return len(hook.Attempts()) > 0 })

	made := post(t, base+"/consumers/"+backend.Unique("g"), `{"auto.offset.reset":"smallest","auto.commit.enable":"false"}`, nil)
	_, path, _ := strings.Cut(made.body, `"base_uri":"`+r.URL)
	path, _, _ = strings.Cut(path, `"`)
	if !strings.HasPrefix(path, prefix+"/consumers/") {
		t.Fatalf("%d %s", made.status, made.body)
	}
	for _, url := range []string{other.URL + path, other.URL + prefix + path, other.URL + strings.TrimPrefix(path, prefix), r.URL + path} {
		if got := read(t, url+"/topics/"+topic); !strings.Contains(got, `"value":"dg=="`) && url == other.URL+path { // each forwarded read settles by its receipt
			t.Errorf("%s: %s", url, got)
		}
		if got := post(t, url+"/offsets", "", nil); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", url, got.status, got.body)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/topics/"+topic+"/events?from=earliest", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://tools.example.com")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "https://tools.example.com" {
		t.Errorf("the stream's Access-Control-Allow-Origin is %q", got)
	}
	lines := bufio.NewScanner(res.Body)
	for found := false; !found; {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		found = strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), topic)
	}
}

// answered is an answer as it came.
type answered struct {
	status int
	header http.Header
	body   string
}

func post(t *testing.T, url, body string, headers map[string]string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	return send(t, req)
}

func read(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := send(t, req)
	if a.status != http.StatusOK || !json.Valid([]byte(a.body)) {
		t.Fatalf("%s: %d %s", url, a.status, a.body)
	}
	return a.body
}

func send(t *testing.T, req *http.Request) answered {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(body)}
}
