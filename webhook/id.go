package webhook

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"

	"github.com/sluicegate/sluice"
)

var base32hex = base32.HexEncoding.WithPadding(base32.NoPadding)

// EventID is the webhook-id of a record: "evt_" and lower-case base32hex of topic id, partition (uvarint) and offset
// (8 bytes, big-endian). 44 characters for partitions below 128; it never contains a dot, which separates the parts of
// what is signed (Standard Webhooks). id must not be zero: see TopicKey.
func EventID(id sluice.TopicID, partition int32, offset int64) string {
	b := make([]byte, 0, len(id)+binary.MaxVarintLen32+8)
	b = append(b, id[:]...)
	b = binary.AppendUvarint(b, uint64(partition))
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	return "evt_" + strings.ToLower(base32hex.EncodeToString(b))
}

// TopicKey is id, or for brokers that give topics none, one made of the names: a topic that was deleted and created
// again then keeps its ids.
func TopicKey(id sluice.TopicID, clusterID, topic string) sluice.TopicID {
	if id != (sluice.TopicID{}) {
		return id
	}
	sum := sha256.Sum256([]byte("sluice-topic\x00" + clusterID + "\x00" + topic))
	return sluice.TopicID(sum[:len(id)])
}
