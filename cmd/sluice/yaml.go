package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// parseSettings reads the text of a settings file and checks each value against the flag of its name.
func parseSettings(path string, raw []byte, flags map[string]*kong.Flag) (map[string]setting, error) {
	bad := func(line int, format string, args ...any) (map[string]setting, error) {
		return nil, &fileError{path, max(line, 1), fmt.Sprintf(format, args...)}
	}
	var document, second yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(raw))
	if err := documents.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil // empty, or nothing but comments
	} else if err != nil {
		return bad(brokenLine(raw), "%s", syntax(err))
	}
	root := document.Content[0]
	if err := documents.Decode(&second); !errors.Is(err, io.EOF) {
		return bad(max(second.Line, root.Line), "there is a second document in the file; one is read")
	}
	if root.Kind != yaml.MappingNode {
		return bad(root.Line, "the file must hold settings as `name: value`")
	}
	set := map[string]setting{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		flag, known := flags[key.Value]
		if !known || key.Kind != yaml.ScalarNode {
			return bad(key.Line, "%s is not a setting of sluice; `sluice serve --help` lists them, by the names of the flags", printable(key.Value))
		}
		if first, twice := set[key.Value]; twice {
			return bad(key.Line, "%s is set twice; the first time in line %d", key.Value, first.line)
		}
		read, err := decode(flag, value)
		if err != nil {
			return bad(key.Line, "%s %v", key.Value, err)
		}
		set[key.Value] = setting{line: key.Line, value: read}
	}
	return set, nil
}

// decode checks the value as the flag itself would, and gives it as kong reads it.
func decode(flag *kong.Flag, node *yaml.Node) (any, error) {
	target := reflect.New(flag.Target.Type()).Elem()
	element := target.Type()
	nodes := []*yaml.Node{node}
	if element.Kind() == reflect.Slice {
		element = element.Elem()
		if node.Kind == yaml.SequenceNode {
			nodes = node.Content
		}
	}
	texts := []any{}
	for _, n := range nodes {
		if err := checkKind(element, n); err != nil {
			return nil, err
		}
		texts = append(texts, n.Value)
	}
	var value any = texts
	if node.Kind != yaml.SequenceNode {
		value = node.Value // a list in one text is split as in the environment
	}
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(value, kong.FlagValueToken)}, target); err != nil {
		return nil, fmt.Errorf("has a bad value: %w", err)
	}
	if flag.Enum != "" && !flag.EnumMap()[node.Value] {
		return nil, fmt.Errorf("must be one of %s", strings.Join(flag.EnumSlice(), ", "))
	}
	return value, nil
}

// checkKind refuses what YAML takes for something else than the setting is: 8082 for text, yes for a bool.
func checkKind(want reflect.Type, n *yaml.Node) error {
	tag := n.ShortTag()
	switch {
	case n.Kind == yaml.SequenceNode:
		return errors.New("must be one value, not a list")
	case n.Kind != yaml.ScalarNode:
		return errors.New("must be a plain value, without anything nested or aliased")
	case tag == "!!null":
		return errors.New("has no value; leave it out for its default")
	case want == duration && tag != "!!str" && tag != "!!int":
		return errors.New("must be a duration like 30s or 5m, or an integer of milliseconds")
	case want == duration:
		return nil
	}
	switch want.Kind() {
	case reflect.Bool:
		if tag != "!!bool" {
			return errors.New("must be true or false")
		}
	case reflect.String:
		if tag != "!!str" {
			return errors.New("must be text; put it in quotes")
		}
	default:
		if tag != "!!int" {
			return errors.New("must be a whole number")
		}
	}
	return nil
}

// brokenLine is the line on which the text stops being YAML. The library's own line numbers are missing for some errors
// and one off for others.
func brokenLine(raw []byte) int {
	lines := bytes.SplitAfter(raw, []byte("\n"))
	for n := len(lines) - 1; n > 0; n-- {
		if yaml.Unmarshal(bytes.Join(lines[:n], nil), &yaml.Node{}) == nil {
			return n + 1
		}
	}
	return 1
}

var yamlPlace = regexp.MustCompile(`^yaml: (line \d+: )?`)

// syntax is the library's reason, which names no content, but for anchors: those may be half a password.
func syntax(err error) string {
	if strings.Contains(err.Error(), "anchor") {
		return "refers to an anchor that does not exist; put text that begins with * or & in quotes"
	}
	return yamlPlace.ReplaceAllString(err.Error(), "")
}

var nameLike = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

// printable is a key that looks like a name. Anything else may be a value in the wrong place.
func printable(key string) string {
	if nameLike.MatchString(key) {
		return key
	}
	return "this"
}
