package conformance

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// verdict is what became of a row.
type verdict string

const (
	same    verdict = "same"
	differs verdict = "differs"
	notRun  verdict = "not run"
)

// report collects the rows in the order of the sections.
type report struct {
	of string // what was asked

	mu   sync.Mutex
	rows map[string]*reported // by the test's name
	seen []string             // in the order of their beginning
}

type reported struct {
	verdict verdict
	notes   []string
}

func newReport(of string) *report { return &report{of: of, rows: map[string]*reported{}} }

func (r *report) begin(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows[t.Name()] == nil {
		r.rows[t.Name()] = &reported{verdict: same}
		r.seen = append(r.seen, t.Name())
	}
}

// note adds to what is said of the row. Outside of rows there is nothing to add to: a part that cannot run is a row then.
func (r *report) note(t *testing.T, v verdict, text string) {
	r.begin(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.rows[t.Name()]
	row.verdict, row.notes = v, append(row.notes, text)
}

// end finds rows that failed without a note.
func (r *report) end(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if row := r.rows[t.Name()]; t.Failed() && row.verdict == same {
		row.verdict = differs
		row.notes = append(row.notes, "see the test's output")
	}
}

// finish says in one line how it went, and which rows differ, and writes the table.
func (r *report) finish(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[verdict]int{}
	var table, list strings.Builder
	fmt.Fprintf(&table, "# The classic REST API as %s answers it\n\n| Row | Result | Difference |\n|---|---|---|\n", r.of)
	for _, part := range sections {
		for _, name := range r.seen {
			short, ok := strings.CutPrefix(name, "TestConformance/"+part.name)
			if !ok || (short != "" && short[0] != '/') {
				continue
			}
			row := r.rows[name]
			count[row.verdict]++
			text := strings.NewReplacer("|", `\|`, "\n", " ").Replace(strings.Join(row.notes, "; "))
			fmt.Fprintf(&table, "| %s%s | %s | %s |\n", part.name, short, row.verdict, text)
			if row.verdict == differs {
				fmt.Fprintf(&list, "\n  %s%s: %.300s", part.name, short, text)
			}
		}
	}
	sum := fmt.Sprintf("%s: %d rows the same, %d differ, %d not run", r.of, count[same], count[differs], count[notRun])
	t.Log(sum + list.String())
	if file := os.Getenv("TEST_REST_REPORT"); file != "" {
		fmt.Fprintf(&table, "\n%s.\n", sum)
		if err := os.WriteFile(file, []byte(table.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}
