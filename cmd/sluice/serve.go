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
func (s serve) Run(ctx context.Context) error {
	s.HTTP.Build = build()
	g, err := gateway.New(ctx, s.Config, gateway.NewLogger(os.Stdout, s.LogLevel))
	if err != nil {
		return err
	}
	return g.Run(ctx)
}
