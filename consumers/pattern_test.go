package consumers

import (
	"runtime"
	"strings"
	"testing"

	"github.com/sluicegate/sluice"
)

// A pattern is somebody else's program: what it may take of ours is bounded before it is compiled.
func TestPatternsAreBounded(t *testing.T) {
	for name, pattern := range map[string]string{
		"long":              strings.Repeat("a*b*", 2<<20),
		"a long literal":    strings.Repeat("a", 1<<20),
		"small, repeated":   "(?:" + strings.Repeat("ab*", 1000) + "){900}",
		"nested repeats":    "((((a{9}){9}){9}b){9}c){9}",
		"half open":         "(?:" + strings.Repeat("ab*", 1000) + "){900,}",
		"classes":           strings.Repeat(`\pL`, 5000),
		"repeated classes":  `(?:\pL\PL){500}`,
		"deep":              strings.Repeat("(", 5000) + strings.Repeat(")", 5000),
		"out of its group":  "a)|(?:b",
		"beyond its anchor": "a)|.*|(?:b",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := Wish{Pattern: pattern}
		err := w.check()
		runtime.ReadMemStats(&after)
		if sluice.KindOf(err) != sluice.Invalid || w.match != nil {
			t.Errorf("%s: %v", name, err)
		}
		if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 64 {
			t.Errorf("%s: %d MiB were allocated", name, grown)
		}
	}
	var list []string
	for range 300 {
		list = append(list, strings.Repeat("t", 40))
	}
	for pattern, matches := range map[string]bool{"order.*": true, "(?i)ORDERS": true, "orders|b": true, "o": false, "rders": false, "order": false, "^orders$": true, "(?:or|x){1,3}ders": true, `\w{1,249}`: true, "orders|" + strings.Join(list, "|"): true} {
		w := Wish{Pattern: pattern}
		if err := w.check(); err != nil || (len(w.of([]string{"orders"})) == 1) != matches {
			t.Errorf("%.40s: %v, matches %v", pattern, err, !matches)
		}
	}
}
