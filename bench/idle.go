package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/e2e/peers"
)

const (
	idleAim      = 0.2 // MB of an instance
	idleRecords  = 1_000
	idleCreators = 8
	idleSpan     = 10 * time.Second // over which the CPU time is taken
)

var idleCounts = []int{1, 20, 1_000}

// measureIdle is what an instance costs that has subscribed, has read a topic to its end, and is not called any more:
// resident memory after a collection, less what it was after a first instance had come, read and gone, by the number of
// instances. Each has a group of its own.
func (w *world) measureIdle(ctx context.Context) (err error) {
	w.path = idlePath
	mark := len(w.stops)
	defer func() { err = errors.Join(err, w.stopTo(mark)) }()
	topic, err := w.topic(idlePath, partitions)
	if err != nil {
		return err
	}
	if err := w.fill(topic, idleRecords); err != nil {
		return err
	}
	r, err := w.gatewayInside(ctx)
	if err != nil {
		return err
	}
	first, err := readToEnd(ctx, r.URL, topic, "bench-idle-first")
	if err == nil {
		err = first.Delete(ctx)
	}
	if err != nil {
		return err
	}
	before, err := freeAndLook(r, 1)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%-18s MB resident for each instance (aim %.1f):", idlePath, idleAim)
	var made atomic.Int64
	for looks, n := range idleCounts {
		var group errgroup.Group
		for range idleCreators {
			group.Go(func() error {
				for i := made.Add(1); int(i) <= n; i = made.Add(1) {
					if _, err := readToEnd(ctx, r.URL, topic, fmt.Sprintf("bench-idle-%d", i)); err != nil {
						return fmt.Errorf("instance %d: %w", i, err)
					}
				}
				made.Add(-1)
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		now, err := freeAndLook(r, looks+2)
		if err != nil {
			return err
		}
		line += fmt.Sprintf("   %s: %.3f", thousands(float64(n)), float64(now-before)/1e6/float64(n))
	}
	m := meter{pid: r.PID()}
	if err := m.start(); err != nil {
		return err
	}
	select {
	case <-time.After(idleSpan):
	case <-ctx.Done():
		return ctx.Err()
	}
	rest, err := m.stop(1)
	if err != nil {
		return err
	}
	fmt.Printf("%s   CPU of the last, all together: %.1f %% of a core\n", line, 100*rest.cpu.Seconds()/rest.took.Seconds())
	return nil
}

// readToEnd makes an instance and reads everything through it.
func readToEnd(ctx context.Context, base, topic, group string) (*peers.Instance, error) {
	i, err := peers.NewInstance(ctx, base, group, topic)
	if err != nil {
		return nil, err
	}
	host := strings.TrimPrefix(base, "http://")
	c, err := dialWire(host)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	read := request("GET", host, strings.TrimPrefix(i.Base, base)+"/records", "Accept: application/vnd.kafka.binary.v2+json\r\n", nil)
	deadline := time.Now().Add(time.Minute)
	for got := 0; got < idleRecords; {
		answer, err := c.do(read)
		if err != nil {
			return nil, err
		}
		got += bytes.Count(answer, []byte(`"offset":`))
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d records", got, idleRecords)
		}
	}
	return i, nil
}

// freeAndLook has the gateway collect its garbage, for the n-th time, and tells its size.
func freeAndLook(r *peers.Replica, n int) (int64, error) {
	if err := r.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(r.Log(), fmt.Sprintln(freed, n)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return 0, errors.New("the gateway did not collect its garbage")
		}
	}
	return resident(r.PID())
}
