package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// fromFile is the flag of the verbs that read a configuration file.
type fromFile struct {
	Config string `name:"config" env:"SLUICE_CONFIG" placeholder:"FILE" help:"YAML file of settings, by the names of the flags. The environment and the flags win over it."`
}

// settingsFile is the YAML file of --config, one setting a line by the name of its flag:
//
//	kafka-brokers: [a:9092, b:9092]
//	produce-timeout: 30s
//
// It stands above the defaults and below the environment and the flags. Everything that is wrong with it is an error,
// also for settings that something above it overrides; each names the file and the line, and none repeats a value of a
// setting that takes any text, for that may be a secret.
//
// It is a kong.Resolver: kong asks it for each flag that the command line left out.
type settingsFile struct {
	read bool
	path string
	set  map[string]setting
	used map[string]*kong.Flag // those that nothing above the file overrides
	err  error                 // kong would put a flag's name before it
}

type setting struct {
	line  int
	value any // text, or []any of texts: what kong's mappers read
}

// fileError is what is wrong, and where.
type fileError struct {
	path string
	line int
	text string
}

func (e *fileError) Error() string { return fmt.Sprintf("%s:%d: %s", e.path, e.line, e.text) }

// Validate is part of kong.Resolver. The file is checked where it is read: here it would come after its use.
func (*settingsFile) Validate(*kong.Application) error { return nil }

// Resolve is the value of one flag, nil for none.
func (f *settingsFile) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !f.read {
		f.read, f.used = true, map[string]*kong.Flag{}
		f.err = f.load(ctx)
	}
	s, ok := f.set[flag.Name]
	if !ok || slices.ContainsFunc(flag.Envs, func(name string) bool { _, there := os.LookupEnv(name); return there }) {
		return nil, nil
	}
	f.used[flag.Name] = flag
	return s.value, nil
}

func (f *settingsFile) load(ctx *kong.Context) error {
	for _, flag := range ctx.Flags() {
		if flag.Name == "config" {
			f.path, _ = ctx.FlagValue(flag).(string)
		}
	}
	if f.path == "" {
		return nil
	}
	raw, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("the configuration file cannot be read: %w", err)
	}
	f.set, err = parseSettings(f.path, raw, serveFlags(ctx.Model))
	return err
}

// serveFlags are the settings that a file may have. One file serves all verbs: those that lack a setting pass it over.
func serveFlags(model *kong.Application) map[string]*kong.Flag {
	all := map[string]*kong.Flag{}
	for _, verb := range model.Leaves(true) {
		if verb.Name != "serve" {
			continue
		}
		for _, flag := range verb.Flags {
			if flag.Name != "config" && !flag.Hidden {
				all[flag.Name] = flag
			}
		}
	}
	return all
}

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

// blame gives the reason why a configuration is invalid the line it comes from, if the file is at fault: the setting
// without which all would be well, or, when more is wrong than one, the one that the reason names.
func (f *settingsFile) blame(reason error) error {
	parsing, ok := errors.AsType[*kong.ParseError](reason)
	if !ok || parsing.Context == nil || parsing.Context.Selected() == nil {
		return reason
	}
	config, ok := parsing.Context.Selected().Target.Addr().Interface().(interface{ Validate() error })
	if !ok || config.Validate() == nil {
		return reason
	}
	fault, at := config.Validate().Error(), 0
	for name, flag := range f.used {
		was := reflect.ValueOf(flag.Target.Interface())
		if flag.Reset() != nil {
			continue
		}
		err := config.Validate()
		flag.Target.Set(was)
		switch line := f.set[name].line; {
		case err == nil:
			return &fileError{f.path, line, fault}
		case err.Error() != fault && strings.Contains(fault, name):
			at = line
		}
	}
	if at == 0 {
		return reason
	}
	return &fileError{f.path, at, fault}
}
