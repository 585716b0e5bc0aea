package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
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
