package consumers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	minSecretBytes = 16
	signatureAge   = time.Minute // how far the clocks of two replicas may differ, the way included
)

// Call is what one replica signs for another: who asks for what, and when.
type Call struct {
	Method, Target, Principal string
	At                        time.Time
}

// Sign is an HMAC over the call, base64. Without a secret there is none.
func (r *Registry) Sign(c Call) (signature string, ok bool) {
	if r.secret == "" {
		return "", false
	}
	return base64.StdEncoding.EncodeToString(r.mac(c)), true
}

// Signed reports whether a replica with the same secret made the call a moment ago.
func (r *Registry) Signed(c Call, signature string) bool {
	given, err := base64.StdEncoding.DecodeString(signature)
	age := time.Since(c.At)
	return err == nil && r.secret != "" && age < signatureAge && age > -signatureAge && hmac.Equal(given, r.mac(c))
}

// mac joins the parts with line feeds, which none of them can hold.
func (r *Registry) mac(c Call) []byte {
	h := hmac.New(sha256.New, []byte(r.secret))
	h.Write([]byte(strings.Join([]string{"sluice replica 1", c.Method, c.Target, strconv.FormatInt(c.At.UnixMilli(), 10), c.Principal}, "\n")))
	return h.Sum(nil)
}

func isReplicaURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.User == nil
}
