package subscriptions

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestBookIsReadyOnlyAfterTheFirstLoad(t *testing.T) {
	h := open(t)
	if h.book.Loaded() {
		t.Error("loaded before Run")
	}
	h.server.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.book.Run(ctx); err != nil || h.book.Loaded() {
		t.Errorf("loaded %v without Redis, %v", h.book.Loaded(), err)
	}
	h.server.Start(t)
	follow(t, h.book)
	if !h.book.Loaded() {
		t.Error("ready and not loaded")
	}
}

func TestBellReachesEveryReplica(t *testing.T) {
	h := open(t)
	follow(t, h.book)
	other := follow(t, newBook(t, storeAt(t, h.server.URL)))
	changed := other.Changed()
	s := h.create(t)
	select {
	case <-changed:
	case <-time.After(5 * time.Second):
		t.Fatal("no change within 5 s: the resync would have taken 30")
	}
	if found := other.Find(s.ID); found == nil || found.Signing.Secrets[0].Secret.Reveal() != s.Signing.Secrets[0].Secret.Reveal() {
		t.Errorf("the other replica has %v", found)
	}
}

// A bell that is lost costs until the next resync and nothing else.
func TestLostBellIsMadeUpForByTheResync(t *testing.T) {
	h := open(t)
	s := h.create(t) // rings when nobody listens
	if err := h.book.resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h.book.Find(s.ID) == nil {
		t.Fatal("the resync did not find a new subscription")
	}
	if err := h.registry.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.book.resync(t.Context()); err != nil || h.book.Find(s.ID).State != Deleting {
		t.Errorf("the resync did not find a new revision: %v", err)
	}
}

