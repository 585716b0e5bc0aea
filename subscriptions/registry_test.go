package subscriptions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluicegate/sluice"
)

// The position stands in Kafka before the document stands in Redis, in one commit without membership or metadata.
func TestCreatePinsThePositionFirst(t *testing.T) {
	h := open(t)
	s := h.create(t)
	if !regexp.MustCompile(`^sub_[0-9a-hjkmnp-tv-z]{26}$`).MatchString(s.ID) || s.Revision != 1 || s.Owner != "ann" || s.ETag() != `"1"` {
		t.Errorf("id %q revision %d owner %q", s.ID, s.Revision, s.Owner)
	}
	if want := map[int32]int64{0: 10, 1: 7, 2: 0}; !maps.Equal(s.Source.Resolved["orders"].Offsets, want) {
		t.Errorf("latest means %v, want %v", s.Source.Resolved["orders"].Offsets, want)
	}
	if len(h.kafka.committed) != 1 {
		t.Fatalf("%d commits", len(h.kafka.committed))
	}
	c := h.kafka.committed[0]
	if c.Group != "sluice.sub."+s.ID || c.Member != "" || c.Generation != -1 || len(c.Commits) != 3 || c.Commits[0].Metadata != "" {
		t.Errorf("%+v", c)
	}
	read, err := h.registry.Get(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	one, _ := json.Marshal(s)
	two, _ := json.Marshal(read)
	if string(one) != string(two) {
		t.Errorf("created %s\nread    %s", one, two)
	}
}

func TestAFailedCommitWritesNothing(t *testing.T) {
	h := open(t)
	h.kafka.refuse = &sluice.Error{Kind: sluice.Retriable, Msg: "coordinator loading"}
	if _, err := h.registry.Create(t.Context(), "", []byte(minimal)); sluice.KindOf(err) != sluice.Retriable {
		t.Errorf("%v", err)
	}
	if page, _, err := h.registry.List(t.Context(), ListOptions{}); err != nil || len(page) != 0 {
		t.Errorf("%v %v", page, err)
	}
}

func TestStartFrom(t *testing.T) {
	h := open(t)
	for source, want := range map[string]map[int32]int64{
		`"start_from":"earliest"`: {0: 5, 1: 0, 2: 0},
		`"start_from":"timestamp","start_timestamp":"1970-01-01T00:00:02Z"`:     {0: 7, 1: 2, 2: 0},
		`"start_from":"timestamp","start_timestamp":"2999-01-01T00:00:00Z"`:     {0: 10, 1: 7, 2: 0}, // the future is the end
		`"start_from":"offsets","start_offsets":{"orders":{"0":5,"1":7,"2":0}}`: {0: 5, 1: 7, 2: 0},
	} {
		s, err := h.registry.Create(t.Context(), "", []byte(`{"source":{"topics":["orders"],`+source+`},"endpoint":{"url":"https://example.com"}}`))
		if err != nil {
			t.Errorf("%s: %v", source, err)
		} else if !maps.Equal(s.Source.Resolved["orders"].Offsets, want) {
			t.Errorf("%s means %v, want %v", source, s.Source.Resolved["orders"].Offsets, want)
		}
	}
	_, err := h.registry.Create(t.Context(), "", []byte(`{"source":{"topics":["orders"],"start_from":"offsets","start_offsets":{"orders":{"0":4,"1":8,"7":0}}},"endpoint":{"url":"https://example.com"}}`))
	bad, ok := errors.AsType[*Invalid](err)
	if !ok || bad.Refused {
		t.Fatalf("%v", err)
	}
	var paths []string
	for _, f := range bad.Fields {
		paths = append(paths, f.Path)
	}
	slices.Sort(paths)
	if want := []string{"source.start_offsets.orders.0", "source.start_offsets.orders.1", "source.start_offsets.orders.2", "source.start_offsets.orders.7"}; !slices.Equal(paths, want) {
		t.Errorf("faults at %v, want %v", paths, want)
	}
}

func TestUnknownTopicsAndRefusedEndpoints(t *testing.T) {
	h := open(t)
	if _, err := h.registry.Create(t.Context(), "", []byte(`{"source":{"topics":["nope"]},"endpoint":{"url":"https://example.com"}}`)); sluice.KindOf(err) != sluice.UnknownTopic {
		t.Errorf("unknown topic: %v", err)
	}
	for body, refused := range map[string]bool{
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://10.0.0.1/"}}`:       true,
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://10.0.0.1/"},"x":1}`: false,
		`{"source":{"topics":["orders"]},"endpoint":{"url":"https://u@10.0.0.1/"}}`:     false,
	} {
		_, err := h.registry.Create(t.Context(), "", []byte(body))
		bad, ok := errors.AsType[*Invalid](err)
		if !ok || bad.Refused != refused || bad.Fields[len(bad.Fields)-1].Path != "endpoint.url" {
			t.Errorf("%s: %v", body, err)
		}
	}
	if len(h.kafka.committed) != 0 {
		t.Error("a refused subscription was committed")
	}
}

func TestListPagesInTheOrderOfCreation(t *testing.T) {
	h := open(t)
	var ids []string
	for range 25 {
		ids = append(ids, h.create(t).ID)
	}
	slices.Sort(ids)
	if _, err := h.registry.Create(t.Context(), "bob", []byte(`{"source":{"topics":["users"]},"endpoint":{"url":"https://example.com"}}`)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for after := ""; ; {
		page, next, err := h.registry.List(t.Context(), ListOptions{Topic: "orders", Limit: 10, After: after})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page {
			got = append(got, s.ID)
		}
		if after = next; next == "" {
			break
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("pages gave %v\nwant %v", got, ids)
	}
	if page, next, err := h.registry.List(t.Context(), ListOptions{Owner: "bob"}); err != nil || len(page) != 1 || next != "" {
		t.Errorf("bob's: %v %q %v", page, next, err)
	}
}

// Creations do not disturb each other, and all replicas see them all.
func TestConcurrentCreate(t *testing.T) {
	h := open(t)
	other := follow(t, newBook(t, storeAt(t, h.server.URL)))
	follow(t, h.book)
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := h.registry.Create(context.Background(), "", []byte(minimal)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, "40 subscriptions on both replicas", func() bool { return len(h.book.All()) == 40 && len(other.All()) == 40 })
}

// Of many who change the same revision one wins; the answer to a try that was lost is not a conflict.
func TestCompareAndSwap(t *testing.T) {
	h := open(t)
	s := h.create(t)
	var won, lost int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			err := h.registry.swap(context.Background(), s.ID, "1", 2, fmt.Appendf(nil, `{"n":%d}`, i))
			mu.Lock()
			defer mu.Unlock()
			switch sluice.KindOf(err) {
			case "":
				won++
			case sluice.Conflict:
				lost++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 9 {
		t.Errorf("%d won, %d lost", won, lost)
	}
	for range 2 {
		if err := h.registry.swap(t.Context(), "sub_again", "", 1, []byte(`{}`)); err != nil {
			t.Errorf("the same write again: %v", err)
		}
	}
}

func TestDeleteMarksThenRemoves(t *testing.T) {
	h := open(t)
	follow(t, h.book)
	s := h.create(t)
	if err := h.registry.Remove(t.Context(), s.ID); sluice.KindOf(err) != sluice.Conflict {
		t.Errorf("an active subscription was removed: %v", err)
	}
	for range 2 {
		if err := h.registry.Delete(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the book sees it deleting", func() bool { f := h.book.Find(s.ID); return f != nil && f.State == Deleting && f.Revision == 2 })
	for range 2 {
		if err := h.registry.Remove(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the book forgets it", func() bool { return h.book.Find(s.ID) == nil })
	if _, err := h.registry.Get(t.Context(), s.ID); sluice.KindOf(err) != sluice.NotFound {
		t.Errorf("%v", err)
	}
	if err := h.registry.Delete(t.Context(), s.ID); sluice.KindOf(err) != sluice.NotFound {
		t.Errorf("%v", err)
	}
	if err := h.registry.swap(t.Context(), s.ID, "", 1, []byte("{}")); sluice.KindOf(err) != sluice.Conflict {
		t.Errorf("a deleted id was used again: %v", err)
	}
}

// Fields that a newer version wrote survive a change by this one.
func TestUnknownFieldsOfTheStoreAreKept(t *testing.T) {
	h := open(t)
	s := h.create(t)
	raw, _ := h.store.rdb.HGet(t.Context(), keyDoc, s.ID).Result()
	raw = strings.Replace(raw, `"endpoint":{`, `"breaker":{"consecutive":10},"endpoint":{"method":"PUT",`, 1)
	h.store.rdb.HSet(t.Context(), keyDoc, s.ID, raw)
	if err := h.registry.Delete(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	var before, after map[string]any
	_ = json.Unmarshal([]byte(raw), &before)
	raw, _ = h.store.rdb.HGet(t.Context(), keyDoc, s.ID).Result()
	_ = json.Unmarshal([]byte(raw), &after)
	before["state"], before["revision"], before["updated_at"] = "deleting", 2.0, after["updated_at"]
	if !reflect.DeepEqual(before, after) {
		t.Errorf("before %v\nafter  %v", before, after)
	}
}

func TestRedisDown(t *testing.T) {
	h := open(t)
	follow(t, h.book)
	s := h.create(t)
	eventually(t, "the book has it", func() bool { return h.book.Find(s.ID) != nil })
	h.server.Stop(t)
	began := time.Now()
	if _, err := h.registry.Create(t.Context(), "", []byte(minimal)); sluice.KindOf(err) != sluice.StoreDown {
		t.Errorf("create: %v", err)
	}
	if err := h.registry.Delete(t.Context(), s.ID); sluice.KindOf(err) != sluice.StoreDown {
		t.Errorf("delete: %v", err)
	}
	if err := h.store.Ping(t.Context()); sluice.KindOf(err) != sluice.StoreDown {
		t.Errorf("ping: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("three calls took %v: each must be bounded by a second", took)
	}
	if read, err := h.registry.Get(t.Context(), s.ID); err != nil || read.ID != s.ID {
		t.Errorf("get from memory: %v", err)
	}
	if page, _, err := h.registry.List(t.Context(), ListOptions{}); err != nil || len(page) != 1 {
		t.Errorf("list from memory: %v %v", page, err)
	}
	if all := h.book.All(); len(all) != 1 {
		t.Errorf("the book lost its memory: %v", all)
	}
	h.server.Start(t)
	eventually(t, "Redis takes a new one", func() bool {
		_, err := h.registry.Create(context.Background(), "", []byte(minimal))
		return err == nil
	})
	eventually(t, "the book hears of it", func() bool { return len(h.book.All()) == 2 })
	if h.book.Find(s.ID) == nil {
		t.Error("the restart of an empty Redis deleted a subscription")
	}
}

// A Redis that accepts and never answers costs a caller a second, not a hanging request.
func TestRedisThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := open(t)
	hung, err := NewRegistry(Needs{Store: storeAt(t, "redis://"+l.Addr().String()+"/0"), Topics: h.kafka, Offsets: h.kafka, Commits: h.kafka, Guard: gate("")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"create": func() error { _, err := hung.Create(t.Context(), "", []byte(minimal)); return err },
		"get":    func() error { _, err := hung.Get(t.Context(), "sub_1"); return err },
		"list":   func() error { _, _, err := hung.List(t.Context(), ListOptions{}); return err },
		"delete": func() error { return hung.Delete(t.Context(), "sub_1") },
		"remove": func() error { return hung.Remove(t.Context(), "sub_1") },
		"ping":   func() error { return hung.Store.Ping(t.Context()) },
	} {
		began := time.Now()
		if err := call(); sluice.KindOf(err) != sluice.StoreDown {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}
