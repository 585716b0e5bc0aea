package subscriptions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const canary = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LTEyMw=="

// A secret must not leave by any way of printing, whatever holds it.
func TestSecretsNeverPrint(t *testing.T) {
	secret, err := ParseSecret(canary)
	if err != nil {
		t.Fatal(err)
	}
	var f faults
	s, err := parseDraft([]byte(minimal), &f)
	if err != nil {
		t.Fatal(err)
	}
	s.Signing.Secrets[0].Secret = secret
	hidden := struct{ inner any }{struct {
		secret Secret
		sub    *Subscription
	}{secret, s}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		for _, holder := range []any{secret, &secret, []Secret{secret}, map[string]Secret{"a": secret}, s, *s, s.Signing, s.Signing.Secrets, hidden, s.Revealed(), fmt.Errorf("%v", secret)} {
			fmt.Fprintf(&out, verb+"\n", holder)
		}
	}
	for _, logger := range []*slog.Logger{slog.New(slog.NewJSONHandler(&out, nil)), slog.New(slog.NewTextHandler(&out, nil))} {
		logger.Info("x", "secret", secret, "sub", s, "value", *s, "signing", s.Signing, "secrets", s.Signing.Secrets, "hidden", hidden)
	}
	for _, v := range []any{secret, s, s.Signing.Secrets, map[string]any{"a": secret}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	text := out.String()
	for _, leak := range []string{canary, canary[6:], "canary", fmt.Sprintf("%x", secret.Key()[:6]), "99 97 110 97 114 121"} { // the last is the key as fmt shows bytes
		if at := strings.Index(text, leak); at >= 0 {
			t.Errorf("%q leaked: …%s", leak, text[max(0, at-80):min(len(text), at+80)])
		}
	}
}

// A generated secret is shown once, by the call that made it; one that the caller brought is not shown at all.
func TestOnlyRevealedShowsAGeneratedSecret(t *testing.T) {
	var f faults
	s, err := parseDraft([]byte(minimal), &f)
	if err != nil {
		t.Fatal(err)
	}
	secret := s.Signing.Secrets[0].Secret.Reveal()
	plain, _ := json.Marshal(s)
	shown, _ := json.Marshal(s.Revealed())
	if bytes.Contains(plain, []byte(secret)) || !bytes.Contains(shown, []byte(`"signing":{"secret":"`+secret+`"}`)) {
		t.Errorf("plain %s\nrevealed %s", plain, shown)
	}
	if want := `"signing":{"secret":{"set":true,"hint":"…` + secret[len(secret)-4:] + `"}}`; !bytes.Contains(plain, []byte(want)) {
		t.Errorf("%s lacks %s", plain, want)
	}
	s.ID, s.Revision = "sub_1", 1
	raw, err := encode(s)
	if err != nil {
		t.Fatal(err)
	}
	read, err := decode("sub_1", raw)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(read.Revealed()); bytes.Contains(again, []byte(secret)) {
		t.Error("a secret read from the store was shown again")
	}
	if read.Signing.Secrets[0].Secret.Reveal() != secret {
		t.Error("the store lost the secret")
	}
}

func TestSecretsHave24To64Bytes(t *testing.T) {
	for text, good := range map[string]bool{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":       true,
		"whsec_" + strings.Repeat("AAAA", 21) + "AR==": false, // bits left over
		"whsec_" + strings.Repeat("AAAA", 21) + "AQ==": true,  // 64
		"whsec_" + strings.Repeat("AAAA", 21) + "AAE=": false, // 65
		"whsec_" + strings.Repeat("AAAA", 7) + "AAA=":  false, // 23
		"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw":             false,
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS":        false,
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La\nLaSw":     false,
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_":       false,
		"whsec_":                                       false,
		"":                                             false,
	} {
		if _, err := ParseSecret(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		} else if err != nil && len(text) > 10 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}
