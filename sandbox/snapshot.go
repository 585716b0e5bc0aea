package sandbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

const snapshotFormat = 1

// snapshot is every kept key of database 0, as it stands in the file.
type snapshot struct {
	Format  int                           `json:"format"`
	Strings map[string]string             `json:"strings"`
	Hashes  map[string]map[string]string  `json:"hashes"`
	Lists   map[string][]string           `json:"lists"`
	Sets    map[string][]string           `json:"sets"`
	Sorted  map[string]map[string]float64 `json:"sorted_sets"`
	Expires map[string]time.Time          `json:"expires"` // absent: never
}

// snapshots writes the file before the client hears of its write. miniredis can be hooked before a command only, so a
// write runs inside the hook, on a peer of our own, and its answer is handed on when the file is in place; a write that
// the file did not take is answered with Redis's own error for that (MISCONF).
type snapshots struct {
	file    string
	passing []string
	mini    *miniredis.Miniredis

	clients sync.Map // *server.Peer: connections, as opposed to the peers that run the commands inside a Lua script
	running atomic.Pointer[server.Peer]

	mu   sync.Mutex // one write at a time
	last snapshot
}

// harmless changes no key, besides what miniredis itself calls read-only. A command that is missing here costs a look at
// the keys; one that is here by mistake would be lost.
var harmless = []string{
	"AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "DISCARD", "ECHO", "EVALSHA_RO", "EVAL_RO", "HELLO", "INFO",
	"MEMORY", "MULTI", "OBJECT", "PING", "PSUBSCRIBE", "PUBLISH", "PUBSUB", "PUNSUBSCRIBE", "QUIT", "SCRIPT", "SELECT",
	"SUBSCRIBE", "TIME", "UNSUBSCRIBE", "UNWATCH", "WATCH",
}

func (s *snapshots) around(c *server.Peer, command string, args ...string) bool {
	if c == s.running.Load() {
		return false
	}
	if c.Ctx == nil { // miniredis gives the peer of a script its context at once, and a connection's at its first command
		s.clients.Store(c, true)
		c.OnDisconnect(func() { s.clients.Delete(c) })
	}
	srv := s.mini.Server()
	if _, client := s.clients.Load(c); !client || srv.IsReadOnlyCommand(command) || slices.Contains(harmless, command) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var answer bytes.Buffer
	inside := server.NewPeer(bufio.NewWriter(&answer))
	inside.Ctx, inside.Resp3 = c.Ctx, c.Resp3
	s.running.Store(inside)
	srv.Dispatch(inside, append([]string{command}, args...))
	s.running.Store(nil)
	inside.Flush()
	c.Ctx = inside.Ctx
	if err := s.save(); err != nil {
		c.WriteError("MISCONF the snapshot could not be written: " + err.Error())
		return true
	}
	c.WriteRaw(answer.String())
	return true
}

// save replaces the file if a kept key has changed.
func (s *snapshots) save() error {
	now, err := s.collect()
	if err != nil || now.same(s.last) {
		return err
	}
	raw, err := json.MarshalIndent(now, "", " ")
	if err != nil {
		return err
	}
	if err := replaceFile(s.file, append(raw, '\n')); err != nil {
		return err
	}
	s.last = now
	return nil
}

func (s *snapshots) collect() (snapshot, error) {
	now, db, at := newSnapshot(), s.mini.DB(0), time.Now()
	for _, key := range db.Keys() {
		if slices.ContainsFunc(s.passing, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			continue
		}
		var err error
		switch kind := db.Type(key); kind {
		case "string":
			now.Strings[key], err = db.Get(key)
		case "hash":
			now.Hashes[key] = map[string]string{}
			var fields []string
			fields, err = db.HKeys(key)
			for _, field := range fields {
				now.Hashes[key][field] = db.HGet(key, field)
			}
		case "list":
			now.Lists[key], err = db.List(key)
		case "set":
			now.Sets[key], err = db.Members(key)
		case "zset":
			now.Sorted[key], err = db.SortedSet(key)
		default:
			err = fmt.Errorf("keys of type %s are not kept", kind)
		}
		if err != nil {
			return now, fmt.Errorf("%s: %w", key, err)
		}
		if ttl := db.TTL(key); ttl > 0 {
			now.Expires[key] = at.Add(ttl)
		}
	}
	return now, now.text()
}

func newSnapshot() snapshot {
	return snapshot{
		Format: snapshotFormat, Strings: map[string]string{}, Hashes: map[string]map[string]string{}, Lists: map[string][]string{},
		Sets: map[string][]string{}, Sorted: map[string]map[string]float64{}, Expires: map[string]time.Time{},
	}
}

// text refuses what JSON would silently change: bytes that are not UTF-8. Sluice writes none.
func (s snapshot) text() error {
	var faults []error
	check := func(key string, values ...string) {
		for _, v := range append(values, key) {
			if !utf8.ValidString(v) {
				faults = append(faults, fmt.Errorf("%q holds bytes that are not text", key))
				return
			}
		}
	}
	for key, v := range s.Strings {
		check(key, v)
	}
	for key, fields := range s.Hashes {
		for field, v := range fields {
			check(key, field, v)
		}
	}
	for key, v := range s.Lists {
		check(key, v...)
	}
	for key, v := range s.Sets {
		check(key, v...)
	}
	for key, scores := range s.Sorted {
		check(key, slices.Collect(maps.Keys(scores))...)
	}
	return errors.Join(faults...)
}

// same takes moments of expiry for the same that lie within a second: they are worked out anew each time.
func (s snapshot) same(other snapshot) bool {
	near := func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second }
	if !maps.EqualFunc(s.Expires, other.Expires, near) {
		return false
	}
	s.Expires, other.Expires = nil, nil
	return reflect.DeepEqual(s, other)
}

// load fills Redis from the file, if there is one. Keys whose time came while nobody looked are left out.
func (s *snapshots) load() error {
	raw, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		s.last = newSnapshot()
		return nil
	} else if err != nil {
		return fmt.Errorf("embedded Redis: %w", err)
	}
	if err := sameFormat(s.file, raw, snapshotFormat); err != nil {
		return err
	}
	kept := newSnapshot()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&kept); err != nil {
		return fmt.Errorf("%s is damaged: %w", s.file, err)
	}
	if err := kept.fill(s.mini.DB(0)); err != nil {
		return fmt.Errorf("%s is damaged: %w", s.file, err)
	}
	s.last, err = s.collect()
	return err
}

func (s snapshot) fill(db *miniredis.RedisDB) error {
	var faults []error
	for key, v := range s.Strings {
		faults = append(faults, db.Set(key, v))
	}
	for key, fields := range s.Hashes {
		for field, v := range fields {
			db.HSet(key, field, v)
		}
	}
	for key, v := range s.Lists {
		_, err := db.Push(key, v...)
		faults = append(faults, err)
	}
	for key, v := range s.Sets {
		_, err := db.SetAdd(key, v...)
		faults = append(faults, err)
	}
	for key, scores := range s.Sorted {
		for member, score := range scores {
			_, err := db.ZAdd(key, score, member)
			faults = append(faults, err)
		}
	}
	for key, at := range s.Expires {
		if ttl := time.Until(at); ttl > 0 {
			db.SetTTL(key, ttl)
		} else {
			db.Del(key)
		}
	}
	return errors.Join(faults...)
}
