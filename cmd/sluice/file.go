package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/alecthomas/kong"
)

// fromFile is the flags of the verbs that read configuration files.
type fromFile struct {
	Config     string `name:"config" env:"SLUICE_CONFIG" placeholder:"FILE" help:"YAML file of settings, by the names of the flags. The environment and the flags win over it."`
	Properties string `name:"kafka-rest-properties" env:"SLUICE_KAFKA_REST_PROPERTIES" placeholder:"FILE" help:"Properties file of the Confluent REST Proxy. What it says, and KAFKA_REST_* and RP_* in the environment, counts where nothing of Sluice's own is set; docs/operations.md has the names."`
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
	if !ok || inEnvironment(flag) {
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
			if flag.Name != "config" && flag.Name != "kafka-rest-properties" && !flag.Hidden {
				all[flag.Name] = flag
			}
		}
	}
	return all
}

// inEnvironment says that a variable of Sluice's own sets the flag.
func inEnvironment(flag *kong.Flag) bool {
	return slices.ContainsFunc(flag.Envs, func(name string) bool { _, there := os.LookupEnv(name); return there })
}

// origins are the settings that the file has given, each by itself.
func (f *settingsFile) origins() (all []origin) {
	for name, flag := range f.used {
		all = append(all, origin{[]*kong.Flag{flag}, func(text string) error { return &fileError{f.path, f.set[name].line, text} }})
	}
	return all
}
