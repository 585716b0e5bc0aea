package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/e2e/peers"
)

const (
	webhookInFlight = 64
	webhookFastest  = 25_000 // deliveries a second that the backlog suffices for
)

// webhooks delivers a backlog of signed records of 1,000 bytes to one subscription, in order of their keys, 64 in flight.
// The limit is 64 goroutines that sign and post the same records with net/http to the same sink. Each measurement of
// sluice has a subscription of its own and begins when its first delivery has come.
func webhooks(ctx context.Context, w *world) (sluice, limit side, err error) {
	topic, err := w.topic("webhook", partitions)
	if err != nil {
		return sluice, limit, err
	}
	backlog := int(webhookFastest * w.opts.span.Seconds())
	if err := w.fill(topic, backlog); err != nil {
		return sluice, limit, err
	}
	process, err := w.child(roleSink)
	if err != nil {
		return sluice, limit, err
	}
	s := sink("http://" + process.addr)
	_, port, err := net.SplitHostPort(process.addr)
	if err != nil {
		return sluice, limit, err
	}
	r, err := w.gateway(ctx, "SLUICE_WEBHOOK_ALLOW_LOOPBACK="+port)
	if err != nil {
		return sluice, limit, err
	}
	sluice = side{r.PID(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return s.deliver(ctx, m, span, r.URL, topic, backlog)
	}}
	limit = side{os.Getpid(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return postSigned(ctx, m, span, string(s), topic)
	}}
	return sluice, limit, nil
}

// sink is the URL of the role that counts deliveries: POST counts, GET tells.
type sink string

func serveSink(l net.Listener) {
	var count atomic.Int64
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // until the process ends
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprint(w, count.Load()) // the asker sees what is missing
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err == nil && n >= valueBytes {
			count.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
}

func (s sink) count(ctx context.Context) (n int, err error) {
	err = peers.Call(ctx, http.MethodGet, string(s), "", nil, http.StatusOK, &n)
	return n, err
}

// until asks the sink often until done says so, and returns the last count.
func (s sink) until(ctx context.Context, within time.Duration, done func(count int) bool) (int, error) {
	for deadline := time.Now().Add(within); ; {
		n, err := s.count(ctx)
		if err != nil || done(n) {
			return n, err
		}
		if time.Now().After(deadline) {
			return n, fmt.Errorf("the sink got no more than %d deliveries within %s", n, within)
		}
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s sink) deliver(ctx context.Context, m meter, span time.Duration, base, topic string, backlog int) (reading, error) {
	before, err := s.count(ctx)
	if err != nil {
		return reading{}, err
	}
	to := peers.Collector{URL: string(s)}
	id, err := to.Subscribe(ctx, base, topic, map[string]any{
		"signing":  map[string]any{"secret": peers.Secret()},
		"delivery": map[string]any{"max_in_flight": webhookInFlight},
	})
	if err != nil {
		return reading{}, err
	}
	from, err := s.until(ctx, 30*time.Second, func(n int) bool { return n > before })
	if err != nil {
		return reading{}, err
	}
	if err := m.start(); err != nil {
		return reading{}, err
	}
	to1, err := s.until(ctx, span+30*time.Second, func(n int) bool { return n >= before+backlog || time.Since(m.began) >= span })
	if err != nil {
		return reading{}, err
	}
	got, err := m.stop(to1 - from)
	if err != nil {
		return reading{}, err
	}
	if err := peers.Call(ctx, http.MethodDelete, base+"/subscriptions/"+id, "", nil, http.StatusAccepted, nil); err != nil {
		return reading{}, err
	}
	return got, s.quiet(ctx)
}

// quiet returns when nothing came for half a second: the subscription's last deliveries are not to run beside what
// comes next.
func (s sink) quiet(ctx context.Context) error {
	last, since := -1, time.Now()
	_, err := s.until(ctx, 30*time.Second, func(n int) bool {
		if n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
	return err
}

// postSigned is the least that a sender of Standard Webhooks can do: sign, post, read the answer.
func postSigned(ctx context.Context, m meter, span time.Duration, url, topic string) (reading, error) {
	encoded, _ := strings.CutPrefix(peers.Secret(), "whsec_")
	secret, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return reading{}, err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: webhookInFlight}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	if err := m.start(); err != nil {
		return reading{}, err
	}
	var next, count atomic.Int64
	var group errgroup.Group
	for range webhookInFlight {
		group.Go(func() error {
			for time.Since(m.began) < span {
				n := int(next.Add(1))
				if err := postOne(ctx, client, url, fmt.Sprintf("msg_%s_%d", topic, n), secret, value(n)); err != nil {
					return err
				}
				count.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return reading{}, err
	}
	return m.stop(int(count.Load()))
}

func postOne(ctx context.Context, client *http.Client, url, id string, secret, body []byte) error {
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header["Content-Type"] = []string{"application/json"}
	req.Header["webhook-id"] = []string{id}
	req.Header["webhook-timestamp"] = []string{stamp}
	req.Header["webhook-signature"] = []string{"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the sink answered %d", resp.StatusCode)
	}
	return nil
}
