package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Build compiles cmd/sluice into dir and returns the binary's path.
func Build(ctx context.Context, dir string) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	binary := filepath.Join(dir, "sluice")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/sluice")
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/sluice: %w\n%s", err, out)
	}
	return binary, nil
}

// Replica is one running sluice process.
type Replica struct {
	URL string
	cmd *exec.Cmd
	log *tailBuffer

	exited chan struct{}
	err    error
}

// Start runs the binary with the arguments and waits until url answers /__gtg with 200. The process is in a group of
// its own; what it prints is kept for Log.
func Start(ctx context.Context, binary, url string, env []string, args ...string) (*Replica, error) {
	r := &Replica{URL: url, cmd: exec.Command(binary, args...), log: &tailBuffer{}, exited: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.exited)
	}()
	if err := r.AwaitReady(ctx); err != nil {
		_ = r.Kill()
		return nil, fmt.Errorf("%w; it printed:\n%s", err, r.Log())
	}
	return r, nil
}

// AwaitReady returns when /__gtg answers 200.
func (r *Replica) AwaitReady(ctx context.Context) error {
	for {
		err := Call(ctx, http.MethodGet, r.URL+"/__gtg", "", nil, http.StatusOK, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready in time: %w", r.URL, err)
		case <-r.exited:
			return fmt.Errorf("%s ended before it was ready: %w", r.URL, r.err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Kill is kill -9. It returns when the process is gone.
func (r *Replica) Kill() error {
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-r.exited
	return nil
}

// PID is the process id.
func (r *Replica) PID() int { return r.cmd.Process.Pid }

// Signal sends a signal, e.g. SIGSTOP.
func (r *Replica) Signal(s os.Signal) error { return r.cmd.Process.Signal(s) }

// Stop is SIGTERM. It returns when the process has ended, with its error if it did not exit 0.
func (r *Replica) Stop(ctx context.Context) error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return r.err
		}
		return err
	}
	select {
	case <-r.exited:
		return r.err
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s did not end after SIGTERM: %w", r.URL, ctx.Err()), r.Kill())
	}
}

// Exited is closed when the process has ended.
func (r *Replica) Exited() <-chan struct{} { return r.exited }

// Log is the last of what the process printed.
func (r *Replica) Log() string { return r.log.String() }

// tailBuffer keeps the last megabyte.
type tailBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailBytes = 1 << 20

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len()+len(p) > tailBytes {
		t.buf.Next(min(t.buf.Len(), tailBytes/2))
	}
	return t.buf.Write(p)
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
