package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	sse "github.com/r3labs/sse/v2"

	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/stream"
)

// guarded is r3labs with the guards of sse.md 7.2: as it comes, it stops at a clean end, gives up after a while, and
// asks for ever where the answer is final.
type guarded struct {
	client   *sse.Client
	ctx      context.Context
	final    atomic.Int32 // a status that no retry mends
	connects atomic.Int32
}

func newGuarded(ctx context.Context, url string) *guarded {
	g := &guarded{ctx: ctx}
	g.client = sse.NewClient(url, sse.ClientMaxBufferSize(16<<20))
	g.client.ReconnectStrategy = g
	g.client.ResponseValidator = func(_ *sse.Client, resp *http.Response) error {
		g.connects.Add(1)
		if resp.StatusCode == 200 && resp.Header.Get("Content-Type") == "text/event-stream" {
			return nil
		}
		defer resp.Body.Close()
		if resp.StatusCode != 429 && resp.StatusCode < 500 {
			g.final.Store(int32(resp.StatusCode))
		}
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return g
}

// NextBackOff waits a moment where the contract says the last Event.Retry, which is seconds.
func (g *guarded) NextBackOff() time.Duration {
	if g.ctx.Err() != nil || g.final.Load() != 0 {
		return -1 // backoff.Stop
	}
	return 20 * time.Millisecond
}

func (g *guarded) Reset() {}

func (g *guarded) run(topic string, handle func(*sse.Event)) {
	for g.ctx.Err() == nil && g.final.Load() == 0 { // a clean end returns nil
		_ = g.client.SubscribeWithContext(g.ctx, topic, func(e *sse.Event) {
			if len(e.Data) > 0 || len(e.Event) > 0 {
				handle(e)
			}
		})
	}
}

func TestR3labsFollowsOverRotations(t *testing.T) {
	s := streamers(t, func(_ *Config, c *stream.Config) { c.Lifetime = time.Second })
	topic := s.k.Topic(t, "orders", 2)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const each = 200
	producing := make(chan struct{})
	go func() {
		defer close(producing)
		for i := range each / 10 {
			for p := range int32(2) {
				s.produce(topic, p, numbered(10*i, 10)...)
			}
			time.Sleep(150 * time.Millisecond) // so that it takes three lifetimes
		}
	}()
	g := newGuarded(ctx, s.url+"/events?from=earliest")
	next := map[int32]int64{}
	g.run(topic, func(e *sse.Event) {
		switch string(e.Event) {
		case "":
			var m struct {
				Partition int32
				Offset    int64
				Value     json.RawMessage
			}
			if err := json.Unmarshal(e.Data, &m); err != nil || m.Offset != next[m.Partition] || string(m.Value) != fmt.Sprintf(`{"n":%d}`, m.Offset) {
				t.Errorf("got %s, want offset %d: %v", e.Data, next[m.Partition], err)
				cancel()
				return
			}
			if next[m.Partition]++; next[0] == each && next[1] == each {
				cancel()
			}
		case "progress", "reconnect":
		default:
			t.Errorf("unexpected event %q: %s", e.Event, e.Data)
		}
	})
	<-producing
	if next[0] != each || next[1] != each {
		t.Errorf("got %v records, want %d of each partition", next, each)
	}
	if n := g.connects.Load(); n < 3 {
		t.Errorf("%d connects: nothing was rotated", n)
	}

	unknown := newGuarded(t.Context(), s.url+"/events")
	unknown.run("no-such-topic", func(e *sse.Event) { t.Errorf("an event: %s", e.Data) })
	if n := unknown.connects.Load(); n != 1 || unknown.final.Load() != 404 {
		t.Errorf("%d connects, final status %d", n, unknown.final.Load())
	}
}

const chromium = "/usr/bin/chromium"

// browser opens a page in a real Chromium.
func browser(t *testing.T, url string) context.Context {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		backend.NotRun(t, "no browser: "+err.Error())
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(60*time.Second))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closeTab := chromedp.NewContext(allocator)
	ctx, cancel := context.WithTimeout(ctx, 120*time.Second)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser
		cancel()
		closeTab()
		stop()
	})
	if _, err := chromedp.Run(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// script runs in the page.
func script[T any](t *testing.T, ctx context.Context, text string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// poll waits until a script gives true.
func poll(t *testing.T, ctx context.Context, what, text string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !script[bool](t, ctx, text); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s\n%s", what, script[string](t, ctx, "document.body.innerText"))
		}
	}
}

func TestPageInARealBrowser(t *testing.T) {
	var topic string
	page := func() []byte { return bytes.ReplaceAll(TailPage(), []byte("topics/orders"), []byte("topics/"+topic)) }
	s := streamers(t, func(_ *Config, c *stream.Config) { c.Lifetime, c.Retry = 4*time.Second, 0 })
	topic = s.k.Topic(t, "orders", 3)
	s.server.needs.RootPage = page()
	s.produce(topic, 0, `{"big": 9223372036854775808}`, `<img src=x onerror="document.title='hacked'">`)

	ctx := browser(t, s.url+"/")
	poll(t, ctx, "the page is live", `document.getElementById("state").dataset.state === "live"`)
	poll(t, ctx, "it shows what was there", `document.querySelectorAll("#tail li[data-offset]").length === 2`)
	poll(t, ctx, "text is text", `document.querySelector('#tail li[data-offset="0:1"] pre').textContent.startsWith("<img") && document.images.length === 0`)
	poll(t, ctx, "numbers are not rounded", `document.querySelector('#tail li[data-offset="0:0"] pre').textContent === '{"big":9223372036854775808}'`)

	script[bool](t, ctx, `document.getElementById("key").value = "customer-42"; document.getElementById("value").value = '{"total": 12.50}'; document.getElementById("send").click(); true`)
	poll(t, ctx, "the form shows the receipt", `/^written: partition \d, offset \d+$/.test(document.getElementById("answer").textContent)`)
	poll(t, ctx, "the tail shows the record", `[...document.querySelectorAll("#tail li")].some(e => e.textContent.includes("customer-42") && e.textContent.includes('{"total":12.50}'))`)
	script[bool](t, ctx, `document.getElementById("value").value = '{"total":'; document.getElementById("send").click(); true`)
	poll(t, ctx, "the form shows the error", `document.getElementById("answer").className === "error" && document.getElementById("answer").textContent.startsWith("The value is not JSON")`)

	// Over two rotations the browser comes back with its id: nothing is missing, nothing comes twice.
	before := connects(t, s, "resumed")
	sent := 3
	for deadline := time.Now().Add(60 * time.Second); connects(t, s, "resumed") < before+2; sent++ {
		if time.Now().After(deadline) {
			t.Fatal("the browser did not come back")
		}
		s.produce(topic, int32(sent%3), fmt.Sprintf(`{"n": %d}`, sent))
		time.Sleep(100 * time.Millisecond)
	}
	poll(t, ctx, "all records are shown", fmt.Sprintf(`document.querySelectorAll("#tail li[data-offset]").length >= %d`, sent))
	offsets := script[[]string](t, ctx, `[...document.querySelectorAll("#tail li[data-offset]")].map(e => e.dataset.offset)`)
	seen := map[string]bool{}
	for _, o := range offsets {
		if seen[o] {
			t.Errorf("%s came twice", o)
		}
		seen[o] = true
	}
	if len(seen) != sent {
		t.Errorf("%d records are shown, want %d", len(seen), sent)
	}
	if title := script[string](t, ctx, "document.title"); strings.Contains(title, "hacked") {
		t.Errorf("title %q", title)
	}
}
