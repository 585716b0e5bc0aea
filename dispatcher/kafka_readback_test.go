package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/sandbox/backend"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// lookedAt is a fleet of one partition whose replicas read back twice a second.
func lookedAt(t *testing.T, k *backend.Broker) *fleet {
	f := newFleetOn(t, k, 1)
	f.cfg.ReadBack = 500 * time.Millisecond
	return f
}

func (f *fleet) committed(s *subscriptions.Subscription) sluice.Commit {
	f.t.Helper()
	c, err := f.control.offsets.Group(f.within(20*time.Second), s.ProgressGroup(), []sluice.Partition{part(f.topic, 0)})
	if err != nil {
		f.t.Fatal(err)
	}
	return c[0]
}

// write is a commit by hand.
func (f *fleet) write(s *subscriptions.Subscription, offset int64, metadata string) {
	f.t.Helper()
	commit := sluice.GroupCommit{Group: s.ProgressGroup(), Generation: -1, Commits: []sluice.Commit{{Topic: f.topic, Offset: offset, Metadata: metadata}}}
	if err := errors.Join(f.control.offsets.Commit(f.within(20*time.Second), commit)...); err != nil {
		f.t.Fatal(err)
	}
}

// reset is what an operator does; where Kafka's own tool is not, a commit like the tool's.
func (f *fleet) reset(s *subscriptions.Subscription, to int64) {
	f.t.Helper()
	if !f.kafka.Real() {
		f.write(s, to, "")
		return
	}
	out, err := f.kafka.Tool(f.within(time.Minute), f.t, "ConsumerGroupCommand", "--reset-offsets", "--group", s.ProgressGroup(),
		"--topic", f.topic, "--to-offset", fmt.Sprint(to), "--execute").CombinedOutput()
	if err != nil || strings.Contains(string(out), "Error") || !strings.Contains(string(out), f.topic) {
		f.t.Fatalf("reset: %v\n%s", err, out)
	}
}

// sent is how many deliveries there were, those of what was delivered before included.
func (f *fleet) sent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.delivered) + f.again
}

// ask sends one raw request to the back end.
func (f *fleet) ask(r kmsg.Request) kmsg.Response {
	f.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.brokers...))
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	answer, err := client.Request(f.within(20*time.Second), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer
}

func TestAResetWithKafkasOwnToolIsFollowed(t *testing.T) {
	t.Parallel()
	f := lookedAt(t, backend.Kafka(t))
	s, produce := f.subscribe(nil), f.producer()
	produce(0, 20, 5)
	a := f.launch("a")
	await(t, 30*time.Second, "the first 20", func() bool { return f.sent() == 20 && f.settled(s) })
	f.reset(s, 5)
	await(t, 30*time.Second, "15 once more, while a replica runs", func() bool { return f.sent() == 35 && f.settled(s) })
	if m, _, err := progress.Decode(20, f.committed(s).Metadata); err != nil || m.SeekEpoch != 1 {
		t.Errorf("the commit says %+v, %v", m, err)
	}
	if got := counter(t, a.metrics.readBacks.WithLabelValues(string(external))); got != 1 {
		t.Errorf("counted %v", got)
	}
	a.leave()
	f.reset(s, 18)
	f.launch("b")
	await(t, 30*time.Second, "2 once more, after none ran", func() bool { return f.sent() == 37 && f.settled(s) })
}

