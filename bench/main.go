// Command bench measures each path through the gateway beside its limit: the least that a program could do on this
// machine to move the same records. It starts what it needs, an Apache Kafka, a redis-server and sluice as a process, and
// prints ratios.
//
// The two sides of a path run in pairs, in random order, in the same run: whatever slows the machine slows both. The
// first pair is thrown away, the median of the others' ratios counts. Rates of different runs must never be compared;
// CPU-seconds, taken from /proc for the process that does the work, are the steadier figure.
//
//	path             limit                                                        the limit's process
//	produce-batches  sarama's AsyncProducer with as many records in flight         this one
//	produce-singly-n sarama's SyncProducer shared by as many goroutines            this one
//	webhook          a loop that signs and posts with net/http, to the same sink   this one
//	stream           hijacked connections that write ready frames                  one of its own
//	pull             sarama's consumer                                             this one
//
// Clients, sink and Kafka share the machine with what is measured. The clients of the gateway are as cheap as they can
// be made, so that little of the two cores goes to them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// path is one way through the gateway. setUp makes its two sides; what it acquires ends with the world.
type path struct {
	name  string
	aim   float64 // of the ratio; 0 is none
	unit  string  // what is counted
	setUp func(ctx context.Context, w *world) (sluice, limit side, err error)
}

var paths = []path{
	{"produce-batches", 0.6, "records", produceBatches},
	{"produce-singly-1", 0, "records", produceSingly(1)},
	{"produce-singly-64", 0.4, "records", produceSingly(64)},
	{"produce-singly-512", 0, "records", produceSingly(512)},
	{"webhook", 0.6, "records", webhooks},
	{"stream", 0.5, "deliveries", streams},
	{"pull", 0.5, "records", pull},
}

// These have no limit to be compared with: they are what instances and connections cost that do nothing.
const (
	idlePath        = "idle"
	connectionsPath = "idle-connections"
)

type options struct {
	run        string
	pairs      int
	span       time.Duration
	full       bool
	busy       bool
	still      time.Duration
	cpuprofile string
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		exit(play(role))
	}
	var o options
	seconds := flag.Int("seconds", 5, "length of one measurement")
	flag.StringVar(&o.run, "run", "", "measure only the paths whose name contains this")
	flag.IntVar(&o.pairs, "pairs", 5, "pairs that count; one more comes first and is thrown away")
	flag.BoolVar(&o.full, "full", false, "pull a backlog of 1,000,000 records instead of 100,000")
	flag.BoolVar(&o.busy, "busy", false, "measure although other programs keep the machine busy")
	flag.DurationVar(&o.still, "still", 10*time.Second, "how long each pair waits for a moment in which others leave the machine alone")
	flag.StringVar(&o.cpuprofile, "cpuprofile", "", "write a CPU profile of the gateway for each path into this folder")
	flag.Parse()
	o.span = time.Duration(*seconds) * time.Second
	if flag.NArg() > 0 || o.pairs < 1 || *seconds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := measure(ctx, o)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// measure runs the chosen paths one after the other, each in a gateway process of its own.
func measure(ctx context.Context, o options) (err error) {
	if !o.busy {
		if err := awaitCalm(ctx); err != nil {
			return err
		}
	}
	w, err := newWorld(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Println(surroundings())
	chosen := 0
	for _, p := range paths {
		if !strings.Contains(p.name, o.run) {
			continue
		}
		chosen++
		if err := w.measure(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if strings.Contains(idlePath, o.run) {
		chosen++
		if err := w.measureIdle(ctx); err != nil {
			return fmt.Errorf("%s: %w", idlePath, err)
		}
	}
	if strings.Contains(connectionsPath, o.run) {
		chosen++
		if err := w.measureConnections(ctx); err != nil {
			return fmt.Errorf("%s: %w", connectionsPath, err)
		}
	}
	if chosen == 0 {
		return fmt.Errorf("no path's name contains %q", o.run)
	}
	return nil
}

func (w *world) measure(ctx context.Context, p path) (err error) {
	w.path = p.name
	mark := len(w.stops)
	defer func() { err = errors.Join(err, w.stopTo(mark)) }()
	sluice, limit, err := p.setUp(ctx, w)
	if err != nil {
		return err
	}
	pairs, err := interleave(ctx, sluice, limit, w.opts)
	if err != nil {
		return err
	}
	fmt.Println(report(p, pairs))
	return nil
}
