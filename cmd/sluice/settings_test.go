package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// needed is what serve does not start without.
var needed = []string{"--kafka-brokers=a:9092", "--redis-url=redis://r:6379/0", "--auth=none", "--allow-no-auth"}

// clean takes this machine's own settings out of the environment for the test, and puts those of env in.
func clean(t *testing.T, env map[string]string) {
	t.Helper()
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "SLUICE_") || strings.HasPrefix(name, "KAFKA_") || strings.HasPrefix(name, "RP_") || name == "KAFKAREST_HEAP_OPTS" || name == "LOG_LEVEL" || name == "APP_NAME" || name == "KUBERNETES_SERVICE_HOST" {
			t.Setenv(name, value) // so that it comes back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

func parsed(t *testing.T, args ...string) (*cli, error) {
	t.Helper()
	_, verbs, err := parse(t.Context(), args)
	return verbs, err
}

// A bare integer is milliseconds, as in the properties of the proxies before this one.
func TestDurations(t *testing.T) {
	clean(t, nil)
	for text, want := range map[string]time.Duration{
		"45s": 45 * time.Second, "2m": 2 * time.Minute, "1m30s": 90 * time.Second, "1500": 1500 * time.Millisecond, "30000": 30 * time.Second,
	} {
		verbs, err := parsed(t, append([]string{"serve", "--produce-timeout", text}, needed...)...)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := verbs.Serve.Kafka.ProduceTimeout; got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"soon", "1.5", "30 s", "s", "", "99999999999999999999"} {
		if _, err := parsed(t, append([]string{"serve", "--produce-timeout=" + text}, needed...)...); err == nil || !strings.Contains(err.Error(), "produce-timeout") {
			t.Errorf("%q was taken: %v", text, err)
		}
	}
}

// A misspelt setting stops the start; what Kubernetes makes out of a Service called sluice does not.
func TestAnUnknownSettingIsNamed(t *testing.T) {
	for name, refused := range map[string]bool{
		"SLUICE_KAFKA_BROKER":      true,
		"SLUICE_PRODUCE_TIMEOUTS":  true,
		"SLUICE_":                  true,
		"SLUICE_PRODUCE_STATUS":    false,
		"SLUICE_CONFIG":            false,
		"SLUICES":                  false,
		"KAFKA_REST_ANYTHING":      false,
		"SLUICE_SERVICE_HOST":      false,
		"SLUICE_SERVICE_PORT_HTTP": false,
		"SLUICE_PORT_8082_TCP":     false,
		"SLUICE_PORT":              false,
	} {
		value := map[string]string{"SLUICE_PRODUCE_STATUS": "strict", "SLUICE_CONFIG": "", "SLUICE_PORT": "tcp://10.0.0.1:8082"}[name]
		clean(t, map[string]string{name: value})
		_, err := parsed(t, append([]string{"serve"}, needed...)...)
		if refused != (err != nil) || refused && !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

// The reason for a person is one line.
func TestTheReasonIsOneLine(t *testing.T) {
	clean(t, nil)
	_, err := parsed(t, "serve")
	if err == nil || strings.Contains(reason(err), "\n") {
		t.Errorf("reason %q", reason(err))
	}
}
