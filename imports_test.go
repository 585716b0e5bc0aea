package sluice_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluicegate/sluice"

// rooms is the import table of the house: who may import whom. "*" is anything; a room that is not listed imports only
// the root package. docs/architecture.md draws it.
var rooms = map[string][]string{
	"cmd/sluice":      {"gateway", "sandbox", "client"},
	"e2e":             {"*"},
	"bench":           {"*"},
	"gateway":         {"auth", "console", "consumers", "deadletters", "dispatcher", "filters", "formats", "httpapi", "kafka", "migrations", "partition", "progress", "stream", "subscriptions", "webhook"},
	"httpapi":         {"auth", "consumers", "stream", "subscriptions", "webhook", "progress", "deadletters", "filters", "formats", "partition", "console"},
	"dispatcher":      {"subscriptions", "webhook", "progress", "deadletters", "filters", "formats", "partition"},
	"webhook":         {"subscriptions", "formats", "filters"},
	"subscriptions":   {"filters", "partition"},
	"stream":          {"filters", "formats", "partition"},
	"consumers":       {"partition"},
	"deadletters":     {"partition"},
	"progress":        {"partition"},
	"sandbox/backend": {"sandbox"}, // test support
}

// homes names the rooms that may know a foreign library.
var homes = map[string][]string{
	"github.com/IBM/sarama":                 {"kafka", "bench"},
	"github.com/rcrowley/go-metrics":        {"kafka", "bench"},
	"github.com/gofiber/fiber/v2":           {"httpapi"},
	"github.com/valyala/fasthttp":           {"httpapi"},
	"github.com/hashicorp/go-retryablehttp": {"webhook"},
	"github.com/redis/go-redis/v9":          {"subscriptions", "consumers", "auth", "migrations"},
	"github.com/xdg-go/scram":               {"kafka"},
	"github.com/twmb/franz-go/pkg/kfake":    {"sandbox"},
	"github.com/twmb/franz-go/pkg/kgo":      {"sandbox"},
	"github.com/twmb/franz-go/pkg/kmsg":     {"sandbox"},
	"github.com/twmb/franz-go/pkg/sr":       {"formats"},
	"github.com/bufbuild/protocompile":      {"formats"},
	"github.com/santhosh-tekuri/jsonschema": {"formats"},
	"github.com/alicebob/miniredis/v2":      {"sandbox"},
	"github.com/r3labs/sse/v2":              {"client", "e2e"},
	"github.com/alecthomas/kong":            {"cmd", "bench"},
	"go.yaml.in/yaml/v3":                    {"cmd"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestRoomsImportOnlyWhatTheTableAllows(t *testing.T) {
	for _, p := range list(t) {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imported := range p.Imports {
			if other, ours := strings.CutPrefix(imported, module+"/"); ours && !allowed(room, other) {
				t.Errorf("%s imports %s, which the table does not allow", room, other)
			}
			for library, at := range homes {
				if imported != library && !strings.HasPrefix(imported, library+"/") {
					continue
				}
				if top, _, _ := strings.Cut(room, "/"); !slices.Contains(at, top) {
					t.Errorf("%s imports %s, which lives in %v", room, library, at)
				}
			}
		}
	}
}

func TestTheRootPackageKnowsOnlyTheStandardLibrary(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module {
			continue
		}
		for _, imported := range p.Imports {
			if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
				t.Errorf("the root package imports %s", imported)
			}
		}
		return
	}
	t.Fatal("go list did not name the root package")
}

// allowed also lets a room import the packages inside itself.
func allowed(room, other string) bool {
	top, _, _ := strings.Cut(room, "/")
	otherTop, _, _ := strings.Cut(other, "/")
	if top == otherTop && top != "cmd" {
		return true
	}
	for _, key := range []string{room, top} {
		for _, may := range rooms[key] {
			if may == "*" || may == other || may == otherTop {
				return true
			}
		}
	}
	return false
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}
