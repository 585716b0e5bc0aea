package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluicegate/sluice/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *sandbox.Data {
	t.Helper()
	d, err := sandbox.OpenData(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// killed is a copy of a folder that is in use: what a kill -9 would leave at this moment, as the page cache outlives the
// process.
func killed(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestAFolderHasOneUserAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "data")
	first := open(t, dir)
	if _, err := sandbox.OpenData(dir); err == nil || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("a second user got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder holds secrets and has mode %v, %v", info.Mode(), err)
	}
}

// A folder that is not ours is named in the reason and stays as it is.
func TestAFolderThatIsNotOursIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		says  string
	}{
		"somebody's":    {map[string]string{"thesis.txt": "dear reader"}, "holds thesis.txt"},
		"newer":         {map[string]string{"format.json": `{"format":2,"shards":{}}`}, "newer sluice (format 2, this one knows 1)"},
		"older":         {map[string]string{"format.json": `{"format":0}`}, "format 0"},
		"damaged":       {map[string]string{"format.json": `{"for`}, "damaged"},
		"another shape": {map[string]string{"format.json": `[]`}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := sandbox.OpenData(dir)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want %q and the folder", err, c.says)
			}
			for file, text := range c.files {
				if raw, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(raw) != text {
					t.Errorf("%s is now %q, %v", file, raw, err)
				}
			}
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.OpenData(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file was taken for a folder: %v", err)
	}
}

// A first start that was killed before it had written the format leaves a folder that still opens.
func TestAFirstStartMayBeKilledAtOnce(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"lock", "format.json.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, dir).Close(); err != nil {
		t.Fatal(fmt.Errorf("close: %w", err))
	}
}
