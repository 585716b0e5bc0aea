package consumers

import (
	"context"
	"time"

	"github.com/sluicegate/sluice"
)

// Look is a read without an instance: no group, no state (rest-api.md 8).
type Look struct {
	Partition sluice.Partition
	From      int64
	Count     int           // 0: as many as there are within the bytes
	MaxBytes  int           // of keys and values; 0: the server's limit. One record always comes
	Timeout   time.Duration // how long to wait for Count records, or for one
	Decodes   func(*sluice.Record) error
}

// Browse returns the records from an offset on. Kinds: OutOfRange, UnknownTopic, UnknownPart, NoLeader, Unavailable;
// Rejected where the first record cannot be decoded.
func (r *Registry) Browse(ctx context.Context, l Look) (records []*sluice.Record, err error) {
	limit := r.cfg.RequestMaxBytes
	if l.MaxBytes > 0 {
		limit = min(limit, l.MaxBytes)
	}
	over := time.NewTimer(min(l.Timeout, maxHold))
	defer over.Stop()
	var bell <-chan struct{} // only at the end: to ask for it has the partition followed
	bytes, from := 0, l.From
	for {
		found, next, err := r.needs.Log.Read(ctx, l.Partition, from, max(min(limit-bytes, readAhead), 1))
		if err != nil {
			if len(records) > 0 {
				return records, nil
			}
			return nil, err
		}
		for _, one := range found {
			size := len(one.Key) + len(one.Value)
			if len(records) > 0 && bytes+size > limit {
				return records, nil
			}
			if l.Decodes != nil {
				if err := l.Decodes(one); err != nil {
					if len(records) == 0 {
						return nil, undecodable(one, err)
					}
					return records, nil
				}
			}
			records, bytes = append(records, one), bytes+size
			if len(records) == l.Count || bytes >= limit {
				return records, nil
			}
		}
		switch {
		case next > from:
			from = next
			continue
		case l.Count == 0 && len(records) > 0:
			return records, nil
		case bell == nil:
			bell = r.needs.Log.Changed(l.Partition)
			continue // before the bell nobody listened
		}
		select {
		case <-bell:
			bell = r.needs.Log.Changed(l.Partition)
		case <-over.C:
			return records, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// LookFrom is the offset of the first record with that time or a later one. It reports false when there is none.
func (r *Registry) LookFrom(ctx context.Context, p sluice.Partition, at time.Time) (offset int64, some bool, err error) {
	offset, err = r.needs.Topics.OffsetAt(ctx, p, at)
	if err != nil {
		return 0, false, err
	}
	all, err := r.needs.Log.Range(ctx, p)
	return offset, offset < all.End, err
}
