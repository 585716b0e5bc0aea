package main

import (
	"context"
	"os"

	"github.com/sluicegate/sluice/gateway"
)

type serve struct {
	fromFile       `embed:""`
	gateway.Config `embed:""`
}

// Run serves until ctx ends, then drains.
func (s serve) Run(ctx context.Context, old *legacySettings) error {
	s.HTTP.Build = build()
	lines := gateway.NewLines(os.Stdout)
	defer func() { _ = lines.Close() }() // a log that nobody takes is no reason to end badly
	log := gateway.NewLogger(lines, s.LogLevel)
	old.report(log)
	gateway.FitMemory(log)
	g, err := gateway.New(ctx, s.Config, log)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}
