package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sluicegate/sluice/e2e/peers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

const chromium = "/usr/bin/chromium" // Debian's

// The page of `sluice dev` in a real browser: what was there is shown, what is typed into the form is produced and comes
// back through the browser's own EventSource.
func TestTheDevPageTailsAndProducesInARealBrowser(t *testing.T) {
	r := developer(t)
	if _, err := os.Stat(chromium); err != nil {
		backend.NotRun(t, "no browser: "+err.Error())
	}
	before := []peers.Record{{Value: []byte(`{"before":true}`)}}
	if err := peers.Produce(t.Context(), r.URL, "orders", before); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(60*time.Second))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	tab, closeTab := chromedp.NewContext(allocator)
	defer closeTab()
	ctx, cancel := context.WithTimeout(tab, 2*time.Minute)
	defer cancel()
	defer func() { _ = chromedp.Cancel(tab) }() // waits for the browser

	if _, err := chromedp.Run(ctx, chromedp.Navigate(r.URL+"/")); err != nil {
		t.Fatal(err)
	}
	holds := func(script string) func() bool {
		return func() bool {
			v, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script))
			if err != nil {
				t.Fatalf("%s: %v", script, err)
			}
			return v
		}
	}
	eventually(t, time.Minute, "the page is live", holds(`document.getElementById("state").dataset.state === "live"`))
	eventually(t, time.Minute, "it shows the record that was there", holds(`document.querySelectorAll("#tail li[data-offset]").length === 1`))
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](
		`document.getElementById("value").value = '{"from":"the form"}'; document.getElementById("send").click(); true`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the produced record comes back", holds(`[...document.querySelectorAll("#tail li pre")].some(p => p.textContent.includes('"from":"the form"'))`))
}
