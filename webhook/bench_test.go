package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sluicegate/sluice/subscriptions"
)

// BenchmarkSend is an attempt over a kept-alive loopback connection; bare is what net/http alone takes for a signed POST
// of the same kilobyte. Read the ratio, not the figures.
func BenchmarkSend(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	value := append(append([]byte(`{"text":"`), bytes.Repeat([]byte("x"), 1000)...), `"}`...)
	b.Run("sluice", func(b *testing.B) {
		s := sender(b, devGuard(b))
		d := delivery(b, server.URL, subscriptions.FormatBinary, record([]byte("k"), value))
		b.ReportAllocs()
		for b.Loop() {
			if o := s.Send(b.Context(), d); o.Class != S {
				b.Fatalf("%+v", o)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		b.ReportAllocs()
		for b.Loop() {
			mac := hmac.New(sha256.New, []byte("0123456789abcdef01234567"))
			mac.Write(value)
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, server.URL, bytes.NewReader(value))
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("webhook-signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)))
			resp, err := client.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	})
}
