package conformance

import (
	"context"
	"net/url"
	"testing"

	"github.com/sluicegate/sluice/sandbox/backend"
)

// instance creates a consumer instance in a group of its own, deletes it at the end of the test, and returns its path.
func (s *server) instance(t *testing.T, contentType, body string) (path string) {
	t.Helper()
	return s.instanceIn(t, backend.Unique("group"), contentType, body)
}

// instanceIn is instance in a group that others are in.
func (s *server) instanceIn(t *testing.T, group, contentType, body string) (path string) {
	t.Helper()
	a := s.ask(t, request{method: "POST", path: "/consumers/" + url.PathEscape(group), contentType: contentType, body: body})
	var made struct {
		ID string `json:"instance_id"`
	}
	a.into(t, &made)
	if a.status != 200 || made.ID == "" {
		t.Fatalf("%v\ngot %v, and no instance", a.asked, a)
	}
	path = "/consumers/" + url.PathEscape(group) + "/instances/" + url.PathEscape(made.ID)
	t.Cleanup(func() {
		if _, err := s.try(context.Background(), request{method: "DELETE", path: path}); err != nil {
			t.Errorf("delete %s: %v", path, err)
		}
	})
	return path
}
