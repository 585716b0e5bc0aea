package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicegate/sluice/sandbox"
)

func schemaRegistry(t *testing.T, file string) *sandbox.Registry {
	t.Helper()
	r, err := sandbox.OpenRegistry(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// ask is one call; it returns the status and the error code, or the body where there is none.
func ask(t *testing.T, method, url, body string) (status, code int, answer string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var failed struct {
		Code int `json:"error_code"`
	}
	_ = json.Unmarshal(raw, &failed) // lists have none
	return res.StatusCode, failed.Code, string(bytes.TrimSpace(raw))
}

// Our registry answers as one that others wrote does, which follows Confluent's contract: same ids, statuses and codes.
func TestTheRegistryFollowsTheContract(t *testing.T) {
	fake := srfake.New()
	t.Cleanup(fake.Close)
	ours := schemaRegistry(t, "").URL
	post := func(typ, text string) string {
		raw, _ := json.Marshal(map[string]string{"schemaType": typ, "schema": text})
		return string(raw)
	}
	const record = `{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}`
	for n, c := range []struct{ method, path, body string }{
		{"GET", "/subjects", ""},
		{"POST", "/subjects/a/versions", post("AVRO", record)},
		{"POST", "/subjects/a/versions", post("AVRO", record)},
		{"POST", "/subjects/b/versions", post("AVRO", record)},
		{"POST", "/subjects/a/versions", post("JSON", `{}`)},
		{"POST", "/subjects/c/versions", post("PROTOBUF", `syntax="proto3"; message M {}`)},
		{"POST", "/subjects/a", post("AVRO", record)},
		{"POST", "/subjects/b", post("JSON", `{}`)},
		{"POST", "/subjects/nosuch", post("JSON", `{}`)},
		{"POST", "/subjects/a/versions", post("AVRO", "")},
		{"GET", "/schemas/ids/1", ""},
		{"GET", "/schemas/ids/2", ""},
		{"GET", "/schemas/ids/99", ""},
		{"GET", "/subjects/a/versions", ""},
		{"GET", "/subjects/nosuch/versions", ""},
		{"GET", "/subjects/a/versions/1", ""},
		{"GET", "/subjects/a/versions/latest", ""},
		{"GET", "/subjects/a/versions/9", ""},
		{"GET", "/subjects/nosuch/versions/1", ""},
		{"GET", "/subjects", ""},
	} {
		status, code, answer := ask(t, c.method, ours+c.path, c.body)
		wantStatus, wantCode, want := ask(t, c.method, fake.URL()+c.path, c.body)
		got := fmt.Sprint(idOf(t, answer))
		if status != wantStatus || code/10 != wantCode/10 || (code == 0 && got != fmt.Sprint(idOf(t, want))) {
			t.Errorf("%d: %s %s %s: %d %s, the other %d %s", n, c.method, c.path, c.body, status, answer, wantStatus, want)
		}
	}
	if status, _, answer := ask(t, "GET", ours+"/schemas/types", ""); status != 200 || answer != `["JSON","PROTOBUF","AVRO"]` {
		t.Errorf("types: %d %s", status, answer)
	}
}

// idOf is what two registries must agree on: ids, versions, types.
func idOf(t *testing.T, answer string) any {
	t.Helper()
	var list []any
	if json.Unmarshal([]byte(answer), &list) == nil {
		return list
	}
	var one struct {
		ID      int    `json:"id"`
		Version int    `json:"version"`
		Type    string `json:"schemaType"`
		Schema  string `json:"schema"`
	}
	if err := json.Unmarshal([]byte(answer), &one); err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	if one.Type == "AVRO" {
		one.Type = ""
	}
	return one
}

func TestSchemasAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "schemas.json")
	first := schemaRegistry(t, file)
	id, err := first.Register("a", "AVRO", `"string"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Register("a", "PROTOBUF", `syntax="proto3"; message M {}`); err != nil {
		t.Fatal(err)
	}
	second := schemaRegistry(t, file) // as after kill -9: nothing was told to the first
	c, err := sr.NewClient(sr.URLs(second.URL))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.SchemaByID(t.Context(), id); err != nil || s.Schema != `"string"` {
		t.Errorf("%+v %v", s, err)
	}
	if again, err := second.Register("a", "AVRO", `"string"`); err != nil || again != id {
		t.Errorf("id %d was %d: %v", again, id, err)
	}
	if s, err := c.SchemaByVersion(t.Context(), "a", 2); err != nil || s.Type != sr.TypeProtobuf {
		t.Errorf("%+v %v", s, err)
	}
	for _, bad := range []string{`{`, `{"format":2}`, `{"format":1,"subjects":{"a":[1]}}`, `{"format":1,"schemas":[{"schema":""}]}`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := sandbox.OpenRegistry(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v %v", bad, r, err)
		}
	}
}
