package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

var duration = reflect.TypeFor[time.Duration]()

// durations reads 30s and 5m; a bare integer is milliseconds, as in the properties of the proxies before this one.
var durations = kong.TypeMapper(duration, kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		target.SetInt(int64(time.Duration(ms) * time.Millisecond))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration like 30s or 5m", text)
	}
	target.SetInt(int64(d))
	return nil
}))

// unknownSettings refuses a SLUICE_ name that no flag has: a misspelt setting must not quietly mean its default.
// Kubernetes sets SLUICE_PORT=tcp://… and the like for a Service called sluice; those are passed over.
func unknownSettings(model *kong.Application, environ []string) error {
	known := map[string]bool{}
	for _, verb := range model.Leaves(true) {
		for _, flag := range verb.Flags {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
	}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "SLUICE_") || known[name] || fromService(name, value) {
			continue
		}
		return fmt.Errorf("%s is not a setting of sluice; `sluice serve --help` lists them", name)
	}
	return nil
}

// fromService reports whether Kubernetes made the variable out of a Service.
func fromService(name, value string) bool {
	return strings.HasPrefix(value, "tcp://") || strings.HasPrefix(name, "SLUICE_SERVICE_") || strings.HasPrefix(name, "SLUICE_PORT_")
}
