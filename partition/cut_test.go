package partition_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// phase is how long a fault lasts: a tenth of its full length, which TEST_LONG=1 restores.
func phase(full time.Duration) time.Duration {
	if os.Getenv("TEST_LONG") != "" {
		return full
	}
	return full / 10
}

// cut ends every connection of this process to the brokers, those of the test itself included.
func cut(t testing.TB, brokers []string) (n int) {
	t.Helper()
	sockets(t, brokers, func(fd int) {
		if syscall.Shutdown(fd, syscall.SHUT_RDWR) == nil {
			n++
		}
	})
	return n
}

func TestNothingIsLostWhileLeadersMoveAndConnectionsBreak(t *testing.T) {
	switch k := backend.KafkaOf(t, 3); {
	case !k.Real():
		stir(t, k, func(context.Context, *testing.T, *kgo.Client, string) int {
			k.Fake().ShufflePartitionLeaders()
			return stirred
		})
	case k.Name == backend.Kafka28: // one broker: connections break, leaders stay
		stir(t, k, func(context.Context, *testing.T, *kgo.Client, string) int { return 0 })
	default:
		backend.NotRun(t, "moves no leaders of a shared broker; TestReadersOverThreeRealBrokers does")
	}
}

const stirred = 3 // partitions

// For half a minute all leaders move each second and connections break in between. Who reads at the end and who reads
// all from the start, again and again from Kafka, miss nothing, see nothing twice, and come on the while.
func stir(t *testing.T, k *backend.Broker, move func(context.Context, *testing.T, *kgo.Client, string) int) {
	const partitions = stirred
	ctx := deadline(t, 2*time.Minute)
	topic := k.TopicOf(t, "stirred", partitions, map[bool]int16{true: 3, false: 1}[len(k.Brokers) == 3])
	l := kafkaLog(t, k.Brokers, partition.Default())
	small := kafkaLog(t, k.Brokers, partition.Config{RingBytes: 64 << 10, RingRecords: 16, CacheBytes: 1 << 20})
	w := newWriter(t, k.Brokers)
	var parts [partitions]sluice.Partition
	var tails [partitions]*pull
	var written [partitions]int
	for n := range parts {
		parts[n] = sluice.Partition{Topic: topic, Number: int32(n)}
		tails[n] = startPull(ctx, t, l, parts[n])
	}
	write := func(size int) {
		for n, p := range parts {
			w.write(ctx, p, written[n], 20, size)
			written[n] += 20
		}
	}
	for range 20 {
		write(5_000) // twice the small log's memory, per partition
	}

	calm, stop := context.WithTimeout(ctx, phase(30*time.Second))
	defer stop()
	var stir sync.WaitGroup
	moved, broken := 0, 0
	stir.Go(func() {
		for calm.Err() == nil {
			moved += move(ctx, t, w.client, topic)
			pace(calm, time.Now().Add(rand.N(time.Second)))
			broken += cut(t, k.Brokers)
			pace(calm, time.Now().Add(rand.N(time.Second)))
		}
	})
	rounds := 0
	stir.Go(func() { // reads everything from the start, over errors
		for calm.Err() == nil {
			for n, p := range parts {
				seen := readOver(ctx, t, small, p, 400)
				if seen != 400 {
					t.Errorf("partition %d: %d records", n, seen)
				}
			}
			rounds++
		}
	})
	halts := 0
	for calm.Err() == nil {
		write(100)
		for n, r := range tails {
			if took := r.await(ctx, t, int64(written[n])); took > 5*time.Second {
				halts++
			}
		}
	}
	stir.Wait()
	write(100)
	for n, r := range tails {
		r.await(ctx, t, int64(written[n]))
	}
	t.Logf("%d leaders moved, %d connections cut; %d records followed, %d readings from the start; %d waits of more than 5 s",
		moved, broken, written[0]*partitions, rounds, halts)
	if broken == 0 || rounds == 0 || len(k.Brokers) == 3 && moved == 0 {
		t.Error("nothing happened")
	}
	if halts > 0 {
		t.Error("a reader stood still for more than 5 s")
	}
}

// readOver reads the first n records, each once and in order, however often it must try.
func readOver(ctx context.Context, t testing.TB, l *partition.Log, p sluice.Partition, n int64) (seen int) {
	t.Helper()
	for from := int64(0); from < n && ctx.Err() == nil; {
		recs, next, err := l.Read(ctx, p, from, 64<<10)
		if err != nil {
			pace(ctx, time.Now().Add(20*time.Millisecond))
			continue
		}
		for _, r := range recs {
			if r.Offset < n {
				if r.Offset != int64(seen) || number(r) != seen {
					t.Errorf("%v: offset %d with %d where %d belongs", p, r.Offset, number(r), seen)
					return seen
				}
				seen++
			}
		}
		from = next
	}
	return seen
}

// moveLeaders gives every partition of a topic another order of its replicas and has the first elected. It reports how
// many leaders changed; a connection that broke meanwhile is no fault.
func moveLeaders(ctx context.Context, t *testing.T, client *kgo.Client, topic string) (changed int) {
	before, err := askLeaders(ctx, client, topic)
	if err != nil {
		return 0
	}
	assign := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	assign.TimeoutMillis = 5_000
	part := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	part.Topic = topic
	elect := kmsg.NewPtrElectLeadersRequest()
	elect.TimeoutMillis = 5_000
	which := kmsg.NewElectLeadersRequestTopic()
	which.Topic = topic
	for p := range before {
		order := []int32{1, 2, 3}
		rand.Shuffle(3, func(i, j int) { order[i], order[j] = order[j], order[i] })
		to := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		to.Partition, to.Replicas = p.Number, order
		part.Partitions = append(part.Partitions, to)
		which.Partitions = append(which.Partitions, p.Number)
	}
	assign.Topics, elect.Topics = append(assign.Topics, part), append(elect.Topics, which)
	if _, err := assign.RequestWith(ctx, client); err != nil {
		return 0
	}
	answer, err := elect.RequestWith(ctx, client)
	if err != nil {
		return 0
	}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			if p.ErrorCode == 0 {
				changed++
			} else if err := kerr.ErrorForCode(p.ErrorCode); !errors.Is(err, kerr.ElectionNotNeeded) && !errors.Is(err, kerr.PreferredLeaderNotAvailable) {
				t.Logf("elect: %v", err)
			}
		}
	}
	return changed
}
