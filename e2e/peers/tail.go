package peers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

// Tail follows a topic over SSE with r3labs/sse until ctx ends. The library gives up, retries for ever or hangs in
// several places; what surrounds it here are the guards against that, each against something measured.
type Tail struct {
	Seen *Seen
	Gaps atomic.Int64 // gap events
	done chan error
}

// Follow begins at query, e.g. "from=earliest". It comes back by Last-Event-ID when the stream ends or is cut.
func Follow(ctx context.Context, base, topic, query string) *Tail {
	t := &Tail{Seen: NewSeen(), done: make(chan error, 1)}
	go func() { t.done <- t.run(ctx, base+"/topics/"+topic+"/events?"+query) }()
	return t
}

// Wait returns when the tail has ended: nil after its context did.
func (t *Tail) Wait() error { return <-t.done }

func (t *Tail) run(ctx context.Context, url string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	pace := &pace{ctx: ctx}
	pace.retry.Store(int64(time.Second))
	client := sse.NewClient(url, sse.ClientMaxBufferSize(32<<20))
	client.Connection = &http.Client{Transport: transport}
	client.ReconnectStrategy = pace
	client.ResponseValidator = func(_ *sse.Client, r *http.Response) error {
		if r.StatusCode == http.StatusOK {
			return nil
		}
		_ = r.Body.Close()
		err := fmt.Errorf("%s answered %d", url, r.StatusCode)
		if r.StatusCode < 500 && r.StatusCode != http.StatusTooManyRequests {
			pace.final.Store(&err)
		}
		return err
	}
	for ctx.Err() == nil && pace.final.Load() == nil { // a clean end makes Subscribe return nil: come back by the last id
		err := client.SubscribeRawWithContext(ctx, func(e *sse.Event) { t.take(e, pace) })
		if err != nil && ctx.Err() == nil && pace.final.Load() == nil {
			return err
		}
		pace.wait()
	}
	if final := pace.final.Load(); final != nil {
		return *final
	}
	return nil
}

type envelope struct {
	Partition   int32           `json:"partition"`
	Offset      int64           `json:"offset"`
	Key         json.RawMessage `json:"key"`
	KeyFormat   string          `json:"key_format"`
	Value       json.RawMessage `json:"value"`
	ValueFormat string          `json:"value_format"`
}

func (t *Tail) take(e *sse.Event, pace *pace) {
	if ms, err := strconv.Atoi(string(e.Retry)); err == nil {
		pace.retry.Store(int64(time.Duration(ms) * time.Millisecond))
	}
	switch string(e.Event) {
	case "":
	case "gap":
		t.Gaps.Add(1)
		return
	default:
		return // progress, reconnect, error: the stream's own affairs
	}
	if len(e.Data) == 0 {
		return
	}
	var v envelope
	if err := json.Unmarshal(e.Data, &v); err != nil {
		return // a record that is not an envelope is missing in the end, and that is what counts
	}
	key, err1 := decode(v.KeyFormat, v.Key)
	value, err2 := decode(v.ValueFormat, v.Value)
	if err := errors.Join(err1, err2); err != nil {
		return
	}
	t.Seen.Add(Record{Place: Place{v.Partition, v.Offset}, Key: key, Value: value})
}

// decode is the inverse of the envelope's formats.
func decode(format string, raw json.RawMessage) ([]byte, error) {
	switch format {
	case "json":
		return raw, nil
	case "text", "base64":
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, err
		}
		if format == "text" {
			return []byte(s), nil
		}
		return base64.StdEncoding.DecodeString(s)
	}
	return nil, nil // Kafka's null
}

// pace is the library's reconnect strategy: as often as the server asks by retry, without an end, and at once over when
// the context ends or an answer was final.
type pace struct {
	ctx   context.Context
	retry atomic.Int64
	final atomic.Pointer[error]
}

func (p *pace) NextBackOff() time.Duration {
	if p.ctx.Err() != nil || p.final.Load() != nil {
		return backoff.Stop
	}
	return time.Duration(p.retry.Load())
}

func (p *pace) Reset() {}

func (p *pace) wait() {
	timer := time.NewTimer(time.Duration(p.retry.Load()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.ctx.Done():
	}
}
