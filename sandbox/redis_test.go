package sandbox_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluicegate/sluice/sandbox"
)

func openRedis(t *testing.T, file string) (*sandbox.Redis, *redis.Client) {
	t.Helper()
	r, err := sandbox.OpenRedis(file, "health:")
	if err != nil {
		t.Fatal(err)
	}
	o, err := redis.ParseURL(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	o.DisableIdentity = true
	c := redis.NewClient(o)
	t.Cleanup(func() {
		_ = c.Close() // the test may have closed it
		r.Close()
	})
	return r, c
}

var swap = redis.NewScript(`
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], '7', 'EX', 3600)
return 'ok'`)

// Every type of key, with its expiry, is in the file when the answer comes: nothing is closed in order here.
func TestWhatRedisAcknowledgedIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "redis.json")
	_, c := openRedis(t, file)
	ctx := t.Context()
	if got, err := swap.Run(ctx, c, []string{"doc", "gone"}, "sub_1", `{"secret":"whsec_ü<&>"}`).Text(); err != nil || got != "ok" {
		t.Fatalf("script: %q, %v", got, err)
	}
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "text", "a\nb", 0)
		p.RPush(ctx, "list", "1", "2", "1")
		p.SAdd(ctx, "set", "x", "y")
		p.ZAdd(ctx, "sorted", redis.Z{Score: 1.5, Member: "m"})
		p.HSet(ctx, "health:sub_1", "replica", "{}")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, "doc", "sub_2", "{}")
		p.HDel(ctx, "doc", "sub_3")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(killed(t, filepath.Dir(file)), "redis.json")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secrets in a file of mode %v, %v", info.Mode(), err)
	}

	_, c = openRedis(t, copied)
	for what, got := range map[string]string{
		`{"secret":"whsec_ü<&>"}`: c.HGet(ctx, "doc", "sub_1").Val(),
		"{}":                      c.HGet(ctx, "doc", "sub_2").Val(),
		"a\nb":                    c.Get(ctx, "text").Val(),
		"121":                     strings.Join(c.LRange(ctx, "list", 0, -1).Val(), ""),
		"xy":                      strings.Join(c.Sort(ctx, "set", &redis.Sort{Alpha: true}).Val(), "") + strings.Join(c.SMembers(ctx, "set").Val(), ""),
		"7":                       c.Get(ctx, "gone").Val(),
	} {
		if got != what {
			t.Errorf("got %q, want %q", got, what)
		}
	}
	if score := c.ZScore(ctx, "sorted", "m").Val(); score != 1.5 {
		t.Errorf("score %v", score)
	}
	if ttl := c.TTL(ctx, "gone").Val(); ttl > time.Hour || ttl < 50*time.Minute {
		t.Errorf("gone lives %v more", ttl)
	}
	if n := c.Exists(ctx, "health:sub_1").Val(); n != 0 {
		t.Error("a passing key was kept")
	}
}

// The time of a key runs on while nobody runs.
func TestAKeyExpiresWhileNobodyRuns(t *testing.T) {
	file := filepath.Join(t.TempDir(), "redis.json")
	past, coming := time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	text := `{"format":1,"strings":{"old":"1","young":"2"},"expires":{"old":"` + past.Format(time.RFC3339) + `","young":"` + coming.Format(time.RFC3339) + `"}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, c := openRedis(t, file)
	if n := c.Exists(t.Context(), "old", "young").Val(); n != 1 {
		t.Errorf("%d of the two keys are there", n)
	}
}

// A write that cannot be kept is not acknowledged, and the next that can be brings the file up to date.
func TestAWriteThatCannotBeKeptFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "redis.json")
	_, c := openRedis(t, file)
	ctx := t.Context()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := swap.Run(ctx, c, []string{"doc", "gone"}, "sub_1", "{}").Err(); err == nil || !strings.Contains(err.Error(), "MISCONF") {
		t.Errorf("a definition that is nowhere was acknowledged: %v", err)
	}
	if err := c.Ping(ctx).Err(); err != nil {
		t.Errorf("reads and pings go on: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(ctx, "next", "1", 0).Err(); err != nil {
		t.Error(err)
	}
	for name, fail := range map[string]error{
		"stream": c.XAdd(ctx, &redis.XAddArgs{Stream: "s", Values: []string{"a", "b"}}).Err(),
	} {
		if fail == nil {
			t.Errorf("a %s, which is not kept, was acknowledged", name)
		}
	}
	c.Del(ctx, "s")
	if err := c.Set(ctx, "bytes", "\xff\xfe", 0).Err(); err == nil || !strings.Contains(err.Error(), "not text") {
		t.Errorf("bytes that the file would change were acknowledged: %v", err)
	}
}

func TestADamagedSnapshotIsRefused(t *testing.T) {
	for text, says := range map[string]string{
		`{"format":1,"hashes":{"sluice:{subs}:doc":{"sub_`: "damaged",
		"":                                "damaged",
		`{"format":2,"shards":[]}`:        "newer sluice (format 2",
		`{"format":1,"surprise":{}}`:      "damaged",
		`{"format":1,"strings":{"a":[]}}`: "damaged",
		`{"format":1,"strings":{"a":"1"},"hashes":{"a":{"b":"c"}},"lists":{"a":["1"]}}`: "damaged",
	} {
		file := filepath.Join(t.TempDir(), "redis.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := sandbox.OpenRedis(file)
		if err == nil {
			r.Close()
			t.Errorf("it started from %q", text)
		} else if !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), file) {
			t.Errorf("%q: %v, want %q and the file", text, err, says)
		}
	}
}

// Many connections write at once, in scripts and outside, while others listen: no answer before the file has it.
func TestConcurrentWritesAreAllKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "redis.json")
	_, c := openRedis(t, file)
	ctx := t.Context()
	hearing := c.Subscribe(ctx, "bell")
	defer hearing.Close()
	if _, err := hearing.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	faults := make(chan error, 200)
	for i := range 40 {
		all.Go(func() {
			id := string(rune('A'+i%26)) + string(rune('a'+i/26))
			if err := swap.Run(ctx, c, []string{"doc", "gone:" + id}, id, "{}").Err(); err != nil {
				faults <- err
			}
			raw, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(raw), `"`+id+`"`) {
				faults <- errors.Join(errors.New(id+" is not in the file though it was acknowledged"), err)
			}
			if err := c.Publish(ctx, "bell", id).Err(); err != nil {
				faults <- err
			}
			if n, err := c.HLen(ctx, "doc").Result(); err != nil || n < 1 {
				faults <- errors.Join(errors.New("doc is empty"), err)
			}
		})
	}
	all.Wait()
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	if _, err := hearing.ReceiveMessage(ctx); err != nil {
		t.Errorf("the bell: %v", err)
	}
	_, again := openRedis(t, filepath.Join(killed(t, filepath.Dir(file)), "redis.json"))
	if n := again.HLen(ctx, "doc").Val(); n != 40 {
		t.Errorf("%d of 40 definitions are there", n)
	}
}
