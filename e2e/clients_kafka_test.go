package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

const binaryV2 = "application/vnd.kafka.binary.v2+json"

// kcat is the program, or the end of the test without it.
func kcat(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		backend.NotRun(t, "needs kcat (Debian: apt-get install kcat)")
	}
	return path
}

// output runs a program to its end and gives the lines it printed.
func output(t *testing.T, cmd *exec.Cmd, stdin string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = strings.NewReader(stdin), &out, &errs, time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd.Args, err, &out, &errs)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// What is produced through the gateway, Kafka's other clients see as it was sent: a null is no empty string, a name may
// come twice among the headers, and the time is the client's.
func TestOtherClientsReadWhatIsProduced(t *testing.T) {
	k := backend.Kafka(t)
	topic := k.Topic(t, "orders", 1)
	r := gateway{brokers: k.Brokers, redis: backend.Redis(t)}.replica(t)
	const records = `{"records":[
		{"key":"a2V5","value":"dmFsdWU=","timestamp":1612554562000,"headers":[{"key":"h","value":"djE="},{"key":"h","value":"djI="},{"key":"n","value":null}]},
		{"value":"bm8ga2V5","timestamp":"2021-02-05T19:49:22.001Z"},
		{"key":"Z29uZQ==","value":null,"timestamp":1612554562002},
		{"key":"","value":"","timestamp":1612554562003},
		{"timestamp":1612554562004}]}`
	if err := peers.Call(t.Context(), http.MethodPost, r.URL+"/topics/"+topic, binaryV2, []byte(records), http.StatusOK, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, c := range map[string]struct {
		command func(t *testing.T) *exec.Cmd
		want    []string
	}{
		"kcat": {func(t *testing.T) *exec.Cmd { // lengths are -1 for null
			t.Helper()
			return exec.CommandContext(ctx, kcat(t), "-b", k.Brokers[0], "-q", "-u", "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-f", `%o %T %K %k %S %s %h\n`)
		}, []string{
			"0 1612554562000 3 key 5 value h=v1,h=v2,n=NULL",
			"1 1612554562001 -1  6 no key ",
			"2 1612554562002 4 gone -1  ",
			"3 1612554562003 0  0  ",
			"4 1612554562004 -1  -1  ",
		}},
		"Java": {func(t *testing.T) *exec.Cmd {
			t.Helper()
			args := []string{"--topic", topic, "--from-beginning", "--max-messages", "5", "--timeout-ms", "30000"}
			for _, p := range []string{"print.offset", "print.timestamp", "print.key", "print.headers"} {
				args = append(args, "--property", p+"=true")
			}
			return k.Tool(ctx, t, "ConsoleConsumer", append(args, "--property", "null.literal=NULL")...)
		}, []string{
			"CreateTime:1612554562000\tOffset:0\th:v1,h:v2,n:NULL\tkey\tvalue",
			"CreateTime:1612554562001\tOffset:1\tNO_HEADERS\tNULL\tno key",
			"CreateTime:1612554562002\tOffset:2\tNO_HEADERS\tgone\tNULL",
			"CreateTime:1612554562003\tOffset:3\tNO_HEADERS\t\t",
			"CreateTime:1612554562004\tOffset:4\tNO_HEADERS\tNULL\tNULL",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := output(t, c.command(t), ""); !slices.Equal(got, c.want) {
				t.Errorf("read %q, want %q", got, c.want)
			}
		})
	}
}

// What Kafka's other clients produce, an instance reads as they sent it.
func TestWhatOtherClientsProduceIsRead(t *testing.T) {
	k := backend.Kafka(t)
	r := gateway{brokers: k.Brokers, redis: backend.Redis(t)}.replica(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type step struct {
		command *exec.Cmd
		stdin   string
	}
	for name, c := range map[string]struct {
		steps func(t *testing.T, topic string) []step
		want  []string
	}{
		"kcat": {func(t *testing.T, topic string) []step {
			t.Helper()
			command := func(more ...string) *exec.Cmd {
				return exec.CommandContext(ctx, kcat(t), append([]string{"-b", k.Brokers[0], "-P", "-t", topic, "-p", "0"}, more...)...)
			}
			return []step{
				{command("-K", ":", "-H", "h=v1", "-H", "h=v2", "-H", "e=", "-H", "n"), "key:value\n"},
				{command(), "no key\n"},
				{command("-Z", "-K", ":"), "gone:\n"}, // a tombstone
			}
		}, []string{
			`"a2V5" "dmFsdWU=" [{"key":"h","value":"djE="},{"key":"h","value":"djI="},{"key":"e","value":""},{"key":"n","value":null}]`,
			`null "bm8ga2V5" `,
			`"Z29uZQ==" null `,
		}},
		"Java": {func(t *testing.T, topic string) []step {
			t.Helper()
			command := func(properties ...string) *exec.Cmd {
				args := []string{"--topic", topic}
				for _, p := range properties {
					args = append(args, "--property", p)
				}
				return k.Tool(ctx, t, "ConsoleProducer", args...)
			}
			if k.Name == backend.Kafka28 { // its console producer knows neither headers (KIP-798) nor nulls (KIP-810)
				return []step{{command("parse.key=true", "key.separator=:"), "key:value\n:\n"}, {command(), "no key\n"}}
			}
			return []step{
				{command("parse.key=true", "key.separator=:", "parse.headers=true", "headers.delimiter=|", "null.marker=NULL"), "h:v1,h:v2,n:NULL|key:value\nNULL|:\n"},
				{command(), "no key\n"},
				{command("parse.key=true", "key.separator=:", "null.marker=NULL"), "gone:NULL\n"},
			}
		}, map[bool][]string{true: {
			`"a2V5" "dmFsdWU=" `,
			`"" "" `,
			`null "bm8ga2V5" `,
		}, false: {
			`"a2V5" "dmFsdWU=" [{"key":"h","value":"djE="},{"key":"h","value":"djI="},{"key":"n","value":null}]`,
			`"" "" `,
			`null "bm8ga2V5" `,
			`"Z29uZQ==" null `,
		}}[k.Name == backend.Kafka28]},
	} {
		t.Run(name, func(t *testing.T) {
			topic := k.Topic(t, "orders", 1)
			before := time.Now()
			for _, s := range c.steps(t, topic) {
				output(t, s.command, s.stdin)
			}
			i, err := peers.NewInstance(t.Context(), r.URL, backend.Unique("reader"), topic)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			eventually(t, 30*time.Second, "the records", func() bool {
				var records []struct {
					Key, Value json.RawMessage
					Headers    json.RawMessage
					Timestamp  int64
				}
				if err := peers.Call(t.Context(), http.MethodGet, i.Base+"/records", "", nil, http.StatusOK, &records); err != nil {
					t.Fatal(err)
				}
				for _, r := range records {
					got = append(got, fmt.Sprintf("%s %s %s", r.Key, r.Value, r.Headers))
					if at := time.UnixMilli(r.Timestamp); at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
						t.Errorf("timestamp %v", at)
					}
				}
				return len(got) >= len(c.want)
			})
			if !slices.Equal(got, c.want) {
				t.Errorf("read %s, want %s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