func TestOffsetsThatAreDeletedComeBackOrAreMissed(t *testing.T) {
	t.Parallel()
	f := lookedAt(t, backend.Kafka(t))
	s, produce := f.subscribe(nil), f.producer()
	produce(0, 10, 5)
	a := f.launch("a")
	await(t, 30*time.Second, "the deliveries", func() bool { return f.sent() == 10 && f.settled(s) })
	remove := kmsg.NewPtrOffsetDeleteRequest()
	remove.Group = s.ProgressGroup()
	one := kmsg.NewOffsetDeleteRequestTopic()
	one.Topic, one.Partitions = f.topic, []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}
	remove.Topics = append(remove.Topics, one)
	if answer := f.ask(remove).(*kmsg.OffsetDeleteResponse); answer.ErrorCode != 0 || answer.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", answer)
	}
	vanishes := func() float64 { return counter(t, a.metrics.readBacks.WithLabelValues(string(vanished))) }
	await(t, 20*time.Second, "the offset that was deleted under a live owner", func() bool { return vanishes() >= 1 && f.settled(s) })
	if err := f.control.offsets.DeleteGroup(f.within(10*time.Second), s.ProgressGroup()); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "the group that was deleted under a live owner", func() bool { return f.settled(s) })
	if f.sent() != 10 {
		t.Errorf("%d deliveries of 10", f.sent())
	}
	a.leave()

	if err := f.control.offsets.DeleteGroup(f.within(10*time.Second), s.ProgressGroup()); err != nil {
		t.Fatal(err)
	}
	b := f.launch("b")
	await(t, 30*time.Second, "all again: nobody knew how far it was", func() bool { return f.sent() == 20 && f.settled(s) })
	if counter(t, b.metrics.rebalances.WithLabelValues(f.topic)) == 0 || !lostBy(b, s, lostAbsent) {
		t.Error("the lost position was not counted")
	}
}

// lostBy is whether a replica counted a lost position of that cause, be it of no records.
func lostBy(c *crew, s *subscriptions.Subscription, cause string) bool {
	return c.metrics.lost.DeleteLabelValues(s.ID, cause)
}

// again makes the topic anew, under the same name.
func (f *fleet) remake(produce func(from, n, keys int), n int) {
	f.t.Helper()
	old, err := f.control.admin.Topic(f.within(10*time.Second), f.topic)
	if err != nil {
		f.t.Fatal(err)
	}
	f.kafka.Delete(f.t, f.topic)
	await(f.t, 30*time.Second, "the topic is not made anew", func() bool {
		ctx := f.within(10 * time.Second)
		now, err := f.control.admin.Topic(ctx, f.topic)
		if err == nil && now.ID != old.ID {
			return true
		}
		if sluice.KindOf(err) == sluice.UnknownTopic {
			_ = f.control.admin.CreateTopic(ctx, sluice.TopicSpec{Name: f.topic, Partitions: f.parts})
		}
		return false
	})
	f.mu.Lock()
	f.delivered, f.attempts, f.firsts, f.again = map[deliveryKey]int{}, map[deliveryKey]int{}, map[string]int64{}, 0
	f.mu.Unlock()
	produce(1000, n, 5)
}

func TestATopicMadeAnewIsDeliveredFromItsStart(t *testing.T) {
	t.Parallel()
	f := lookedAt(t, backend.Kafka(t))
	s, produce := f.subscribe(nil), f.producer()
	topic, err := f.control.admin.Topic(f.within(10*time.Second), f.topic)
	if err != nil || topic.ID == (sluice.TopicID{}) {
		backend.NotRun(t, "the brokers give topics no ids")
	}
	produce(0, 10, 5)
	a := f.launch("a")
	await(t, 30*time.Second, "the deliveries", func() bool { return f.sent() == 10 && f.settled(s) })
	f.remake(produce, 25) // more than the old position
	await(t, 60*time.Second, "all of the new topic, under a live owner", func() bool { return f.count(s.ID) == 25 && f.settled(s) })
	a.leave()
	f.remake(produce, 30)
	b := f.launch("b")
	await(t, 60*time.Second, "all of the new topic, after none ran", func() bool { return f.count(s.ID) == 30 && f.settled(s) })
	if f.duplicates() != 0 || !lostBy(b, s, lostRecreated) {
		t.Errorf("%d sent twice, or not counted", f.duplicates())
	}
}

