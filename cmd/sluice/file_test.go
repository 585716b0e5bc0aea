package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// settings is a file with that text, under a name that the errors must show.
func settings(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "conf.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const whole = `# what serve needs
kafka-brokers: [a:9092, "b:9092"]
redis-url: redis://:hunter2@r:6379/0
auth: none
allow-no-auth: true

listen: :9000
produce-timeout: 45s
consumer-request-timeout: 1500
gzip: false
migrate: false
max-record-bytes: 1048576
webhook-allow-hosts:
  - hooks.example.com
  - other.example.com
webhook-allow-cidrs: 10.0.0.0/8,10.1.0.0/16
produce-status: strict
app-name: "123"
`

func TestEverySortOfSettingComesFromAFile(t *testing.T) {
	path := settings(t, whole)
	clean(t, nil)
	verbs, err := parsed(t, "serve", "--config", path)
	if err != nil {
		t.Fatal(err)
	}
	c := verbs.Serve
	for what, got := range map[string]any{
		"[a:9092 b:9092]":                       c.Kafka.Brokers,
		"redis://:hunter2@r:6379/0":             c.Redis.RedisURL,
		":9000":                                 c.HTTP.Listen,
		"45s":                                   c.Kafka.ProduceTimeout,
		"1.5s":                                  c.Consumers.RequestTimeout,
		"false":                                 c.HTTP.Gzip,
		"1048576":                               c.Kafka.MaxRecordBytes,
		"[hooks.example.com other.example.com]": c.Webhook.Guard.AllowHosts,
		"[10.0.0.0/8 10.1.0.0/16]":              c.Webhook.Guard.AllowCIDRs,
		"strict":                                c.HTTP.ProduceStatus,
		"123":                                   c.HTTP.AppName,
		"15s":                                   c.StartTimeout, // left at its default
	} {
		if fmt.Sprint(got) != what {
			t.Errorf("got %v, want %s", got, what)
		}
	}
	if c.Migrate {
		t.Error("migrate: false was not read")
	}
}

// defaults < file < environment < flags
func TestWhoWins(t *testing.T) {
	path := settings(t, whole)
	for _, c := range []struct {
		env   map[string]string
		flags []string
		want  time.Duration
	}{
		{nil, nil, 45 * time.Second},
		{map[string]string{"SLUICE_PRODUCE_TIMEOUT": "50s"}, nil, 50 * time.Second},
		{map[string]string{"SLUICE_PRODUCE_TIMEOUT": "50s"}, []string{"--produce-timeout=55s"}, 55 * time.Second},
		{nil, []string{"--produce-timeout=55s"}, 55 * time.Second},
	} {
		clean(t, c.env)
		verbs, err := parsed(t, append([]string{"serve", "--config", path}, c.flags...)...)
		if err != nil {
			t.Fatal(err)
		}
		if got := verbs.Serve.Kafka.ProduceTimeout; got != c.want {
			t.Errorf("environment %v, flags %v: %s, want %s", c.env, c.flags, got, c.want)
		}
		if err := os.Unsetenv("SLUICE_PRODUCE_TIMEOUT"); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, map[string]string{"SLUICE_CONFIG": path, "KAFKA_ADDRESS": "legacy:9092", "SLUICE_GZIP": "true"})
	verbs, err := parsed(t, "serve", "--no-migrate")
	if err != nil {
		t.Fatal(err)
	}
	if got := verbs.Serve.Kafka.Brokers; !slices.Equal(got, []string{"a:9092", "b:9092"}) {
		t.Errorf("brokers %v: a legacy name counts only where nothing of Sluice's own is set", got)
	}
	if !verbs.Serve.HTTP.Gzip {
		t.Error("gzip is false in the file and true in the environment")
	}
	// One file for all verbs.
	clean(t, map[string]string{"SLUICE_CONFIG": path})
	if verbs, err = parsed(t, "migrate"); err != nil || len(verbs.Migrate.Kafka.Brokers) != 2 {
		t.Errorf("migrate: %v, %v", verbs, err)
	}
	if verbs, err = parsed(t, "healthcheck"); err != nil || verbs.Healthcheck.Listen != ":9000" {
		t.Errorf("healthcheck: %v", err)
	}
	if _, err = parsed(t, "dev"); err != nil {
		t.Errorf("dev takes nothing from the environment: %v", err)
	}
	if _, err = parsed(t, "version"); err != nil {
		t.Errorf("version: %v", err)
	}
}

// What is wrong in a file is named with file and line, and no secret is repeated.
func TestAFaultInTheFileIsNamedWithItsLine(t *testing.T) {
	const ok = "kafka-brokers: a:9092\nredis-url: redis://:hunter2@r:6379/0\nauth: none\nallow-no-auth: true\n" // four lines
	for text, says := range map[string]string{
		ok + "produce-timeuot: 30s\n":                           "5: produce-timeuot is not a setting",
		ok + "config: other.yaml\n":                             "5: config is not a setting",
		ok + "help: true\n":                                     "5: help is not a setting",
		ok + "redis://:hunter2@r: 1\n":                          "5: this is not a setting",
		ok + "<<: {listen: x}\n":                                "5: this is not a setting",
		ok + "? [a, b]\n: 1\n":                                  "5: this is not a setting",
		ok + "produce-timeout: soon\n":                          `5: produce-timeout has a bad value: "soon" is not a duration`,
		ok + "produce-timeout: 1.5\n":                           "5: produce-timeout must be a duration",
		ok + "produce-timeout: true\n":                          "5: produce-timeout must be a duration",
		ok + "\n\nproduce-timeout: [30s]\n":                     "7: produce-timeout must be one value, not a list",
		ok + "produce-timeout:\n":                               "5: produce-timeout has no value",
		ok + "produce-timeout: {s: 30}\n":                       "5: produce-timeout must be a plain value",
		ok + "listen: 8082\n":                                   "5: listen must be text; put it in quotes",
		ok + "log-level: loud\n":                                "5: log-level must be one of debug,",
		ok + "gzip: maybe\n":                                    "5: gzip must be true or false",
		ok + "gzip: 1\n":                                        "5: gzip must be true or false",
		ok + "max-record-bytes: many\n":                         "5: max-record-bytes must be a whole number",
		ok + "max-record-bytes: 1.5\n":                          "5: max-record-bytes must be a whole number",
		ok + "max-record-bytes: 99999999999999999999\n":         "5: max-record-bytes must be a whole number",
		ok + "webhook-allow-hosts: [a, {b: c}]\n":               "5: webhook-allow-hosts must be a plain value",
		ok + "webhook-allow-hosts: [a, 1]\n":                    "5: webhook-allow-hosts must be text",
		ok + "listen: :1\nlisten: :2\n":                         "6: listen is set twice; the first time in line 5",
		ok + "listen: &a :1\napp-name: *a\n":                    "6: app-name must be a plain value",
		ok + "app-name: x: y\n":                                 "5: mapping values are not allowed",
		ok + "app-name: {x\n":                                   "5: did not find",
		ok + "app-name: 'x\n":                                   "5: found unexpected end",
		ok + "\tapp-name: x\n":                                  "5: found",
		ok + "app-name: \"\\q\"\n":                              "5: found unknown escape",
		ok + "app-name: \x01\n":                                 "5: control characters",
		ok + "- a\n":                                            "5: did not find",
		ok + "app-name: *hunter2\n":                             "5: refers to an anchor that does not exist",
		ok + "---\nlisten: :1\n":                                "a second document",
		ok + "---\n{\n":                                         "a second document",
		"- a\n":                                                 "1: the file must hold settings",
		"just text\n":                                           "1: the file must hold settings",
		ok + "produce-timeout: 1ms\n":                           "5: produce-timeout must lie between",
		ok + "sse-retry: -1s\nproduce-timeout: 1ms\n":           "6: produce-timeout must lie between",
		"redis-url: http://:hunter2@r\n" + ok[len("k"):]:        "2: afka-brokers is not a setting",
		strings.Replace(ok, "redis://", "http://", 1):           "2: redis-url must look like",
		strings.Replace(ok, "redis://:hunter2@r", "[redis", 1):  "2: ",
		strings.Replace(ok, "auth: none", "auth: [hunter2]", 1): "3: auth must be one value",
	} {
		clean(t, nil)
		path := settings(t, text)
		_, err := parsed(t, "serve", "--config", path)
		if err == nil {
			t.Errorf("taken:\n%s", text)
			continue
		}
		line := reason(err)
		if rest, found := strings.CutPrefix(line, path+":"); !found || !strings.Contains(rest, says) || strings.Contains(line, "\n") {
			t.Errorf("%s\n said %s\n want %s:%s", text, line, path, says)
		}
		if strings.Contains(line, "hunter2") {
			t.Errorf("a secret is repeated: %s", line)
		}
	}
}

// A fault is a fault also where something above the file wins, and the file is not blamed for what is not its own.
func TestOnlyTheFilesOwnFaultsAreItsOwn(t *testing.T) {
	path := settings(t, whole)
	clean(t, nil)
	if _, err := parsed(t, "serve", "--config", path, "--produce-timeout=1ms"); err == nil || strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "produce-timeout") {
		t.Errorf("a flag's fault: %v", err)
	}
	clean(t, map[string]string{"SLUICE_PRODUCE_TIMEOUT": "soon"})
	if _, err := parsed(t, "serve", "--config", path); err == nil || strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "SLUICE_PRODUCE_TIMEOUT") {
		t.Errorf("a variable's fault: %v", err)
	}
	wrong := settings(t, whole+"sse-heartbeat: often\n")
	clean(t, nil)
	if _, err := parsed(t, "serve", "--config", wrong, "--sse-heartbeat=20s"); err == nil || !strings.Contains(err.Error(), wrong+":19: sse-heartbeat") {
		t.Errorf("a fault that a flag hides: %v", err)
	}
	if _, err := parsed(t, "serve", "--config", filepath.Join(t.TempDir(), "nope.yaml")); err == nil || !strings.Contains(err.Error(), "nope.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := parsed(t, append([]string{"serve", "--config", settings(t, "# nothing\n")}, needed...)...); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := parsed(t, append([]string{"serve", "--config", settings(t, "")}, needed...)...); err != nil {
		t.Errorf("a file without a byte: %v", err)
	}
}
