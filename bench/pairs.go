package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// side is one of the two that are compared. run moves what it can in about so long and takes the reading itself, so that
// what it does before and after does not count.
type side struct {
	pid int // of the process that does the work
	run func(ctx context.Context, m meter, span time.Duration) (reading, error)
}

// reading is one measurement.
type reading struct {
	count int // of records, or of deliveries
	took  time.Duration
	cpu   time.Duration   // of the side's process, user and system
	waits []time.Duration // of its calls, or of every hundredth record; nil where nobody waits for one
	sizes []int64         // resident bytes of the gateway, evenly spaced in time, where that is looked at
}

func (r reading) rate() float64 { return float64(r.count) / r.took.Seconds() }

// cpuSeconds is what 100,000 cost.
func (r reading) cpuSeconds() float64 { return r.cpu.Seconds() * 100_000 / float64(r.count) }

type pair struct{ sluice, limit reading }

// interleave measures both sides by turns; which of the two comes first is chosen at random for each pair. A pair begins
// in a still moment, if there is one.
func interleave(ctx context.Context, sluice, limit side, o options) ([]pair, error) {
	var pairs []pair
	for range o.pairs + 1 {
		if err := awaitStill(ctx, o.still); err != nil {
			return nil, err
		}
		var p pair
		turns := []func() error{
			func() (err error) { p.sluice, err = take(ctx, sluice, o.span, "sluice"); return err },
			func() (err error) { p.limit, err = take(ctx, limit, o.span, "the limit"); return err },
		}
		rand.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, err
			}
		}
		pairs = append(pairs, p)
	}
	return pairs[1:], nil
}

func take(ctx context.Context, s side, span time.Duration, name string) (reading, error) {
	r, err := s.run(ctx, meter{pid: s.pid}, span)
	if err == nil && r.count == 0 {
		err = fmt.Errorf("nothing moved in %s", r.took)
	}
	if err != nil {
		return reading{}, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

// report is what a path comes to. Medians are taken of each figure for itself; the ratio is the median of the ratios.
func report(p path, pairs []pair) string {
	figures := func(of func(pair) float64) []float64 {
		var all []float64
		for _, p := range pairs {
			all = append(all, of(p))
		}
		slices.Sort(all)
		return all
	}
	ratios := figures(func(p pair) float64 { return p.sluice.rate() / p.limit.rate() })
	ours := median(figures(func(p pair) float64 { return p.sluice.cpuSeconds() }))
	theirs := median(figures(func(p pair) float64 { return p.limit.cpuSeconds() }))
	aim := ""
	if p.aim > 0 {
		aim = fmt.Sprintf(", aim %.1f", p.aim)
	}
	line := fmt.Sprintf("%-18s ratio %.2f (%.2f to %.2f%s)   %s/s: sluice %s, limit %s   CPU-s per 100,000: sluice %.3g, limit %.3g (%.1f times)",
		p.name, median(ratios), ratios[0], ratios[len(ratios)-1], aim, p.unit,
		thousands(median(figures(func(p pair) float64 { return p.sluice.rate() }))),
		thousands(median(figures(func(p pair) float64 { return p.limit.rate() }))),
		ours, theirs, ours/theirs)
	wait := func(of func(pair) []time.Duration, part float64) float64 {
		return median(figures(func(p pair) float64 { return float64(quantile(of(p), part).Microseconds()) / 1000 }))
	}
	mine, other := func(p pair) []time.Duration { return p.sluice.waits }, func(p pair) []time.Duration { return p.limit.waits }
	if len(pairs[0].sluice.waits) > 0 {
		line += fmt.Sprintf("   ms p50/p99: sluice %.3g/%.3g", wait(mine, 0.50), wait(mine, 0.99))
	}
	if len(pairs[0].limit.waits) > 0 {
		line += fmt.Sprintf(", limit %.3g/%.3g", wait(other, 0.50), wait(other, 0.99))
	}
	if sizes := pairs[0].sluice.sizes; len(sizes) > 0 {
		third := max(len(sizes)/3, 1)
		line += fmt.Sprintf("   MB resident: first third %s, last third %s, most %s",
			megabytes(mean(sizes[:third])), megabytes(mean(sizes[len(sizes)-third:])), megabytes(slices.Max(sizes)))
	}
	return line
}

// quantile sorts the figures.
func quantile[T cmp.Ordered](figures []T, part float64) (none T) {
	if len(figures) == 0 {
		return none
	}
	slices.Sort(figures)
	return figures[int(part*float64(len(figures)-1))]
}

func mean(figures []int64) (sum int64) {
	for _, f := range figures {
		sum += f
	}
	return sum / int64(len(figures))
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/1e6) }

// median is of sorted figures.
func median[T cmp.Ordered](sorted []T) T { return sorted[(len(sorted)-1)/2] }

func thousands(f float64) string {
	text := fmt.Sprintf("%.0f", f)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
