package kafka

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/sluicegate/sluice"
)

// The budgets of those who keep records count what copy says that they take. It must be what they take, whatever their
// shape: a small key before a value as large as a block once had a block to itself, and memory was twice what was counted.
func TestRecordsTakeWhatTheySay(t *testing.T) {
	for _, shape := range []struct{ key, value, records, calls int }{
		{8, 100, 512, 100}, {8, 1_000, 256, 100}, {8, 10_000, 26, 50}, {8, 20_000, 13, 50}, {8, 40_000, 7, 50},
		{8, 64 << 10, 4, 50}, {8, 64 << 10, 1, 200}, {8, 100_000, 3, 50}, {8, 1 << 20, 1, 20}, {40_000, 40_000, 3, 50},
	} {
		t.Run(fmt.Sprintf("%d records of %d and %d B", shape.records, shape.key, shape.value), func(t *testing.T) {
			raw := rawRecords{}
			for i := range shape.records {
				raw.list = append(raw.list, rawRecord{
					offset: int64(i), key: bytes.Repeat([]byte{byte(i)}, shape.key), value: bytes.Repeat([]byte{byte(i)}, shape.value),
				})
			}
			var kept [][]*sluice.Record
			before, said := liveHeap(), 0
			for range shape.calls {
				records, n := raw.copy(sluice.Partition{Topic: "t"})
				kept = append(kept, records)
				said += n
			}
			held := int(liveHeap() - before)
			for _, records := range kept {
				for i, r := range records {
					if !bytes.Equal(r.Key, raw.list[i].key) || !bytes.Equal(r.Value, raw.list[i].value) {
						t.Fatalf("record %d is not what it was", i)
					}
				}
			}
			t.Logf("%d B said, %d B held", said, held)
			if held > said+said/4 { // the allocator rounds up by an eighth
				t.Errorf("%d B said, %d B held", said, held)
			}
		})
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
