package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"golang.org/x/sync/errgroup"
)

// produceSingly posts one record of 1,000 bytes at a time over some connections. The limit is as many goroutines that
// share a SyncProducer.
func produceSingly(connections int) func(context.Context, *world) (sluice, limit side, err error) {
	return func(ctx context.Context, w *world) (sluice, limit side, err error) {
		topic, err := w.topic("produce-singly", partitions)
		if err != nil {
			return sluice, limit, err
		}
		r, err := w.gateway(ctx)
		if err != nil {
			return sluice, limit, err
		}
		sluice = side{r.PID(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
			return post(ctx, m, span, strings.TrimPrefix(r.URL, "http://"), topic, connections, 1)
		}}
		limit = side{os.Getpid(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
			return sendSync(ctx, m, span, w.direct, topic, connections)
		}}
		return sluice, limit, nil
	}
}

func sendSync(ctx context.Context, m meter, span time.Duration, client sarama.Client, topic string, callers int) (_ reading, err error) {
	producer, err := sarama.NewSyncProducerFromClient(client)
	if err != nil {
		return reading{}, err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()
	if err := m.start(); err != nil {
		return reading{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var count atomic.Int64
	var group errgroup.Group
	waits := make([][]time.Duration, callers)
	for n := range callers {
		group.Go(func() error {
			for i := n; ctx.Err() == nil; i++ {
				began := time.Now()
				_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: int32(i % partitions), Value: sarama.ByteEncoder(value(i))})
				if err != nil {
					return err
				}
				waits[n] = append(waits[n], time.Since(began))
				count.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return reading{}, err
	}
	return m.stopWith(int(count.Load()), waits)
}
