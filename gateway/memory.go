package gateway

import (
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

const (
	// headroom is what may become garbage before a collection, in bytes; where more than that is alive it is as much
	// again, Go's own measure (GOGC=100). A gateway's live heap is often a few megabytes, of which bodies and records
	// come and go: by that measure alone the collector runs many times a second and takes a quarter of the CPU time.
	headroom = 32 << 20
	// leastPercent is Go's default. Above mostPercent, what a collection leaves may be next to nothing.
	leastPercent, mostPercent = 100, 1000
)

// FitMemory fits the garbage collector to this program and to the memory that it is given. It sees to headroom unless
// GOGC is set, and to a memory limit of nine tenths of what the control group allows unless GOMEMLIMIT is set; the
// budgets that are shares of GOMEMLIMIT follow. Near the limit the collector runs as often as it must. It is for the
// binary, once, before New.
func FitMemory(log *slog.Logger) {
	if _, set := os.LookupEnv("GOMEMLIMIT"); !set {
		if allowed := cgroupLimit("/"); allowed > 0 {
			debug.SetMemoryLimit(allowed / 10 * 9)
			log.Info("memory limit from the control group", slog.Int64("bytes", allowed/10*9), slog.Int64("allowed", allowed))
		}
	}
	if _, set := os.LookupEnv("GOGC"); !set {
		percent := leastPercent
		afterCollection(func() {
			if now := percentFor(alive()); now < percent*9/10 || now > percent*11/10 { // to set it stops the world
				percent = now
				debug.SetGCPercent(now)
			}
		})
	}
}

// percentFor is the GOGC that leaves headroom.
func percentFor(alive uint64) int {
	return int(min(max(100*headroom/max(alive, 1), leastPercent), mostPercent))
}

// alive is what the last collection left, in bytes.
func alive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// afterCollection calls fn after every collection, on the runtime's own goroutine for finalizers.
func afterCollection(fn func()) {
	type leaf struct{ _ [16]byte } // too large to share a block with something that lives on
	runtime.SetFinalizer(&leaf{}, func(*leaf) {
		fn()
		afterCollection(fn)
	})
}

// cgroupLimit is the least memory limit of this process's control group and those above it, in version 2 or 1; 0 for
// none. Inside a container the root of the hierarchy is often the container's own group, whatever /proc says.
func cgroupLimit(root string) (least int64) {
	raw, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) { // hierarchy:controllers:path, see cgroups(7)
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		if fields[1] == "memory" {
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if fields[1] != "" {
			continue
		}
		for at := path.Clean("/" + fields[2]); ; at = path.Dir(at) {
			raw, _ := os.ReadFile(filepath.Join(root, dir, at, file)) // what is not there limits nothing
			n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
			if err == nil && n > 0 && n < 1<<60 && (least == 0 || n < least) { // version 1 has a huge number for none
				least = n
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}
