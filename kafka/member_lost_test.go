package kafka

import (
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// A member whose lease ran out, and whom the coordinator has not given up yet, goes on in its generation: the others
// notice nothing, and nobody waits for their last commits.
func TestAGenerationOutlivesALease(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	topic, clients := k.Topic(t, "lapse", 6), groupClients(t, k.Brokers)
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a, b := w.join(t, clients, "a"), w.join(t, clients, "b")
	settle(t, 10*time.Second, 6, a, b)
	before, others := a.now(), b.now()
	a.net.crash()
	await(t, leaseTime+time.Second, func() string { return "the lease runs out" }, func() bool { return before.ctx.Err() != nil })
	if a.net.dials.Load() == 0 {
		t.Fatal("no connection was refused, so nothing was lost")
	}
	a.net.gone.Store(false)
	await(t, 5*time.Second, func() string { return "a session again" }, func() bool { return a.now() != nil && a.now() != before })
	t.Logf("%v without a session", a.standstill())
	if is := a.now().session; is.Generation != before.session.Generation || is.Member != before.session.Member {
		t.Errorf("generation %d of %s became %d of %s", before.session.Generation, before.session.Member, is.Generation, is.Member)
	}
	if b.now() != others {
		t.Error("the other member has another session")
	}
}

// coordinatorAt is what a broker answers that believes the coordinator elsewhere.
func coordinatorAt(t testing.TB, ask *kmsg.FindCoordinatorRequest, addr string) kmsg.Response {
	t.Helper()
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(number, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	answer := ask.ResponseKind().(*kmsg.FindCoordinatorResponse)
	answer.Host, answer.Port, answer.NodeID = host, int32(port), 7
	return answer
}

// Who has lost a coordinator is not kept there by the one broker that has not heard the news.
func TestFinderAsksASecondBrokerForAnotherCoordinator(t *testing.T) {
	t.Parallel()
	k := backend.KafkaOf(t, 3)
	if k.Real() {
		backend.NotRun(t, "a real broker's metadata is not late on request")
	}
	f := newFinder(newClients(Default(), nil).config(roleOwn), dialTCP, k.Brokers)
	defer f.close()
	want, err := f.coordinator(within(t, 5*time.Second), "g")
	if err != nil {
		t.Fatal(err)
	}
	const lost = "127.0.0.1:1"
	var lies atomic.Int64
	k.Fake().ControlKey(int16(kmsg.FindCoordinator), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		if lies.Load() > 0 {
			return nil, nil, false
		}
		lies.Add(1)
		return coordinatorAt(t, r.(*kmsg.FindCoordinatorRequest), lost), nil, true
	})
	late := f.link.addr
	if got, err := f.another(within(t, 5*time.Second), "g", lost); err != nil || got != want || lies.Load() != 1 {
		t.Errorf("%q, %v after %d old answers, want %q", got, err, lies.Load(), want)
	}
	if f.link.addr == late {
		t.Error("the next question goes to the broker that is late")
	}
}

// A coordinator that hangs holds a member up only until another one is named: the broker was stopped, its port takes
// connections.
func TestAMemberLeavesAHungCoordinatorWhenThereIsAnother(t *testing.T) {
	t.Parallel()
	k := backend.Kafka(t)
	if k.Real() {
		backend.NotRun(t, "a shared broker cannot be stopped; the cluster tests stop one")
	}
	topic, clients := k.Topic(t, "hung", 2), groupClients(t, k.Brokers)
	hung, asked := mute(t), atomic.Int64{}
	k.Fake().ControlKey(int16(kmsg.FindCoordinator), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.Fake().KeepControl()
		if asked.Add(1) > 1 {
			return nil, nil, false
		}
		return coordinatorAt(t, r.(*kmsg.FindCoordinatorRequest), hung), nil, true
	})
	w := newWorld(t, backend.Unique("group"), sluice.Rendezvous, topic)
	a := w.join(t, clients, "a")
	await(t, 5*time.Second, func() string { return "the hung coordinator is named" }, func() bool { return asked.Load() == 1 })
	began := time.Now()
	settle(t, 5*time.Second, 2, a)
	if took := time.Since(began); took > watchTime+time.Second || asked.Load() < 2 {
		t.Errorf("a session after %v and %d questions; a connection that hangs costs %v", took, asked.Load(), handshakeTime)
	}
}
