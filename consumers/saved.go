package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/sluicegate/sluice"
)

const rosterSchema = "1"

// savedSettings is how the settings stand in the roster.
type savedSettings struct {
	Format     string `json:"format"`
	Reset      Reset  `json:"reset"`
	AutoCommit *bool  `json:"auto_commit,omitempty"`
	MinBytes   int    `json:"min_bytes,omitempty"`
	TimeoutMS  int64  `json:"timeout_ms,omitempty"`
	Isolation  string `json:"isolation"`
}

type savedWish struct {
	Topics   []string    `json:"topics,omitempty"`
	Pattern  string      `json:"pattern,omitempty"`
	Assigned []savedPart `json:"assigned,omitempty"`
}

type savedPart struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

const spotPrefix = "at:"

func spotField(p sluice.Partition) string {
	return spotPrefix + p.Topic + "/" + strconv.Itoa(int(p.Number))
}

// fields is the instance as the roster keeps it. A position that is not known now stays as it was written before.
func (i *Instance) fields(before map[string]string) map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.settings
	kept := savedSettings{Format: s.Format, Reset: s.Reset, AutoCommit: s.AutoCommit, MinBytes: s.MinBytes, TimeoutMS: s.Timeout.Milliseconds(), Isolation: s.Isolation.String()}
	settings, _ := json.Marshal(kept) // strings and numbers: cannot fail
	fields := map[string]string{
		"schema": rosterSchema, "group": i.name.group, "id": i.name.id, "principal": "",
		"settings": string(settings), "version": strconv.Itoa(int(i.version)), "wish": "",
	}
	if i.member != nil {
		w := savedWish{Topics: i.member.wish.Topics, Pattern: i.member.wish.Pattern}
		for _, p := range i.member.wish.Assigned {
			w.Assigned = append(w.Assigned, savedPart{p.Topic, p.Number})
		}
		wish, _ := json.Marshal(w)
		fields["wish"] = string(wish)
	}
	for p, c := range i.claims {
		field := spotField(p)
		switch old, was := before[field]; {
		case c.known || c.adopted:
			fields[field] = c.spot()
		case was:
			fields[field] = old
		}
	}
	return fields
}

// spot is where a claim stands: next, committed and last offset, and whether next is for committing.
func (c *claim) spot() string {
	moved := 0
	if c.moved {
		moved = 1
	}
	return fmt.Sprintf("%d %d %d %d", c.next, c.committed, c.last, moved)
}

// adoptedClaim reads a spot. What it says counts until the group's commits were asked.
func adoptedClaim(p sluice.Partition, spot string) (*claim, bool) {
	c := &claim{p: p, adopted: true}
	var moved int
	if n, err := fmt.Sscanf(spot, "%d %d %d %d", &c.next, &c.committed, &c.last, &moved); err != nil || n != 4 {
		return nil, false
	}
	c.moved, c.remember = moved == 1, c.next
	return c, true
}

// restore makes an instance of what the roster holds.
func (r *Registry) restore(n name, fields map[string]string) (*Instance, *Wish, error) {
	var kept savedSettings
	if err := json.Unmarshal([]byte(fields["settings"]), &kept); err != nil {
		return nil, nil, fmt.Errorf("settings of a consumer instance: %w", err)
	}
	settings := Settings{ID: n.id, Format: kept.Format, Reset: kept.Reset, AutoCommit: kept.AutoCommit, MinBytes: kept.MinBytes, Timeout: time.Duration(kept.TimeoutMS) * time.Millisecond}
	if kept.Isolation == sluice.ReadUncommitted.String() {
		settings.Isolation = sluice.ReadUncommitted
	}
	version, _ := strconv.Atoi(fields["version"])
	i := newInstance(r, n, settings, Version(version))
	i.saved = fields
	for field, spot := range fields {
		at, ok := strings.CutPrefix(field, spotPrefix)
		slash := strings.LastIndexByte(at, '/')
		if !ok || slash < 0 {
			continue
		}
		number, err := strconv.ParseInt(at[slash+1:], 10, 32)
		if err != nil {
			continue
		}
		p := sluice.Partition{Topic: at[:slash], Number: int32(number), Isolation: settings.Isolation}
		if c, ok := adoptedClaim(p, spot); ok {
			if i.claims == nil {
				i.claims = map[sluice.Partition]*claim{}
			}
			i.claims[p] = c
		}
	}
	if fields["wish"] == "" {
		return i, nil, nil
	}
	var w savedWish
	if err := json.Unmarshal([]byte(fields["wish"]), &w); err != nil {
		return nil, nil, fmt.Errorf("subscription of a consumer instance: %w", err)
	}
	wish := &Wish{Topics: w.Topics, Pattern: w.Pattern}
	for _, p := range w.Assigned {
		wish.Assigned = append(wish.Assigned, sluice.Partition{Topic: p.Topic, Number: p.Partition, Isolation: settings.Isolation})
	}
	return i, wish, wish.check()
}

// errElsewhere is told by a write that found another owner, or that somebody has deleted the instance.
var errElsewhere = errors.New("the instance is another replica's")

// save writes what has changed and prolongs the lease. Best effort: the instance works on without Redis, and Run tries
// again. Only that it is another's now is an error worth acting on.
func (i *Instance) save(ctx context.Context, how string) error {
	r := i.room
	if r.roster == nil {
		return nil
	}
	select {
	case i.saving <- struct{}{}:
	case <-ctx.Done():
		i.unsaved.Store(true)
		return context.Cause(ctx)
	}
	defer i.saving.free()
	i.unsaved.Store(false)
	begun := time.Now()
	now := i.fields(i.saved)
	now["touched"] = strconv.FormatInt(i.touched(begun).UnixMilli(), 10)
	set, del := changes(i.saved, now)
	answer, err := r.roster.write(ctx, i.name, how, set, del)
	if answer == "lost" { // a Redis that kept nothing
		answer, err = r.roster.write(ctx, i.name, writeWhole, now, nil)
	}
	switch {
	case err != nil:
		i.unsaved.Store(true)
		r.metrics.unsaved.Inc()
		return err
	case answer != "ok":
		return fmt.Errorf("%w: %s", errElsewhere, answer)
	}
	i.saved = now
	i.leased.Store(begun.Add(r.cfg.ReplicaLease).UnixNano())
	return nil
}

// saveNow is save for what must stand in the roster before anybody is told of it.
func (i *Instance) saveNow(ctx context.Context) {
	if err := i.save(ctx, writeChanges); errors.Is(err, errElsewhere) {
		i.log.Warn("consumer instance is another replica's now", slog.Any("error", err))
		i.room.end(i, reasonMoved)
	}
}

func changes(before, now map[string]string) (set map[string]string, del []string) {
	set = map[string]string{}
	for f, v := range now {
		if old, ok := before[f]; !ok || old != v || f == "touched" {
			set[f] = v
		}
	}
	for f := range maps.Keys(before) {
		if _, ok := now[f]; !ok && (strings.HasPrefix(f, spotPrefix)) { // fields of a later version are kept
			del = append(del, f)
		}
	}
	return set, del
}

// touched is when somebody last called the instance.
func (i *Instance) touched(now time.Time) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy > 0 {
		return now
	}
	return i.used
}