// What retention takes is counted less what was done above the position.
func TestRecordsDeletedBeforeTheyWereDeliveredAreCounted(t *testing.T) {
	t.Parallel()
	f := lookedAt(t, backend.Kafka(t))
	f.refuse = func(d webhook.Delivery) int {
		if d.Record.Offset == 0 || d.Record.Offset == 7 {
			return 500
		}
		return 200
	}
	s := f.subscribe(func(s *subscriptions.Subscription) {
		s.Retry.Schedule = []subscriptions.Duration{0, subscriptions.Duration(time.Hour)}
	})
	produce := f.producer()
	produce(0, 10, 1000)
	a := f.launch("a")
	await(t, 30*time.Second, "8 of 10", func() bool {
		_, l, err := progress.Decode(f.committed(s).Offset, f.committed(s).Metadata)
		return f.sent() == 8 && err == nil && l.Next() == 10 && l.Len() == 2
	})
	a.leave()
	cut := kmsg.NewPtrDeleteRecordsRequest()
	cut.TimeoutMillis = 10_000
	topic := kmsg.NewDeleteRecordsRequestTopic()
	topic.Topic, topic.Partitions = f.topic, []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 5}}
	cut.Topics = append(cut.Topics, topic)
	if answer := f.ask(cut).(*kmsg.DeleteRecordsResponse); answer.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", answer)
	}
	b := f.launch("b")
	await(t, 30*time.Second, "the commit of the new owner", func() bool { return f.committed(s).Offset == 7 })
	if got := counter(t, b.metrics.lost.WithLabelValues(s.ID, lostRetention)); got != 1 {
		t.Errorf("%v lost, want the one that was not delivered", got)
	}
	if f.sent() != 8 {
		t.Errorf("%d deliveries", f.sent())
	}
	b.leave()

	m, _, _ := progress.Decode(7, f.committed(s).Metadata)
	f.write(s, 5000, m.Encode(progress.NewLedger(5000), progress.MaxMetadata)) // as after an unclean election
	c := f.launch("c")
	await(t, 30*time.Second, "a position above the end", func() bool { return f.settled(s) })
	if !lostBy(c, s, lostTruncated) {
		t.Error("not counted")
	}
	produce(10, 3, 1000)
	await(t, 30*time.Second, "what comes then", func() bool { return f.sent() == 11 && f.settled(s) })
}

// intruder is a consumer that took a progress group for its own.
type intruder struct {
	name  string
	enter func(t *testing.T, f *fleet, group string) (leave func())
}

func intruders(k *backend.Broker) []intruder {
	all := []intruder{{"classic", func(t *testing.T, f *fleet, group string) func() {
		side := connect(t, f.brokers)
		ctx, cancel := context.WithCancel(context.Background())
		done, in := make(chan struct{}), make(chan struct{}, 1)
		go func() {
			defer close(done)
			wish := sluice.Membership{Group: group, Topics: []string{f.topic}, Assignor: sluice.RangeAssignor}
			_ = side.groups.Member(ctx, wish, func(ctx context.Context, s sluice.Session) {
				commit := sluice.GroupCommit{Group: group, Member: s.Member, Generation: s.Generation, // it skips what is there
					Commits: []sluice.Commit{{Topic: f.topic, Offset: 1000}}}
				if err := errors.Join(side.offsets.Commit(ctx, commit)...); err != nil {
					t.Errorf("the intruder cannot commit: %v", err)
				}
				select {
				case in <- struct{}{}:
				default:
				}
				<-ctx.Done()
			})
		}()
		leave := func() { cancel(); <-done }
		t.Cleanup(leave)
		<-in
		return leave
	}}}
	if k.Name == backend.Kafka41 {
		all = append(all, intruder{"KIP-848", func(t *testing.T, f *fleet, group string) func() {
			return running(t, f.kafka.Tool(t.Context(), t, "ConsoleConsumer", "--topic", f.topic, "--group", group,
				"--consumer-property", "group.protocol=consumer", "--consumer-property", "auto.commit.interval.ms=100"))
		}})
	}
	return all
}

