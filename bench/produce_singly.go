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

const singleConnections = 64

// produceSingly posts one record of 1,000 bytes at a time over 64 connections. The limit is 64 goroutines that share a
// SyncProducer.
func produceSingly(ctx context.Context, w *world) (sluice, limit side, err error) {
	topic, err := w.topic("produce-singly", partitions)
	if err != nil {
		return sluice, limit, err
	}
	r, err := w.gateway(ctx)
	if err != nil {
		return sluice, limit, err
	}
	sluice = side{r.PID(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return post(ctx, m, span, strings.TrimPrefix(r.URL, "http://"), topic, singleConnections, 1)
	}}
	limit = side{os.Getpid(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return sendSync(ctx, m, span, w.direct, topic)
	}}
	return sluice, limit, nil
}

func sendSync(ctx context.Context, m meter, span time.Duration, client sarama.Client, topic string) (_ reading, err error) {
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
	for n := range singleConnections {
		group.Go(func() error {
			for i := n; ctx.Err() == nil; i++ {
				_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Partition: int32(i % partitions), Value: sarama.ByteEncoder(value(i))})
				if err != nil {
					return err
				}
				count.Add(1)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return reading{}, err
	}
	return m.stop(int(count.Load()))
}
