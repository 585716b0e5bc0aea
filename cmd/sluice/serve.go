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
	log := gateway.NewLogger(os.Stdout, s.LogLevel)
	old.report(log)
	g, err := gateway.New(ctx, s.Config, log)
	if err != nil {
		return err
	}
	return g.Run(ctx)
}
