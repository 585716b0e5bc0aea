package gateway

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"
)

// NewLogger writes one JSON object a line: time (RFC 3339 with nanoseconds, UTC), level (debug, info, warning, error),
// msg unless it is empty, service_name (APP_NAME), and what the line is about. An unknown level is info.
func NewLogger(w io.Writer, level string) *slog.Logger {
	var least slog.Level
	if level == "warning" {
		level = "warn"
	}
	if err := least.UnmarshalText([]byte(level)); err != nil {
		least = slog.LevelInfo
	}
	log := slog.New(newLineHandler(w, least))
	if name := os.Getenv("APP_NAME"); name != "" {
		log = log.With("service_name", name)
	}
	return log
}

// timed logs what a step of the start or the stop took, when it took long enough to be asked about.
func timed(ctx context.Context, log *slog.Logger, step string, began time.Time, err error) {
	took := time.Since(began)
	switch {
	case err != nil:
		log.LogAttrs(ctx, slog.LevelError, "step failed", slog.String("step", step), slog.Duration("took", took), slog.Any("error", err))
	case took > time.Second:
		log.LogAttrs(ctx, slog.LevelInfo, "step was slow", slog.String("step", step), slog.Duration("took", took))
	}
}
