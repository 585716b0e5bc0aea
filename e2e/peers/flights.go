package peers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Flight is one request from its arrival to its end.
type Flight struct {
	Attempt
	Sender int       // pid of the process that sent it; 0 unless Senders was called
	Began  time.Time // when it was there with its whole body
	Ended  time.Time // zero while it is held
	Status int       // of the answer; 0 with Ended set: the sender hung up before it got one
}

// Cut is whether the sender hung up before the answer.
func (f Flight) Cut() bool { return !f.Ended.IsZero() && f.Status == 0 }

// Flights is every request so far with a good signature, in the order they came.
func (c *Collector) Flights() []Flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Flight, len(c.flights))
	for i, f := range c.flights {
		all[i] = *f
	}
	return all
}

// Senders has the collector find out which process is behind each new connection: nothing on the wire says so. Call it
// before the first request, and the func that it returns at the end.
func (c *Collector) Senders() (stop func()) {
	s := NewSenders(c.Port)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.senders = s
	return s.Stop
}

func (c *Collector) takeOff(ctx context.Context, a Attempt) *Flight {
	f := &Flight{Attempt: a, Began: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flights = append(c.flights, f)
	if from, ok := ctx.Value(portKey{}).(*conn); ok {
		from.flights = append(from.flights, f)
		f.Sender = from.pid
	}
	return f
}

func (c *Collector) land(f *Flight, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.Ended, f.Status = time.Now(), status
}

// conn is one connection to a collector, whose mu guards it.
type conn struct {
	port    int
	pid     int
	flights []*Flight
}

type portKey struct{}

// meet is the server's ConnContext. It stands in the way of the next connection, so the search is made elsewhere.
func (c *Collector) meet(ctx context.Context, nc net.Conn) context.Context {
	from, ok := nc.RemoteAddr().(*net.TCPAddr)
	c.mu.Lock()
	senders := c.senders
	c.mu.Unlock()
	if senders == nil || !ok {
		return ctx
	}
	one := &conn{port: from.Port}
	senders.Find(one.port, func(pid int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		one.pid = pid
		for _, f := range one.flights {
			f.Sender = pid
		}
	})
	return context.WithValue(ctx, portKey{}, one)
}

// Senders finds the sluice processes at the other end of connections to one port of loopback, by the kernel's tables
// (proc(5)), many at once: the tables are long.
type Senders struct {
	to   string // our end, as the table has it
	kick chan struct{}
	quit chan struct{}
	done chan struct{}

	mu     sync.Mutex
	wanted map[int]func(pid int) // by port
}

const searchEvery = 100 * time.Millisecond

// NewSenders searches until Stop.
func NewSenders(port int) *Senders {
	s := &Senders{
		to: fmt.Sprintf("0100007F:%04X", port), wanted: map[int]func(int){},
		kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go s.run()
	return s
}

// Stop ends the search.
func (s *Senders) Stop() {
	close(s.quit)
	<-s.done
}

// Find calls found with the pid of the process whose connection comes from port, if it is still there.
func (s *Senders) Find(port int, found func(pid int)) {
	s.mu.Lock()
	s.wanted[port] = found
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Senders) run() {
	defer close(s.done)
	for {
		select {
		case <-s.quit:
			return
		case <-s.kick:
		}
		s.search()
		select {
		case <-s.quit:
			return
		case <-time.After(searchEvery):
		}
	}
}

// search looks once for all that are wanted. What is not found then is gone.
func (s *Senders) search() {
	s.mu.Lock()
	wanted := s.wanted
	s.wanted = map[int]func(int){}
	s.mu.Unlock()
	sockets := s.sockets()
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		if name, err := os.ReadFile(dir + "/comm"); err != nil || string(bytes.TrimSpace(name)) != "sluice" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		files, _ := os.ReadDir(dir + "/fd")
		for _, file := range files {
			link, _ := os.Readlink(filepath.Join(dir, "fd", file.Name()))
			if found := wanted[sockets[link]]; found != nil {
				delete(wanted, sockets[link])
				found(pid)
			}
		}
	}
}

// sockets is the senders' ports by the names that their sockets have among the files of a process.
func (s *Senders) sockets() map[string]int {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil
	}
	sockets := map[string]int{}
	for line := range strings.Lines(string(table)) {
		columns := strings.Fields(line) // sl local remote st queues timer retransmits uid timeout inode
		if len(columns) < 10 || columns[2] != s.to {
			continue
		}
		_, hex, _ := strings.Cut(columns[1], ":")
		if port, err := strconv.ParseInt(hex, 16, 32); err == nil {
			sockets["socket:["+columns[9]+"]"] = int(port)
		}
	}
	return sockets
}
