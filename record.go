package sluice

import (
	"strconv"
	"time"
)

// Isolation says which records of a partition a reader sees (KIP-98).
type Isolation int8

const (
	// ReadCommitted hides aborted transactions and ends at the last stable offset. Everything that is pushed reads so.
	ReadCommitted Isolation = iota
	// ReadUncommitted shows every record up to the high watermark: the default of classic pull consumers.
	ReadUncommitted
)

// String is Kafka's own name of the level.
func (i Isolation) String() string {
	if i == ReadUncommitted {
		return "read_uncommitted"
	}
	return "read_committed"
}

// Partition names one partition of a topic as one kind of reader sees it. It is comparable and serves as a key.
type Partition struct {
	Topic     string
	Number    int32
	Isolation Isolation
}

// String is topic/number, as in cursors and logs.
func (p Partition) String() string {
	return p.Topic + "/" + strconv.Itoa(int(p.Number))
}

// Range is what a partition holds: Start is the offset of the first record that can still be read, End the offset
// that the next record will get (for ReadCommitted the last stable offset). Start == End is an empty partition.
type Range struct {
	Start, End int64
}

// Record is one record as Kafka holds it. Records are shared by all who read a partition: nobody changes one.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time // zero if the record has none
	Appended  bool      // the broker set the timestamp (LogAppendTime), not the producer
	Key       []byte    // nil is Kafka's null; an empty key is not null
	Value     []byte    // nil is Kafka's null: a tombstone
	Headers   []Header  // in the order of the record; names may repeat
}

// Header is one header of a record. A nil Value is null.
type Header struct {
	Name  string
	Value []byte
}

// Size is the number of bytes that the key, the value and the headers hold.
func (r *Record) Size() int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Name) + len(h.Value)
	}
	return n
}

// Chunk is one run of a partition, as Kafka gave it: Records is all that a reader may see of [From, Next). Next may lie
// beyond the last record, where compaction, transaction markers or aborted data left gaps. End is the end of the
// partition (for its isolation) as known with the answer, Bytes what the chunk keeps alive in memory.
type Chunk struct {
	From, Next int64
	End        int64
	Records    []*Record
	Bytes      int
}

// AnyPartition asks the producer to choose: by the key's murmur2 hash as the Java client does, sticky without a key.
const AnyPartition int32 = -1

// NewRecord is a record to be written.
type NewRecord struct {
	Partition int32 // or AnyPartition
	Key       []byte
	Value     []byte
	Headers   []Header
	Timestamp time.Time // zero: the time of receipt
}

// Receipt is what became of one record of a produce. With Err nil the record is in the log with acks=all, at Partition
// and Offset. Otherwise Err says whether it surely is not, or (Kind OutcomeUnknown) may be.
type Receipt struct {
	Partition int32
	Offset    int64
	Err       error
}
