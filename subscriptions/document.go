package subscriptions

import (
	"encoding/json"
	"fmt"
)

// schema is the version of the stored document. A replica that meets a higher one leaves it alone: during a release
// old and new replicas share one Redis.
const schema = 1

// document is what stands in Redis: the subscription with its secrets in storage form.
type document struct {
	Schema int `json:"schema"`
	*Subscription
	Signing storedSigning `json:"signing"` // hides Subscription.Signing, which would redact
}

type storedSigning struct {
	Secrets []storedSecret `json:"secrets"`
}

type storedSecret struct {
	ID        string `json:"id"`
	CreatedAt Time   `json:"created_at"`
	ExpiresAt *Time  `json:"expires_at,omitempty"`
	Secret    string `json:"secret"`
}

func encode(s *Subscription) ([]byte, error) {
	d := document{Schema: schema, Subscription: s}
	for _, one := range s.Signing.Secrets {
		stored := storedSecret{ID: one.ID, CreatedAt: one.CreatedAt, Secret: one.Secret.Reveal()}
		if !one.ExpiresAt.IsZero() {
			stored.ExpiresAt = &one.ExpiresAt
		}
		d.Signing.Secrets = append(d.Signing.Secrets, stored)
	}
	return json.Marshal(d)
}

// decode reads a stored document. Its errors name no value: the document holds secrets.
func decode(id string, raw []byte) (*Subscription, error) {
	var version struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return nil, fmt.Errorf("document of %q is no JSON object", id)
	}
	if version.Schema < 1 || version.Schema > schema {
		return nil, fmt.Errorf("document of %q has schema %d, this version knows %d", id, version.Schema, schema)
	}
	d := document{Subscription: new(Subscription)}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("document of %q has a field of the wrong type", id)
	}
	if d.ID != id || d.Revision < 1 || len(d.Source.Topics) == 0 || d.Endpoint.URL == "" || d.Endpoint.Timeout <= 0 ||
		d.Delivery.MaxInFlight < 1 || len(d.Retry.Schedule) == 0 {
		return nil, fmt.Errorf("document of %q is incomplete", id)
	}
	for _, stored := range d.Signing.Secrets {
		secret, err := ParseSecret(stored.Secret)
		if err != nil {
			return nil, fmt.Errorf("document of %q: a signing secret cannot be read", id)
		}
		one := SigningSecret{ID: stored.ID, CreatedAt: stored.CreatedAt, Secret: secret}
		if stored.ExpiresAt != nil {
			one.ExpiresAt = *stored.ExpiresAt
		}
		d.Subscription.Signing.Secrets = append(d.Subscription.Signing.Secrets, one)
	}
	return d.Subscription, nil
}

// patch sets top-level members of a stored document and keeps every other byte of it, also what a newer version of
// Sluice may have written there.
func patch(raw []byte, members map[string]any) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("patch a stored document: it is no JSON object")
	}
	for name, value := range members {
		b, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		doc[name] = b
	}
	return json.Marshal(doc)
}
