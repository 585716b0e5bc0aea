package backend

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
)

// recipe is the script that starts the back end of that name, and the folder of its jars.
func recipe(t testing.TB, name string) (script, libs string) {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	local := filepath.Join(filepath.Dir(here), "..", "..", "deployments", "local")
	script, libs = filepath.Join(local, "kafka-local.sh"), cmp.Or(os.Getenv("TEST_KAFKA_LIBS"), "/var/tmp/kafka-local/libs")
	if name == Kafka28 {
		script, libs = filepath.Join(local, "msk28", "kafka28-local.sh"), cmp.Or(os.Getenv("TEST_KAFKA28_LIBS"), "/var/tmp/kafka28-local/libs")
	}
	if _, err := os.Stat(libs); err != nil {
		t.Fatalf("no Kafka jars: %v (run `KL=%s %s libs`)", err, filepath.Dir(libs), script)
	}
	return script, libs
}

// firstPort is where the back end's script listens without SHIFT.
func firstPort(name string) int {
	if name == Kafka28 {
		return 12092
	}
	return 9092
}

// Tool is one of Kafka's own command-line tools, e.g. ConsoleProducer, ready to start against this broker; the tools
// are Java and come with the real back ends, so on the embedded one the test does not run. The caller sets Stdin and
// Stdout. The process is exec'ed by the script, in a group of its own; ctx kills it.
func (b *Broker) Tool(ctx context.Context, t testing.TB, class string, args ...string) *exec.Cmd {
	t.Helper()
	if !b.Real() {
		NotRun(t, "needs Kafka's own Java tools; runs on kafka41 and kafka28")
	}
	script, libs := recipe(t, b.Name)
	_, port, err := net.SplitHostPort(b.Brokers[0])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, script, append([]string{"tool", class}, args...)...)
	cmd.Env = append(os.Environ(), "KL="+filepath.Dir(libs), fmt.Sprint("SHIFT=", n-firstPort(b.Name)))
	return cmd
}
