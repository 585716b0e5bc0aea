package subscriptions

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	healthEvery = time.Second
	healthFor   = time.Hour
	healthMax   = 10_000 // subscriptions waiting to be written
)

// Why a subscription's progress group takes no commits, as LaneHealth.Reason has it. Nothing is sent then.
const (
	GroupHijacked = "group_hijacked" // a foreign consumer is a member of the group
	Forbidden     = "forbidden"
)

// LaneHealth is what a replica last saw of a subscription.
type LaneHealth struct {
	At                  Time       `json:"at"`
	Reason              string     `json:"reason,omitempty"` // why nothing is sent
	LastSuccess         *Time      `json:"last_success,omitempty"`
	ConsecutiveFailures int        `json:"consecutive_failures"`
	NextProbe           *Time      `json:"next_probe,omitempty"`
	LastError           *LastError `json:"last_error,omitempty"`
}

// LastError is the latest attempt that failed. Reason is a code, Error has no secrets in it.
type LastError struct {
	At        Time   `json:"at"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	WebhookID string `json:"webhook_id"`
	Attempt   int    `json:"attempt"`
	Class     string `json:"class"`
	Reason    string `json:"reason"`
	Status    int    `json:"status,omitempty"`
	Error     string `json:"error,omitempty"`
	NextAt    *Time  `json:"next_at,omitempty"`
}

// Health passes what the owners of lanes see on to whoever answers for a subscription. It is best effort: a report
// waits at most a second in memory, the latest of a subscription wins, and what Redis does not take is dropped.
type Health struct {
	store   *Store
	log     *slog.Logger
	dropped prometheus.Counter

	mu      sync.Mutex
	waiting map[healthKey]LaneHealth
}

type healthKey struct{ id, replica string }

// NewHealth does no I/O. reg may be nil.
func NewHealth(s *Store, log *slog.Logger, reg prometheus.Registerer) (*Health, error) {
	if s == nil {
		return nil, errors.New("subscriptions: health needs a store")
	}
	return &Health{
		store:   s,
		log:     orDiscard(log),
		dropped: promauto.With(reg).NewCounter(prometheus.CounterOpts{Name: "sluice_health_reports_dropped_total", Help: "Reports about subscriptions that Redis did not take or that found no room."}),
		waiting: map[healthKey]LaneHealth{},
	}, nil
}

// Report never blocks.
func (h *Health) Report(_ context.Context, id, replica string, now LaneHealth) {
	key := healthKey{id, replica}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.waiting[key]; !there && len(h.waiting) >= healthMax {
		h.dropped.Inc()
		return
	}
	h.waiting[key] = now
}

// Run writes reports once a second until ctx ends, and what is left then.
func (h *Health) Run(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	down := false
	for {
		last := false
		select {
		case <-ctx.Done():
			last = true
		case <-tick.C:
		}
		switch err := h.flush(context.WithoutCancel(ctx)); {
		case err != nil && !down:
			down = true
			h.log.Warn("health reports are dropped: redis does not take them", "error", err)
		case err == nil:
			down = false
		}
		if last {
			return nil
		}
	}
}

func (h *Health) flush(ctx context.Context) error {
	h.mu.Lock()
	batch := h.waiting
	h.waiting = map[healthKey]LaneHealth{}
	h.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pipe := h.store.rdb.Pipeline()
	for key, now := range batch {
		text, err := json.Marshal(now)
		if err != nil {
			return err
		}
		pipe.HSet(ctx, keyHealth(key.id), key.replica, text)
		pipe.Expire(ctx, keyHealth(key.id), healthFor)
	}
	_, err := pipe.Exec(ctx)
	if err != nil {
		h.dropped.Add(float64(len(batch)))
	}
	return err
}

// Of is what each replica last reported about id, by replica. Kind StoreDown.
func (h *Health) Of(ctx context.Context, id string) (map[string]LaneHealth, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	texts, err := h.store.rdb.HGetAll(ctx, keyHealth(id)).Result()
	if err != nil {
		return nil, storeError("read health", err)
	}
	all := map[string]LaneHealth{}
	for replica, text := range texts {
		var one LaneHealth
		if json.Unmarshal([]byte(text), &one) == nil {
			all[replica] = one
		}
	}
	return all, nil
}

// troubleFor is how long a report of trouble counts without being renewed: its replica may be gone.
const troubleFor = 3 * time.Minute

// Trouble is why some replica sends nothing now, "" if none says so.
func Trouble(all map[string]LaneHealth, now time.Time) (reason string) {
	var latest time.Time
	for _, one := range all {
		if one.Reason != "" && now.Sub(one.At.Time) < troubleFor && one.At.After(latest) {
			reason, latest = one.Reason, one.At.Time
		}
	}
	return reason
}

// LatestError is the newest error that any replica reported, nil for none.
func LatestError(all map[string]LaneHealth) *LastError {
	var latest *LastError
	for _, one := range all {
		if one.LastError == nil {
			continue
		}
		if latest == nil || cmp.Or(one.LastError.At.Compare(latest.At.Time), cmp.Compare(one.LastError.Offset, latest.Offset)) > 0 {
			latest = one.LastError
		}
	}
	return latest
}
