// Command demo shows the whole of Sluice in one shot and checks itself: it starts `sluice dev`, registers a webhook, opens
// an SSE tail and a pull consumer, produces the 1,000 records of orders.ndjson, waits until all three have seen every
// one, and compares bytes, partition and offset with the receipts. It exits 0 if nothing differs.
package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/sluicegate/sluice/e2e/peers"
)

//go:embed orders.ndjson
var sample []byte

const topic = "orders"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	err := run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Printf("%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	say("building sluice")
	binary, err := peers.Build(ctx, dir)
	if err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	base := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	gateway, err := peers.Start(ctx, binary, base, nil, "dev", "--listen", fmt.Sprintf("127.0.0.1:%d", ports[0]),
		"--kafka-port", fmt.Sprint(ports[1]), "--receiver", fmt.Sprintf("127.0.0.1:%d", ports[2]))
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if stopErr := gateway.Stop(stopping); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stop the gateway: %w; it printed:\n%s", stopErr, gateway.Log()))
		}
	}()
	say("sluice dev is ready at %s", base)

	hook, err := peers.Collect(peers.Secret(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hook.Close()) }()
	id, err := hook.Subscribe(ctx, base, topic, nil)
	if err != nil {
		return err
	}
	say("webhook %s registered as %s", hook.URL, id)
	reading, endReading := context.WithCancel(ctx)
	defer endReading()
	tail := peers.Follow(reading, base, topic, "from=earliest")
	instance, err := peers.NewInstance(ctx, base, "demo", topic)
	if err != nil {
		return err
	}
	polled := make(chan error, 1)
	go func() { polled <- instance.Poll(reading) }()

	records, err := load(sample)
	if err != nil {
		return err
	}
	for start := 0; start < len(records); start += 100 {
		if err := peers.Produce(ctx, base, topic, records[start:min(start+100, len(records))]); err != nil {
			return err
		}
	}
	say("%d records produced, each with its receipt", len(records))

	for _, way := range []struct {
		name string
		seen *peers.Seen
	}{{"webhook", hook.Seen}, {"SSE", tail.Seen}, {"pull", instance.Seen}} {
		if err := await(ctx, way.seen, records); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		if err := way.seen.Compare(records); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		distinct, sightings := way.seen.Count()
		say("%-8s saw %d of %d records, %d twice; ids, bytes, partition and offset as in the receipts", way.name, distinct, len(records), sightings-distinct)
	}
	endReading()
	return errors.Join(hook.Faults(), <-polled, tail.Wait(), instance.Delete(ctx))
}

// await returns when every record was seen.
func await(ctx context.Context, seen *peers.Seen, records []peers.Record) error {
	for {
		changed := seen.Changed()
		missing := seen.Missing(records)
		if missing == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d records were not seen in time", missing)
		}
	}
}

// load reads one record a line: {"key":"…","value":…}; the value is kept as it stands.
func load(ndjson []byte) ([]peers.Record, error) {
	var all []peers.Record
	lines := bufio.NewScanner(bytes.NewReader(ndjson))
	for lines.Scan() {
		var line struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line %d of the sample: %w", len(all)+1, err)
		}
		all = append(all, peers.Record{Key: []byte(line.Key), Value: bytes.Clone(line.Value)})
	}
	return all, lines.Err()
}

// freePorts are ports that nobody listened on a moment ago: the demo must run beside a `sluice dev`.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
