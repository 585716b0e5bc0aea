package kafka

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

const (
	burstRecords = 512
	burstBytes   = 256 << 10

	quietShort = 5 * time.Second // the high watermark is above what came: markers or aborted records may follow
	// quietLong is for when nothing says so: look all the same. A consumer may have fallen silent, and it learns the high
	// watermark only together with records.
	quietLong  = 30 * time.Second
	quietTick  = time.Second
	quietBytes = 64 << 10

	stampWait  = 500 * time.Millisecond
	stampEvery = 5 * time.Minute
)

var (
	errLiveEnded  = errors.New("the consumer ended")
	errLiveSilent = errors.New("the consumer brings nothing, though there are records")
)

// Follow reads on from an offset as records come and hands each burst to add, from one goroutine, as a chunk that owns
// its memory and begins where the one before ended. The first is empty and says that following has begun. It returns
// nil when ctx ends, else an error, and then the partition must be followed anew at its current end. When it has
// returned, the partition is free to be followed again.
//
// Many partitions share one consumer and, per broker, one request; a partition that is not drained holds up all the
// others (measured: 92,000 records/s down to 260), so add must only store.
func (f *Fetcher) Follow(ctx context.Context, p sluice.Partition, from int64, add func(sluice.Chunk)) error {
	crowded := f.join(p.Isolation)
	defer f.leave(p.Isolation)
	l := &live{fetcher: f, p: p, next: from, add: add, looked: make(chan look, 1), silent: -1}
	if err := l.open(ctx, crowded); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.close()
		if l.looking {
			<-l.looked
		}
	}()
	add(sluice.Chunk{From: from, Next: from, End: from})
	return l.run(ctx)
}

// live is one partition being followed. One goroutine owns it.
type live struct {
	fetcher *Fetcher
	p       sluice.Partition
	pc      sarama.PartitionConsumer
	crowded bool  // pc is of the crowd's consumer
	next    int64 // all below was added
	add     func(sluice.Chunk)

	stamped  time.Time // when appended was last learnt
	appended bool      // the broker sets the timestamps (LogAppendTime)

	looking bool // a one-shot fetch is under way; it answers on looked
	looked  chan look
	silent  int64 // a look found records at this offset that the consumer had not brought; -1 is none
}

// look is the answer of a one-shot fetch beside the consumer.
type look struct {
	from  int64
	chunk sluice.Chunk
	err   error
}

func (l *live) run(ctx context.Context) error {
	quiet := time.NewTicker(quietTick)
	defer quiet.Stop()
	last := time.Now()
	troubles := l.pc.Errors()
	for {
		select {
		case <-ctx.Done():
			return nil
		case trouble, ok := <-troubles:
			if !ok {
				troubles = nil // the messages are closed as well
			} else if doubtful(trouble.Err) {
				l.look(ctx, l.next, 1)
			}
		case m, ok := <-l.pc.Messages():
			if !ok {
				return l.ended(ctx)
			}
			if err := l.burst(ctx, m); err != nil {
				return err
			}
			last = time.Now()
		case now := <-quiet.C:
			if crowded := l.fetcher.crowded(l.p.Isolation); crowded != l.crowded {
				l.close() // what is not added yet comes again
				if err := l.open(ctx, crowded); err != nil {
					return err
				}
				troubles = l.pc.Errors()
			}
			wait := quietLong
			if l.pc.HighWaterMarkOffset() > l.next || l.silent == l.next {
				wait = quietShort
			}
			if now.Sub(last) >= wait {
				l.look(ctx, l.next, quietBytes)
				last = now
			}
		case answer := <-l.looked:
			l.looking = false
			if err := l.learn(answer); err != nil {
				return err
			}
		}
	}
}

// doubtful reports whether trouble of the consumer may mean that the topic, or the offset, is not there any more. It
// would try on for a quarter of a minute; a broker that is away it knows how to wait for.
func doubtful(trouble error) bool {
	return errors.Is(trouble, sarama.ErrUnknownTopicOrPartition) || errors.Is(trouble, sarama.ErrOffsetOutOfRange)
}

// open takes the partition up where it stands.
func (l *live) open(ctx context.Context, crowded bool) error {
	consumer, err := l.fetcher.consumer(feed{l.p.Isolation, crowded})
	if err != nil {
		return kafkaError("open the live client", err)
	}
	pc, err := consumer.ConsumePartition(l.p.Topic, l.p.Number, l.next)
	if err != nil {
		if errors.Is(err, sarama.ErrUnknownTopicOrPartition) { // of the topic, or of the partition?
			if _, err := l.fetcher.Range(ctx, l.p); err != nil {
				return err
			}
		}
		return kafkaError("follow "+l.p.String(), err)
	}
	l.pc, l.crowded = pc, crowded
	return nil
}

