package kafka

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

// Security says how Sluice shows Kafka who it is, and how it knows that it speaks to Kafka. The words are Kafka's own.
type Security struct {
	Protocol     string `name:"kafka-security-protocol" env:"SLUICE_KAFKA_SECURITY_PROTOCOL" default:"PLAINTEXT" enum:"PLAINTEXT,SSL,SASL_PLAINTEXT,SASL_SSL" help:"How brokers are spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."`
	Mechanism    string `name:"kafka-sasl-mechanism" env:"SLUICE_KAFKA_SASL_MECHANISM" default:"" enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" help:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."`
	User         string `name:"kafka-sasl-user" env:"SLUICE_KAFKA_SASL_USER" default:"" help:"Who Sluice is to Kafka."`
	Password     string `name:"kafka-sasl-password" env:"SLUICE_KAFKA_SASL_PASSWORD" default:"" help:"Its password."`
	PasswordFile string `name:"kafka-sasl-password-file" env:"SLUICE_KAFKA_SASL_PASSWORD_FILE" default:"" placeholder:"FILE" help:"A file with that password."`
	CA           string `name:"kafka-tls-ca" env:"SLUICE_KAFKA_TLS_CA" default:"" placeholder:"PEM" help:"Certificates that the brokers' must lead to, in PEM, instead of the system's."`
	CAFile       string `name:"kafka-tls-ca-file" env:"SLUICE_KAFKA_TLS_CA_FILE" default:"" placeholder:"FILE" help:"A file with them."`
	Cert         string `name:"kafka-tls-cert" env:"SLUICE_KAFKA_TLS_CERT" default:"" placeholder:"PEM" help:"Sluice's own certificate and what leads to its root, in PEM, for brokers that ask for one."`
	CertFile     string `name:"kafka-tls-cert-file" env:"SLUICE_KAFKA_TLS_CERT_FILE" default:"" placeholder:"FILE" help:"A file with it."`
	Key          string `name:"kafka-tls-key" env:"SLUICE_KAFKA_TLS_KEY" default:"" placeholder:"PEM" help:"The key of that certificate, in PEM and not encrypted."`
	KeyFile      string `name:"kafka-tls-key-file" env:"SLUICE_KAFKA_TLS_KEY_FILE" default:"" placeholder:"FILE" help:"A file with it; it may be the certificate's."`
	VerifyHost   bool   `name:"kafka-tls-verify-host" env:"SLUICE_KAFKA_TLS_VERIFY_HOST" default:"true" negatable:"" help:"Whether a broker's certificate must name its host; that it leads to a known root is always checked."`
}

func (s Security) sasl() bool { return strings.HasPrefix(s.Protocol, "SASL_") }
func (s Security) tls() bool  { return strings.HasSuffix(s.Protocol, "SSL") }

