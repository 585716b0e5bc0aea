package backend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RealCluster is an Apache Kafka of the test's own, so that its nodes may be killed. Nodes count from 1.
type RealCluster struct {
	Broker
	nodes  []string // where they listen, whatever they advertise
	script string
	env    []string
	dir    string
}

// Cluster starts a real cluster from the jars that the scripts in deployments/local fetched: 1 or 3 nodes of Kafka 4.1,
// or one of Kafka 2.8 with its ZooKeeper. What the back end has not, does not run.
func Cluster(t testing.TB, nodes int) *RealCluster { t.Helper(); return cluster(t, nodes, nil) }

// ClusterBehind is Cluster with one node that says it lives where to leads from: a proxy in front of it. Every client
// comes through there, ours and Kafka's own.
func ClusterBehind(t testing.TB, to func(upstream string) (string, error)) *RealCluster {
	t.Helper()
	return cluster(t, 1, to)
}

func cluster(t testing.TB, nodes int, to func(upstream string) (string, error)) *RealCluster {
	t.Helper()
	if Name() == KFake {
		NotRun(t, "needs real brokers of its own to kill; runs on the real ones")
	}
	if Name() == Kafka28 && nodes > 1 {
		NotRun(t, fmt.Sprintf("needs %d brokers; runs on kafka41", nodes))
	}
	script, libs := recipe(t, Name())
	dir, err := os.MkdirTemp("/var/tmp", "sluice-kafka-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(libs, filepath.Join(dir, "libs")); err != nil {
		t.Fatal(err)
	}
	shift := freeShift(t)
	c := &RealCluster{script: script, dir: dir, env: append(os.Environ(), "KL="+dir, fmt.Sprint("SHIFT=", shift), "HEAP=256m", "TIER=1")}
	c.Name = Name()
	for i := range nodes {
		c.nodes = append(c.nodes, fmt.Sprintf("127.0.0.1:%d", firstPort(Name())+2*i+shift))
	}
	c.Brokers = c.nodes
	if to != nil {
		addr, err := to(c.nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		c.Brokers, c.env = []string{addr}, append(c.env, "PROPS=advertised.listeners=PLAINTEXT://"+addr)
	}
	t.Cleanup(func() {
		for n := 1; n <= nodes; n++ { // nothing of it is needed any more: no controlled shutdown
			if pid, err := c.findPID(n); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may be dead already
			}
		}
		c.run(t, "down")
		for n := 1; t.Failed() && n <= nodes; n++ {
			said, _ := os.ReadFile(c.file(n, "node%d.log", "broker.log")) // of its last start
			t.Logf("node %d said last: %s", n, said[max(0, len(said)-1500):])
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove %s: %v", dir, err)
		}
	})
	c.run(t, "up", strconv.Itoa(nodes))
	return c
}

// freeShift moves the script's ports, nine of them for three nodes, to where nobody listens. All lie below the ephemeral
// range: while a node is down, any client's connection may take a port of that range from it.
func freeShift(t testing.TB) int {
	t.Helper()
	for range 200 {
		shift := (rand.IntN(9_500) - 6_500) / 2 * 2
		free := true
		for _, first := range []int{9092, 19093, 29092, 12092, 12181} { // 4.1: clients, quorum, SASL; 2.8: clients, ZooKeeper
			for n := range 3 {
				l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+2*n+shift))
				if err != nil {
					free = false
					continue
				}
				_ = l.Close()
			}
		}
		if free {
			return shift
		}
	}
	t.Fatal("no free ports for a cluster")
	return 0
}

// Kill ends node n by SIGKILL and returns when its port answers nobody: the threads of a killed JVM die one by one.
func (c *RealCluster) Kill(t testing.TB, n int) {
	t.Helper()
	c.run(t, "kill", strconv.Itoa(n))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", c.nodes[n-1])
		if err != nil {
			return
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatalf("node %d did not die", n)
		}
	}
}

// Start brings a killed node back; it returns when the client port listens.
func (c *RealCluster) Start(t testing.TB, n int) { t.Helper(); c.run(t, "start", strconv.Itoa(n)) }

// Pause stops node n by SIGSTOP: its sockets stay open and answer nothing. The end of the test resumes it, so that it
// can die.
func (c *RealCluster) Pause(t testing.TB, n int) {
	t.Helper()
	pid := c.pid(t, n)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may be gone by then
	c.signal(t, n, syscall.SIGSTOP)
}

// Resume lets a paused node go on.
func (c *RealCluster) Resume(t testing.TB, n int) { t.Helper(); c.signal(t, n, syscall.SIGCONT) }

func (c *RealCluster) signal(t testing.TB, n int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(c.pid(t, n), s); err != nil {
		t.Fatalf("%v to node %d: %v", s, n, err)
	}
}

func (c *RealCluster) pid(t testing.TB, n int) int {
	t.Helper()
	pid, err := c.findPID(n)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (c *RealCluster) findPID(n int) (int, error) {
	raw, err := os.ReadFile(c.file(n, "pid%d", "broker.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}

// file is what the scripts call a file of node n.
func (c *RealCluster) file(n int, kafka41, kafka28 string) string {
	if c.Name == Kafka28 {
		return filepath.Join(c.dir, kafka28)
	}
	return filepath.Join(c.dir, fmt.Sprintf(kafka41, n))
}

// run calls the script. The brokers it starts write to files of their own, so its output ends with it.
func (c *RealCluster) run(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.script, args...)
	cmd.Env = c.env
	cmd.WaitDelay = 5 * time.Second // a broker that kept the pipe would hold us for ever
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(c.script), strings.Join(args, " "), err, out)
	}
	return string(out)
}
