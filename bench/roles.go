package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/sluicegate/sluice/gateway"
)

// What must not share a process with the rest, so that its CPU time can be told apart, is this program again in one of
// these roles. The environment says which.
const (
	roleVariable    = "SLUICE_BENCH_ROLE"
	profileVariable = "SLUICE_BENCH_CPUPROFILE" // of roleGateway: where the profile goes

	roleGateway = "gateway"
	roleSink    = "sink"
	roleBare    = "bare-streams"
)

func play(role string) error {
	switch role {
	case roleGateway:
		return playGateway()
	case roleSink:
		return playUntilStdinEnds(serveSink)
	case roleBare:
		return playUntilStdinEnds(serveBareStreams)
	}
	return fmt.Errorf("%s=%s is no role", roleVariable, role)
}

// freed is what playGateway prints, with a number, when it has collected its garbage and given the memory back, as SIGUSR1
// asks it to.
const freed = "bench: freed"

// playGateway is `sluice serve`, from the environment's settings, with what a measurement needs from inside: the CPU
// profiler, and a collection of garbage when it is asked for.
func playGateway() (err error) {
	config := gateway.Default()
	parser, err := kong.New(&config)
	if err != nil {
		return err
	}
	if _, err := parser.Parse(nil); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines := gateway.NewLines(os.Stdout)
	defer func() { err = errors.Join(err, lines.Close()) }()
	log := gateway.NewLogger(lines, config.LogLevel)
	gateway.FitMemory(log)
	g, err := gateway.New(ctx, config, log)
	if err != nil {
		return err
	}
	if name := os.Getenv(profileVariable); name != "" {
		profile, err := os.Create(name)
		if err != nil {
			return err
		}
		defer func() { _ = profile.Close() }() // a profile that is cut short does not parse
		if err := pprof.StartCPUProfile(profile); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	free := make(chan os.Signal, 1)
	signal.Notify(free, syscall.SIGUSR1)
	go func() {
		for n := 1; ; n++ {
			<-free
			debug.FreeOSMemory()
			fmt.Println(freed, n)
		}
	}()
	return g.Run(ctx)
}

// child is this program in a role that listens.
type child struct {
	addr string
	pid  int
}

// child starts a role and returns when it listens. It ends when its standard input does, so with this process at the
// latest.
func (w *world) child(role string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.onStop(func() error { return errors.Join(stdin.Close(), cmd.Wait()) })
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("role %s: %w", role, err)
	}
	return &child{addr: strings.TrimSpace(addr), pid: cmd.Process.Pid}, nil
}

// playUntilStdinEnds is the other end of child.
func playUntilStdinEnds(serve func(net.Listener)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go serve(l)
	fmt.Println(l.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
