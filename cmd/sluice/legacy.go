package main

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// legacySettings are what a deployment of the Confluent REST Proxy, or of the msk-kafka-proxy around it, says in its own
// words: variables of the environment and a properties file. They count where nothing of Sluice's own is set:
//
//	flag > SLUICE_* > --config > KAFKA_REST_* > RP_* > KAFKA_ADDRESS > --kafka-rest-properties > default
//
// It is a kong.Resolver, like settingsFile. A name without a meaning is reported and passed over, but what asks for
// protection that would be missing is an error, whatever else is set.
type legacySettings struct {
	loaded     bool
	err        error
	properties legacyProperties
	set        map[string]legacySetting // by the flag's name
	used       map[string]bool          // those that nothing above has overridden, as far as kong has asked

	without, later, unknown []string
	shadowed                []shadow
}

// legacyProperties are all of them by name, from wherever they win.
type legacyProperties map[string]legacyProperty

type legacyProperty struct {
	name, value string
	variable    string // of the environment, or
	path        string // the file and its line
	line        int
}

// shadow is a property that another one wins over.
type shadow struct{ property, winner legacyProperty }

// legacySetting is what a property became.
type legacySetting struct {
	row  legacyRow
	from legacyProperty
	flag *kong.Flag
	text string
}

// place is how an error or a line of the log names it.
func (p legacyProperty) place() string {
	if p.variable != "" {
		return p.variable
	}
	return fmt.Sprintf("%s:%d: %s", p.path, p.line, p.name)
}

// said is the name alone, as whoever set it knows it.
func (p legacyProperty) said() string {
	if p.variable != "" {
		return p.variable
	}
	return p.name
}

// Validate is part of kong.Resolver; all was checked when it was read.
func (*legacySettings) Validate(*kong.Application) error { return nil }

// Resolve is the value of one flag, nil for none.
func (l *legacySettings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !l.loaded {
		l.loaded, l.used = true, map[string]bool{}
		l.err = l.load(ctx)
	}
	s, ok := l.set[flag.Name]
	if !ok || l.err != nil || inEnvironment(flag) {
		return nil, nil
	}
	l.used[flag.Name] = true
	return s.text, nil
}

// load reads everything, for the verbs that have the flag of the file; sluice dev takes nothing from its surroundings.
func (l *legacySettings) load(ctx *kong.Context) error {
	n := slices.IndexFunc(ctx.Flags(), func(f *kong.Flag) bool { return f.Name == "kafka-rest-properties" })
	if n < 0 {
		return nil
	}
	path, _ := ctx.FlagValue(ctx.Flags()[n]).(string)
	l.properties, l.set = legacyProperties{}, map[string]legacySetting{}
	if err := l.readFile(path); err != nil {
		return err
	}
	l.readEnvironment(os.Environ())
	if err := l.refuse(); err != nil {
		return err
	}
	return l.convert(allServeFlags(ctx.Model))
}

// readFile is the properties file. Of a key that stands in it twice the last one counts, as in Java.
func (l *legacySettings) readFile(path string) error {
	if path == "" {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the properties file cannot be read: %w", err)
	}
	all, err := parseProperties(path, raw)
	if err != nil {
		return err
	}
	for _, p := range all {
		l.put(legacyProperty{name: p.key, value: strings.TrimSpace(p.value), path: path, line: p.line})
	}
	return nil
}

// readEnvironment adds the variables, the strongest last. Names become properties as in the images of Confluent: ___ is
// a dash, __ an underscore, _ a dot.
func (l *legacySettings) readEnvironment(environ []string) {
	slices.Sort(environ)
	for _, variable := range brokerVariables {
		if value := strings.TrimSpace(os.Getenv(variable)); value != "" {
			l.put(legacyProperty{name: "bootstrap.servers", value: value, variable: variable})
		}
	}
	for _, prefix := range []string{"RP_", "KAFKA_REST_", "KAFKAREST_"} {
		for _, pair := range environ {
			variable, value, _ := strings.Cut(pair, "=")
			rest, ours := strings.CutPrefix(variable, prefix)
			if !ours || legacyService(rest, value) {
				continue
			}
			p := legacyProperty{name: propertyName(rest), value: strings.TrimSpace(value), variable: variable}
			if prefix == "KAFKAREST_" || slices.ContainsFunc(legacyEnvironment, func(pattern string) bool { return matches(pattern, rest) }) {
				l.without = append(l.without, variable)
				continue
			}
			l.put(p)
		}
	}
}

func propertyName(variable string) string {
	return strings.ToLower(strings.NewReplacer("___", "-", "__", "_", "_", ".").Replace(variable))
}

