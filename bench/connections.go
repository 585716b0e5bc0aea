package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

const idleConnections = 1_000

// measureConnections is what a connection costs on which nothing happens any more: resident memory after a collection,
// less what it was with a single one, by what went over each. The other ends are in this process.
func (w *world) measureConnections(ctx context.Context) (err error) {
	w.path = connectionsPath
	mark := len(w.stops)
	defer func() { err = errors.Join(err, w.stopTo(mark)) }()
	topic, err := w.topic(connectionsPath, partitions)
	if err != nil {
		return err
	}
	r, err := w.gatewayInside(ctx)
	if err != nil {
		return err
	}
	host := strings.TrimPrefix(r.URL, "http://")
	probe := request("GET", host, "/__live", "", nil)
	record := `{"value":"` + strings.Repeat("QUFB", 250) + `"},`
	produce := request("POST", host, "/topics/"+topic, "Content-Type: application/vnd.kafka.binary.v2+json\r\n",
		[]byte(`{"records":[`+strings.TrimSuffix(strings.Repeat(record, 100), ",")+`]}`))
	first, err := dialWire(host)
	if err != nil {
		return err
	}
	defer first.conn.Close()
	for _, one := range [][]byte{probe, produce} {
		if _, err := first.do(one); err != nil {
			return err
		}
	}
	before, err := freeAndLook(r, 1)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%-18s KB resident for each of %s connections:", connectionsPath, thousands(idleConnections))
	open := make([]*wire, idleConnections)
	for n := range open {
		if open[n], err = dialWire(host); err != nil {
			return err
		}
		defer open[n].conn.Close()
	}
	for looks, sent := range []struct {
		what string
		it   []byte
	}{{"after a GET", probe}, {"after a produce of 100 kB", produce}} {
		for _, c := range open {
			if _, err := c.do(sent.it); err != nil {
				return err
			}
		}
		now, err := freeAndLook(r, looks+2)
		if err != nil {
			return err
		}
		line += fmt.Sprintf("   %s: %.1f", sent.what, float64(now-before)/1e3/idleConnections)
	}
	fmt.Println(line)
	return nil
}
