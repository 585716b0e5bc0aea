package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// property is one entry of a properties file, and the line on which it begins.
type property struct {
	key, value string
	line       int
}

// parseProperties reads the text of a Java properties file (java.util.Properties.load): comments behind # and !, keys
// that end at the first blank, = or : without a backslash, lines that go on behind a backslash, and escapes. Java reads
// such files as ISO-8859-1; text that is valid UTF-8 is read as that, for nobody writes the other by hand. The libraries
// that read such files forget where a key stands, and an error must name the line.
func parseProperties(path string, raw []byte) (all []property, err error) {
	text := string(raw)
	if !utf8.Valid(raw) {
		runes := make([]rune, len(raw))
		for i, b := range raw {
			runes[i] = rune(b)
		}
		text = string(runes)
	}
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	lines := strings.Split(text, "\n")
	for n := 0; n < len(lines); n++ {
		first := n + 1
		line := strings.TrimLeft(lines[n], propertyBlanks)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		for goesOn(line) {
			line = line[:len(line)-1]
			if n++; n == len(lines) {
				break
			}
			line += strings.TrimLeft(lines[n], propertyBlanks)
		}
		key, value := splitProperty(line)
		p := property{line: first}
		if p.key, err = unescapeProperty(key); err == nil {
			p.value, err = unescapeProperty(value)
		}
		if err != nil {
			return nil, &fileError{path, first, err.Error()}
		}
		all = append(all, p)
	}
	return all, nil
}

const propertyBlanks = " \t\f"

// goesOn says that a line ends in an odd number of backslashes: the next one belongs to it.
func goesOn(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// splitProperty finds the end of the key and the beginning of the value: blanks, one = or :, blanks.
func splitProperty(line string) (key, value string) {
	end := len(line)
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' {
			i++
		} else if strings.IndexByte(propertyBlanks+"=:", line[i]) >= 0 {
			end = i
			break
		}
	}
	value = strings.TrimLeft(line[end:], propertyBlanks)
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], propertyBlanks)
	}
	return line[:end], value
}

// unescapeProperty replaces \t, \n, \r, \f and \uXXXX; any other character behind a backslash is itself. Two \u may be
// the halves of one character.
func unescapeProperty(s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	var b strings.Builder
	var high rune // waits for its other half
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			if i+4 >= len(s) {
				return "", fmt.Errorf(`\u must be followed by four hexadecimal digits`)
			}
			n, err := strconv.ParseUint(s[i+1:i+5], 16, 16)
			if err != nil {
				return "", fmt.Errorf(`\u must be followed by four hexadecimal digits`)
			}
			i += 4
			r := rune(n)
			if whole := utf16.DecodeRune(high, r); high != 0 && whole != utf8.RuneError {
				r, high = whole, 0
			} else if high = 0; utf16.IsSurrogate(r) {
				high = r
				continue
			}
			b.WriteRune(r)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}