// legacyService says that Kubernetes made the variable, out of a Service that is called like the old proxy.
func legacyService(rest, value string) bool {
	return strings.Contains(value, "://") && (strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://")) ||
		strings.Contains("_"+rest, "_SERVICE_HOST") || strings.Contains("_"+rest, "_SERVICE_PORT") || strings.Contains("_"+rest, "_TCP_") || strings.Contains("_"+rest, "_UDP_")
}

// put lets a property win over those before it. An empty value is none, but for the one property of which it is said.
func (l *legacySettings) put(p legacyProperty) {
	row := rowOf(p.name)
	if p.value == "" && (row == nil || !row.empty) {
		return
	}
	if before, twice := l.properties[p.name]; twice && before.value != p.value {
		l.shadowed = append(l.shadowed, shadow{before, p})
	}
	l.properties[p.name] = p
}

func rowOf(property string) *legacyRow {
	for n := range legacyRows {
		if legacyRows[n].property == property {
			return &legacyRows[n]
		}
	}
	return nil
}

// refuse sorts what is in no row, and stops at what must not be passed over.
func (l *legacySettings) refuse() error {
	for _, p := range l.ordered() {
		is := func(pattern string) bool { return matches(pattern, p.name) }
		switch {
		case rowOf(p.name) != nil:
		case slices.ContainsFunc(legacyWithout, is):
			l.without = append(l.without, p.said())
		case slices.ContainsFunc(legacyLater, is):
			l.later = append(l.later, p.said())
		default:
			for _, r := range legacyRefused {
				if is(r.pattern) {
					return p.fault(r.reason)
				}
			}
			if slices.ContainsFunc(legacyClients, is) {
				l.without = append(l.without, p.said())
			} else {
				l.unknown = append(l.unknown, p.said())
			}
		}
	}
	return nil
}

// ordered are the properties by name, so that a start says the same each time.
func (l *legacySettings) ordered() []legacyProperty {
	var all []legacyProperty
	for _, p := range l.properties {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b legacyProperty) int { return strings.Compare(a.name, b.name) })
	return all
}

// blamed is fault for a reason that speaks of a setting by its own name.
func (p legacyProperty) blamed(text string) error { return p.fault("does not work: " + text) }

func (p legacyProperty) fault(text string) error {
	if p.variable != "" {
		return fmt.Errorf("%s %s", p.variable, text)
	}
	return &fileError{p.path, p.line, p.name + " " + text}
}

// convert makes settings of the properties and checks each as its flag would.
func (l *legacySettings) convert(flags map[string]*kong.Flag) error {
	for _, row := range legacyRows {
		p, there := l.properties[row.property]
		if !there {
			continue
		}
		texts := []string{p.value}
		if row.convert != nil {
			var err error
			if texts, err = row.convert(p.value, l.properties); err != nil {
				return p.fault(err.Error())
			}
		}
		if len(row.settings) == 0 {
			l.without = append(l.without, p.said())
		}
		for n, name := range row.settings {
			if texts[n] == "" {
				continue
			}
			s := legacySetting{row: row, from: p, flag: flags[name], text: texts[n]}
			if err := s.check(); err != nil {
				return p.fault(err.Error())
			}
			if before, taken := l.set[name]; !taken {
				l.set[name] = s
			} else if before.text != s.text && before.from != p {
				l.shadowed = append(l.shadowed, shadow{p, before.from})
			}
		}
	}
	return nil
}

// check reads the text as the flag will. It repeats it only where it is no secret.
func (s legacySetting) check() error {
	_, err := s.decoded()
	switch {
	case err != nil && s.row.secret:
		return fmt.Errorf("is no value for %s", s.flag.Name)
	case err != nil:
		return fmt.Errorf("has a bad value: %w", err)
	case s.flag.Enum != "" && !s.flag.EnumMap()[s.text]:
		return fmt.Errorf("must be one of %s", strings.Trim(strings.Join(s.flag.EnumSlice(), ", "), ", "))
	}
	return nil
}

func (s legacySetting) decoded() (any, error) {
	target := reflect.New(s.flag.Target.Type()).Elem()
	err := s.flag.Mapper.Decode(&kong.DecodeContext{Value: s.flag.Value, Scan: kong.Scan().PushTyped(s.text, kong.FlagValueToken)}, target)
	return target.Interface(), err
}

// allServeFlags are the flags that a property may become, the hidden ones too.
func allServeFlags(model *kong.Application) map[string]*kong.Flag {
	all := map[string]*kong.Flag{}
	for _, verb := range model.Leaves(true) {
		if verb.Name == "serve" {
			for _, flag := range verb.Flags {
				all[flag.Name] = flag
			}
		}
	}
	return all
}

// origins are the properties that have given settings to the verb that runs; overridden are those flags that something
// above has given.
func (l *legacySettings) origins(ctx *kong.Context, overridden map[string]*kong.Flag) (all []origin) {
	by := map[legacyProperty][]*kong.Flag{}
	for _, flag := range ctx.Flags() {
		if s, ok := l.set[flag.Name]; ok && l.used[flag.Name] && overridden[flag.Name] == nil {
			by[s.from] = append(by[s.from], flag)
		}
	}
	for from, flags := range by {
		all = append(all, origin{flags, from.blamed})
	}
	return all
}
