package kafka

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// murmurVectors come from org.apache.kafka.common.utils.Utils of kafka-clients 4.1.1: the key in hex, murmur2 of it, and
// toPositive of that modulo 7.
var murmurVectors = []struct {
	key       string
	hash      int32
	partition int32
}{
	{"", 275646681, 2},
	{"61", -1563381124, 5},
	{"3231", -973932308, 3},
	{"616263", 479470107, 4},
	{"61626364", -1323649548, 5},
	{"666f6f626172", -790332482, 0},
	{"6f726465722d3137", 1568318961, 6},
	{"612d6c6974746c652d6269742d6c6f6e672d737472696e67", -985981536, 1},
	{"612d6c6974746c652d6269742d6c6f6e6765722d737472696e67", -1486304829, 0},
	{"6c6b6a683233346c68396669756839307932336f697568736166756a6861646f66323239706872396831396838396838", -58897971, 3},
	{"c3bc", 1419834458, 0},
	{"e697a5e69cace8aa9e", 1431860170, 6},
	{"6e61c3af76652dc3bf", -844246193, 2},
	{"f09f9982", 925250799, 4},
	{"00", 375494588, 0},
	{"80", 857690492, 1},
	{"fffe", 1717632651, 0},
	{"81c0fd", -2068068050, 3},
	{"ffffffff", 644171429, 6},
	{"deadbeef99", -141200837, 1},
}

// A key goes where Kafka's Java client puts it.
func TestKeysHashAsInJava(t *testing.T) {
	for _, v := range murmurVectors {
		key, err := hex.DecodeString(v.key)
		if err != nil {
			t.Fatal(err)
		}
		if got := murmur2(key); int32(got) != v.hash || keyPartition(got, 7) != v.partition {
			t.Errorf("murmur2(%s) = %d, partition %d; want %d, %d", v.key, int32(got), keyPartition(got, 7), v.hash, v.partition)
		}
	}
}

// 1,000 keys, the empty one and bytes above 0x80 among them, land where Kafka's own console producer puts them.
func TestKeysLandWhereTheConsoleProducerPutsThem(t *testing.T) {
	k := backend.Kafka(t)
	ctx := testContext(t)
	theirs := k.Topic(t, "console", 7)
	console := k.Tool(ctx, t, "ConsoleProducer", "--topic", theirs, "--property", "parse.key=true", "--property", "key.separator=\t")
	var lines bytes.Buffer
	var records []sluice.NewRecord
	for i := range 1000 {
		key := fmt.Sprintf("%d-%s-%c%c", i, []string{"order", "naïve", "日本", "ÿþ", "🙂"}[i%5], rune(0x80+i%0x700), rune(0x4e00+i))
		if i == 0 {
			key = ""
		}
		fmt.Fprintf(&lines, "%s\tv\n", key)
		records = append(records, sluice.NewRecord{Partition: sluice.AnyPartition, Key: []byte(key), Value: []byte("v")})
	}
	console.Stdin = &lines
	console.Env = append(console.Env, "KAFKA_OPTS=-Dfile.encoding=UTF-8", "LC_ALL=C.UTF-8")
	if out, err := console.CombinedOutput(); err != nil {
		t.Fatalf("console producer: %v\n%s", err, out)
	}

	clients := testClients(t, k)
	want := map[string]int32{}
	for p := range int32(7) {
		for _, r := range readAll(t, clients, theirs, p) {
			want[string(r.Key)] = p
		}
	}
	if len(want) != len(records) {
		t.Fatalf("the console producer wrote %d keys", len(want))
	}
	ours := k.Topic(t, "ours", 7)
	for i, r := range mustProduce(t, testProducer(t, clients), ours, records...) {
		if key := string(records[i].Key); r.Partition != want[key] {
			t.Errorf("key %q is on partition %d, not %d", key, r.Partition, want[key])
		}
	}
}

// Records without a key fill one partition until 16 KiB went there, then another; a partition that cannot take records
// is passed over.
func TestSticky(t *testing.T) {
	all := func(int32) bool { return true }
	var s sticky
	seen := map[int32]int{}
	last, run := int32(-1), 0
	for range 2000 {
		p := s.next(1000, 5, all)
		if p != last && last >= 0 && run < 16 {
			t.Fatalf("left partition %d after %d bytes", last, run*1000)
		}
		if p != last {
			last, run = p, 0
		}
		if run++; run > 17 {
			t.Fatalf("stayed on partition %d for %d bytes", p, run*1000)
		}
		seen[p]++
	}
	if len(seen) != 5 {
		t.Errorf("partitions used: %v", seen)
	}
	for range 100 {
		if p := s.next(1000, 5, func(p int32) bool { return p == 3 }); p != 3 {
			t.Fatalf("partition %d cannot take records", p)
		}
	}
	if p := s.next(1, 2, func(int32) bool { return false }); p < 0 || p > 1 {
		t.Errorf("no partition usable: %d", p)
	}
}
