package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"
)

// connect opens the client of Kafka that the limits use. Its settings are the gateway's own where they decide what is
// promised (every acknowledged record is safe and there once), and the fastest where they do not.
func (w *world) connect(context.Context) (err error) {
	metrics.UseNilMetrics = true
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.ClientID = "bench"
	c.Metadata.AllowAutoTopicCreation = false
	c.Net.MaxOpenRequests = 1 // what idempotence demands
	c.Producer.Idempotent = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Return.Successes = true
	c.Producer.MaxMessageBytes = 1_000_000 // of a batch; Kafka's own limit is a little higher
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.ChannelBufferSize = 1024
	c.Consumer.Fetch.Default = 1 << 20
	if w.direct, err = sarama.NewClient([]string{w.kafka}, c); err != nil {
		return err
	}
	w.onStop(w.direct.Close)
	return nil
}

// partitions of every topic, unless its path says otherwise.
const partitions = 4

// topic makes a topic that ends with the path.
func (w *world) topic(name string, partitions int32) (string, error) {
	admin, err := sarama.NewClusterAdminFromClient(w.direct)
	if err != nil {
		return "", err
	}
	name = fmt.Sprintf("%s-%08x", name, rand.Uint32())
	if err := admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false); err != nil {
		return "", err
	}
	w.onStop(func() error { return admin.DeleteTopic(name) })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // metadata spreads after the answer
		_ = w.direct.RefreshMetadata(name) // what it brought shows in the next line
		known, err := w.direct.WritablePartitions(name)
		if err == nil && len(known) == int(partitions) {
			return name, nil
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("topic %s has no leaders: %w", name, err)
		}
	}
}

// fill appends n records with distinct keys, which decide the partition. It is synchronous: an asynchronous producer that
// is closed behind its last message fails what it would still have sent again.
func (w *world) fill(topic string, n int) (err error) {
	producer, err := sarama.NewSyncProducerFromClient(w.direct)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, producer.Close()) }()
	const atOnce = 10_000
	for from := 0; from < n; from += atOnce {
		var some []*sarama.ProducerMessage
		for i := from; i < min(from+atOnce, n); i++ {
			some = append(some, &sarama.ProducerMessage{
				Topic: topic, Partition: int32(i % partitions),
				Key: sarama.StringEncoder(fmt.Sprintf("customer-%d", i)), Value: sarama.ByteEncoder(value(i)),
			})
		}
		if err := producer.SendMessages(some); err != nil {
			return err
		}
	}
	return nil
}

const valueBytes = 1000

// values are 64 JSON documents of valueBytes that do not compress well.
var values = func() (all [64][]byte) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789 "
	for i := range all {
		v := fmt.Appendf(nil, `{"id":%d,"text":"`, 100+i)
		for len(v) < valueBytes-2 {
			v = append(v, letters[rand.IntN(len(letters))])
		}
		all[i] = append(v, `"}`...)
	}
	return all
}()

func value(i int) []byte { return values[i%len(values)] }
