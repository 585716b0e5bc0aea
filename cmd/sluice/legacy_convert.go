package main

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// What follows turns the value of a property into the texts of its settings, "" where it says nothing of one. What it says
// to a person is read behind the name of the property.

func brokers(value string, _ legacyProperties) ([]string, error) {
	var all []string
	for address := range strings.SplitSeq(value, ",") {
		address = strings.TrimSpace(address)
		if _, rest, scheme := strings.Cut(address, "://"); scheme {
			address = rest
		}
		if address != "" {
			all = append(all, address)
		}
	}
	return []string{strings.Join(all, ",")}, nil
}

func listener(value string, _ legacyProperties) ([]string, error) {
	listeners, err := list(value, nil)
	if err != nil {
		return nil, err
	}
	if strings.Contains(listeners[0], ",") {
		return nil, errors.New("names several addresses; Sluice serves one")
	}
	u, err := url.Parse(listeners[0])
	switch {
	case err != nil || u.Host == "" || u.Scheme == "":
		return nil, errors.New("must look like http://0.0.0.0:8082")
	case strings.EqualFold(u.Scheme, "https"):
		return nil, errors.New("asks for HTTPS, which Sluice does not serve yet: let TLS end in front of it, and name http here")
	case !strings.EqualFold(u.Scheme, "http"):
		return nil, errors.New("must be of http; named listeners do not exist here")
	case u.Port() == "":
		return nil, errors.New("must have a port, as in http://0.0.0.0:8082")
	}
	return []string{u.Host}, nil
}

func port(value string, _ legacyProperties) ([]string, error) {
	if n, err := strconv.Atoi(value); err != nil || n < 0 || n > 65535 {
		return nil, errors.New("must be a port")
	}
	return []string{":" + value}, nil
}

// list takes the blanks out that Java allows around commas.
func list(value string, _ legacyProperties) ([]string, error) {
	var all []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return []string{strings.Join(all, ",")}, nil
}

func truth(value string, _ legacyProperties) ([]string, error) {
	switch value = strings.ToLower(value); value {
	case "true", "false":
		return []string{value}, nil
	}
	return nil, errors.New("must be true or false")
}

func upper(value string, _ legacyProperties) ([]string, error) {
	return []string{strings.ToUpper(value)}, nil
}

// between moves what is out of bounds to the bound: the old server took it, so it must not stop the new one.
func between(least, most int64) func(string, legacyProperties) ([]string, error) {
	return func(value string, _ legacyProperties) ([]string, error) {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("is %q; it must be a whole number", value)
		}
		return []string{strconv.FormatInt(min(max(n, least), most), 10)}, nil
	}
}

// recordSize is the limit of a record, and one for the body in which a record of that size fits as base64 where the
// usual one is too small: the old server had none.
func recordSize(value string, _ legacyProperties) ([]string, error) {
	limits, err := between(1<<10, 64<<20)(value, nil)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(limits[0])
	body := n/3*4 + 1<<20
	if err != nil || body <= 24<<20 {
		return []string{limits[0], ""}, err
	}
	return []string{limits[0], strconv.Itoa(body)}, nil
}

func acks(value string, _ legacyProperties) ([]string, error) {
	switch value {
	case "all", "-1", "0", "1":
		return []string{"all"}, nil
	}
	return nil, errors.New("must be all, -1, 0 or 1")
}

// registry puts user and password into the addresses, where the old proxy had them apart.
func registry(value string, all legacyProperties) ([]string, error) {
	addresses, err := list(value, nil)
	if err != nil {
		return nil, err
	}
	info, apart := all["schema.registry.basic.auth.user.info"]
	if !apart || info.value == "" {
		return addresses, nil
	}
	user, password, _ := strings.Cut(info.value, ":")
	var full []string
	for address := range strings.SplitSeq(addresses[0], ",") {
		u, err := url.Parse(address)
		if err != nil {
			return nil, errors.New("must be addresses like http://registry:8081")
		}
		u.User = url.UserPassword(user, password)
		full = append(full, strings.ReplaceAll(u.String(), ",", "%2C")) // commas part the addresses
	}
	return []string{strings.Join(full, ",")}, nil
}

