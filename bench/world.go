package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice/e2e/peers"
)

// world is what the paths share. What is acquired registers its stop in the next statement; the stops run in reverse.
type world struct {
	opts   options
	path   string // the one being measured
	dir    string
	binary string
	kafka  string // host:port
	redis  string // URL
	direct sarama.Client
	stops  []func() error
}

// newWorld starts Kafka and Redis and builds sluice.
func newWorld(ctx context.Context, o options) (*world, error) {
	w := &world{opts: o}
	for _, step := range []func(context.Context) error{w.makeFolder, w.startKafka, w.startRedis, w.connect, w.build} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	return w, nil
}

func (w *world) onStop(stop func() error) { w.stops = append(w.stops, stop) }

// stopTo runs the stops registered since there were n.
func (w *world) stopTo(n int) error {
	var errs []error
	for len(w.stops) > n {
		stop := w.stops[len(w.stops)-1]
		w.stops = w.stops[:len(w.stops)-1]
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

func (w *world) close() error { return w.stopTo(0) }

func (w *world) makeFolder(context.Context) (err error) {
	if w.opts.cpuprofile != "" {
		if w.opts.cpuprofile, err = filepath.Abs(w.opts.cpuprofile); err != nil {
			return err
		}
		if err := os.MkdirAll(w.opts.cpuprofile, 0o755); err != nil {
			return err
		}
	}
	if w.dir, err = os.MkdirTemp("/var/tmp", "sluice-bench-"); err != nil {
		return err
	}
	w.onStop(func() error {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // a killed Kafka dies thread by thread
			if err := os.RemoveAll(w.dir); err == nil || time.Now().After(deadline) {
				return err
			}
		}
	})
	return nil
}

// startKafka starts one node of Kafka 4.1 by the script that the tests use too, on ports of its own.
func (w *world) startKafka(ctx context.Context) error {
	_, here, _, _ := runtime.Caller(0)
	script := filepath.Join(filepath.Dir(here), "..", "deployments", "local", "kafka-local.sh")
	jars := cmp.Or(os.Getenv("KL41"), "/var/tmp/kafka-local")
	call := func(ctx context.Context, home string, shift int, arg ...string) error {
		cmd := exec.CommandContext(ctx, script, arg...)
		cmd.Env = append(os.Environ(), "KL="+home, fmt.Sprint("SHIFT=", shift))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kafka-local.sh %s: %w\n%s", strings.Join(arg, " "), err, out)
		}
		return nil
	}
	if _, err := os.Stat(filepath.Join(jars, "libs")); err != nil {
		if err := call(ctx, jars, 0, "libs"); err != nil {
			return err
		}
	}
	home := filepath.Join(w.dir, "kafka")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(jars, "libs"), filepath.Join(home, "libs")); err != nil {
		return err
	}
	shift, err := freeShift(9092, 19093, 29092)
	if err != nil {
		return err
	}
	w.onStop(func() error { return call(context.Background(), home, shift, "kill", "1") })
	w.kafka = fmt.Sprintf("127.0.0.1:%d", 9092+shift)
	return call(ctx, home, shift, "up", "1")
}

// freeShift moves the ports to where nobody listens, below the ephemeral range.
func freeShift(ports ...int) (int, error) {
	for range 200 {
		shift := rand.IntN(3_400) - 6_500
		free := true
		for _, p := range ports {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p+shift))
			if err != nil {
				free = false
				break
			}
			_ = l.Close()
		}
		if free {
			return shift, nil
		}
	}
	return 0, errors.New("no free ports")
}

func (w *world) startRedis(ctx context.Context) error {
	port, err := freeShift(10_000)
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", 10_000+port)
	cmd := exec.Command("redis-server", "--port", fmt.Sprint(10_000+port), "--bind", "127.0.0.1", "--save", "", "--dir", w.dir)
	if err := cmd.Start(); err != nil {
		return err
	}
	w.onStop(func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // killed: its exit code says only that
		return err
	})
	w.redis = "redis://" + addr + "/0"
	return awaitPort(ctx, addr)
}

func (w *world) build(ctx context.Context) (err error) {
	w.binary, err = peers.Build(ctx, w.dir)
	return err
}

// gateway starts a sluice process for the path that is being measured, with settings on top of the defaults. With
// -cpuprofile it is this program in the role of sluice, which has the profiler in it.
func (w *world) gateway(ctx context.Context, settings ...string) (*peers.Replica, error) {
	if w.opts.cpuprofile != "" {
		return w.gatewayInside(ctx, settings...)
	}
	return w.start(ctx, w.binary, settings)
}

// gatewayInside is always this program in the role of sluice.
func (w *world) gatewayInside(ctx context.Context, settings ...string) (*peers.Replica, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	settings = append(settings, roleVariable+"="+roleGateway)
	if w.opts.cpuprofile != "" {
		settings = append(settings, profileVariable+"="+filepath.Join(w.opts.cpuprofile, w.path+".pprof"))
	}
	return w.start(ctx, self, settings)
}

func (w *world) start(ctx context.Context, binary string, settings []string) (*peers.Replica, error) {
	shift, err := freeShift(10_000)
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", 10_000+shift)
	env := append([]string{
		"SLUICE_LISTEN=" + addr, "SLUICE_KAFKA_BROKERS=" + w.kafka, "SLUICE_REDIS_URL=" + w.redis,
		"SLUICE_AUTH=none", "SLUICE_ALLOW_NO_AUTH=true", "SLUICE_SSE_DRAIN=0s",
	}, settings...)
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := peers.Start(starting, binary, "http://"+addr, env, "serve")
	if err != nil {
		return nil, err
	}
	w.onStop(func() error {
		stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Stop(stopping); err != nil {
			return fmt.Errorf("stop sluice: %w; it printed last:\n%s", err, r.Log())
		}
		return nil
	})
	return r, nil
}

func awaitPort(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
