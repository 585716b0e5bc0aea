package subscriptions

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluicegate/sluice"
)

// Subscription is one revision of one definition. Nobody changes one: the Book hands the same value to all who ask.
// Its JSON is the wire; there is deliberately no MarshalJSON on it, so that an answer can embed it beside a status.
type Subscription struct {
	ID           string   `json:"id"` // sub_ and a lower-case ULID
	Owner        string   `json:"owner"`
	Revision     int64    `json:"revision"` // from 1, grows by one per change; the ETag
	CreatedAt    Time     `json:"created_at"`
	UpdatedAt    Time     `json:"updated_at"`
	Name         string   `json:"name"`
	Source       Source   `json:"source"`
	Endpoint     Endpoint `json:"endpoint"`
	Verification string   `json:"verification"` // VerifyNone
	Signing      Signing  `json:"signing"`
	Payload      Payload  `json:"payload"`
	Delivery     Delivery `json:"delivery"`
	Retry        Retry    `json:"retry"`
	State        string   `json:"state"` // Active or Deleting
}

// Values of the enumerations.
const (
	Active   = "active"
	Deleting = "deleting"

	VerifyNone = "none"

	FromLatest    = "latest"
	FromEarliest  = "earliest"
	FromTimestamp = "timestamp"
	FromOffsets   = "offsets"

	FormatBinary   = "cloudevents-binary"
	FormatRaw      = "raw"
	FormatStandard = "standard"

	OrderNone      = "none"
	OrderKey       = "key"
	OrderPartition = "partition"
)

// Source is what is delivered, and from where on.
type Source struct {
	Topics         []string                   `json:"topics"` // 1 to 16, as given
	StartFrom      string                     `json:"start_from"`
	StartTimestamp *Time                      `json:"start_timestamp,omitempty"` // with FromTimestamp only
	StartOffsets   map[string]map[int32]int64 `json:"start_offsets,omitempty"`   // with FromOffsets only: topic, partition
	Resolved       map[string]Resolved        `json:"resolved"`                  // by topic; what StartFrom meant at creation
}

// Resolved is where a topic's lanes began: the offsets that were committed when the subscription was created, by
// partition. Partitions that came later begin at 0. ID is zero where brokers give topics no UUID.
type Resolved struct {
	ID      sluice.TopicID
	Offsets map[int32]int64
}

type resolvedJSON struct {
	ID      string          `json:"topic_id,omitempty"`
	Offsets map[int32]int64 `json:"offsets"`
}

// MarshalJSON writes the id in its 8-4-4-4-12 form, and leaves a zero one out.
func (r Resolved) MarshalJSON() ([]byte, error) {
	w := resolvedJSON{Offsets: r.Offsets}
	if r.ID != (sluice.TopicID{}) {
		w.ID = r.ID.String()
	}
	return json.Marshal(w)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (r *Resolved) UnmarshalJSON(b []byte) error {
	var w resolvedJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*r = Resolved{Offsets: w.Offsets}
	if w.ID == "" {
		return nil
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(w.ID, "-", ""))
	if err != nil || len(raw) != len(r.ID) {
		return fmt.Errorf("topic_id %q is no UUID", w.ID)
	}
	copy(r.ID[:], raw)
	return nil
}

// Endpoint is where it goes.
type Endpoint struct {
	URL     string   `json:"url"`
	Timeout Duration `json:"timeout"` // the whole exchange, response body included
}

// Signing holds the live secrets, newest first; every request carries one signature for each.
type Signing struct {
	Secrets []SigningSecret

	generated bool // by the call that made this value
	reveal    bool
}

// SigningSecret is one live secret. A zero ExpiresAt never expires.
type SigningSecret struct {
	ID        string
	CreatedAt Time
	ExpiresAt Time
	Secret    Secret
}

// Live is the secrets to sign with at now, newest first.
func (s Signing) Live(now time.Time) []Secret {
	live := make([]Secret, 0, len(s.Secrets))
	for _, one := range s.Secrets {
		if one.ExpiresAt.IsZero() || now.Before(one.ExpiresAt.Time) {
			live = append(live, one.Secret)
		}
	}
	return live
}

// MarshalJSON writes the marker {"set":true,"hint":"…last 4"} for the newest secret, the value itself only in a
// subscription that came from Revealed.
func (s Signing) MarshalJSON() ([]byte, error) {
	if len(s.Secrets) == 0 {
		return []byte(`{"secret":{"set":false}}`), nil
	}
	if s.reveal {
		return json.Marshal(map[string]string{"secret": s.Secrets[0].Secret.Reveal()})
	}
	type marker struct {
		Set  bool   `json:"set"`
		Hint string `json:"hint"`
	}
	return json.Marshal(map[string]marker{"secret": {true, s.Secrets[0].Secret.Hint()}})
}

// Payload is how a record becomes a body.
type Payload struct {
	Format string `json:"format"`
}

// Delivery is in which order and how many at once.
type Delivery struct {
	Ordering    string `json:"ordering"`
	MaxInFlight int    `json:"max_in_flight"` // for the whole subscription, 1 to 1024
}

// Retry says how long to wait before attempt 1, 2, …; the length is the number of attempts.
type Retry struct {
	Schedule []Duration `json:"schedule"`
}

// ProgressGroup is the consumer group, without members, that holds the committed offsets.
func (s *Subscription) ProgressGroup() string { return "sluice.sub." + s.ID }

// ETag is the revision in quotes.
func (s *Subscription) ETag() string { return `"` + s.revision() + `"` }

func (s *Subscription) revision() string { return strconv.FormatInt(s.Revision, 10) }

// Revealed is the subscription for the answer to the call that created it: its JSON shows the signing secret in clear
// if that call generated it. Nothing else may see this value.
func (s *Subscription) Revealed() *Subscription {
	shown := *s
	shown.Signing.reveal = shown.Signing.generated
	return &shown
}
