package consumers

import (
	"regexp"
	"regexp/syntax"

	"github.com/sluicegate/sluice"
)

// What a topic_pattern may be. RE2 bounds a pattern at a hundred megabytes of program, and its parser at gigabytes; an
// instance keeps its pattern and runs it over every topic's name again and again.
const (
	mostPattern = 16 << 10 // bytes
	mostSteps   = 20_000   // of the program: characters and the ends of ranges, repeated as often as they are
)

// compile makes a pattern that matches whole names (rest-api.md 7.2). It is parsed alone first: "a)|(?:b" would step out
// of the group that anchors it.
func compile(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > mostPattern {
		return nil, errPatternSize
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, &sluice.Error{Kind: sluice.Invalid, Msg: "topic_pattern is not a valid regular expression", Err: err}
	}
	if steps(tree) > mostSteps {
		return nil, errPatternSize
	}
	match, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil { // what holds alone holds in a group, but for its depth
		return nil, &sluice.Error{Kind: sluice.Invalid, Msg: "topic_pattern is not a valid regular expression", Err: err}
	}
	return match, nil
}

var errPatternSize = &sluice.Error{Kind: sluice.Invalid, Msg: "topic_pattern is too large"}

// steps is about how long the program of a pattern will be; it stops counting above mostSteps. The parser bounds depth.
func steps(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		if n += steps(sub); n > mostSteps {
			return n
		}
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}
