package main

import (
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// origin is where settings came from that neither a flag nor a variable of Sluice's own has given.
type origin struct {
	flags []*kong.Flag
	at    func(text string) error // an error that names the place
}

// without is what the configuration would say if the origin had given nothing.
func (o origin) without(validate func() error) error {
	for _, flag := range o.flags {
		defer flag.Target.Set(reflect.ValueOf(flag.Target.Interface()))
		if err := flag.Reset(); err != nil {
			return err
		}
	}
	return validate()
}

// blame gives the reason why a configuration is invalid the place it comes from, if one of the origins is at fault: the
// setting without which all would be well, or, when more is wrong than one, the one that the reason names.
func blame(reason error, origins []origin) error {
	parsing, ok := errors.AsType[*kong.ParseError](reason)
	if !ok || parsing.Context == nil || parsing.Context.Selected() == nil {
		return reason
	}
	config, ok := parsing.Context.Selected().Target.Addr().Interface().(interface{ Validate() error })
	if !ok || config.Validate() == nil {
		return reason
	}
	fault := config.Validate().Error()
	var named *origin
	for _, from := range origins {
		switch err := from.without(config.Validate); {
		case err == nil:
			return from.at(fault)
		case err.Error() != fault && slices.ContainsFunc(from.flags, func(flag *kong.Flag) bool { return strings.Contains(fault, flag.Name) }):
			named = &from
		}
	}
	if named == nil {
		return reason
	}
	return named.at(fault)
}

// origins are those of both. Where both know a flag, the file has given it.
func origins(reason error, old *legacySettings, file *settingsFile) []origin {
	all := file.origins()
	if parsing, ok := errors.AsType[*kong.ParseError](reason); ok && parsing.Context != nil {
		all = append(all, old.origins(parsing.Context, file.used)...)
	}
	return all
}
