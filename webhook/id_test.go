package webhook

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/sluicegate/sluice"
)

func TestEventID(t *testing.T) {
	for _, c := range []struct {
		partition int32
		offset    int64
		length    int
	}{{0, 0, 44}, {3, 104857, 44}, {127, 1<<63 - 1, 44}, {128, 7, 46}, {1<<31 - 1, 1, 51}} {
		id := EventID(topicID, c.partition, c.offset)
		if len(id) != c.length || !strings.HasPrefix(id, "evt_") || strings.ContainsAny(id, ".=") || id != strings.ToLower(id) {
			t.Errorf("partition %d offset %d: %q has %d characters, want %d", c.partition, c.offset, id, len(id), c.length)
		}
		raw, err := base32.HexEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(id[4:]))
		if err != nil || !bytes.Equal(raw[:16], topicID[:]) {
			t.Fatalf("%q does not lead back: %v", id, err)
		}
		partition, n := binary.Uvarint(raw[16:])
		if partition != uint64(c.partition) || binary.BigEndian.Uint64(raw[16+n:]) != uint64(c.offset) {
			t.Errorf("%q leads to partition %d", id, partition)
		}
	}
	// By Python's base64.b32hexencode.
	if id := EventID(topicID, 3, 104857); id != "evt_008i4cq4alj7f24platspnfevs1g0000000036cp" {
		t.Errorf("%s", id)
	}
}

// Brokers without topic ids get one made of the names: stable, and different from topic to topic.
func TestTopicKeyWithoutUUIDs(t *testing.T) {
	if TopicKey(topicID, "c", "t") != topicID {
		t.Error("a real id was not kept")
	}
	a, b, c := TopicKey(sluice.TopicID{}, "c", "t"), TopicKey(sluice.TopicID{}, "c", "u"), TopicKey(sluice.TopicID{}, "d", "t")
	if a == b || a == c || a == (sluice.TopicID{}) || a != TopicKey(sluice.TopicID{}, "c", "t") {
		t.Error(a, b, c)
	}
}
