package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// serve runs from a file alone, named by the flag or by SLUICE_CONFIG, and migrate and healthcheck read the same one.
func TestServeRunsFromAFile(t *testing.T) {
	k := backend.Kafka(t)
	port := backend.FreePort(t)
	text := fmt.Sprintf("kafka-brokers: [%s]\nredis-url: %s\nlisten: 127.0.0.1:%d\nauth: none\nallow-no-auth: true\napp-name: from a file\n",
		strings.Join(k.Brokers, ", "), backend.Redis(t), port)
	path := filepath.Join(t.TempDir(), "conf.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	for how, c := range map[string]struct{ env, args []string }{
		"flag":        {nil, []string{"serve", "--config", path}},
		"environment": {[]string{"SLUICE_CONFIG=" + path}, []string{"serve"}},
	} {
		r, err := peers.Start(ctx, binary, base, c.env, c.args...)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		var health struct{ Name string }
		if err := peers.Call(ctx, http.MethodGet, base+"/__health", "", nil, http.StatusOK, &health); err != nil || health.Name != "from a file" {
			t.Errorf("%s: the name is %q, %v", how, health.Name, err)
		}
		if out, err := exec.CommandContext(ctx, binary, "healthcheck", "--config", path).CombinedOutput(); err != nil {
			t.Errorf("healthcheck: %v\n%s", err, out)
		}
		if out, err := exec.CommandContext(ctx, binary, "migrate", "--config", path).CombinedOutput(); err != nil {
			t.Errorf("migrate: %v\n%s", err, out)
		}
		if err := r.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(text+"produce-timeout: never\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, binary, "serve", "--config", path).CombinedOutput()
	if line := strings.TrimSpace(string(out)); err == nil || !strings.HasPrefix(line, "sluice: "+path+":7: produce-timeout") || strings.Contains(line, "\n") {
		t.Errorf("a bad value: %v\n%s", err, out)
	}
}
