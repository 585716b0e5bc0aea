package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestTopicsOfDev(t *testing.T) {
	for text, want := range map[string]map[string]int32{
		"":                {"orders": 3, "NativeCmsPublicationEvents": 1},
		"extra:2":         {"orders": 3, "NativeCmsPublicationEvents": 1, "extra": 2},
		"orders:6":        {"orders": 6, "NativeCmsPublicationEvents": 1},
		"a:1 b:1000 a:2":  {"orders": 3, "NativeCmsPublicationEvents": 1, "a": 2, "b": 1000},
		"extra":           nil,
		"extra:":          nil,
		"extra:0":         nil,
		"extra:-1":        nil,
		"extra:1001":      nil,
		"extra:two":       nil,
		":2":              nil,
		"extra:2:3":       nil,
		"good:1 bad:none": nil,
	} {
		d := dev{Topic: strings.Fields(text)}
		got, err := d.topics()
		if want == nil {
			if err == nil || !strings.Contains(err.Error(), "name:partitions") {
				t.Errorf("%q was taken: %v, %v", text, got, err)
			}
			continue
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q makes %v, %v; want %v", text, got, err, want)
		}
	}
	if len(seeds) != 2 || seeds["orders"] != 3 {
		t.Errorf("asking for topics changed the seeds: %v", seeds)
	}
}

func TestATakenPortIsSaidWithAFlagAndAnExample(t *testing.T) {
	inUse := fmt.Errorf("listen: %w", os.NewSyscallError("bind", syscall.EADDRINUSE))
	for _, c := range []struct{ address, flag, says string }{
		{"127.0.0.1:8082", "--listen", "e.g. --listen 127.0.0.1:9082"},
		{"127.0.0.1:9092", "--kafka-port", "e.g. --kafka-port 10092"},
		{"127.0.0.1:http", "--receiver", "choose another with --receiver"},
	} {
		if err := taken(inUse, c.address, c.flag); !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.address) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	if err := taken(os.ErrPermission, "127.0.0.1:80", "--listen"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("another error became %v", err)
	}
}

// The last words of dev say what a Ctrl-C leaves.
func TestDevSaysWhatIsKept(t *testing.T) {
	if text := pasteable(places{"http://h:1", "http://h:2/", "h:3", "http://h:4", ""}); !strings.Contains(text, "nothing is kept") || strings.Contains(text, "{") != strings.Contains(text, `{"`) {
		t.Error(text)
	}
	if text := pasteable(places{"http://h:1", "http://h:2/", "h:3", "http://h:4", "/var/data"}); !strings.Contains(text, "stay in\n/var/data\n") || strings.Contains(text, "nothing is kept") || strings.Contains(text, "{kept}") {
		t.Error(text)
	}
}

// A store that does not open closes those before it: the folder and the port are free for the next try.
func TestAFailedOpenLetsGoOfAll(t *testing.T) {
	dir := t.TempDir() + "/data"
	d := dev{Data: dir, KafkaPort: 0}
	s, err := d.openStores(map[string]int32{"orders": 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.Topic = []string{"orders:5"}
	if _, err := d.openStores(map[string]int32{"orders": 5}); err == nil || !strings.Contains(err.Error(), "--topic orders:5") || !strings.Contains(err.Error(), "3 partitions") {
		t.Errorf("orders has 3 partitions and 5 were promised: %v", err)
	}
	if err := os.WriteFile(dir+"/redis.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Topic = nil
	if _, err := d.openStores(seeds); err == nil || !strings.Contains(err.Error(), "redis.json is damaged") {
		t.Errorf("a damaged snapshot: %v", err)
	}
	if err := os.Remove(dir + "/redis.json"); err != nil {
		t.Fatal(err)
	}
	s, err = d.openStores(seeds)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
