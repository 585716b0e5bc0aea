package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write the table of legacy names into docs/operations.md")

// docs/operations.md says what the table does. `go test ./cmd/sluice -run Operations -update` writes it.
func TestOperationsListsTheLegacyNames(t *testing.T) {
	const path, begin, end = "../../docs/operations.md", "<!-- legacy names -->\n", "<!-- end of legacy names -->\n"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, there := strings.Cut(string(raw), begin)
	have, after, ends := strings.Cut(rest, end)
	if !there || !ends {
		t.Fatalf("%s has no place for the table", path)
	}
	want := legacyDoc(t)
	if have == want {
		return
	}
	if !*update {
		t.Fatalf("%s is not up to date; run `go test ./cmd/sluice -run Operations -update`", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func legacyDoc(t *testing.T) string {
	t.Helper()
	parser, err := kong.New(&cli{}, durations, kong.BindTo(t.Context(), (*context.Context)(nil)))
	if err != nil {
		t.Fatal(err)
	}
	flags := allServeFlags(parser.Model)
	own := map[string]bool{} // what a prefix has for itself
	for _, row := range clientRows() {
		own[row.property] = true
	}
	var b strings.Builder
	b.WriteString("| Property | Becomes | |\n|---|---|---|\n")
	for _, row := range legacyRows {
		if own[row.property] && !strings.HasPrefix(row.property, "client.") {
			continue
		}
		var becomes []string
		for _, name := range row.settings {
			if envs := flags[name].Envs; len(envs) > 0 {
				becomes = append(becomes, "`"+envs[0]+"`")
			} else {
				becomes = append(becomes, "the host in `base_uri`")
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row.property, strings.Join(becomes, ", "), row.note)
	}
	b.WriteString("\nWhere `client.` is not said, `admin.`, `producer.` and `consumer.` count, in this order: Sluice has one way to Kafka for all.\n")
	list := func(patterns []string) string {
		names := slices.Clone(patterns)
		for n, name := range names {
			names[n] = "`" + name + "`"
		}
		return strings.Join(names, ", ")
	}
	fmt.Fprintf(&b, "\nWithout effect, named once: %s (the last four where they have no row above); and of the start scripts' variables `KAFKAREST_*` and, behind `KAFKA_REST_` and `RP_`, %s.\n", list(slices.Concat(legacyWithout, legacyClients)), list(legacyEnvironment))
	fmt.Fprintf(&b, "\nNot there yet, named in a warning of their own: %s.\n\nThese stop the start:\n\n", list(legacyLater))
	for _, r := range legacyRefused {
		fmt.Fprintf(&b, "- `%s` %s\n", r.pattern, r.reason)
	}
	return b.String()
}
