package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// developer starts `sluice dev` on free ports.
func developer(t *testing.T, args ...string) *peers.Replica {
	t.Helper()
	if backend.Name() != backend.KFake {
		backend.NotRun(t, "sluice dev has a Kafka of its own; runs on kfake")
	}
	listen := fmt.Sprintf("127.0.0.1:%d", backend.FreePort(t))
	args = append([]string{
		"dev", "--listen", listen, "--kafka-port", fmt.Sprint(backend.FreePort(t)),
		"--receiver", fmt.Sprintf("127.0.0.1:%d", backend.FreePort(t)),
	}, args...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, err := peers.Start(ctx, binary, "http://"+listen, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-r.Exited(): // the test has ended it
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Errorf("SIGTERM: %v\n%s", err, r.Log())
		}
	})
	return r
}

// paste runs one of the commands that dev printed, in a shell, as a new user would.
func paste(t *testing.T, within time.Duration, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec 2>&1; "+command)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() == nil {
		t.Fatalf("%s\n%v\n%s", command, err, out)
	}
	return string(out)
}

// Every command that dev prints works as it stands, whatever was pasted before it.
func TestWhatDevPrintsWorksInAnyOrder(t *testing.T) {
	r := developer(t)
	find := func(part string) string {
		for line := range strings.Lines(r.Log()) {
			if line = strings.TrimSpace(line); strings.Contains(line, part) && !strings.HasPrefix(line, "http") {
				return line
			}
		}
		t.Fatalf("dev printed no command with %q:\n%s", part, r.Log())
		return ""
	}
	hook, pull, produce := find("/subscriptions"), find("/consumers/"), find("/topics/orders -H")
	avro, registry := find("/topics/payments -H"), find("/subjects/")
	tail, kcat := find("/events?from=earliest"), find("kcat")
	if out := paste(t, 20*time.Second, hook); !strings.Contains(out, `"sub_`) {
		t.Errorf("webhook registration: %s", out)
	}
	if out := paste(t, 20*time.Second, pull); !strings.Contains(out, "[]") {
		t.Errorf("pull before any record: %s", out)
	}
	if out := paste(t, 20*time.Second, produce); !strings.Contains(out, `"offset":0`) {
		t.Errorf("produce: %s", out)
	}
	if out := paste(t, 20*time.Second, registry); !strings.Contains(out, `"error_code":40401`) {
		t.Errorf("a schema before it was registered: %s", out)
	}
	if out := paste(t, 20*time.Second, avro); !strings.Contains(out, `"offset":0`) || !strings.Contains(out, `"value_schema_id":1`) {
		t.Errorf("Avro: %s", out)
	}
	if out := paste(t, 20*time.Second, registry); !strings.Contains(out, `"subject":"payments-value"`) {
		t.Errorf("the registered schema: %s", out)
	}
	if out := paste(t, 20*time.Second, pull); !strings.Contains(out, `"value":{"total":12.50}`) {
		t.Errorf("pull: %s", out)
	}
	if out := paste(t, 3*time.Second, tail); !strings.Contains(out, `"value":{"total":12.50}`) {
		t.Errorf("SSE: %s", out)
	}
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Errorf("kcat is not installed (Debian: apt-get install kcat), so its line was not tried")
	} else if out := paste(t, 20*time.Second, kcat); !strings.Contains(out, `{"total":12.50}`) {
		t.Errorf("kcat: %s", out)
	}
	eventually(t, 20*time.Second, "the receiver prints the delivery", func() bool {
		return strings.Contains(r.Log(), "signature ok") && strings.Contains(r.Log(), `customer-42`)
	})
}

func TestDevDemoKeepsProducing(t *testing.T) {
	r := developer(t, "--demo", "--topic", "extra:2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	orders := peers.Follow(ctx, r.URL, "orders", "from=earliest")
	content := peers.Follow(ctx, r.URL, "NativeCmsPublicationEvents", "from=earliest")
	eventually(t, 30*time.Second, "orders and publications arrive", func() bool {
		a, _ := orders.Seen.Count()
		b, _ := content.Seen.Count()
		return a >= 5 && b >= 1
	})
	var extra []map[string]any
	if err := peers.Call(ctx, "GET", r.URL+"/topics/extra/partitions", "", nil, 200, &extra); err != nil || len(extra) != 2 {
		t.Errorf("--topic extra:2 made %d partitions: %v", len(extra), err)
	}
	cancel()
	if err := errors.Join(orders.Wait(), content.Wait()); err != nil {
		t.Error(err)
	}
}

// A taken port is named, with the flag that changes it.
func TestDevNamesATakenPortAndItsFlag(t *testing.T) {
	if backend.Name() != backend.KFake {
		backend.NotRun(t, "sluice dev has a Kafka of its own; runs on kfake")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	free := func() string { return fmt.Sprintf("127.0.0.1:%d", backend.FreePort(t)) }
	kafka := fmt.Sprint(backend.FreePort(t))
	for flag, args := range map[string][]string{
		"--listen":     {"--listen", address, "--kafka-port", kafka, "--receiver", free()},
		"--receiver":   {"--listen", free(), "--kafka-port", kafka, "--receiver", address},
		"--kafka-port": {"--listen", free(), "--kafka-port", port, "--receiver", free()},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := exec.CommandContext(ctx, binary, append([]string{"dev"}, args...)...).CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), flag) || !strings.Contains(string(out), port) {
			t.Errorf("%s on a taken port: %v\n%s", flag, err, out)
		}
	}
}
