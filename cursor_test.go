package sluice_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluicegate/sluice"
)

var (
	ordersID = sluice.TopicID{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}

	sameCursor = cmpopts.IgnoreUnexported(sluice.Cursor{})
)

func orders(ps ...sluice.PartitionCursor) []sluice.TopicCursor {
	return []sluice.TopicCursor{{Name: sluice.NameTagOf("orders"), Log: sluice.LogTagOf("sluice-dev", ordersID), Count: 3, Partitions: ps}}
}

// The vectors are the contract with every client that kept an id: they never change.
func TestCursorVectors(t *testing.T) {
	for text, want := range map[string]sluice.Cursor{
		"EAEcForbDpNR0wMDAAAAmbMGAAWt6A": {Topics: orders(
			sluice.PartitionCursor{Number: 0}, sluice.PartitionCursor{Number: 1, Next: 104857}, sluice.PartitionCursor{Number: 2, Next: 5})},
		"EAEcForbDpNR0wMBAZmzBmEP": {Topics: orders(sluice.PartitionCursor{Number: 1, Next: 104857})},
		"EQEcForbDpNR0wMDAAAAAJmzBisABQDKXA": {Bounded: true, Topics: orders(
			sluice.PartitionCursor{Number: 0}, sluice.PartitionCursor{Number: 1, Next: 104857, End: 104900}, sluice.PartitionCursor{Number: 2, Next: 5, End: 5})},
		"GgABHBaK2w6TUdMDAQH9swZwBQ": {Limited: true, Ended: true, Topics: orders(sluice.PartitionCursor{Number: 1, Next: 104957})},
	} {
		if got := want.String(); got != text {
			t.Errorf("encoded %s, want %s", got, text)
		}
		got, err := sluice.ParseCursor(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if d := cmp.Diff(want, got, sameCursor); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
}

func TestCursorSizes(t *testing.T) {
	for partitions, limit := range map[int]int{1: 27, 12: 115, 50: 419, 500: 4022} {
		c := sluice.Cursor{Topics: []sluice.TopicCursor{{Count: int32(partitions)}}}
		for i := range partitions {
			c.Topics[0].Partitions = append(c.Topics[0].Partitions, sluice.PartitionCursor{Number: int32(i), Next: 1<<33 + int64(i)})
		}
		if n := len(c.String()); n > limit {
			t.Errorf("%d partitions take %d characters, want at most %d", partitions, n, limit)
		}
	}
}

// reseal puts a right checksum under altered bytes, so that the rule under test is what refuses them.
func reseal(b []byte) string {
	b = binary.BigEndian.AppendUint16(b, uint16(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
	return base64.RawURLEncoding.EncodeToString(b)
}

func TestCursorDecodingIsStrict(t *testing.T) {
	tags := strings.Repeat("\x01", 8)
	later := strings.Repeat("\x02", 8)
	for name, text := range map[string]string{
		"empty":                  "",
		"garbage":                "not-a-cursor",
		"padding":                "EAEcForbDpNR0wMBAZmzBmEP=",
		"unused bits":            "EAEcForbDpNR0wMDAAAAmbMGAAWt6B",
		"standard alphabet":      "EAEcForbDpNR0wMDAAAAmbMGAAW+6A",
		"line feed":              "EAEcForbDpNR0wMBAZmzBmEP\n",
		"checksum":               "EAEcForbDpNR0wMBAZmzBmEQ",
		"cut":                    "EAEcForbDpNR0wMBAZmzBm",
		"version 0":              reseal([]byte("\x00\x00")),
		"long varint":            reseal([]byte("\x10\x81\x00" + tags + "\x03\x00")),
		"trailing byte":          reseal([]byte("\x10\x01" + tags + "\x03\x00\x00")),
		"topic missing":          reseal([]byte("\x10\x02" + tags + "\x03\x00" + tags)),
		"topics not ascending":   reseal([]byte("\x10\x02" + later + "\x03\x00" + tags + "\x03\x00")),
		"topic twice":            reseal([]byte("\x10\x02" + tags + "\x03\x00" + tags + "\x03\x00")),
		"too many listed":        reseal([]byte("\x10\x01" + tags + "\x03\xff\xff\xff\x7f")),
		"offset beyond int64":    reseal([]byte("\x10\x01" + tags + "\x03\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
		"end beyond int64":       reseal([]byte("\x11\x01" + tags + "\x03\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01")),
		"partition beyond int32": reseal([]byte("\x10\x01" + tags + "\x03\x02\xff\xff\xff\xff\x07\x00\x00\x00")),
	} {
		if c, err := sluice.ParseCursor(text); !errors.Is(err, sluice.ErrMalformedCursor) {
			t.Errorf("%s: got %+v, %v", name, c, err)
		}
	}
	if _, err := sluice.ParseCursor(reseal([]byte("\x20\x01\x02"))); !errors.Is(err, sluice.ErrNewerCursor) {
		t.Errorf("version 2: %v", err)
	}
}

func TestAlteredCursorIsRefused(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	text := "EAEcForbDpNR0wMDAAAAmbMGAAWt6A"
	for i := range text {
		for _, r := range alphabet {
			if altered := text[:i] + string(r) + text[i+1:]; altered != text {
				if _, err := sluice.ParseCursor(altered); err == nil { // a CRC finds every burst of up to 16 bits
					t.Errorf("%s passes for %s", altered, text)
				}
			}
		}
	}
}

func TestCursorRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		want := randomCursor(r)
		got, err := sluice.ParseCursor(want.String())
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if d := cmp.Diff(want, got, sameCursor, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	}
}

func randomCursor(r *rand.Rand) sluice.Cursor {
	c := sluice.Cursor{Bounded: r.IntN(2) == 0, Limited: r.IntN(2) == 0, Ended: r.IntN(2) == 0}
	if c.Limited {
		c.Left = r.Uint64() >> r.IntN(64)
	}
	if r.IntN(2) == 0 {
		c.Time = time.Unix(r.Int64N(1<<32), 0)
	}
	for range r.IntN(4) {
		t := sluice.TopicCursor{Name: sluice.NameTag{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(len(c.Topics))}, Count: r.Int32()}
		for n := int32(r.IntN(9)); len(t.Partitions) < 6; n += 1 + r.Int32N(1000) {
			p := sluice.PartitionCursor{Number: n, Next: r.Int64() >> r.IntN(63)}
			if c.Bounded {
				p.End = p.Next + r.Int64N(math.MaxInt64-p.Next|1)>>r.IntN(63)
			}
			t.Partitions = append(t.Partitions, p)
		}
		c.Topics = append(c.Topics, t)
	}
	c.Sort()
	return c
}

func FuzzCursor(f *testing.F) {
	f.Add("EAEcForbDpNR0wMDAAAAmbMGAAWt6A")
	f.Add("EQEcForbDpNR0wMDAAAAAJmzBisABQDKXA")
	f.Add("GgABHBaK2w6TUdMDAQH9swZwBQ")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := sluice.ParseCursor(text); err == nil && c.String() != text {
			t.Errorf("%q decodes and encodes as %q", text, c.String())
		}
		if raw, err := base64.RawURLEncoding.DecodeString(text); err == nil { // past the checksum, to the rules behind it
			sealed := reseal(raw)
			if c, err := sluice.ParseCursor(sealed); err == nil && c.String() != sealed {
				t.Errorf("%q decodes and encodes as %q", sealed, c.String())
			}
		}
		_, _, _ = sluice.ParsePositions(text)
	})
}

func TestHandWrittenPositions(t *testing.T) {
	at := time.UnixMilli(1795409232118)
	for text, want := range map[string][]sluice.Position{
		"orders/3:104857,orders/5:88": {{Topic: "orders", Partition: 3, Offset: 104857}, {Topic: "orders", Partition: 5, Offset: 88}},
		"orders/0:-1":                 {{Topic: "orders", Offset: sluice.NoOffset}},
		`[{"topic":"orders","partition":3,"offset":104857}]`:           {{Topic: "orders", Partition: 3, Offset: 104857}},
		`[{"topic":"orders","partition":0,"offset":-1}]`:               {{Topic: "orders", Offset: sluice.NoOffset}},
		`[{"topic":"orders","partition":0,"timestamp":1795409232118}]`: {{Topic: "orders", Offset: sluice.NoOffset, Time: at}},
	} {
		got, ok, err := sluice.ParsePositions(text)
		if err != nil || !ok || !cmp.Equal(got, want) {
			t.Errorf("%s: got %v %v %v", text, got, ok, err)
		}
	}
	for _, text := range []string{
		"orders/", "/3:1", "orders/3", "orders/x:1", "orders/3:x", "orders/3:1,", "orders/3:1,orders/3:2", "orders/-1:1", "orders/3:-2", "orders/3:9223372036854775808",
		"[", "[]", "[1]", `[{"topic":"orders","partition":3}]`, `[{"partition":3,"offset":1}]`, `[{"topic":"orders","offset":1}]`, `[{"topic":"orders","partition":3,"offset":1.5}]`,
		`[{"topic":"orders","partition":3,"offset":1,"timestamp":1}]`, `[{"topic":"orders","partition":3,"offset":1,"x":1}]`, `[{"topic":"orders","partition":3,"offset":1}] x`,
	} {
		if got, ok, err := sluice.ParsePositions(text); !ok || !errors.Is(err, sluice.ErrMalformedCursor) {
			t.Errorf("%s: got %v %v %v", text, got, ok, err)
		}
	}
	if _, ok, _ := sluice.ParsePositions("EAEcForbDpNR0wMBAZmzBmEP"); ok {
		t.Error("a cursor was taken for a hand-written position")
	}
}
