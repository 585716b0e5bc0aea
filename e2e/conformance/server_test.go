package conformance

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// server is what a part of the suite asks.
type server struct {
	url      string
	kafka    *backend.Broker
	registry string            // of schemas; "" where there is none
	sandbox  *sandbox.Registry // the same, where it is ours
	ours     bool              // started from this tree
	report   *report
}

// serverUnderTest is the server that the environment names, or else a sluice of this tree with a registry.
func serverUnderTest(t *testing.T) *server {
	t.Helper()
	if url := os.Getenv("TEST_REST_URL"); url != "" {
		brokers := os.Getenv("TEST_KAFKA_BROKERS")
		if brokers == "" {
			t.Fatal("TEST_REST_URL needs TEST_KAFKA_BROKERS, the Kafka behind it: topics are made there")
		}
		return &server{
			url: strings.TrimSuffix(url, "/"), kafka: &backend.Broker{Name: url, Brokers: strings.Split(brokers, ",")},
			registry: os.Getenv("TEST_REST_REGISTRY"), report: newReport(url),
		}
	}
	registry, err := sandbox.StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.Close(); err != nil {
			t.Error(err)
		}
	})
	kafka := backend.Kafka(t)
	s := &server{kafka: kafka, registry: registry.URL, sandbox: registry, ours: true, report: newReport("sluice over " + kafka.Name)}
	s.url = start(t, kafka.Brokers, "SLUICE_SCHEMA_REGISTRY_URL="+registry.URL).URL
	return s
}

// own is another gateway of this tree in front of the same Kafka, for the rows of a mode. Against somebody else's server
// those rows do not run.
func (s *server) own(t *testing.T, settings ...string) *server {
	t.Helper()
	if !s.ours {
		s.notRun(t, strings.TrimSpace("needs a sluice of its own "+strings.Join(settings, " ")))
	}
	return &server{url: start(t, s.kafka.Brokers, settings...).URL, kafka: s.kafka, ours: true, report: s.report}
}

// notRun skips a row and says why.
func (s *server) notRun(t *testing.T, reason string) {
	t.Helper()
	s.report.note(t, notRun, reason)
	t.Skip("NOT RUN on " + s.kafka.Name + ": " + reason)
}

// start is one `sluice serve` until the end of the test.
func start(t *testing.T, brokers []string, settings ...string) *peers.Replica {
	t.Helper()
	port := backend.FreePort(t)
	env := append([]string{
		"SLUICE_KAFKA_BROKERS=" + strings.Join(brokers, ","),
		"SLUICE_REDIS_URL=" + backend.Redis(t),
		fmt.Sprintf("SLUICE_LISTEN=127.0.0.1:%d", port),
		"SLUICE_AUTH=none", "SLUICE_ALLOW_NO_AUTH=true",
	}, settings...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := peers.Start(ctx, program, fmt.Sprintf("http://127.0.0.1:%d", port), env, "serve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-r.Exited(): // the test has ended it
		default:
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := r.Stop(ctx); err != nil {
				t.Errorf("SIGTERM: %v", err)
			}
		}
	})
	return r
}
