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
// Key are the only ways to the value. The value hides behind a pointer because fmt reads unexported fields of foreign
// structs without asking their methods.
type Secret struct{ v *secretValue }

type secretValue struct {
	text string
	key  []byte
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
	return Secret{&secretValue{text, key}}, nil
}

// NewSecret is 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, secretNew)
	rand.Read(key) // never fails since Go 1.24
	return Secret{&secretValue{secretPrefix + base64.StdEncoding.EncodeToString(key), key}}
}

// Set reports whether there is a secret at all.
func (s Secret) Set() bool { return s.v != nil }

// Reveal is the secret in clear, "whsec_…". For the store and for the one answer that shows a generated secret.
func (s Secret) Reveal() string {
	if s.v == nil {
		return ""
	}
	return s.v.text
}

// Key is the bytes to sign with. They must not be changed.
func (s Secret) Key() []byte {
	if s.v == nil {
		return nil
	}
	return s.v.key
}

// Hint is "…" and the last four characters, by which its owner recognises a secret.
func (s Secret) Hint() string {
	if s.v == nil {
		return ""
	}
	return "…" + s.v.text[len(s.v.text)-4:]
}

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
