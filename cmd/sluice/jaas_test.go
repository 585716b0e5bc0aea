package main

import (
	"strings"
	"testing"
)

func TestJAASLines(t *testing.T) {
	const plain, scram = "org.apache.kafka.common.security.plain.PlainLoginModule", "org.apache.kafka.common.security.scram.ScramLoginModule"
	for line, want := range map[string]login{
		plain + ` required username="u" password="p";`:                          {"PlainLoginModule", "u", "p"},
		plain + ` required username='u' password='p"q';`:                        {"PlainLoginModule", "u", `p"q`},
		scram + " required\n  username=u\n  password=p;  ":                      {"ScramLoginModule", "u", "p"},
		plain + ` required password="a==" username = "u";`:                      {"PlainLoginModule", "u", "a=="},
		plain + ` required username="u" password="=";`:                          {"PlainLoginModule", "u", "="},
		plain + ` required username="u" password="a\"b\\c;d e=f";`:              {"PlainLoginModule", "u", `a"b\c;d e=f`},
		scram + ` required username="$u" password="p" tokenauth="true";`:        {"ScramLoginModule", "$u", "p"},
		plain + ` required serviceName="kafka" username="u" password="p";`:      {"PlainLoginModule", "u", "p"},
		plain + ` sufficient username="u" password="pa,ss" user_alice="other";`: {"PlainLoginModule", "u", "pa,ss"},
	} {
		if got, err := parseJAAS(line); err != nil || got != want {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", ";", "x", plain, plain + " required;", plain + ` required username="u";`, plain + ` required username="u" password="hunter2"`,
		plain + ` required username="u" password="hunter2;`, `com.sun.security.auth.module.Krb5LoginModule required username="u" password="hunter2";`,
		plain + ` required username="u" password="hunter2"; ` + plain + ` required username="u" password="p";`,
		plain + ` required username "u" password "hunter2";`, plain + ` required username=;`,
	} {
		if got, err := parseJAAS(line); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %+v, %v", line, got, err)
		}
	}
}
