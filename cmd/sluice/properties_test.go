package main

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// What java.util.Properties of OpenJDK 17 reads out of the two files of testdata, the first through a UTF-8 reader and
// the second through a stream, which is ISO-8859-1.
var javaReads = map[string]map[string]string{
	"testdata/odd.properties": {
		"":                "no key",
		"#not.a.comment":  "1",
		"after.empty":     "1",
		"backslashes":     "a\\",
		"blank":           "value of a blank",
		"broken.on":       "a\\b",
		"colon":           "value",
		"colon.spaced":    "value",
		"continued":       "one,two,three",
		"empty":           "",
		"empty.colon":     "",
		"equals.in.value": "a=b:c",
		"equals.twice":    "=x",
		"escaped key=:":   "x",
		"escapes":         "\t\n\r\fq'\"",
		"hash":            "a#b!c",
		"indented":        "1",
		"last.line.wins":  "2",
		"not.comment":     "1",
		"nothing.behind":  "",
		"only.key":        "",
		"plain":           "value",
		"spaced":          "value with blanks at its end  ",
		"tabbed":          "value",
		"trailing":        "x",
		"unicode":         "é€😀",
		"utf8":            "é€😀",
		"windows":         "C:\\temp\\new",
	},
	"testdata/latin1.properties": {"latin": "éü", "mac": "2", "plain": "1", "windows": "34"},
}

func TestPropertiesAreReadAsJavaReadsThem(t *testing.T) {
	for path, want := range javaReads {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all, err := parseProperties(path, raw)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, p := range all {
			got[p.key] = p.value
			// The line is right when the text from there on still begins with the entry.
			if lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(raw)), "\n"); utf8.Valid(raw) && p.key != "" && !strings.Contains(strings.NewReplacer(`\`, "").Replace(lines[p.line-1]), p.key) {
				t.Errorf("%s is not on line %d: %q", p.key, p.line, lines[p.line-1])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-Java +ours):\n%s", path, diff)
		}
	}
}

func TestABrokenEscapeNamesItsLine(t *testing.T) {
	for _, text := range []string{`key=\u12`, `key=\uzzzz`, `k\u=1`, `key=\u+123`} {
		if _, err := parseProperties("f", []byte("a=1\n\n"+text+"\n")); err == nil || !strings.HasPrefix(err.Error(), "f:3: ") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzProperties(f *testing.F) {
	for path := range javaReads {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := parseProperties("f", raw)
		if err != nil {
			return
		}
		for _, p := range all {
			if p.line < 1 || p.line > strings.Count(string(raw), "\n")+strings.Count(string(raw), "\r")+1 {
				t.Errorf("%q on line %d", p.key, p.line)
			}
		}
	})
}
