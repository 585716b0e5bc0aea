package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice/e2e/peers"
)

// pull reads a backlog of records of 1,000 bytes through one instance of the classic API, in the binary format of v2. The
// limit is sarama's consumer on the same topic. Both are measured from their first records to the last one, so that
// joining a group does not count.
func pull(ctx context.Context, w *world) (sluice, limit side, err error) {
	topic, err := w.topic("pull", partitions)
	if err != nil {
		return sluice, limit, err
	}
	backlog := 100_000
	if w.opts.full {
		backlog = 1_000_000
	}
	if err := w.fill(topic, backlog); err != nil {
		return sluice, limit, err
	}
	r, err := w.gateway(ctx)
	if err != nil {
		return sluice, limit, err
	}
	sluice = side{r.PID(), func(ctx context.Context, m meter, span time.Duration) (reading, error) {
		return again(m, span, func(m meter) (reading, error) { return readInstance(ctx, m, r.URL, topic, backlog) })
	}}
	limit = side{os.Getpid(), func(_ context.Context, m meter, span time.Duration) (reading, error) {
		return again(m, span, func(m meter) (reading, error) { return consume(m, w.direct, topic, backlog) })
	}}
	return sluice, limit, nil
}

// again reads the backlog until the readings amount to span, and adds them up.
func again(m meter, span time.Duration, once func(meter) (reading, error)) (sum reading, err error) {
	for sum.took < span {
		r, err := once(m)
		if err != nil {
			return reading{}, err
		}
		if sum.sizes == nil {
			sum.sizes = r.sizes // of one reading of the backlog: whether it is flat shows from its beginning to its end
		}
		sum.count, sum.took, sum.cpu, sum.waits = sum.count+r.count, sum.took+r.took, sum.cpu+r.cpu, append(sum.waits, r.waits...)
	}
	return sum, nil
}

func readInstance(ctx context.Context, m meter, base, topic string, backlog int) (result reading, err error) {
	host := strings.TrimPrefix(base, "http://")
	instance, err := peers.NewInstance(ctx, base, fmt.Sprintf("bench-%d", time.Now().UnixNano()), topic)
	if err != nil {
		return reading{}, err
	}
	c, err := dialWire(host)
	if err != nil {
		return reading{}, err
	}
	defer c.conn.Close()
	read := request("GET", host, strings.TrimPrefix(instance.Base, base)+"/records", "Accept: application/vnd.kafka.binary.v2+json\r\n", nil)
	first, got := 0, 0
	var waits []time.Duration
	stopWatch := watchSize(m.pid)
	defer func() {
		if sizes := stopWatch(); err == nil {
			result.sizes = sizes
		}
	}()
	for deadline := time.Now().Add(5 * time.Minute); got < backlog; {
		began := time.Now()
		answer, err := c.do(read)
		if err != nil {
			return reading{}, err
		}
		waits = append(waits, time.Since(began))
		got += bytes.Count(answer, []byte(`"offset":`))
		if first == 0 && got > 0 {
			first = got
			if err := m.start(); err != nil {
				return reading{}, err
			}
		}
		if time.Now().After(deadline) {
			return reading{}, fmt.Errorf("%d of %d records", got, backlog)
		}
	}
	if result, err = m.stopWith(got-first, [][]time.Duration{waits[1:]}); err != nil {
		return reading{}, err
	}
	if got != backlog {
		return reading{}, fmt.Errorf("%d records of a backlog of %d", got, backlog)
	}
	return result, instance.Delete(ctx)
}

// consume reads every partition at once.
func consume(m meter, client sarama.Client, topic string, backlog int) (reading, error) {
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return reading{}, err
	}
	var begin sync.Once
	var reads sync.WaitGroup
	for p := range int32(partitions) {
		part, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			return reading{}, err
		}
		defer part.AsyncClose()
		reads.Go(func() {
			for range backlog / partitions {
				<-part.Messages()
				begin.Do(func() { err = m.start() })
			}
		})
	}
	reads.Wait()
	if err != nil {
		return reading{}, err
	}
	return m.stop(backlog - 1)
}