// running starts a process and ends it by SIGTERM.
func running(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }() // ended by us
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		<-done
	}
	t.Cleanup(stop)
	return stop
}

func TestAConsumerInAProgressGroupStopsItAndLosesNothing(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	for _, who := range intruders(k) {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			f := lookedAt(t, k)
			s, produce := f.subscribe(nil), f.producer()
			produce(0, 10, 5)
			f.launch("a")
			await(t, 30*time.Second, "the deliveries", func() bool { return f.sent() == 10 && f.settled(s) })
			reported := func(want string) bool {
				f.book.mu.Lock()
				defer f.book.mu.Unlock()
				n := len(f.book.reports)
				return n > 0 && f.book.reports[n-1].Reason == want
			}
			leave := who.enter(t, f, s.ProgressGroup())
			total := 10
			await(t, 60*time.Second, "it is not seen", func() bool { // a KIP-848 member is seen by the first commit
				if total < 200 && !reported(subscriptions.GroupHijacked) {
					produce(total, 1, 5)
					total++
				}
				return reported(subscriptions.GroupHijacked)
			})
			stood := f.sent()
			produce(total, 20, 5)
			total += 20
			seen := time.Now()
			await(t, 30*time.Second, "a second try", func() bool {
				f.book.mu.Lock()
				defer f.book.mu.Unlock()
				last := f.book.reports[len(f.book.reports)-1]
				return last.Reason == subscriptions.GroupHijacked && last.At.After(seen.Add(300*time.Millisecond))
			})
			if n := f.sent() - stood; n > 32 || n >= total-stood {
				t.Errorf("%d were sent while it was in the group", n)
			}
			leave()
			await(t, 90*time.Second, "it does not go on", func() bool { return f.count(s.ID) == total && f.settled(s) })
			await(t, 30*time.Second, "the group is not made anew", func() bool {
				states, err := f.control.offsets.Describe(f.within(10*time.Second), []string{s.ProgressGroup()})
				return err == nil && states[s.ProgressGroup()].Untouched()
			})
			await(t, 10*time.Second, "the trouble is still reported", func() bool { return reported("") })
			if f.duplicates() > 0 {
				t.Errorf("%d sent twice", f.duplicates())
			}
		})
	}
}

// full is the fullest commit that a lane can need.
func full(topic sluice.TopicID) (progress.Mark, *progress.Ledger) {
	m := progress.Mark{Tag: progress.TopicTag(topic), Term: 1 << 40, Writer: 1, SeekEpoch: 1 << 20, Suspect: sluice.NoOffset, At: time.Now()}
	l := progress.NewLedger(0)
	for i := range int64(progress.MaxHoles) {
		l.Offer(i * (progress.MaxSpan / progress.MaxHoles))
		l.Charge(i*(progress.MaxSpan/progress.MaxHoles), 200, m.At.Add(-160*time.Hour))
	}
	for i := range 48 {
		m.Pages = append(m.Pages, progress.Page{Number: 1 << 30, Partition: 11, Offset: 1<<40 + int64(i), Lowest: -(1 << 27), Earliest: m.At.Add(160 * time.Hour)})
	}
	return m, l
}

func TestTheFullestCommitIsTakenByEveryBroker(t *testing.T) {
	t.Parallel()
	f := lookedAt(t, backend.Kafka(t))
	s := f.subscribe(nil)
	m, l := full(sluice.TopicID{1})
	text := m.Encode(l, progress.MaxMetadata)
	if len(text) < 3000 || len(text) > progress.MaxMetadata {
		t.Fatalf("%d characters", len(text))
	}
	f.write(s, l.Low(), text)
	_, back, err := progress.Decode(l.Low(), f.committed(s).Metadata)
	if err != nil || back.Len() != progress.MaxHoles {
		t.Errorf("%d holes came back, %v", back.Len(), err)
	}
}

