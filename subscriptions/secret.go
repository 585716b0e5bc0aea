package subscriptions

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	redacted     = "[redacted]"
	secretPrefix = "whsec_" // Standard Webhooks: "whsec_" and standard base64
	secretMin    = 24       // bytes
	secretMax    = 64
	secretNew    = 32
)

// Secret is a signing secret in the form of Standard Webhooks. It prints as [redacted] whatever prints it; Reveal and
// Key are the only ways to the value. The value hides in a closure: fmt reads the unexported fields of foreign structs
// without asking their methods, and with the wrong verb it follows pointers too.
type Secret struct {
	open func() (text string, key []byte)
}

func seal(text string, key []byte) Secret {
	return Secret{func() (string, []byte) { return text, key }}
}

// ParseSecret takes whsec_ and standard base64 of 24 to 64 bytes. Its errors do not repeat what was given.
func ParseSecret(text string) (Secret, error) {
	enc, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, errors.New(`must begin with "whsec_"`)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(enc)
	if err != nil || strings.ContainsAny(enc, "\r\n") {
		return Secret{}, errors.New(`must be "whsec_" and standard base64`)
	}
	if len(key) < secretMin || len(key) > secretMax {
		return Secret{}, fmt.Errorf("must hold %d to %d bytes", secretMin, secretMax)
	}
	return seal(text, key), nil
}

// NewSecret is 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, secretNew)
	rand.Read(key) // never fails since Go 1.24
	return seal(secretPrefix+base64.StdEncoding.EncodeToString(key), key)
}

// Set reports whether there is a secret at all.
func (s Secret) Set() bool { return s.open != nil }

// Reveal is the secret in clear, "whsec_…". For the store and for the one answer that shows a generated secret.
func (s Secret) Reveal() string {
	if s.open == nil {
		return ""
	}
	text, _ := s.open()
	return text
}

// Key is the bytes to sign with. They must not be changed.
func (s Secret) Key() []byte {
	if s.open == nil {
		return nil
	}
	_, key := s.open()
	return key
}

// Hint is "…" and the last four characters, by which its owner recognises a secret.
func (s Secret) Hint() string {
	text := s.Reveal()
	if text == "" {
		return ""
	}
	return "…" + text[len(text)-4:]
}

// String is [redacted].
func (s Secret) String() string { return redacted }

// GoString is [redacted].
func (s Secret) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is [redacted] at every level.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText writes [redacted]; the store has an encoding of its own.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON writes "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
