// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/batchasync/beam-batchasync/internal/chart"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// header is the table's, and row one of its lines.
func header() string {
	return fmt.Sprintf("%-19s  %8s  %9s  %8s  %6s  %12s  %10s  %9s  %5s",
		"", "at once", "elements", "requests", "batch", "seen at once", "elements/s", "limit", "share")
}

func (r run) row() string {
	atOnce := fmt.Sprint(r.MaxInFlight)
	if r.MaxInFlight == 0 {
		atOnce = "–"
	}
	return fmt.Sprintf("%-19s  %8s  %9s  %8s  %6.1f  %12d  %10s  %9s  %3.0f %%",
		r.Approach, atOnce, thousands(r.Elements), thousands(r.Requests), r.MeanBatch, r.MostCalls,
		thousands(int64(math.Round(r.PerSecond))), thousands(int64(math.Round(r.Limit))), 100*r.share())
}

// thousands is n with a comma behind each three digits.
func thousands(n int64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// rate is a number of elements a second, with the three digits that a
// measurement is good for.
func rate(perSecond float64) string {
	unit := math.Pow(10, max(0, math.Floor(math.Log10(perSecond))-2))
	return thousands(int64(math.Round(perSecond/unit)*unit)) + "/s"
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// runs are those of all settings.
type runs []run

// of are those of an approach.
func (all runs) of(a approach) (some runs) {
	for _, r := range all {
		if r.Approach == a {
			some = append(some, r)
		}
	}
	return some
}

// best is the one with the most elements a second.
func (all runs) best() run {
	best := all[0]
	for _, r := range all {
		if r.PerSecond > best.PerSecond {
			best = r
		}
	}
	return best
}

func (all runs) last() run { return all[len(all)-1] }

// summary tells in words what the table shows.
func (all runs) summary() string {
	one, many, auto := all.of(single), all.of(batches), all.of(unset).last()
	return fmt.Sprintf(`%s: %s at best, with %d calls at once; with %d it is %s.
%s: %s at best, with %d calls at once; with %d it is %s.
%s: %s, %.0f %% of the limit, with %.1f calls at once on average.
`,
		single, rate(one.best().PerSecond), one.best().MaxInFlight, one.last().MaxInFlight, rate(one.last().PerSecond),
		batches, rate(many.best().PerSecond), many.best().MaxInFlight, many.last().MaxInFlight, rate(many.last().PerSecond),
		unset, rate(auto.PerSecond), 100*auto.share(), auto.MeanCalls)
}

// picture is the chart of all runs.
func (all runs) picture(config batchasynctest.ServiceConfig) ([]byte, error) {
	service := batchasynctest.NewService(config)
	limit := func(batch int) chart.Marker {
		most := service.MaxThroughput(batch)
		return chart.Marker{Label: "the service's limit:\n" + rate(most), Value: most}
	}
	line := func(a approach) chart.Line {
		var points []chart.Point
		for _, r := range all.of(a) {
			points = append(points, chart.Point{X: float64(r.MaxInFlight), Y: r.PerSecond})
		}
		return chart.Line{
			Label:  fmt.Sprintf("%s:\n%s at best", a, rate(all.of(a).best().PerSecond)),
			Points: points,
		}
	}
	auto := all.of(unset).last()
	return chart.Chart{
		Title: "Elements a second, by calls at once",
		Subtitle: fmt.Sprintf("A call takes %v ms + %v ms an element; the service slows down beyond %d calls at once.",
			millis(config.BaseLatency), millis(config.PerElement), config.Capacity),
		X: chart.Axis{Title: "calls at once", Base: 2},
		Y: chart.Axis{Title: "elements/s"},
		Lines: []chart.Line{line(batches), line(single), {
			Label:  fmt.Sprintf("%s:\n%s", unset, rate(auto.PerSecond)),
			Place:  chart.Left,
			Points: []chart.Point{{X: auto.MeanCalls, Y: auto.PerSecond}},
		}},
		Limits: []chart.Marker{limit(batchSize), limit(1)},
		Marks:  []chart.Marker{{Label: fmt.Sprintf("capacity %d", config.Capacity), Value: float64(config.Capacity)}},
	}.SVG()
}

// json is all figures, in a form for other programs.
func (all runs) json(config batchasynctest.ServiceConfig, elapsed time.Duration) ([]byte, error) {
	type service struct {
		BaseMillis       float64 `json:"base_ms"`
		PerElementMillis float64 `json:"per_element_ms"`
		Capacity         int     `json:"capacity"`
		DegradeFactor    float64 `json:"k"`
		LimitOne         float64 `json:"limit_one_element_a_call"`
		LimitHundred     float64 `json:"limit_100_elements_a_call"`
	}
	simulated := batchasynctest.NewService(config)
	text, err := json.MarshalIndent(struct {
		Service service `json:"service"`
		Runs    runs    `json:"runs"`
		Seconds float64 `json:"seconds"`
	}{
		service{
			millis(config.BaseLatency), millis(config.PerElement), config.Capacity, config.DegradeFactor,
			simulated.MaxThroughput(1), simulated.MaxThroughput(batchSize),
		}, all, elapsed.Seconds(),
	}, "", "  ")
	return append(text, '\n'), err
}
