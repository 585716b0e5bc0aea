package kafka

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// A batch has records of many calls, and a call has records in batches of many partitions. While there is always some
// call under way (an hour of load, say) they form one chain back to the first; what is done must not hang on it.
func TestWhatIsWrittenIsForgottenUnderLoadWithoutAPause(t *testing.T) {
	p := &Producer{open: 1000}
	queues := [2]*queue{}
	for i := range queues {
		queues[i] = &queue{topic: &topic{name: "t", limit: 1 << 20}, number: int32(i), leader: &sender{}}
	}
	call := func() {
		recs := make([]sluice.NewRecord, 2)
		sub := newSubmission(p, recs)
		for i, it := range sub.items {
			it.queue = queues[i]
			queues[i].push(it)
		}
	}
	id := identity{producer: 7, valid: true}
	write := func(q *queue, offset int64) weak.Pointer[batch] {
		b := q.take(1<<20, id)
		b.build()
		q.settle(stored, &sarama.ProduceResponseBlock{Offset: offset}, nil)
		return weak.Make(b)
	}
	var first weak.Pointer[batch]
	for round := range 50 { // a batch has two calls' records, and shares one call with the batch before and after it
		call()
		if written := write(queues[0], int64(2*round)); round == 0 {
			first = written
		}
		call()
		write(queues[1], int64(2*round))
	}
	deadline := time.Now().Add(10 * time.Second)
	for first.Value() != nil && time.Now().Before(deadline) {
		runtime.GC()
	}
	if first.Value() != nil {
		t.Error("the first batch is still in memory, fifty rounds after it was written")
	}
	runtime.KeepAlive(queues)
}
