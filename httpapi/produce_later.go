package httpapi

import (
	"context"
	"strings"
)

// writeLater produces behind an answer of 204 (rest-api.md 4.5, async=true). The batch and its body are its own until
// then, the memory budget included: a client that does not wait is slowed down by 503 and by nothing else. What fails is
// counted and logged, and nobody else hears of it.
func (s *Server) writeLater(topic, id string, b *batch, body *payload) {
	id = strings.Clone(id)
	s.later.Go(func() {
		receipts, clean, err := s.write(topic, b)
		var t tally
		for _, f := range b.faults {
			t.add(f.code, f.text)
		}
		for _, r := range receipts {
			if r.Err != nil {
				t.add(slot(r.Err))
			}
		}
		if err != nil {
			code, text := slot(err)
			for range b.records {
				t.add(code, text)
			}
		}
		if t.failed > 0 {
			s.countFailed(id, topic, t.failed, b.size, t.code, t.text)
		}
		b.giveBack(body, clean)
	})
}

// awaitLater gives what was promised with 204 the rest of a stop's time.
func (s *Server) awaitLater(ctx context.Context) {
	written := make(chan struct{})
	go func() {
		s.later.Wait()
		close(written)
	}()
	select {
	case <-written:
	case <-ctx.Done():
		s.cut()
		<-written // Produce returns when its context ends
	}
}
