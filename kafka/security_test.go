package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// guardedKafka asks for a login, over TLS if there is a configuration for it.
func guardedKafka(t *testing.T, tlsConfig *tls.Config) []string {
	t.Helper()
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "orders")}
	if tlsConfig != nil {
		opts = append(opts, kfake.TLS(tlsConfig))
	}
	opts = append(opts, kfake.EnableSASL())
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		opts = append(opts, kfake.Superuser(mechanism, "sluice", "open sesame"))
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

// useAll produces a record and reads it back by the bare connections, commits, and asks for the topic.
func useAll(t *testing.T, cfg Config) {
	t.Helper()
	clients := testClients(t, &backend.Broker{Brokers: cfg.Brokers}, func(c *Config) { *c = cfg })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if topics, err := NewAdmin(clients).Topics(ctx); err != nil || len(topics) != 1 {
		t.Fatalf("topics %v, %v", topics, err)
	}
	p, err := NewProducer(clients, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	receipts, err := p.Produce(ctx, "orders", []sluice.NewRecord{{Key: []byte("k"), Value: []byte("v")}})
	if err != nil || receipts[0].Err != nil {
		t.Fatalf("produce: %v, %v", receipts, err)
	}
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	part := sluice.Partition{Topic: "orders", Isolation: sluice.ReadCommitted}
	fetched, err := NewFetcher(clients).Fetch(ctx, part, 0, 1<<20)
	if err != nil || len(fetched.Records) == 0 || string(fetched.Records[0].Value) != "v" {
		t.Fatalf("fetch: %+v, %v", fetched, err)
	}
}

func TestEveryMechanismLogsIn(t *testing.T) {
	if backend.Name() != backend.KFake {
		backend.NotRun(t, "the shared Kafka is reached without a login; a cluster of this test's own asks for one")
	}
	brokers := guardedKafka(t, nil)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cfg := Default()
			cfg.Brokers = brokers
			cfg.Security.Protocol, cfg.Security.Mechanism, cfg.Security.User, cfg.Security.Password = "SASL_PLAINTEXT", mechanism, "sluice", "open sesame"
			useAll(t, cfg)

			cfg.Security.Password = "wrong"
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if c, err := Connect(ctx, cfg, nil); err == nil {
				_ = c.Close()
				t.Error("a wrong password was let in")
			} else if strings.Contains(err.Error(), "wrong") {
				t.Errorf("the password stands in the error: %v", err)
			}
		})
	}
}

func TestTLSChecksTheBroker(t *testing.T) {
	if backend.Name() != backend.KFake {
		backend.NotRun(t, "the shared Kafka has no TLS; a cluster of this test's own has")
	}
	authority := newAuthority(t)
	brokers := guardedKafka(t, &tls.Config{Certificates: []tls.Certificate{authority.pair(t, net.ParseIP("127.0.0.1"))}})
	elsewhere := guardedKafka(t, &tls.Config{Certificates: []tls.Certificate{authority.pair(t, net.ParseIP("10.9.8.7"))}})
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caFile := file("ca.pem", authority.pem)
	secret := file("password", "open sesame\n")
	login := Security{Protocol: "SASL_SSL", Mechanism: "SCRAM-SHA-512", User: "sluice", PasswordFile: secret, VerifyHost: true}
	for name, c := range map[string]struct {
		brokers []string
		change  func(*Security)
		works   bool
	}{
		"authority in a file":   {brokers, func(s *Security) { s.CAFile = caFile }, true},
		"authority as text":     {brokers, func(s *Security) { s.CA = authority.pem }, true},
		"unknown authority":     {brokers, func(*Security) {}, false},
		"another host":          {elsewhere, func(s *Security) { s.CAFile = caFile }, false},
		"another host, allowed": {elsewhere, func(s *Security) { s.CAFile, s.VerifyHost = caFile, false }, true},
		"unknown, any host":     {brokers, func(s *Security) { s.VerifyHost = false }, false},
		"no certificate":        {brokers, func(s *Security) { s.CAFile = secret }, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default()
			cfg.Brokers, cfg.Security = c.brokers, login
			c.change(&cfg.Security)
			if c.works {
				useAll(t, cfg)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if clients, err := Connect(ctx, cfg, nil); err == nil {
				_ = clients.Close()
				t.Error("connected")
			}
		})
	}
}

// Certificates and keys that cannot be meant are named, and nothing of them is repeated.
func TestBadCredentialsAreNamed(t *testing.T) {
	authority := newAuthority(t)
	pair := authority.pair(t)
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	for want, s := range map[string]Security{
		"kafka-security-protocol must be":       {Protocol: "TLS"},
		"did you mean SASL_SSL":                 {Protocol: "SSL", User: "u"},
		"did you mean SSL":                      {Protocol: "PLAINTEXT", CA: authority.pem},
		"kafka-sasl-mechanism must be":          {Protocol: "SASL_SSL", User: "u", Password: "p"},
		"kafka-sasl-user and":                   {Protocol: "SASL_SSL", Mechanism: "PLAIN", User: "u"},
		"exclude each other":                    {Protocol: "SASL_SSL", Mechanism: "PLAIN", User: "u", Password: "p", PasswordFile: "f"},
		"belong together":                       {Protocol: "SSL", Cert: cert},
		"kafka-tls-ca-file: open /nowhere":      {Protocol: "SSL", CAFile: "/nowhere"},
		"kafka-tls-ca holds no certificate":     {Protocol: "SSL", CA: "hunter2"},
		"the key is encrypted":                  {Protocol: "SSL", Cert: cert, Key: "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n"},
		"kafka-tls-cert and kafka-tls-key: tls": {Protocol: "SSL", Cert: cert, Key: "hunter2"},
	} {
		err := s.validate()
		if err == nil {
			_, err = s.read()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))}
}

func (a *authority) pair(t *testing.T, hosts ...net.IP) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}
