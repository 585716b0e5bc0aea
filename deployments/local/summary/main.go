// Command summary reads what `go test -json` wrote for each back end and says in one table what passed, failed and did
// not run. It exits 1 when a test failed, a package did not build, a back end ran nothing, or a test ran on no back end
// (but for those that say they wait for TEST_LONG=1).
//
//	summary DIR          DIR/<back end>.json, all of them
//	summary -line FILE   one line for one of them, and the output of what failed
//	summary -failed FILE what failed, a package a line: its path and its tests, ready for go test -run
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// event is one line of `go help test2json`.
type event struct {
	Action, Package, Test, Output string
}

// run is what one back end did. Only top-level tests count: how many subtests there are is the test's own affair.
type run struct {
	name                    string
	passed, failed, skipped map[string]bool
	reasons                 map[string]string // of the skipped
	broken                  map[string]bool   // packages that failed outside any test
	second                  map[string]bool   // failed, and passed when they were run once more
	output                  map[string][]string
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "-line" {
		r, err := read(os.Args[2])
		exitOn(err)
		fmt.Println(r)
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "-failed" {
		r, err := read(os.Args[2])
		exitOn(err)
		r.printFailed()
		return
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: summary DIR | summary -line FILE | summary -failed FILE")
		os.Exit(2)
	}
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*.json"))
	exitOn(err)
	var runs []*run
	for _, file := range files {
		r, err := read(file)
		exitOn(err)
		runs = append(runs, r)
	}
	if !report(runs) {
		os.Exit(1)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
}

func read(file string) (*run, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &run{
		name: strings.TrimSuffix(filepath.Base(file), ".json"), passed: map[string]bool{}, failed: map[string]bool{},
		skipped: map[string]bool{}, reasons: map[string]string{}, broken: map[string]bool{}, second: map[string]bool{}, output: map[string][]string{},
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // what a tool prints beside the stream
		}
		r.add(e)
	}
	return r, lines.Err()
}

func (r *run) add(e event) {
	top, _, sub := strings.Cut(e.Test, "/")
	id := e.Package + "." + top
	switch {
	case e.Action == "output":
		if _, reason, ok := strings.Cut(e.Output, "NOT RUN"); ok {
			r.reasons[id] = strings.Trim(reason, ": \n")
		}
		if len(r.output[id]) < 200 {
			r.output[id] = append(r.output[id], e.Output)
		}
	case e.Test == "" && (e.Action == "fail" || e.Action == "build-fail"):
		r.broken[e.Package] = true
	case e.Test == "" && e.Action == "pass":
		delete(r.broken, e.Package)
	case e.Test == "" || sub:
	case e.Action == "pass":
		if r.failed[id] {
			delete(r.failed, id)
			r.second[id] = true
		}
		r.passed[id] = true
		delete(r.output, id)
	case e.Action == "fail":
		r.failed[id] = true
	case e.Action == "skip":
		r.skipped[id] = true
	}
}

// String is one line, then the output of what failed.
func (r *run) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %4d passed, %d failed, %d NOT RUN", r.name, len(r.passed), len(r.failed), len(r.skipped))
	for _, id := range slices.Sorted(maps.Keys(r.failed)) {
		fmt.Fprintf(&b, "\n--- FAIL %s\n%s", short(id), strings.Join(r.output[id], ""))
	}
	for _, p := range slices.Sorted(maps.Keys(r.broken)) {
		if !r.explains(p) {
			fmt.Fprintf(&b, "\n--- FAIL package %s\n%s", p, strings.Join(r.output[p+"."], ""))
		}
	}
	return b.String()
}

// explains reports whether a failed test of the package is why the package failed.
func (r *run) explains(pkg string) bool {
	for id := range r.failed {
		if strings.HasPrefix(id, pkg+".") {
			return true
		}
	}
	return false
}

func report(runs []*run) bool {
	good := len(runs) > 0
	ranSomewhere, known := map[string]bool{}, map[string]bool{} // known: skipped somewhere; true where it takes TEST_LONG
	var passed, failed, skipped int
	fmt.Println()
	for _, r := range runs {
		fmt.Printf("%-8s %4d passed, %d failed, %d NOT RUN\n", r.name, len(r.passed), len(r.failed), len(r.skipped))
		for _, id := range slices.Sorted(maps.Keys(r.failed)) {
			fmt.Printf("         FAIL %s\n", short(id))
		}
		for _, id := range slices.Sorted(maps.Keys(r.second)) {
			fmt.Printf("         SECOND TRY %s: failed once, passed when run again\n", short(id))
		}
		for _, id := range slices.Sorted(maps.Keys(r.skipped)) {
			fmt.Printf("         NOT RUN %s: %s\n", short(id), r.reasons[id])
			known[id] = known[id] || strings.Contains(r.reasons[id], "TEST_LONG=1")
		}
		for p := range r.broken {
			if !r.explains(p) {
				fmt.Printf("         FAIL package %s\n", p)
			}
		}
		maps.Copy(ranSomewhere, r.passed)
		maps.Copy(ranSomewhere, r.failed)
		passed, failed, skipped = passed+len(r.passed), failed+len(r.failed), skipped+len(r.skipped)
		good = good && len(r.failed) == 0 && len(r.broken) == 0 && len(r.passed) > 0
	}
	shared(runs)
	for _, id := range slices.Sorted(maps.Keys(known)) {
		switch {
		case ranSomewhere[id]:
		case known[id]: // minutes of waiting for one fact: nightly
			fmt.Printf("left for TEST_LONG=1: %s\n", short(id))
		default:
			fmt.Printf("no back end ran %s\n", short(id))
			good = false
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return good
}

// fewest is how many failures may be chance on a busy machine; more of them are not asked twice.
const fewest = 4

// printFailed is for a second try of what failed in a test, not of what does not build or leaks.
func (r *run) printFailed() {
	if len(r.failed) > fewest {
		return
	}
	tests := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(r.failed)) {
		pkg := pkgOf(id)
		tests[pkg] = append(tests[pkg], strings.TrimPrefix(id, pkg+"."))
	}
	for pkg, names := range tests {
		fmt.Println(pkg, strings.Join(names, "|"))
	}
}

// shared compares the back ends by the packages that ran on all of them: the same suites, so the same number of tests.
func shared(runs []*run) {
	if len(runs) < 2 {
		return
	}
	everywhere := runs[0].packages()
	for _, r := range runs[1:] {
		mine := r.packages()
		maps.DeleteFunc(everywhere, func(p string, _ bool) bool { return !mine[p] })
	}
	fmt.Printf("in the %d packages that run on every back end:\n", len(everywhere))
	for _, r := range runs {
		count := func(tests map[string]bool) (n int) {
			for id := range tests {
				if everywhere[pkgOf(id)] {
					n++
				}
			}
			return n
		}
		passed, skipped, failed := count(r.passed), count(r.skipped), count(r.failed)
		fmt.Printf("%-8s %4d tests: %d passed, %d NOT RUN for the reasons above, %d failed\n", r.name, passed+skipped+failed, passed, skipped, failed)
	}
}

// packages are those of which a test ran or was skipped.
func (r *run) packages() map[string]bool {
	all := map[string]bool{}
	for _, tests := range []map[string]bool{r.passed, r.failed, r.skipped} {
		for id := range tests {
			all[pkgOf(id)] = true
		}
	}
	return all
}

func pkgOf(id string) string { return id[:strings.LastIndex(id, ".")] }

func short(id string) string { return strings.TrimPrefix(id, "github.com/sluicegate/sluice/") }
