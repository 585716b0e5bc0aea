package kafka

import (
	"encoding/binary"
	"math/rand/v2"
)

// stickyBytes is how much goes to one partition before records without a key move to the next (Java's batch.size).
const stickyBytes = 16 << 10

// keyPartition is where Java's default partitioner puts a key: toPositive(murmur2(key)) % partitions. A key of length
// zero is a key; only null has none.
func keyPartition(hash uint32, partitions int) int32 {
	return int32(hash&0x7fffffff) % int32(partitions)
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2: MurmurHash2, 32 bits, seed 0x9747b28c, little endian, and
// unlike most ports it takes bytes as unsigned.
func murmur2(key []byte) uint32 {
	const m, seed = 0x5bd1e995, 0x9747b28c
	h := seed ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * m
		k = (k ^ k>>24) * m
		h = h*m ^ k
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

// sticky keeps the records of a topic that have no key on one partition until stickyBytes have gone there, so that they
// fill batches (KIP-480).
type sticky struct {
	partition int32
	left      int
}

// next is the partition for a record of so many bytes. usable reports whether a partition can take records now; when
// none can, any will do.
func (s *sticky) next(bytes, partitions int, usable func(int32) bool) int32 {
	if s.left <= 0 || int(s.partition) >= partitions || !usable(s.partition) {
		s.partition, s.left = pick(s.partition, partitions, usable), stickyBytes
	}
	s.left -= bytes
	return s.partition
}

// pick walks from a random place to the first usable partition, and takes the last one only if it is alone.
func pick(last int32, partitions int, usable func(int32) bool) int32 {
	first, fallback := rand.N(int32(partitions)), last
	if int(fallback) >= partitions {
		fallback = first
	}
	for i := range int32(partitions) {
		p := (first + i) % int32(partitions)
		if !usable(p) {
			continue
		}
		if p != last {
			return p
		}
		fallback = p
	}
	if !usable(fallback) {
		return first
	}
	return fallback
}
