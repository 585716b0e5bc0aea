package gateway

import (
	"io"
	"sync"
)

// linesWaiting is how much may wait for a writer that is stuck, in bytes, before it holds up those who log.
const linesWaiting = 1 << 20

// Lines hands on what is written to it, all that has come since the last write at once, from a goroutine of its own. A
// lone line leaves at once; under load a system call carries many. Nothing is dropped: behind a writer that is stuck
// those who log wait, as they would without Lines, only a megabyte later.
type Lines struct {
	w io.Writer

	mu      sync.Mutex
	news    sync.Cond // something waits, or Close was called
	room    sync.Cond // less waits than before
	waiting []byte
	closed  bool
	done    chan struct{}
	err     error // the first
}

// NewLines begins; Close ends it.
func NewLines(w io.Writer) *Lines {
	l := &Lines{w: w, done: make(chan struct{})}
	l.news.L, l.room.L = &l.mu, &l.mu
	go l.run()
	return l
}

// Write keeps nothing of p. After Close it writes through.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) > 0 && len(l.waiting)+len(p) > linesWaiting && !l.closed {
		l.room.Wait()
	}
	if l.closed {
		l.mu.Unlock()
		<-l.done // what came before goes first
		l.mu.Lock()
		return l.w.Write(p)
	}
	if len(l.waiting) == 0 {
		l.news.Signal()
	}
	l.waiting = append(l.waiting, p...)
	return len(p), l.err
}

// Close returns when all is written, with the first error there was.
func (l *Lines) Close() error {
	l.mu.Lock()
	l.closed = true
	l.news.Signal()
	l.room.Broadcast()
	l.mu.Unlock()
	<-l.done
	return l.err
}

func (l *Lines) run() {
	defer close(l.done)
	var spare []byte
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.waiting) == 0 && !l.closed {
			l.news.Wait()
		}
		if len(l.waiting) == 0 {
			return
		}
		now := l.waiting
		l.waiting = spare[:0]
		l.room.Broadcast()
		l.mu.Unlock()
		_, err := l.w.Write(now)
		l.mu.Lock()
		if l.err == nil {
			l.err = err
		}
		if spare = now; cap(spare) > linesWaiting/4 { // of a moment when the writer was stuck
			spare = nil
		}
	}
}
