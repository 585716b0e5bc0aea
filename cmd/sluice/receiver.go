package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// receiver is dev's webhook endpoint: it verifies the signature with the published library and prints one line for each
// delivery.
type receiver struct {
	URL      string
	verifier *webhooks.Webhook
	server   *http.Server
	ln       net.Listener

	mu  sync.Mutex
	out io.Writer
}

// openReceiver binds the address. It serves when Run is called.
func openReceiver(address string, out io.Writer) (*receiver, error) {
	verifier, err := webhooks.NewWebhook(devSecret)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	r := &receiver{URL: "http://" + ln.Addr().String() + "/", verifier: verifier, ln: ln, out: out}
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	return r, nil
}

// Run serves until ctx ends.
func (r *receiver) Run(ctx context.Context) error {
	stopped := context.AfterFunc(ctx, func() { _ = r.server.Close() })
	defer stopped()
	if err := r.server.Serve(r.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("webhook receiver: %w", err)
	}
	return nil
}

// Close gives the address back when Run was never called.
func (r *receiver) Close() error { return r.ln.Close() }

const shownBytes = 200

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender is gone
	}
	verdict, status := "signature ok", http.StatusNoContent
	if err := r.verifier.Verify(body, req.Header); err != nil {
		verdict, status = "SIGNATURE WRONG: "+err.Error(), http.StatusBadRequest
	}
	shown, more := body, ""
	if len(shown) > shownBytes {
		shown, more = shown[:shownBytes], "…"
	}
	h := req.Header
	r.mu.Lock()
	fmt.Fprintf(r.out, "webhook  %s/%s@%s  attempt %s  key %q  %s  %s  %q%s\n", h.Get("kafka-topic"), h.Get("kafka-partition"),
		h.Get("kafka-offset"), h.Get("sluice-attempt"), h.Get("kafka-key"), h.Get("webhook-id"), verdict, shown, more)
	r.mu.Unlock()
	w.WriteHeader(status)
}
