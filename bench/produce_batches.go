package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

const (
	batchRecords     = 100
	batchConnections = 16
)

// produceBatches posts batches of 100 records of 1,000 bytes over 16 connections, in the binary format of v2. The limit
// is one AsyncProducer that always has as many records in flight, 100 after each other for the same partition.
func produceBatches(ctx context.Context, w *world) (sluice, limit side, err error) {
	topic, err := w.topic("produce-batches", partitions)
	if err != nil {
		return sluice, limit, err
	}
	r, err := w.gateway(ctx)
	if err != nil {
		return sluice, limit, err
	}
	sluice = side{r.PID(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return post(ctx, m, span, strings.TrimPrefix(r.URL, "http://"), topic, batchConnections, batchRecords)
	}}
	limit = side{os.Getpid(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return sendAsync(ctx, m, span, w.direct, topic)
	}}
	return sluice, limit, nil
}

// post is clients that each post a batch, wait for its receipts and post the next.
func post(ctx context.Context, m meter, span time.Duration, host, topic string, connections, batch int) (reading, error) {
	requests := make([][]byte, len(values))
	for i := range requests {
		requests[i] = produceRequest(host, topic, i, batch)
	}
	var clients []*wire
	for range connections {
		c, err := dialWire(host)
		if err != nil {
			return reading{}, err
		}
		defer c.conn.Close()
		clients = append(clients, c)
	}
	if err := m.start(); err != nil {
		return reading{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var count atomic.Int64
	var group errgroup.Group
	waits := make([][]time.Duration, len(clients))
	for n, c := range clients {
		group.Go(func() error {
			for i := n; ctx.Err() == nil; i++ {
				began := time.Now()
				answer, err := c.do(requests[i%len(requests)])
				if err != nil {
					return err
				}
				waits[n] = append(waits[n], time.Since(began))
				if bytes.Count(answer, []byte(`"offset":`)) != batch || bytes.Count(answer, []byte(`"error_code":null`)) != batch {
					return fmt.Errorf("a record was not taken: %.300s", answer)
				}
				count.Add(int64(batch))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return reading{}, err
	}
	return m.stopWith(int(count.Load()), waits)
}

func produceRequest(host, topic string, first, batch int) []byte {
	body := []byte(`{"records":[`)
	for i := range batch {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"value":"`...)
		body = base64.StdEncoding.AppendEncode(body, value(first+i))
		body = append(body, `"}`...)
	}
	body = append(body, "]}"...)
	return request("POST", host, "/topics/"+topic, "Content-Type: application/vnd.kafka.binary.v2+json\r\n", body)
}

// sendAsync feeds one AsyncProducer without ever waiting for one batch: only the number of records in flight is bounded.
func sendAsync(ctx context.Context, m meter, span time.Duration, client sarama.Client, topic string) (reading, error) {
	producer, err := sarama.NewAsyncProducerFromClient(client)
	if err != nil {
		return reading{}, err
	}
	if err := m.start(); err != nil {
		return reading{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	inFlight := make(chan struct{}, batchConnections*batchRecords)
	var count int
	var failed error
	var answered sync.WaitGroup
	var waits []time.Duration
	answered.Go(func() {
		for sent := range producer.Successes() {
			count++
			if began, ok := sent.Metadata.(time.Time); ok {
				waits = append(waits, time.Since(began))
			}
			<-inFlight
		}
	})
	answered.Go(func() {
		for e := range producer.Errors() {
			failed = e
			<-inFlight
		}
	})
	for i := 0; ctx.Err() == nil; i++ {
		inFlight <- struct{}{}
		record := &sarama.ProducerMessage{Topic: topic, Partition: int32(i / batchRecords % partitions), Value: sarama.ByteEncoder(value(i))}
		if i%batchRecords == 0 {
			record.Metadata = time.Now()
		}
		producer.Input() <- record
	}
	producer.AsyncClose()
	answered.Wait()
	if failed != nil {
		return reading{}, failed
	}
	return m.stopWith(count, [][]time.Duration{waits})
}