// Brokers whose operator allows less metadata: fewer holes, all attempts. And where nobody told the lane, the offset alone.
func TestASmallerMetadataLimitCostsHolesAndNoRecord(t *testing.T) {
	t.Setenv("PROPS", "offset.metadata.max.bytes=512")
	k := backend.Cluster(t, 1)
	f := lookedAt(t, &k.Broker)
	limit, err := f.control.admin.MetadataMaxBytes(f.within(20 * time.Second))
	if err != nil || limit != 512 {
		t.Fatalf("the broker says %d, %v", limit, err)
	}
	f.refuse = func(d webhook.Delivery) int {
		if d.Record.Offset%3 == 0 {
			return 500
		}
		return 200
	}
	s := f.subscribe(func(s *subscriptions.Subscription) {
		s.Delivery.Ordering = subscriptions.OrderNone
		s.Retry.Schedule = []subscriptions.Duration{0, subscriptions.Duration(time.Hour)}
	})
	produce := f.producer()
	produce(0, 300, 300)
	f.bytes = limit
	a := f.launch("a")
	holes := progress.HolesWithin(limit)
	await(t, 30*time.Second, "the lane is not full", func() bool {
		c := f.committed(s)
		_, l, err := progress.Decode(c.Offset, c.Metadata)
		return err == nil && l.Len() == holes && len(c.Metadata) <= limit
	})
	before := f.sent()
	a.crash()
	b := f.launch("b")
	await(t, 30*time.Second, "the takeover", func() bool {
		c := f.committed(s)
		m, l, err := progress.Decode(c.Offset, c.Metadata)
		return err == nil && m.Term == 2 && l.Len() == holes
	})
	if n := f.sent() - before; n != 0 {
		t.Errorf("%d were sent again", n)
	}
	b.leave()
	f.mu.Lock()
	f.refuse = func(webhook.Delivery) int { return 200 }
	f.mu.Unlock()
	f.bytes = 0 // nobody says that it is smaller
	f.write(s, 0, "")
	c := f.launch("c")
	await(t, 60*time.Second, "everything", func() bool { return f.count(s.ID) == 300 && f.settled(s) })
	c.leave()
}

// Kafka forgets the offset of a group without members; not the one of a lane that stands still. Then a replica that
// comes too late says so, and begins where the subscription did.
func TestAnIdleLaneOutlivesTheRetentionOfOffsets(t *testing.T) {
	if os.Getenv("TEST_LONG") == "" {
		backend.NotRun(t, "takes the minute after which a broker forgets an offset, runs with TEST_LONG=1")
	}
	t.Setenv("PROPS", "offsets.retention.minutes=1\noffsets.retention.check.interval.ms=1000")
	k := backend.Cluster(t, 1)
	f := lookedAt(t, &k.Broker)
	f.cfg.Progress.Retention = time.Minute
	f.cfg.ReadBack = time.Hour // it must not be what keeps it
	idle, produce := f.subscribe(nil), f.producer()
	produce(0, 10, 5)
	a := f.launch("a")
	await(t, 30*time.Second, "the deliveries", func() bool { return f.sent() == 10 && f.settled(idle) })
	left := &subscriptions.Subscription{ID: backend.Unique("sub")} // nobody keeps it
	f.write(left, 5, "")
	for range 2 {
		await(t, 3*time.Minute, "the broker forgets nothing", func() bool { return f.committed(left).Offset == sluice.NoOffset })
		if !f.settled(idle) || counter(t, a.metrics.readBacks.WithLabelValues(string(vanished))) != 0 {
			t.Errorf("the idle lane is committed at %d", f.committed(idle).Offset)
		}
		f.write(left, 5, "")
	}
	a.leave()
	await(t, 3*time.Minute, "the broker does not forget the lane that nobody has", func() bool { return f.committed(idle).Offset == sluice.NoOffset })
	b := f.launch("b")
	await(t, 30*time.Second, "all once more", func() bool { return f.sent() == 20 && f.settled(idle) })
	if !lostBy(b, idle, lostAbsent) {
		t.Error("not counted")
	}
}
