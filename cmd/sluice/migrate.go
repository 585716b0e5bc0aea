package main

import (
	"context"
	"os"

	"github.com/sluicegate/sluice/gateway"
)

type migrate struct {
	fromFile       `embed:""`
	gateway.Stores `embed:""`
}

// Run runs the pending migrations and says which.
func (m migrate) Run(ctx context.Context) error {
	return gateway.Migrate(ctx, m.Stores, gateway.NewLogger(os.Stdout, "info"))
}
