package formats

import (
	"errors"
	"fmt"
	"net/url"
)

// Config turns the formats with schemas on. The tags are kong's; gateway composes, cmd/sluice loads.
type Config struct {
	RegistryURL []string `name:"schema-registry-url" env:"SLUICE_SCHEMA_REGISTRY_URL" placeholder:"URL,..." help:"A schema registry that speaks Confluent's API, e.g. http://registry:8081; further addresses of the same registry after commas. Turns the formats avro, jsonschema and protobuf on. User and password may stand in it; they are never printed."`
}

// Default is what the tags say: no registry.
func Default() Config { return Config{} }

// On says that there is a registry.
func (c Config) On() bool { return len(c.RegistryURL) > 0 }

// Validate names the first setting that cannot work. It repeats no address: a password may stand in it.
func (c Config) Validate() error {
	var first *url.Userinfo
	for n, text := range c.RegistryURL {
		u, err := url.Parse(text)
		switch {
		case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
			return fmt.Errorf("schema-registry-url: address %d must look like http://host:8081 or https://user:password@host", n+1)
		case u.RawQuery != "" || u.Fragment != "":
			return fmt.Errorf("schema-registry-url: address %d must have no query and no fragment", n+1)
		case n == 0:
			first = u.User
		case u.User != nil && (first == nil || *u.User != *first):
			return errors.New("schema-registry-url: all addresses must have the user and password of the first, or none")
		}
	}
	return nil
}
