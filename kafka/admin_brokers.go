package kafka

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

const (
	questionTime = 5 * time.Second        // one question to one broker, connecting not included
	hedgeTime    = 400 * time.Millisecond // a broker that is silent for so long has another asked beside it
)

// brokers holds one bare connection per broker and lends it to one call at a time. Calls to a broker that hangs queue
// behind it, within their contexts; nobody else notices. A sarama.Client would freeze with it (measured: 79 s).
type brokers struct {
	cfg   *sarama.Config
	dial  dialer
	seeds []string

	ctx    context.Context // of all calls: ends with close
	cancel context.CancelFunc
	calls  sync.WaitGroup

	mu    sync.Mutex
	links map[string]chan *link // each holds the idle link, or nil where there is none; empty while one is lent
	known []string              // addresses in Kafka's metadata
	best  string                // answered last
}

func newBrokers(cfg *sarama.Config, dial dialer, seeds []string) *brokers {
	b := &brokers{cfg: cfg, dial: dial, seeds: seeds, links: map[string]chan *link{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// learn replaces the addresses that metadata named last.
func (b *brokers) learn(addrs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = addrs
}

// candidates is every address worth asking, the one that answered last first. Seeds stay on the list: after all
// brokers changed their addresses they are the only way back.
func (b *brokers) candidates() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]string, 0, 1+len(b.known)+len(b.seeds))
	for _, addr := range slices.Concat([]string{b.best}, b.known, b.seeds) {
		if addr != "" && !slices.Contains(list, addr) {
			list = append(list, addr)
		}
	}
	return list
}

func (b *brokers) slot(addr string) chan *link {
	b.mu.Lock()
	defer b.mu.Unlock()
	slot, ok := b.links[addr]
	if !ok {
		slot = make(chan *link, 1)
		slot <- nil
		b.links[addr] = slot
	}
	return slot
}

// askAt puts a question to the broker at addr. question makes the request anew for each try: sarama writes the version
// it settled on into it. Brokers close connections that were idle for ten minutes, so a kept one gets a second try.
func askAt[Q, A any](ctx context.Context, b *brokers, addr string, ask func(*sarama.Broker, Q) (A, error), question func() Q) (answer A, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()

	if b.ctx.Err() != nil {
		return answer, sarama.ErrClosedClient
	}
	slot := b.slot(addr)
	var l *link
	select {
	case l = <-slot:
		defer func() { slot <- l }()
	case <-ctx.Done():
		return answer, ctx.Err()
	}
	for kept := l != nil; ; kept = false {
		if l == nil {
			if l, err = openLink(ctx, b.cfg, b.dial, addr); err != nil {
				return answer, err
			}
		}
		answer, err = call(ctx, l, questionTime, func(q Q) (A, error) { return ask(l.broker, q) }, question())
		if err == nil {
			return answer, nil
		}
		l.close()
		l = nil
		if !kept || ctx.Err() != nil || !unreachable(err) {
			return answer, err
		}
	}
}

// askAny puts a question to whichever broker answers first. The next one is asked when one fails or is silent for
// hedgeTime, so a hung broker costs that much once and is not asked first again.
func askAny[Q, A any](ctx context.Context, b *brokers, ask func(*sarama.Broker, Q) (A, error), question func() Q) (A, error) {
	type reply struct {
		addr   string
		answer A
		err    error
	}
	var none A
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	candidates := b.candidates()
	replies := make(chan reply, len(candidates)) // room for all: nobody who comes late is stuck
	asked := 0
	next := func() {
		if asked < len(candidates) && b.ctx.Err() == nil {
			addr := candidates[asked]
			asked++
			b.calls.Go(func() {
				answer, err := askAt(ctx, b, addr, ask, question)
				replies <- reply{addr, answer, err}
			})
		}
	}
	hedge := time.NewTicker(hedgeTime)
	defer hedge.Stop()
	var errs []error
	next()
	for len(errs) < asked {
		select {
		case r := <-replies:
			if r.err == nil {
				b.mu.Lock()
				b.best = r.addr
				b.mu.Unlock()
				return r.answer, nil
			}
			errs = append(errs, r.err)
			next()
		case <-hedge.C:
			next()
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
	return none, errors.Join(append(errs, sarama.ErrOutOfBrokers)...)
}

// close ends the calls under way and waits for them.
func (b *brokers) close() {
	b.cancel()
	b.calls.Wait()
	b.mu.Lock()
	links := b.links
	b.links = map[string]chan *link{}
	b.mu.Unlock()
	for _, slot := range links {
		if l := <-slot; l != nil {
			l.close()
		}
	}
}
