package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// serve that cannot work says so in one line that names what to do, and exits 1 or 80; it does not hang or half-start.
func TestServeRefusesToStartWithAClearLine(t *testing.T) {
	k := backend.Kafka(t)
	redis := backend.Redis(t)
	nobody := fmt.Sprintf("127.0.0.1:%d", backend.FreePort(t))
	good := map[string]string{
		"SLUICE_KAFKA_BROKERS": k.Brokers[0], "SLUICE_REDIS_URL": redis, "SLUICE_LISTEN": "127.0.0.1:0",
		"SLUICE_AUTH": "none", "SLUICE_ALLOW_NO_AUTH": "true",
	}
	for name, c := range map[string]struct {
		env  map[string]string // over good; "" takes a variable away
		says []string
	}{
		"no brokers":          {map[string]string{"SLUICE_KAFKA_BROKERS": ""}, []string{"SLUICE_KAFKA_BROKERS"}},
		"Kafka away":          {map[string]string{"SLUICE_KAFKA_BROKERS": nobody, "SLUICE_START_TIMEOUT": "3s"}, []string{"Kafka", nobody}},
		"Redis away":          {map[string]string{"SLUICE_REDIS_URL": "redis://" + nobody, "SLUICE_START_TIMEOUT": "3s"}, []string{"Redis", nobody}},
		"no Redis":            {map[string]string{"SLUICE_REDIS_URL": ""}, []string{"SLUICE_REDIS_URL"}},
		"no authentication":   {map[string]string{"SLUICE_AUTH": ""}, []string{"SLUICE_AUTH=none", "SLUICE_ALLOW_NO_AUTH"}},
		"open unaware":        {map[string]string{"SLUICE_ALLOW_NO_AUTH": ""}, []string{"SLUICE_ALLOW_NO_AUTH"}},
		"unknown setting":     {map[string]string{"SLUICE_KAFKA_BROKER": "x:1"}, []string{"SLUICE_KAFKA_BROKER"}},
		"wrong value":         {map[string]string{"SLUICE_PRODUCE_TIMEOUT": "soon"}, []string{"produce-timeout", "soon"}},
		"value out of bounds": {map[string]string{"SLUICE_PRODUCE_TIMEOUT": "1ms"}, []string{"produce-timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "serve")
			for _, e := range os.Environ() {
				if !strings.HasPrefix(e, "SLUICE_") {
					cmd.Env = append(cmd.Env, e)
				}
			}
			env := map[string]string{}
			for _, from := range []map[string]string{good, c.env} {
				for k, v := range from {
					env[k] = v
				}
			}
			for k, v := range env {
				if v != "" {
					cmd.Env = append(cmd.Env, k+"="+v)
				}
			}
			out, err := cmd.CombinedOutput()
			if err == nil || ctx.Err() != nil {
				t.Fatalf("serve did not refuse to start: %v\n%s", err, out)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			last := lines[len(lines)-1]
			if !strings.HasPrefix(last, "sluice: ") {
				t.Errorf("the last line is not the reason: %q", last)
			}
			for _, word := range c.says {
				if !strings.Contains(last, word) {
					t.Errorf("the reason does not name %q: %s", word, last)
				}
			}
		})
	}
}
