package main

import (
	"errors"
	"strings"
)

// login is what a JAAS line of a Kafka client says.
type login struct {
	module         string // the class without its package
	user, password string
}

// parseJAAS reads the one line of sasl.jaas.config:
//
//	org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p";
//
// Its errors repeat nothing of the line, which has a password in it.
func parseJAAS(line string) (l login, err error) {
	words, err := jaasWords(line)
	if err != nil {
		return l, err
	}
	if len(words) < 2 || words[0] == "=" || words[1] == "=" {
		return l, errors.New("must be `<login module> required username=\"…\" password=\"…\";`")
	}
	l.module = words[0][strings.LastIndexByte(words[0], '.')+1:]
	if l.module != "PlainLoginModule" && l.module != "ScramLoginModule" {
		return l, errors.New("must name PlainLoginModule or ScramLoginModule: Kerberos, OAuth and modules of one's own do not exist in Sluice")
	}
	for options := words[2:]; len(options) > 0; options = options[3:] {
		if len(options) < 3 || options[1] != "=" {
			return l, errors.New("must have options as name=\"value\"")
		}
		switch value := strings.TrimPrefix(options[2], quoted); options[0] {
		case "username":
			l.user = value
		case "password":
			l.password = value
		}
	}
	if l.user == "" || l.password == "" {
		return l, errors.New("must have a username and a password")
	}
	return l, nil
}

// quoted marks a word that stood in quotation marks, so that "=" is text and not the sign.
const quoted = "\x00"

// jaasWords splits at blanks and equals signs, up to the semicolon. Text in quotation marks may hold all of them.
func jaasWords(line string) (words []string, err error) {
	for i := 0; i < len(line); {
		switch c := line[i]; c {
		case ' ', '\t', '\n', '\r':
			i++
		case '=':
			words = append(words, "=")
			i++
		case ';':
			if strings.TrimSpace(line[i+1:]) != "" {
				return nil, errors.New("must have one login module, and nothing behind its semicolon")
			}
			return words, nil
		case '"', '\'':
			text, n := jaasText(line[i+1:], c)
			if n < 0 {
				return nil, errors.New("has a quotation mark without its other half")
			}
			words = append(words, quoted+text)
			i += n + 1
		default:
			n := strings.IndexAny(line[i:], " \t\n\r=;\"'")
			if n < 0 {
				n = len(line) - i
			}
			words = append(words, line[i:i+n])
			i += n
		}
	}
	return nil, errors.New("must end with a semicolon")
}

// jaasText is the text up to a quotation mark, with the escapes of java.io.StreamTokenizer, and how much of s it took.
func jaasText(s string, mark byte) (text string, n int) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == mark:
			return b.String(), i + 1
		case s[i] == '\\' && i+1 < len(s):
			i++
			if at := strings.IndexByte("ntrfb", s[i]); at >= 0 {
				b.WriteByte("\n\t\r\f\b"[at])
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", -1
}
