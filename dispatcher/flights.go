package dispatcher

import "sync"

// flights counts attempts and dead letters under way whose result no lane has heard yet.
type flights struct {
	mu    sync.Mutex
	n     int
	empty chan struct{} // somebody waits for n == 0
}

func (f *flights) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
}

func (f *flights) land() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.empty != nil {
		close(f.empty)
		f.empty = nil
	}
}

// any is whether some are under way.
func (f *flights) any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n > 0
}

// landed is closed when none is under way.
func (f *flights) landed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.empty == nil {
		f.empty = make(chan struct{})
		if f.n == 0 {
			close(f.empty)
			closed := f.empty
			f.empty = nil
			return closed
		}
	}
	return f.empty
}
