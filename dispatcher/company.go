package dispatcher

import (
	"encoding/binary"

	"github.com/sluicegate/sluice"
)

// A replica that lost its session cannot commit, and so cannot say that nothing of it is in flight any more: whoever takes
// its partitions over has to wait as if it had died. But most outages end with everybody back, and who joins a generation
// is heard by all its members. So a member says with its join which process it is, and of which partitions of the topic it
// has still something in flight. It sends nothing between that word and its next session, so the word stays true for
// whatever it is not lent (docs/adr/0016-what-an-heir-waits-for.md).

// noteVersion begins a note; 8 bytes of the process follow, and the partitions that are not at rest, uvarint each.
const noteVersion = 1

// note is the word of this replica. The session before is over: nothing of it that is not in flight will be.
func (o *owner) note() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := binary.BigEndian.AppendUint64([]byte{noteVersion}, uint64(o.d.process))
	for number, c := range o.claims {
		if c.flights.any() {
			b = binary.AppendUvarint(b, uint64(number))
		}
	}
	aloft := o.fading[:0]
	for _, c := range o.fading {
		if c.flights.any() {
			b = binary.AppendUvarint(b, uint64(c.p.Number))
			aloft = append(aloft, c)
		}
	}
	clear(o.fading[len(aloft):])
	o.fading = aloft
	if len(b) > sluice.MaxNote {
		return nil // then the others wait
	}
	return b
}

// company is who else is a member of a generation, by their notes. The zero value knows nobody.
type company struct {
	processes []process
	restless  map[int32]bool // partitions that somebody else has something in flight of
}

// companyOf knows nobody if any member said nothing: it may have had a partition.
func companyOf(notes [][]byte, self process) company {
	c := company{restless: map[int32]bool{}}
	for _, b := range notes {
		if len(b) < 9 || b[0] != noteVersion {
			return company{}
		}
		p := process(binary.BigEndian.Uint64(b[1:]))
		c.processes = append(c.processes, p)
		for b = b[9:]; len(b) > 0; {
			number, n := binary.Uvarint(b)
			if n <= 0 {
				return company{}
			}
			if p != self { // of our own flights we know more
				c.restless[int32(number)] = true
			}
			b = b[n:]
		}
	}
	return c
}

// landed is whether the writer of a commit is a member that has nothing of the partition in flight, and nobody else has.
func (c company) landed(partition int32, writer uint32, term uint64) bool {
	if c.restless[partition] {
		return false
	}
	for _, p := range c.processes {
		if p.writer(term) == writer {
			return true
		}
	}
	return false
}
