// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/chart"
)

var draw = flag.String("draw", "", "file for the chart of many pools, as SVG")

// TestDrawManyPools draws what BenchmarkManyPools measures:
//
//	go test ./batchasync/internal/pool -run DrawManyPools -args -draw "$PWD/docs/many-pools.svg"
func TestDrawManyPools(t *testing.T) {
	if *draw == "" {
		t.Skip("give the file by -draw")
	}
	plain := knee{64, 2, 20 * time.Millisecond, 0}
	noisy := knee{64, 2, 20 * time.Millisecond, 0.3}
	refusing := door(noisy)
	line := func(label string, serve service, best float64, target time.Duration) chart.Line {
		l := chart.Line{Label: label}
		for _, pools := range []int{1, 3, 10, 30, 100, 300, 1000} {
			share, _ := many(1, pools, serve, best, target, stay)
			l.Points = append(l.Points, chart.Point{X: float64(pools), Y: 100 * share})
		}
		return l
	}
	svg, err := chart.Chart{
		Title:    "Many workers share a service by themselves",
		Subtitle: "A service that bears 64 calls of 20 ms; after a minute; simulated",
		X:        chart.Axis{Title: "workers that know nothing of each other", Base: 10},
		Y:        chart.Axis{Title: "% of the best"},
		Lines: []chart.Line{
			line("the service refuses\nwhat is too much", refusing.serve, noisy.best(), 0),
			line("TargetLatency(30ms)", plain.serve, plain.best(), 30*time.Millisecond),
			line("neither", noisy.serve, noisy.best(), 0),
		},
		Limits: []chart.Marker{{Label: "the best fixed limit,\nif each knew of all", Value: 100}},
	}.SVG()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*draw, svg, 0o644))
}
