package gateway

import (
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func TestTheMemoryLimitIsTheLeastOfTheControlGroups(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"version 2 in a container": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 512 << 20},
		"version 2, the parent's is less": {map[string]string{
			"proc/self/cgroup": "0::/kube/pod/c\n", "sys/fs/cgroup/kube/pod/c/memory.max": "max\n",
			"sys/fs/cgroup/kube/pod/memory.max": "1000000\n", "sys/fs/cgroup/kube/memory.max": "2000000\n",
		}, 1_000_000},
		"version 1, a path of the host": {map[string]string{
			"proc/self/cgroup": "4:memory:/docker/abc\n3:cpu:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
		}, 512 << 20},
		"version 1 without a limit": {map[string]string{
			"proc/self/cgroup": "4:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"version 2 without a limit": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"nonsense":                  {map[string]string{"proc/self/cgroup": "0\n::\n", "sys/fs/cgroup/memory.max": "-5\n"}, 0},
		"no control groups":         {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				at := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := cgroupLimit(root); got != c.want {
				t.Errorf("the limit is %d bytes, want %d", got, c.want)
			}
		})
	}
}

// The headroom stays what it is until more is alive; then it is as much again.
func TestGarbageHasHeadroom(t *testing.T) {
	for alive, want := range map[uint64]int{0: 1000, 1 << 20: 1000, 4 << 20: 800, 8 << 20: 400, 32 << 20: 100, 1 << 30: 100} {
		if got := percentFor(alive); got != want {
			t.Errorf("with %d bytes alive GOGC is %d, want %d", alive, got, want)
		}
	}
}

func TestEveryCollectionIsSeen(t *testing.T) {
	var seen atomic.Int64
	afterCollection(func() { seen.Add(1) })
	for deadline := time.Now().Add(10 * time.Second); seen.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d collections were seen", seen.Load())
		}
		runtime.GC()
	}
}
