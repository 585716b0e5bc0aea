package kafka

import (
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// A long poll names every partition that is followed on its broker, and comes back with the first record of any of them.
// Where very many are followed, a trickle of records costs as much as a flood (measured with 1,000 partitions of one
// broker: 67 records/s took 27 % of a core). There a poll waits for more, but not for long.
const (
	crowdFrom  = 200 // partitions per broker; a quarter below, it is a crowd no more
	crowdBytes = 64 << 10
	crowdWait  = 50 * time.Millisecond
)

// feed names one of the live consumers. sarama reads their settings unguarded, so they cannot change: a partition moves
// from one consumer to the other, between two records.
type feed struct {
	isolation sluice.Isolation
	crowded   bool
}

func (f feed) role() string {
	role := roleLive
	if f.isolation == sluice.ReadUncommitted {
		role = roleLiveUncommitted
	}
	if f.crowded {
		role += crowdSuffix
	}
	return role
}

// crowd is how many partitions are followed, and whether those are very many.
type crowd struct {
	followed int
	crowded  bool
}

// join counts a partition in that is followed from now on, and says which consumer it goes to.
func (f *Fetcher) join(i sluice.Isolation) (crowded bool) { return f.crowdBy(i, 1) }

func (f *Fetcher) leave(i sluice.Isolation) { f.crowdBy(i, -1) }

func (f *Fetcher) crowded(i sluice.Isolation) bool { return f.crowdBy(i, 0) }

func (f *Fetcher) crowdBy(i sluice.Isolation, n int) bool {
	brokers := f.admin.meta.brokerCount()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.crowds[i]
	c.followed += n
	switch most := crowdFrom * brokers; { // leaders are spread, near enough
	case c.followed > most:
		c.crowded = true
	case c.followed < most*3/4:
		c.crowded = false
	}
	f.crowds[i] = c
	return c.crowded
}

// consumer is one of the live consumers; its client does nothing else. It is dialed outside the lock, which one-shot
// fetches need.
func (f *Fetcher) consumer(which feed) (sarama.Consumer, error) {
	client, err := f.clients.client(which.role(), 0)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.consumers[which]; c != nil {
		return c, nil
	}
	c, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	f.consumers[which] = c
	return c, nil
}
