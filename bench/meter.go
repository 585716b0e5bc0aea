package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// meter reads the clock and the CPU time of one process.
type meter struct {
	pid   int
	began time.Time
	cpu   time.Duration
}

// start begins a measurement.
func (m *meter) start() error {
	cpu, err := cpuTime(m.pid)
	m.cpu, m.began = cpu, time.Now()
	return err
}

// stop ends it: count was moved since start.
func (m *meter) stop(count int) (reading, error) {
	took := time.Since(m.began)
	cpu, err := cpuTime(m.pid)
	return reading{count: count, took: took, cpu: cpu - m.cpu}, err
}

// stopWith is stop where somebody noted how long each call took.
func (m *meter) stopWith(count int, waits [][]time.Duration) (reading, error) {
	r, err := m.stop(count)
	r.waits = slices.Concat(waits...)
	return r, err
}

// tick is the unit of /proc/<pid>/stat on every Linux that Go runs on (USER_HZ, proc_pid_stat(5)).
const tick = 10 * time.Millisecond

// cpuTime is the user and system time of all threads of a process, also of those that have ended.
func cpuTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(raw, []byte(") ")) // the name before it may hold blanks
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// resident is the memory of a process that is in RAM, in bytes.
func resident(pid int) (int64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// watchSize looks at the size of a process ten times a second until stop, which gives what it saw.
func watchSize(pid int) (stop func() []int64) {
	end, done := make(chan struct{}), make(chan []int64)
	go func() {
		var sizes []int64
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if size, err := resident(pid); err == nil { // else it has ended, which shows elsewhere
					sizes = append(sizes, size)
				}
			case <-end:
				done <- sizes
				return
			}
		}
	}()
	return func() []int64 {
		close(end)
		return <-done
	}
}

const (
	stillShare = 0.15                   // of the processors, for others while the bench itself does nothing
	stillSpan  = 400 * time.Millisecond // over which that is looked at
)

// awaitStill waits a while for a moment in which other programs leave the machine alone: pairs are compared within
// themselves, but what works in three processes suffers more from others than what works in two.
func awaitStill(ctx context.Context, patience time.Duration) error {
	for began := time.Now(); time.Since(began) < patience; {
		busy, all, err := processors()
		if err != nil {
			return nil // a system that does not tell
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stillSpan):
		}
		busyNow, allNow, err := processors()
		if err != nil || float64(busyNow-busy) < stillShare*float64(allNow-all) {
			return nil
		}
	}
	return nil
}

// processors tells the time that all of them have spent, busy and in all, in ticks (proc_stat(5)).
func processors() (busy, all int64, err error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(first) {
		if i == 0 || i > 8 { // "cpu"; guests are counted in user time
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if all += n; i != 4 && i != 5 { // idle, and idle while the disk works
			busy += n
		}
	}
	return busy, all, nil
}

const (
	calm    = 1.5 // load average of one minute above which figures are worth nothing
	patient = 3 * time.Minute
)

// awaitCalm waits until the load average has come down, for a compiler that ran just before.
func awaitCalm(ctx context.Context) error {
	for began := time.Now(); ; {
		load, err := loadAverage()
		if err != nil || load <= calm {
			return err
		}
		if time.Since(began) > patient {
			return fmt.Errorf("the load average is %.1f: other programs keep the machine busy (-busy measures all the same)", load)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Second):
		}
	}
}

func loadAverage() (float64, error) {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return strconv.ParseFloat(first, 64)
}

// surroundings is what the figures depend on besides the code.
func surroundings() string {
	commit := "unknown"
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	cpu := "unknown CPU"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	sarama := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/IBM/sarama" {
				sarama = m.Version
			}
		}
	}
	load, _ := loadAverage() // 0 on a system that does not tell
	return fmt.Sprintf("%s, commit %s, %s, sarama %s, %d x %s, load average %.1f",
		time.Now().UTC().Format("2006-01-02 15:04 MST"), commit, runtime.Version(), sarama, runtime.NumCPU(), cpu, load)
}