// A replica that heard nothing of a whole deletion learns of it from the mark that Remove leaves.
func TestDeletionNobodyHeardOf(t *testing.T) {
	h := open(t)
	s := h.create(t)
	if err := h.book.resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.registry.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.registry.Remove(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.book.resync(t.Context()); err != nil || h.book.Find(s.ID) != nil {
		t.Errorf("still there, %v", err)
	}
}

// What vanishes without having been deleted is kept and counted.
func TestMassDeleteDoesNotWipe(t *testing.T) {
	h := open(t)
	var last string
	for range 8 {
		last = h.create(t).ID
	}
	if err := h.book.resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.store.rdb.HDel(t.Context(), keyDoc, last)
	h.store.rdb.HDel(t.Context(), keyRev, last)
	if err := h.book.resync(t.Context()); err != nil || len(h.book.All()) != 8 || testutil.ToFloat64(h.book.refused.WithLabelValues("vanished")) != 1 {
		t.Errorf("one vanished: %d left, %v", len(h.book.All()), err)
	}
	if s, err := h.registry.Get(t.Context(), last); err != nil || s.ID != last {
		t.Errorf("the API does not know what is being delivered: %v", err)
	}
	h.store.rdb.FlushAll(t.Context())
	if err := h.book.resync(t.Context()); err != nil || len(h.book.All()) != 8 {
		t.Errorf("flushed: %d left, %v", len(h.book.All()), err)
	}
	if page, _, err := h.registry.List(t.Context(), ListOptions{}); err != nil || len(page) != 8 {
		t.Errorf("the list has %d of 8 that are being delivered, %v", len(page), err)
	}
	if err := h.registry.Delete(t.Context(), last); err != nil {
		t.Errorf("delete what only memory has: %v", err)
	}
	if err := h.book.resync(t.Context()); err != nil || h.book.Find(last).State != Deleting {
		t.Errorf("it is not being deleted: %v", err)
	}
}

func TestRolledBackAndUnreadableEntriesAreNotFollowed(t *testing.T) {
	h := open(t)
	s, good := h.create(t), h.create(t)
	old, _ := h.store.rdb.HGet(t.Context(), keyDoc, s.ID).Result()
	if err := h.registry.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.book.resync(t.Context()); err != nil {
		t.Fatal(err)
	}
	set := func(id string, revision int, doc string) {
		t.Helper()
		h.store.rdb.HSet(t.Context(), keyDoc, id, doc)
		h.store.rdb.HSet(t.Context(), keyRev, id, revision)
		if err := h.book.resync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	set(s.ID, 1, old)
	if got := h.book.Find(s.ID); got.Revision != 2 || testutil.ToFloat64(h.book.refused.WithLabelValues("rolled_back")) != 1 {
		t.Errorf("went back to revision %d", got.Revision)
	}
	for i, doc := range []string{`{"schema":1,"id"`, `[]`, `{"schema":2,"id":"sub_new","revision":1}`, `{"schema":1,"id":"sub_other","revision":1}`, `{"schema":1}`,
		strings.Replace(old, "whsec_", "sealed:", 1), strings.Replace(old, `"url":"`, `"url":7,"x":"`, 1)} {
		before := testutil.ToFloat64(h.book.refused.WithLabelValues("unreadable"))
		set("sub_new", i+1, doc)
		if h.book.Find("sub_new") != nil || testutil.ToFloat64(h.book.refused.WithLabelValues("unreadable")) != before+1 {
			t.Errorf("%s was followed", doc)
		}
	}
	if h.book.Find(good.ID) == nil {
		t.Error("an unreadable entry took another one down")
	}
}

// The journal of what is wrong must not fill the log: the same trouble is said once.
func TestTroubleIsLoggedWhenItChanges(t *testing.T) {
	var out strings.Builder
	b := &Book{log: textLogger(&out), troubles: map[string]string{}}
	for range 3 {
		b.trouble("sub_1", "torn")
	}
	b.trouble("sub_1", "")
	b.trouble("sub_1", "")
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

func TestHealthOfALane(t *testing.T) {
	h := open(t)
	health, err := NewHealth(h.store, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := Time{time.UnixMilli(1795409232118).UTC()}
	health.Report(t.Context(), "sub_1", "a", LaneHealth{At: at, LastError: &LastError{At: at, Reason: "tls", Error: "older"}})
	health.Report(t.Context(), "sub_1", "a", LaneHealth{At: at, LastError: &LastError{At: at, Topic: "orders", Offset: 7, Class: "E", Reason: "tls", Error: "handshake failed"}})
	health.Report(t.Context(), "sub_1", "b", LaneHealth{At: at})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := health.Run(ctx); err != nil { // ends at once and writes what is left
		t.Fatal(err)
	}
	all, err := health.Of(t.Context(), "sub_1")
	if err != nil || len(all) != 2 || LatestError(all) == nil || LatestError(all).Error != "handshake failed" {
		t.Errorf("%v %v", all, err)
	}
	if ttl := h.store.rdb.TTL(t.Context(), keyHealth("sub_1")).Val(); ttl <= 59*time.Minute || ttl > time.Hour {
		t.Errorf("kept for %v", ttl)
	}
	h.server.Stop(t)
	health.Report(t.Context(), "sub_1", "a", LaneHealth{At: at})
	if err := health.Run(ctx); err != nil || testutil.ToFloat64(health.dropped) != 1 {
		t.Errorf("dropped %v, %v", testutil.ToFloat64(health.dropped), err)
	}
}

func TestHealthReportsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health, err := NewHealth(&Store{}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range healthMax + 5 {
			health.Report(t.Context(), fmt.Sprint(i), "a", LaneHealth{})
		}
		if len(health.waiting) != healthMax || testutil.ToFloat64(health.dropped) != 5 {
			t.Errorf("%d wait, %v dropped", len(health.waiting), testutil.ToFloat64(health.dropped))
		}
	})
}

func TestRedisURLs(t *testing.T) {
	for url, good := range map[string]bool{
		"redis://127.0.0.1:6379/0": true, "rediss://user:pass@host:6380": true, "redis://h:1?addr=h2:2": true,
		"redis://s1:26379/0?master_name=m&addr=s2:26379": true,
		"": false, "127.0.0.1:6379": false, "http://x": false, "redis://h/x": false, "redis://:secretpass@h:70000000/0/1": false, "redis://h?nope=1": false,
	} {
		err := Config{RedisURL: url}.Validate()
		if (err == nil) != good {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "secretpass") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