// validate names the first setting that cannot work. Credentials that the protocol would not use are an error: whoever
// sets them believes that they protect something.
func (s Security) validate() error {
	switch {
	case s.Protocol != "PLAINTEXT" && s.Protocol != "SSL" && s.Protocol != "SASL_PLAINTEXT" && s.Protocol != "SASL_SSL":
		return errors.New("kafka-security-protocol must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
	case !s.sasl() && (s.Mechanism != "" || s.User != "" || s.Password != "" || s.PasswordFile != ""):
		return fmt.Errorf("kafka-sasl-*: a login is set, and kafka-security-protocol is %s, which makes no use of it; did you mean SASL_SSL or SASL_PLAINTEXT?", s.Protocol)
	case !s.tls() && (s.CA != "" || s.CAFile != "" || s.Cert != "" || s.CertFile != "" || s.Key != "" || s.KeyFile != ""):
		return fmt.Errorf("kafka-tls-*: certificates are set, and kafka-security-protocol is %s, which makes no use of them; did you mean SSL or SASL_SSL?", s.Protocol)
	case s.sasl() && s.Mechanism != "PLAIN" && s.Mechanism != sarama.SASLTypeSCRAMSHA256 && s.Mechanism != sarama.SASLTypeSCRAMSHA512:
		return errors.New("kafka-sasl-mechanism must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	case s.sasl() && (s.User == "" || s.Password == "" && s.PasswordFile == ""):
		return errors.New("kafka-sasl-user and kafka-sasl-password (or kafka-sasl-password-file) must be set")
	case s.Password != "" && s.PasswordFile != "", s.CA != "" && s.CAFile != "", s.Cert != "" && s.CertFile != "", s.Key != "" && s.KeyFile != "":
		return errors.New("kafka-sasl-*, kafka-tls-*: a setting and its -file exclude each other")
	case (s.Cert != "" || s.CertFile != "") != (s.Key != "" || s.KeyFile != ""):
		return errors.New("kafka-tls-cert and kafka-tls-key belong together")
	}
	return nil
}

// access is a Security whose files have been read.
type access struct {
	mechanism, user, password string
	tls                       *tls.Config // nil: without TLS
}

// read opens the files. It repeats nothing of their contents.
func (s Security) read() (a access, err error) {
	if s.sasl() {
		a.mechanism, a.user = s.Mechanism, s.User
		if a.password, err = textOf("kafka-sasl-password-file", s.Password, s.PasswordFile); err != nil {
			return a, err
		}
		a.password = strings.TrimRight(a.password, "\r\n")
	}
	if !s.tls() {
		return a, nil
	}
	a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	ca, err := textOf("kafka-tls-ca-file", s.CA, s.CAFile)
	if err != nil {
		return a, err
	}
	if ca != "" {
		a.tls.RootCAs = x509.NewCertPool()
		if !a.tls.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return a, fmt.Errorf("%s holds no certificate in PEM", cmp.Or(s.CAFile, "kafka-tls-ca"))
		}
	}
	cert, err := textOf("kafka-tls-cert-file", s.Cert, s.CertFile)
	if err != nil {
		return a, err
	}
	key, err := textOf("kafka-tls-key-file", s.Key, s.KeyFile)
	if err != nil {
		return a, err
	}
	if cert != "" {
		pair, err := keyPair(cert, key)
		if err != nil {
			return a, fmt.Errorf("%s and %s: %w", cmp.Or(s.CertFile, "kafka-tls-cert"), cmp.Or(s.KeyFile, "kafka-tls-key"), err)
		}
		a.tls.Certificates = []tls.Certificate{pair}
	}
	if !s.VerifyHost {
		skipHost(a.tls)
	}
	return a, nil
}

func textOf(name, text, file string) (string, error) {
	if file == "" {
		return text, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(raw), nil
}

// keyPair says in plain words what tls.X509KeyPair calls a failure to parse.
func keyPair(cert, key string) (tls.Certificate, error) {
	for rest := []byte(key); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
			return tls.Certificate{}, errors.New("the key is encrypted; decrypt it with `openssl pkey`, and guard the file instead")
		}
	}
	return tls.X509KeyPair([]byte(cert), []byte(key))
}

// skipHost checks all of a certificate but the host that it names: ssl.endpoint.identification.algorithm= of the Java
// clients.
func skipHost(c *tls.Config) {
	c.InsecureSkipVerify = true // VerifyConnection does what it leaves out
	c.VerifyConnection = func(state tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: c.RootCAs, Intermediates: x509.NewCertPool()}
		for _, cert := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
}

// apply puts it into a sarama configuration.
func (a access) apply(cfg *sarama.Config) {
	if a.tls != nil {
		cfg.Net.TLS.Enable, cfg.Net.TLS.Config = true, a.tls
	}
	if a.mechanism == "" {
		return
	}
	cfg.Net.SASL.Enable, cfg.Net.SASL.Handshake = true, true
	cfg.Net.SASL.Mechanism = sarama.SASLMechanism(a.mechanism)
	cfg.Net.SASL.User, cfg.Net.SASL.Password = a.user, a.password
	if hash, ok := scramHash[a.mechanism]; ok {
		cfg.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: hash} }
	}
}

var scramHash = map[string]scram.HashGeneratorFcn{sarama.SASLTypeSCRAMSHA256: scram.SHA256, sarama.SASLTypeSCRAMSHA512: scram.SHA512}

// scramClient is one login (RFC 5802), in the shape that sarama asks for.
type scramClient struct {
	hash  scram.HashGeneratorFcn
	login *scram.ClientConversation
}

func (s *scramClient) Begin(user, password, authorizeAs string) error {
	client, err := s.hash.NewClient(user, password, authorizeAs)
	if err != nil {
		return err
	}
	s.login = client.NewConversation()
	return nil
}

func (s *scramClient) Step(challenge string) (string, error) { return s.login.Step(challenge) }
func (s *scramClient) Done() bool                            { return s.login.Done() }
