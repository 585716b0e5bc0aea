package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluicegate/sluice"
)

// chunked sends a body of no announced length.
func (w *world) chunked(method, path, body string, headers ...string) answer {
	w.t.Helper()
	return w.sent(method, path, io.MultiReader(strings.NewReader(body)), headers...)
}

// A bomb that is cut off leaves nothing for the garbage collector: its room is used again.
func TestABombLeavesNoGarbage(t *testing.T) {
	w := start(t)
	bomb := strings.Repeat(zipped(t, strings.Repeat(" ", 16<<20)), 2)
	refused := func() {
		if a := w.call("POST", "/topics/orders", bomb, "Content-Encoding", "gzip"); a.status != 413 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	refused() // makes the room
	const times = 5
	before := allocated()
	for range times {
		refused()
	}
	if each := (allocated() - before) / times; each > 12<<20 { // a collection in between may take the room away
		t.Errorf("%d KiB were allocated for each", each>>10)
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

// Bodies of unknown length arrive whole, whatever their size beside the rooms they are gathered in.
func TestBodiesOfUnknownLengthArriveWhole(t *testing.T) {
	w := start(t)
	for _, size := range []int{100, firstBytes - 1, firstBytes, firstBytes + 1, firstBytes + pieceBytes, firstBytes + pieceBytes + 1, pooledBytes, pooledBytes + 1, 3*pieceBytes - 17, 5 << 20} {
		var value strings.Builder
		for i := 0; value.Len() < size-40; i++ {
			fmt.Fprintf(&value, "%08x", i)
		}
		body := fmt.Sprintf(`{"records":[{"value":"%s"}]}`, value.String()[:size-40])
		body += strings.Repeat(" ", size-len(body))
		for _, encoding := range []string{"", "gzip"} {
			w.kafka.mu.Lock()
			w.kafka.produced = map[string][]sluice.NewRecord{}
			w.kafka.mu.Unlock()
			sent := body
			if encoding != "" {
				sent = zipped(t, body)
			}
			a := w.chunked("POST", "/topics/orders", sent, "Content-Type", "application/vnd.kafka.json.v2+json", "Content-Encoding", encoding)
			if got := w.kafka.produced["orders"]; a.status != 200 || len(got) != 1 || string(got[0].Value) != `"`+value.String()[:size-40]+`"` {
				t.Errorf("%d bytes, %q: %d %.100s", size, encoding, a.status, a.body)
			}
		}
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

// The smallest budget that is allowed takes the largest body, announced or not: it is joined of its pieces, and there
// twice for a moment.
func TestTheSmallestBudgetTakesTheLargestBody(t *testing.T) {
	const most = 3<<20 + 17
	least := Config{MaxBodyBytes: most}.leastInflight()
	c := Default()
	c.MaxBodyBytes, c.InflightBytes = most, least-1
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "inflight-bytes must be at least twice max-body-bytes") {
		t.Errorf("one byte less: %v", err)
	}
	w := start(t, func(c *Config, _ *Needs) { c.MaxBodyBytes, c.InflightBytes = most, least })
	body := `{"records":[{"value":"x"}]}`
	body += strings.Repeat(" ", most-len(body))
	json := []string{"Content-Type", "application/vnd.kafka.json.v2+json"}
	for name, a := range map[string]answer{
		"announced": w.call("POST", "/topics/orders", body, json...),
		"in chunks": w.chunked("POST", "/topics/orders", body, json...),
		"gzip":      w.call("POST", "/topics/orders", zipped(t, body), append(json, "Content-Encoding", "gzip")...),
	} {
		if a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if used := w.srv.budget.used; used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

// An endless stream of gzip members that hold nothing grows to nothing, and must end all the same (rest-api.md 1.2: the
// limit is for what is received, too).
func TestEmptyMembersAreCountedAsTheyCome(t *testing.T) {
	w := start(t, func(c *Config, _ *Needs) { c.MaxBodyBytes = 1 << 20 })
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "POST /topics/orders HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
	empty := strings.Repeat(zipped(t, ""), 1000)
	sent := 0
	for ; sent < 8<<20; sent += len(empty) {
		if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(empty), empty); err != nil {
			break
		}
	}
	got := make([]byte, 12)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "HTTP/1.1 413" {
		t.Errorf("after %d bytes: %q %v", sent, got, err)
	}
}

// A body that is kept for another replica is paid for until its request ends, and so is the copy that a handler takes.
func TestABodyThatIsKeptIsPaidFor(t *testing.T) {
	w := start(t)
	sent := bytes.Repeat([]byte("x"), 1<<20)
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.Header.SetMethod("POST")
	ctx.Request.SetBodyStream(bytes.NewReader(sent), len(sent))
	c := w.srv.app.AcquireCtx(ctx)
	defer w.srv.app.ReleaseCtx(c)
	used := func() int64 {
		w.srv.budget.mu.Lock()
		defer w.srv.budget.mu.Unlock()
		return w.srv.budget.used
	}
	for range 2 { // the second time nothing is left to read
		kept, err := w.srv.kept(c)
		if err != nil || !bytes.Equal(kept, sent) || used() < 1<<20 {
			t.Fatalf("%d bytes, %v, %d are paid for", len(kept), err, used())
		}
	}
	copied, err := w.srv.body(c)
	if err != nil || !bytes.Equal(copied.bytes, sent) || used() < 2<<20 {
		t.Fatalf("%v, %d bytes are paid for", err, used())
	}
	copied.bytes[0] = 'y' // handlers decode in place
	if kept, _ := w.srv.kept(c); kept[0] != 'x' {
		t.Error("the handler's copy is the one that was kept")
	}
	copied.release()
	of(c).sentRoom.release()
	if n := used(); n != 0 {
		t.Errorf("%d bytes were not given back", n)
	}
}

// A call on an instance that moves while it is under way is made once more, with what the client sent: the handler has
// decoded its copy in place by then.
func TestTheBodyOfACallOnAnInstanceIsThereForAnotherTry(t *testing.T) {
	w := start(t)
	for name, size := range map[string]int{"length": 9, "chunked": -1} {
		ctx := &fasthttp.RequestCtx{}
		ctx.Request.Header.SetMethod("POST")
		ctx.Request.SetBodyStream(strings.NewReader(`{"a":"b"}`), size)
		c := w.srv.app.AcquireCtx(ctx)
		of(c).keeps = true
		for range 2 {
			body, err := w.srv.body(c)
			if err != nil || string(body.bytes) != `{"a":"b"}` {
				t.Fatalf("%s: %q, %v", name, body.bytes, err)
			}
			clear(body.bytes)
			body.release()
		}
		of(c).sentRoom.release()
		w.srv.app.ReleaseCtx(c)
	}
}

// Who asks before it sends is told at once what it would be told afterwards.
func TestExpectIsRefusedBeforeTheBody(t *testing.T) {
	w := start(t)
	if !w.srv.budget.take(w.srv.budget.limit - 1000) {
		t.Fatal("no budget")
	}
	got := w.raw("POST /topics/orders HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "Retry-After: 1\r\n") || !strings.Contains(got, "Connection: close\r\n") || strings.Count(got, "HTTP/1.") != 1 {
		t.Errorf("%q", got)
	}
	got = w.raw("POST /topics/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 16\r\n\r\n{\"records\":[{}]}")
	if !strings.HasPrefix(got, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 ") { // what it is told then is the budget's matter
		t.Errorf("%q", got)
	}
	w.srv.budget.give(w.srv.budget.limit - 1000)
}
