package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice/sandbox"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// nodePackage installs what testdata/kafka-rest locks, by version and checksum, into a folder of the test's own.
func nodePackage(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			backend.NotRun(t, "needs "+program+" (Debian: apt-get install nodejs npm)")
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/kafka-rest")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir, install.WaitDelay = dir, time.Second
	if out, err := install.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" || bytes.Contains(out, []byte("EINTEGRITY")) {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
		backend.NotRun(t, fmt.Sprintf("npm cannot install the client: %v", err))
	}
	return dir
}

// The kafka-rest library from npm, of 2015 and of v1, does against the gateway what its README says.
func TestTheNodeClientOfV1WorksUnchanged(t *testing.T) {
	dir := nodePackage(t)
	k := backend.Kafka(t)
	schemas, err := sandbox.StartRegistry()
	if err != nil {
		t.Fatal(err)
	}
	defer schemas.Close()
	topic, users, group := k.Topic(t, "tweets", 2), k.Topic(t, "users", 1), backend.Unique("node")
	r := gateway{brokers: k.Brokers, redis: backend.Redis(t)}.replica(t, "--schema-registry-url="+schemas.URL)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "--no-deprecation", filepath.Join(dir, "client.js"), r.URL, topic, group, users)
	var out, errs bytes.Buffer
	node.Stdout, node.Stderr, node.WaitDelay = &out, &errs, time.Second
	if err := node.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	type message struct {
		Topic, Key, Value *string
		Partition         int32
		Offset            int64
	}
	var saw struct {
		Brokers    []int
		Listed     bool
		Topic      string
		Partitions []string
		Partition  int
		Produced   []json.RawMessage
		URI        string
		Messages   []message
		Committed  []json.RawMessage
		Later      []string
		Gone       string
		Simple     json.RawMessage
		Unknown    json.RawMessage
		Schemas    [][2]int
		Users      []json.RawMessage
	}
	if err := json.Unmarshal(out.Bytes(), &saw); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if len(saw.Brokers) == 0 || !saw.Listed || saw.Topic != "Topic{name=\""+topic+"\", partitions=2}" || saw.Partition != 1 ||
		len(saw.Partitions) != 2 || !strings.HasSuffix(saw.Partitions[1], ", replicas=1}") {
		t.Errorf("metadata: %s", &out)
	}
	slots := func(partition int, offsets ...int) string {
		var all []string
		for _, o := range offsets {
			all = append(all, fmt.Sprintf(`{"partition":%d,"offset":%d,"error_code":null,"error":null}`, partition, o))
		}
		return `{"offsets":[` + strings.Join(all, ",") + `],"key_schema_id":null,"value_schema_id":null}`
	}
	if got, want := fmt.Sprintf("%s", saw.Produced), fmt.Sprint([]string{slots(0, 0), slots(0, 1, 2), slots(1, 0, 1)}); got != want {
		t.Errorf("produced %s, want %s", got, want)
	}
	if !strings.HasPrefix(saw.URI, r.URL+"/consumers/"+group+"/instances/") {
		t.Errorf("base_uri %s", saw.URI)
	}
	var read []string
	for _, m := range saw.Messages {
		show := func(s *string) string {
			if s == nil {
				return "null"
			}
			return fmt.Sprintf("%q", *s)
		}
		read = append(read, fmt.Sprintf("%d/%d %s %s", m.Partition, m.Offset, show(m.Key), show(m.Value)))
	}
	slices.Sort(read)
	// The two bytes of 0/1 are no UTF-8: Node shows the second as U+FFFD.
	if want := []string{`0/0 "key1" "msg1"`, `0/1 null "\x00�"`, `0/2 "gone" null`, `1/0 null "one"`, `1/1 "k" "two"`}; !slices.Equal(read, want) {
		t.Errorf("read %q, want %q", read, want)
	}
	committed := fmt.Sprintf(`[{"topic":%q,"partition":0,"consumed":2,"committed":2} {"topic":%[1]q,"partition":1,"consumed":1,"committed":1}]`, topic)
	if got := fmt.Sprintf("%s", saw.Committed); got != committed {
		t.Errorf("committed %s, want %s", got, committed)
	}
	if !slices.Equal(saw.Later, []string{"later"}) {
		t.Errorf("the second instance read %q", saw.Later)
	}
	if want := "APIError: HTTP 404 Consumer instance not found."; saw.Gone != want {
		t.Errorf("an instance that was shut down: %s, want %s", saw.Gone, want)
	}
	if want := fmt.Sprintf(`[{"topic":%q,"key":"aw==","value":"dHdv","partition":1,"offset":1},{"topic":%[1]q,"key":null,"value":"bGF0ZXI=","partition":1,"offset":2}]`, topic); string(saw.Simple) != want {
		t.Errorf("simple consumer: %s, want %s", saw.Simple, want)
	}
	if want := `{"status":404,"message":"Topic not found.","code":40401}`; string(saw.Unknown) != want {
		t.Errorf("unknown topic: %s, want %s", saw.Unknown, want)
	}
	if len(saw.Schemas) != 2 || saw.Schemas[0] != saw.Schemas[1] || saw.Schemas[0][0] == saw.Schemas[0][1] {
		t.Errorf("schema ids %v", saw.Schemas)
	}
	if got, want := fmt.Sprintf("%s", saw.Users), `[[1,{"id":1,"name":"Bob"}] [2,{"id":2,"name":"Eve"}]]`; got != want {
		t.Errorf("Avro: %s, want %s", got, want)
	}
}
