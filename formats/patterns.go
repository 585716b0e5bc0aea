package formats

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// patterns compiles the regular expressions of one JSON Schema, each once. A few bytes may stand for a large program:
// a{1000}, or a Unicode class, which is a table of a thousand runes.
type patterns struct {
	weights *weights
	known   map[string]*regexp.Regexp
	fault   error // the bound that was met first
	closed  bool  // what comes now are not patterns of the schema but values of "format": "regex", from any goroutine
}

const (
	mostPattern  = 16 << 10 // bytes of one
	mostClasses  = 100      // Unicode classes in it
	mostPatterns = 16 << 20 // bytes of all programs
)

func (p *patterns) engine(text string) (jsonschema.Regexp, error) {
	if re, ok := p.known[text]; ok {
		return re, nil
	}
	if len(text) > mostPattern {
		return nil, p.refuse("a regular expression is longer than %d bytes", mostPattern)
	}
	if strings.Count(text, `\p`)+strings.Count(text, `\P`) > mostClasses {
		return nil, p.refuse("a regular expression has more than %d Unicode classes", mostClasses)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil || p.closed {
		return nil, err
	}
	if p.weights.patterns += programBytes(tree); p.weights.patterns > mostPatterns {
		return nil, p.refuse("the regular expressions in it take more than %d bytes", mostPatterns)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	p.known[text] = re
	return re, nil
}

// refuse keeps the words for compileJSONSchema: the library tells them as a list of all that it tried.
func (p *patterns) refuse(format string, most int) error {
	err := fmt.Errorf(format, most)
	if !p.closed && p.fault == nil {
		p.fault = err
	}
	return err
}

// programBytes is about what a program takes. The parser allows no more than 1,000 repetitions, inside each other too.
func programBytes(re *syntax.Regexp) int {
	const instruction, rune = 60, 4
	n := instruction
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune) * instruction
	case syntax.OpCharClass:
		n += len(re.Rune) * rune
	}
	for _, sub := range re.Sub {
		n += programBytes(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}
