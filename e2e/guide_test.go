package e2e

import (
	"os"
	"strings"
	"testing"
	"time"
)

// Every sh block of the guide is run against `sluice dev`, in order, and answers what the text block under it says.
func TestTheGuideDoesWhatItSays(t *testing.T) {
	r := developer(t)
	raw, err := os.ReadFile("../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	hook := ""
	for line := range strings.Lines(r.Log()) {
		if _, rest, ok := strings.Cut(line, `"endpoint":{"url":"`); ok {
			hook, _, _ = strings.Cut(rest, `"`)
		}
	}
	local := strings.NewReplacer("http://127.0.0.1:8082", r.URL, "http://127.0.0.1:8083/", hook)
	blocks := strings.Split(string(raw), "```sh\n")[1:]
	if len(blocks) < 10 {
		t.Fatalf("the guide has %d blocks; is it still written the same way?", len(blocks))
	}
	for _, block := range blocks {
		command, rest, _ := strings.Cut(block, "```")
		_, want, ok := strings.Cut(rest, "```text\n")
		if !ok {
			t.Errorf("no answer stands under\n%s", command)
			continue
		}
		want, _, _ = strings.Cut(want, "\n```")
		out := paste(t, 20*time.Second, local.Replace(command))
		left := out
		for _, part := range strings.FieldsFunc(want, func(c rune) bool { return c == '…' || c == '\n' }) {
			_, after, found := strings.Cut(left, part)
			if !found {
				t.Errorf("%s\nanswered\n%s\nwithout %q, which the guide promises", command, out, part)
				break
			}
			left = after
		}
	}
}