// userInfo is read by registry.
func userInfo(value string, all legacyProperties) ([]string, error) {
	switch {
	case !strings.Contains(value, ":"):
		return nil, errors.New("must be user:password")
	case all["schema.registry.url"].value == "":
		return nil, errors.New("is for the addresses of schema.registry.url, which is not set; with SLUICE_SCHEMA_REGISTRY_URL they stand in it")
	}
	return []string{""}, nil
}

// oneOf is a property that may only say what Sluice does anyway.
func oneOf(harmless ...string) func(string, legacyProperties) ([]string, error) {
	return func(value string, _ legacyProperties) ([]string, error) {
		for _, v := range harmless {
			if strings.EqualFold(value, v) {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("is %q, which Sluice cannot do; only %s", value, strings.Join(harmless, " and "))
	}
}

func authentication(value string, _ legacyProperties) ([]string, error) {
	if strings.EqualFold(value, "NONE") {
		return []string{"none"}, nil
	}
	return nil, fmt.Errorf("is %q: Sluice has no login yet, and would serve everybody; take it out only if everybody who reaches the port may do everything", value)
}

func extension(value string, _ legacyProperties) ([]string, error) {
	if strings.Contains(strings.ToLower(value), "security") {
		return nil, errors.New("names a plugin for security, which does not exist here; take it out only if everybody who reaches the port may do everything")
	}
	return nil, nil
}

func mechanism(value string, _ legacyProperties) ([]string, error) {
	switch value = strings.ToUpper(value); value {
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		return []string{value}, nil
	}
	return nil, fmt.Errorf("is %q; Sluice logs in by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", value)
}

// jaas gives the mechanism as well, where its own property, which comes first, does not.
func jaas(value string, _ legacyProperties) ([]string, error) {
	l, err := parseJAAS(value)
	if err != nil {
		return nil, err
	}
	if l.module == "PlainLoginModule" {
		return []string{l.user, l.password, "PLAIN"}, nil
	}
	return []string{l.user, l.password, ""}, nil
}

// pemFile takes a file in PEM. Java's default is a keystore of its own sort, told by the name where no type is given.
func pemFile(typeProperty string) func(string, legacyProperties) ([]string, error) {
	return func(value string, all legacyProperties) ([]string, error) {
		kind := all[typeProperty].value
		switch ext := strings.ToLower(filepath.Ext(value)); {
		case strings.EqualFold(kind, "PEM"):
		case kind != "":
			return nil, fmt.Errorf("is a keystore of type %s; Sluice reads PEM: `keytool -exportcert -rfc` and `openssl pkcs12 -nodes` make it", kind)
		case ext == ".jks" || ext == ".p12" || ext == ".pfx" || ext == ".keystore" || ext == ".truststore" || ext == ".bcfks":
			return nil, errors.New("is a Java keystore; Sluice reads PEM: `keytool -exportcert -rfc` and `openssl pkcs12 -nodes` make it")
		}
		return []string{value}, nil
	}
}

// pemText gives each block lines of its own: Java takes them on one line as well, as a properties file joins them.
func pemText(value string, _ legacyProperties) ([]string, error) {
	blocks := pemBlock.FindAllStringSubmatch(value, -1)
	if blocks == nil {
		return nil, errors.New("must be text in PEM")
	}
	var b strings.Builder
	for _, block := range blocks {
		fmt.Fprintf(&b, "-----BEGIN %s-----\n%s\n-----END %s-----\n", block[1], strings.Join(strings.Fields(block[2]), "\n"), block[1])
	}
	return []string{b.String()}, nil
}

var pemBlock = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END [A-Z0-9 ]+-----`)

func twice(convert func(string, legacyProperties) ([]string, error)) func(string, legacyProperties) ([]string, error) {
	return func(value string, all legacyProperties) ([]string, error) {
		one, err := convert(value, all)
		if err != nil {
			return nil, err
		}
		return []string{one[0], one[0]}, nil
	}
}

func hostCheck(value string, _ legacyProperties) ([]string, error) {
	switch strings.ToLower(value) {
	case "":
		return []string{"false"}, nil
	case "https":
		return []string{"true"}, nil
	}
	return nil, errors.New("must be https or empty")
}
