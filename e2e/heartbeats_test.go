package e2e

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
)

// beatCounter counts the comment lines of one stream.
type beatCounter struct {
	lines chan struct{}
	n     int
	done  chan struct{}
}

func (b *beatCounter) count() int {
	for {
		select {
		case <-b.lines:
			b.n++
		default:
			return b.n
		}
	}
}

// heartbeats reads a stream of its own until ctx ends.
func heartbeats(ctx context.Context, t *testing.T, url string) *beatCounter {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d", url, resp.StatusCode)
	}
	b := &beatCounter{lines: make(chan struct{}, 1000), done: make(chan struct{})}
	go func() {
		defer close(b.done)
		defer resp.Body.Close()
		buf, line := make([]byte, 4096), []byte{}
		for {
			n, err := resp.Body.Read(buf)
			for _, c := range buf[:n] {
				if c != '\n' {
					line = append(line, c)
					continue
				}
				if bytes.HasPrefix(line, []byte(":")) {
					b.lines <- struct{}{}
				}
				line = line[:0]
			}
			if err != nil {
				if !errors.Is(err, io.EOF) && ctx.Err() == nil {
					t.Errorf("the stream was cut: %v", err)
				}
				return
			}
		}
	}()
	return b
}
