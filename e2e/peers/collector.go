package peers

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Attempt is one request that a Collector got, before it answered.
type Attempt struct {
	Record
	ID           string // webhook-id
	Topic        string
	Subscription string
	Number       int // sluice-attempt, from 1
}

// Collector is a webhook endpoint on loopback that verifies every signature and keeps what it got. Answer decides the
// status; it may block. A record counts as seen when it was answered with 2xx.
type Collector struct {
	Seen *Seen
	URL  string
	Port int

	secret string
	answer func(context.Context, Attempt) int
	server *http.Server
	done   chan error

	senders *Senders // who sends, if somebody asked

	mu       sync.Mutex
	attempts []Attempt
	flights  []*Flight
	faults   []error
}

// Collect listens. A nil answer says 204 at once.
func Collect(secret string, answer func(context.Context, Attempt) int) (*Collector, error) {
	if answer == nil {
		answer = func(context.Context, Attempt) int { return http.StatusNoContent }
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &Collector{
		Seen: NewSeen(), URL: "http://" + l.Addr().String() + "/hook", Port: l.Addr().(*net.TCPAddr).Port,
		secret: secret, answer: answer, done: make(chan error, 1),
	}
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second, ConnContext: c.meet}
	go func() { c.done <- c.server.Serve(l) }()
	return c, nil
}

// Secret is a signing secret for tests, in the form of Standard Webhooks.
func Secret() string {
	return "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("s3cret!!"), 4))
}

// ServeHTTP takes one delivery.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender is gone; there is nobody to answer
	}
	a, err := c.parse(r.Header, body)
	c.mu.Lock()
	if err != nil {
		c.faults = append(c.faults, err)
	}
	c.attempts = append(c.attempts, a)
	c.mu.Unlock()
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	f := c.takeOff(r.Context(), a)
	status := c.answer(r.Context(), a)
	if r.Context().Err() != nil {
		c.land(f, 0)
		return // the sender hung up, or died, while it was held
	}
	if status/100 == 2 {
		c.Seen.Add(a.Record)
	}
	c.land(f, status)
	w.WriteHeader(status)
}

func (c *Collector) parse(h http.Header, body []byte) (Attempt, error) {
	verifier, err := webhooks.NewWebhook(c.secret)
	if err != nil {
		return Attempt{}, err
	}
	if err := verifier.Verify(body, h); err != nil {
		return Attempt{}, fmt.Errorf("signature: %w", err)
	}
	partition, err1 := strconv.ParseInt(h.Get("kafka-partition"), 10, 32)
	offset, err2 := strconv.ParseInt(h.Get("kafka-offset"), 10, 64)
	number, err3 := strconv.Atoi(h.Get("sluice-attempt"))
	a := Attempt{ID: h.Get("webhook-id"), Topic: h.Get("kafka-topic"), Subscription: h.Get("sluice-subscription"), Number: number}
	a.Place, a.Value = Place{int32(partition), offset}, body
	if _, ok := h["Kafka-Key"]; ok {
		a.Key = []byte(h.Get("kafka-key"))
	}
	if b64 := h.Get("kafka-key-base64"); b64 != "" {
		var err error
		if a.Key, err = base64.StdEncoding.DecodeString(b64); err != nil {
			return a, fmt.Errorf("kafka-key-base64: %w", err)
		}
	}
	return a, errors.Join(err1, err2, err3)
}

// Attempts is every request so far, in the order they came.
func (c *Collector) Attempts() []Attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Attempt(nil), c.attempts...)
}

// Faults is what was wrong with the requests that could not be verified or parsed.
func (c *Collector) Faults() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.faults...)
}

// Close ends the endpoint; requests that are held are cut.
func (c *Collector) Close() error {
	err := c.server.Close()
	if served := <-c.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Subscribe registers the collector for a topic from the earliest record on, with the fields of extra merged in, and
// returns the subscription's id.
func (c *Collector) Subscribe(ctx context.Context, base, topic string, extra map[string]any) (string, error) {
	doc := map[string]any{
		"name":     "collector",
		"source":   map[string]any{"topics": []string{topic}, "start_from": "earliest"},
		"endpoint": map[string]any{"url": c.URL},
		"signing":  map[string]any{"secret": c.secret},
		"payload":  map[string]any{"format": "raw"},
	}
	for k, v := range extra {
		doc[k] = v
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return "", err
	}
	var made struct {
		ID string `json:"id"`
	}
	err = Call(ctx, http.MethodPost, base+"/subscriptions", "application/json", raw, http.StatusCreated, &made)
	return made.ID, err
}