// close lets go of the partition and returns when the consumer has done so, too. It must be drained until then.
func (l *live) close() {
	l.pc.AsyncClose()
	troubles := l.pc.Errors()
	for {
		select {
		case _, ok := <-troubles:
			if !ok {
				troubles = nil
			}
		case _, ok := <-l.pc.Messages():
			if !ok {
				return
			}
		}
	}
}

// ended finds out why the consumer closed.
func (l *live) ended(ctx context.Context) error {
	if _, err := l.fetcher.Fetch(ctx, l.p, l.next, 1); err != nil {
		return err
	}
	return &sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka stopped sending.", Err: errLiveEnded}
}

// burst takes what has come, copies it and adds it.
func (l *live) burst(ctx context.Context, m *sarama.ConsumerMessage) error {
	if l.stamped.IsZero() {
		l.learnStamp(ctx, m.Offset)
	} else if time.Since(l.stamped) > stampEvery {
		l.look(ctx, m.Offset, 1)
	}
	raw, next, size := rawRecords{}, l.next, 0
	for open := true; open; {
		if m.Offset >= next { // never below: a chunk begins where the last one ended
			raw.list = append(raw.list, rawRecord{m.Offset, m.Timestamp, l.appended, m.Key, m.Value, m.Headers})
			next = m.Offset + 1
			size += raw.list[len(raw.list)-1].size()
		}
		if len(raw.list) >= burstRecords || size >= burstBytes {
			break
		}
		m, open = l.more()
	}
	if next == l.next {
		return nil
	}
	chunk := sluice.Chunk{From: l.next, Next: next, End: next}
	if l.p.Isolation == sluice.ReadUncommitted { // else the last stable offset counts, which sarama does not tell
		chunk.End = max(next, l.pc.HighWaterMarkOffset())
	}
	chunk.Records, chunk.Bytes = raw.copy(l.p)
	l.next, l.silent = next, -1
	l.add(chunk)
	return nil
}

// more takes another message if one is there or comes at once: the consumer feeds its channel one by one.
func (l *live) more() (*sarama.ConsumerMessage, bool) {
	for try := 0; ; try++ {
		select {
		case m, ok := <-l.pc.Messages():
			return m, ok // a closed channel shows again at the next receive
		default:
		}
		if try == 2 {
			return nil, false
		}
		runtime.Gosched()
	}
}

// look fetches once beside the consumer. The answer comes on l.looked, one at a time.
func (l *live) look(ctx context.Context, from int64, maxBytes int) {
	if l.looking {
		return
	}
	l.looking = true
	go func() {
		chunk, err := l.fetcher.Fetch(ctx, l.p, from, maxBytes)
		l.looked <- look{from, chunk, err}
	}()
}

// learnStamp learns once, before the first record, who sets the timestamps: a ConsumerMessage does not say.
func (l *live) learnStamp(ctx context.Context, offset int64) {
	l.look(ctx, offset, 1)
	timer := time.NewTimer(stampWait)
	defer timer.Stop()
	select {
	case answer := <-l.looked:
		l.looking = false
		l.stampOf(answer)
	case <-timer.C: // the drain must not wait longer; the answer is taken when it comes
	}
}

func (l *live) stampOf(answer look) {
	if answer.err == nil && len(answer.chunk.Records) > 0 {
		l.appended, l.stamped = answer.chunk.Records[0].Appended, time.Now()
	}
}

// learn draws the conclusions of a look while nothing came.
func (l *live) learn(answer look) error {
	l.stampOf(answer)
	switch sluice.KindOf(answer.err) {
	case sluice.OutOfRange, sluice.UnknownTopic, sluice.UnknownPart: // cut, deleted or created anew
		return answer.err
	}
	if answer.err != nil || answer.from != l.next {
		return nil
	}
	if len(answer.chunk.Records) == 0 {
		if answer.chunk.Next > l.next { // only markers, aborted records or emptied batches: else lag shows for ever
			l.add(sluice.Chunk{From: l.next, Next: answer.chunk.Next, End: answer.chunk.End})
			l.next = answer.chunk.Next
		}
		return nil
	}
	if l.silent == l.next {
		return &sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka stopped sending.", Err: errLiveSilent}
	}
	l.silent = l.next // once may be a race with the consumer; twice at the same offset is not
	return nil
}
