package httpapi

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

// A client that does not wait is told 204 at once, and what it was told is written even when the server stops meanwhile.
func TestWhatIsProducedLaterOutlivesAStop(t *testing.T) {
	w := start(t)
	called, release := make(chan struct{}), make(chan struct{})
	var written []string
	w.kafka.produce = func(_ string, recs []sluice.NewRecord) ([]sluice.Receipt, error) {
		close(called)
		<-release
		for _, r := range recs {
			written = append(written, string(r.Value))
		}
		return make([]sluice.Receipt, len(recs)), nil
	}
	if a := w.call("POST", "/topics/orders?async=true", `{"records":[{"value":"YQ=="},{"value":"?"},{"value":"Yg=="}]}`); a.status != 204 || a.body != "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	<-called
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		stopped <- w.srv.Stop(ctx)
	}()
	select {
	case err := <-stopped:
		t.Fatalf("the server stopped before the records were written: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if got := strings.Join(written, " "); got != "a b" {
		t.Errorf("written: %q", got)
	}
	if log := w.logs.String(); !strings.Contains(log, `"failed":1,"records":3`) || !strings.Contains(log, "invalid base64") {
		t.Errorf("the record that failed is not in the log: %s", log)
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

// Not to wait is no way around the checks.
func TestWhatIsProducedLaterIsCheckedFirst(t *testing.T) {
	w := start(t)
	for _, c := range []struct{ path, body, want string }{
		{"/topics/nosuch?async=true", `{"records":[{"value":"YQ=="}]}`, `404 {"error_code":40401,`},
		{"/topics/orders/partitions/99?async", `{"records":[{"value":"YQ=="}]}`, `404 {"error_code":40402,`},
		{"/topics/orders?async=true", `{"records":[{"value":"?"}]}`, `422 {"error_code":422,`},
		{"/topics/orders?async=soon", `{"records":[{"value":"YQ=="}]}`, `400 {"error_code":400,`},
	} {
		a := w.call("POST", c.path, c.body)
		if got := fmt.Sprintf("%d %s", a.status, a.body); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s: %s, want %s", c.path, c.body, got, c.want)
		}
	}
	if len(w.kafka.produced["orders"]) != 0 {
		t.Error("something was written")
	}
}
