package consumers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluicegate/sluice"
)

// Version says which API an instance was created through. One created without a versioned media type is Provisional: it
// is of v1 until a call that only v2 knows makes it v2.
type Version byte

// The versions.
const (
	Provisional Version = iota
	V1
	V2
)

// Instance is one consumer of the classic API. Its methods may be called concurrently; those that must not overlap wait
// for each other.
type Instance struct {
	room     *Registry
	name     name
	settings Settings
	log      *slog.Logger

	reading    slot // one read, until its answer is settled or lost
	changing   slot // one change of the subscription
	committing slot
	saving     slot // one write to the roster

	saved   map[string]string // what the roster holds; whoever has the slot saving may look
	unsaved atomic.Bool       // there is more
	leased  atomic.Int64      // until when the instance is ours, by our own clock; nanoseconds since 1970

	ended chan struct{}  // closed first: whoever waits returns
	left  chan struct{}  // closed last: the group was left
	work  sync.WaitGroup // goroutines of this instance

	mu      sync.Mutex
	why     string // set when it ended: the reason in words
	moved   bool   // and that is that another replica goes on with it
	used    time.Time
	busy    int                // calls under way
	waiting map[string]*Answer // those that another replica has not confirmed yet, by number
	idle    *time.Timer
	version Version
	member  *membership                 // nil when not subscribed
	leaving <-chan struct{}             // closed when the membership before has left; nil if there was none
	session *session                    // the current generation; nil between two
	claims  map[sluice.Partition]*claim // all it ever held under this subscription: it remembers where it was
	refused error                       // why the group cannot be joined
	writing chan struct{}               // closed when the answer on its way is settled or lost; nil when there is none
	bell    chan struct{}               // closed and replaced when one of the above changes
	told    sluice.Kind                 // of the last auto-commit's failure, which is logged when it changes
	follows <-chan struct{}             // closed when the last commit that nobody waits for is over; nil if there was none
	dirty   chan struct{}               // holds a token when auto-commit has something to do
	turn    sluice.Partition            // where the next read begins, so that no partition waits for ever
	owed    bool                        // that partition has a record that did not fit: it comes first
}

// slot has one place.
type slot chan struct{}

func newSlot() slot { return make(slot, 1) }

func (s slot) free() { <-s }

func newInstance(r *Registry, n name, s Settings, v Version) *Instance {
	i := &Instance{
		room: r, name: n, settings: s, version: v,
		log:     r.log.With(slog.String("group", n.group), slog.String("instance", n.id)),
		reading: newSlot(), changing: newSlot(), committing: newSlot(), saving: newSlot(),
		ended: make(chan struct{}), left: make(chan struct{}),
		busy: 1, // the call that creates it
		bell: make(chan struct{}), dirty: make(chan struct{}, 1),
	}
	i.idle = time.AfterFunc(time.Hour, func() { r.end(i, reasonExpired) })
	i.idle.Stop()
	return i
}

// Group is the name of the group.
func (i *Instance) Group() string { return i.name.group }

// ID is unique within the group.
func (i *Instance) ID() string { return i.name.id }

// Format is the embedded format of what it reads.
func (i *Instance) Format() string { return i.settings.Format }

// Version is the API that its calls without a versioned media type speak.
func (i *Instance) Version() Version {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.version == V2 {
		return V2
	}
	return V1
}

// SpeakV2 is called for what only v2 has: it settles an instance whose API was open.
func (i *Instance) SpeakV2() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.version == Provisional {
		i.version = V2
		i.unsaved.Store(true)
	}
}

// SpeakV1 is called for a read of v1, which settles an instance whose API was open.
func (i *Instance) SpeakV1() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.version == Provisional {
		i.version = V1
		i.unsaved.Store(true)
	}
}

// autoCommits: an auto.commit.enable that was left unset follows the API.
func (i *Instance) autoCommits() bool {
	if set := i.settings.AutoCommit; set != nil {
		return *set
	}
	return i.Version() == V2
}

// enter stops the idle clock for the time of a call. Kind NotFound if the instance has ended.
func (i *Instance) enter() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.why != "" {
		return i.over()
	}
	i.busy++
	i.idle.Stop()
	return nil
}

// over is the error of calls on an instance that has ended. The lock is held.
func (i *Instance) over() error {
	if i.moved {
		return ErrMoved
	}
	return notFound(i.why)
}

func (i *Instance) hasMoved() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.moved
}

func (i *Instance) reasonText() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.why
}

func (i *Instance) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.used = time.Now()
	if i.busy--; i.busy == 0 && i.why == "" {
		i.idle.Reset(i.room.cfg.InstanceTimeout)
	}
}

// take waits for the place in a slot; it reports false when ctx or the instance ended first.
func (i *Instance) take(ctx context.Context, s slot) bool {
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-i.ended:
	}
	return false
}

// close marks the end; false if it had come before, or if somebody called while it was thought idle.
func (i *Instance) close(why reason, text string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.why != "" || (why == reasonExpired && i.busy > 0) {
		return false
	}
	i.why, i.moved = text, why == reasonMoved
	i.idle.Stop()
	close(i.ended)
	return true
}

// depart leaves the group and waits for all that the instance started. close comes before it, so nothing new starts.
func (i *Instance) depart() {
	i.changing <- struct{}{} // a change under way ends by i.ended
	defer i.changing.free()
	i.mu.Lock()
	member, leaving, follows := i.member, i.leaving, i.follows
	i.mu.Unlock()
	if follows != nil {
		timer := time.NewTimer(settlePatience)
		defer timer.Stop()
		select {
		case <-follows:
		case <-timer.C:
		}
	}
	if member != nil {
		member.cancel()
		leaving = member.done
	}
	if leaving != nil {
		<-leaving
	}
	if i.hasMoved() {
		i.handOver()
	}
	close(i.left)
	i.work.Wait()
}

// handOver writes the last positions and gives the lease up. An answer that is being written gets a moment, so that the
// next owner need not give it again. If it was another's already, nothing is written.
func (i *Instance) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverPatience)
	defer cancel()
	i.awaitAnswer(ctx, handOverPatience-rosterPatience)
	if err := i.save(ctx, writeRelease); err != nil && !errors.Is(err, errElsewhere) {
		i.log.Warn("consumer instance was not handed over; its lease must run out", slog.Any("error", err))
	}
}

const handOverPatience = 4 * time.Second

// start runs fn as part of the instance, unless it has ended.
func (i *Instance) start(fn func()) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.why != "" {
		return false
	}
	i.work.Go(fn)
	return true
}

// ring wakes all who wait for a change of the instance. The lock is held.
func (i *Instance) ring() {
	close(i.bell)
	i.bell = make(chan struct{})
}

func (i *Instance) hasEnded() bool {
	select {
	case <-i.ended:
		return true
	default:
		return false
	}
}
