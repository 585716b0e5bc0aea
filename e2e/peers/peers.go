// Package peers are the other ends of the wire, written against the public API alone: a producer, a webhook receiver, an
// SSE reader (r3labs/sse behind guards), a pull consumer, and the binary itself as a process. The end-to-end suites and
// the demo are made of them, and all of them answer with the same thing: which records they saw, by partition and offset.
package peers

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Place is where a record lies in its topic.
type Place struct {
	Partition int32
	Offset    int64
}

// Record is a record as one end of the wire saw it.
type Record struct {
	Place
	Key   []byte
	Value []byte
}

// Seen collects what one reader saw. It is safe for concurrent use.
type Seen struct {
	mu      sync.Mutex
	records map[Place]Record
	order   []Record // every sighting, repeats too
	bell    chan struct{}
}

// NewSeen is an empty collection.
func NewSeen() *Seen { return &Seen{records: map[Place]Record{}, bell: make(chan struct{})} }

// Add notes a sighting.
func (s *Seen) Add(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[r.Place] = r
	s.order = append(s.order, r)
	close(s.bell)
	s.bell = make(chan struct{})
}

// Count is how many distinct records were seen, and how many sightings there were.
func (s *Seen) Count() (distinct, sightings int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records), len(s.order)
}

// Order is every sighting in the order they came.
func (s *Seen) Order() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

// Changed is closed at the next sighting. Take it before you look.
func (s *Seen) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bell
}

// Missing is how many of the produced records were not seen.
func (s *Seen) Missing(produced []Record) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := 0
	for _, p := range produced {
		if _, ok := s.records[p.Place]; !ok {
			missing++
		}
	}
	return missing
}

// Compare says what differs between what was produced, with the places of its receipts, and what was seen: records that
// are missing, that came with other bytes, or that nobody produced. Repeats are not a difference; count them.
func (s *Seen) Compare(produced []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []string
	wrong := 0
	note := func(format string, args ...any) {
		if wrong++; wrong <= 5 {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	want := make(map[Place]bool, len(produced))
	for _, p := range produced {
		want[p.Place] = true
		got, ok := s.records[p.Place]
		switch {
		case !ok:
			note("%d/%d was never seen", p.Partition, p.Offset)
		case !bytes.Equal(got.Value, p.Value):
			note("%d/%d came with the value %.60q, produced was %.60q", p.Partition, p.Offset, got.Value, p.Value)
		case !bytes.Equal(got.Key, p.Key):
			note("%d/%d came with the key %.60q, produced was %.60q", p.Partition, p.Offset, got.Key, p.Key)
		}
	}
	for place := range s.records {
		if !want[place] {
			note("%d/%d was seen and never produced", place.Partition, place.Offset)
		}
	}
	if wrong == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d records differ: %s", wrong, len(produced), strings.Join(faults, "; "))
}
