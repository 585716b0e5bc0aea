// Command sluice is the gateway. This file has the flags and the signals; each verb has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	_ "golang.org/x/crypto/x509roots/fallback" // for images without root certificates; the system's own win where there are any

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/gateway"
)

type cli struct {
	Serve       serve       `cmd:"" help:"Run the gateway against a Kafka and a Redis."`
	Dev         dev         `cmd:"" help:"Run the gateway with a Kafka and a Redis inside: nothing else is needed. Nothing is kept, unless you say --data."`
	Migrate     migrate     `cmd:"" help:"Bring Sluice's own topics and Redis keys up to this version."`
	Healthcheck healthcheck `cmd:"" help:"Ask a running gateway whether it is good to go; exit 0 if so."`
	Version     version     `cmd:"" help:"Print what this binary was built from."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sluice: "+reason(err))
		os.Exit(1)
	}
}

// run runs the verb of the command line until it is done or ctx ends.
func run(ctx context.Context, args []string) error {
	verb, _, err := parse(ctx, args)
	if err != nil {
		return err
	}
	return verb.Run()
}

// parse reads the command line, the environment, the file of --config and what the classic proxy was told, in which
// whoever comes first wins. What none of them sets keeps the rooms' own defaults.
func parse(ctx context.Context, args []string) (*kong.Context, *cli, error) {
	verbs := &cli{Serve: serve{Config: gateway.Default()}, Migrate: migrate{Stores: gateway.Default().Stores}}
	file, old := &settingsFile{}, &legacySettings{}
	parser, err := kong.New(verbs, kong.Name("sluice"),
		kong.Description("Sluice is a gateway in front of Apache Kafka: the REST proxy, webhooks and server-sent events."),
		kong.BindTo(ctx, (*context.Context)(nil)),
		durations,
		kong.Bind(old),
		kong.Resolvers(old, file), // of two that know a flag, kong takes the last
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return nil, nil, err
	}
	verb, err := parser.Parse(args)
	switch {
	case file.err != nil:
		return nil, nil, file.err
	case old.err != nil:
		return nil, nil, old.err
	case err != nil:
		return nil, nil, old.explain(blame(err, origins(err, old, file)))
	}
	return verb, verbs, unknownSettings(parser.Model, os.Environ())
}

// reason is the one line for a person: what went wrong, then what it was caused by.
func reason(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*sluice.Error](err); ok {
		text = e.Msg
		if e.Err != nil {
			text += " (" + e.Err.Error() + ")"
		}
	}
	return strings.ReplaceAll(text, "\n", "; ")
}
