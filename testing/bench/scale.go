// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/chart"
	"github.com/batchasync/beam-batchasync/internal/joberror"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func init() {
	batchasync.Register(&echo{})
	register.DoFn2x0[[]byte, func(int)](&countFn{})
	register.DoFn1x1[int, int](&passFn{})
	register.DoFn2x0[int, func(int)](&sinkFn{})
}

// A point is one place of a chart: what a child process is to measure.
type point struct {
	Kind     string // elements, calls, batch, bundles
	X        int    // of it
	Elements int
	Variant  string
}

// A measured point.
type measured struct {
	point
	CPUNanos float64 // an element
	Nanos    float64 // an element, of time
	PeakHeap int64   // in bytes, beyond the heap before
}

// The variants.
const (
	withBatchasync = "batchasync"
	passThrough    = "pass-through"
	across         = "AcrossBundles"
)

// sizes are the places of each chart.
var sizes = []struct {
	kind, title, axis string
	subtitle          string
	xs                []int
	elements          func(x int) int
	variants          []string
}{
	{
		"elements", "More elements", "elements", "One bundle on Prism, and a service that answers at once.",
		[]int{10_000, 100_000, 1_000_000, 10_000_000}, func(x int) int { return x }, []string{withBatchasync, passThrough},
	}, {
		"calls", "More calls at once", "calls at once", "Batches of 100, and a service that answers in 7 ms, however many calls there are.",
		[]int{1, 3, 10, 30, 100, 300, 1000}, func(x int) int { return max(20_000, 2000*x) }, []string{withBatchasync},
	}, {
		"batch", "Larger batches", "elements a batch", "One bundle of a million elements on Prism, and a service that answers at once.",
		[]int{1, 3, 10, 30, 100, 300, 1000, 3000, 10_000}, func(int) int { return 1_000_000 }, []string{withBatchasync},
	}, {
		"bundles", "More bundles at once", "bundles at once", "Bundles of 100 elements, and a service that answers in 7 ms.",
		[]int{1, 3, 10, 30, 100, 300, 500}, func(x int) int { return bundleSize * x * min(200, max(20, 2000/x)) }, []string{withBatchasync, across},
	},
}

// scaleRounds is odd, for the median.
const scaleRounds = 3

// scale measures all points, each in a process of its own.
func scale(ctx context.Context, o options) error {
	var all []measured
	charts := map[string]svg{}
	for _, size := range sizes {
		lines := [][]string{{size.axis, "", "elements", "CPU, ns/element", "time, ns/element", "peak heap, MB"}}
		picture := chart.Chart{
			Title: size.title, Subtitle: size.subtitle,
			X: chart.Axis{Title: size.axis, Base: 10}, Y: chart.Axis{Title: "CPU, ns an element; peak heap, kB", Base: 10},
		}
		for _, variant := range size.variants {
			var cpu, heap []chart.Point
			for _, x := range size.xs {
				o.progress("%s: %d", size.axis, x)
				m, err := measure(ctx, point{size.kind, x, size.elements(x), variant})
				if err != nil {
					return err
				}
				all = append(all, m)
				cpu = append(cpu, chart.Point{X: float64(x), Y: m.CPUNanos})
				heap = append(heap, chart.Point{X: float64(x), Y: float64(m.PeakHeap) / 1e3})
				lines = append(lines, []string{
					thousands(float64(x)), variant, thousands(float64(m.Elements)),
					thousands(rounded(m.CPUNanos)), thousands(rounded(m.Nanos)), fmt.Sprintf("%.1f", float64(m.PeakHeap)/1e6),
				})
			}
			picture.Lines = append(picture.Lines, chart.Line{Label: "heap, kB:\n" + variant, Points: heap}, chart.Line{Label: "CPU, ns:\n" + variant, Points: cpu})
		}
		o.progress("")
		fmt.Println(markdown(lines))
		charts["scale-"+size.kind] = picture
	}
	return o.write("scale", all, charts)
}

// measure returns the medians of some runs.
func measure(ctx context.Context, p point) (measured, error) {
	var cpu, nanos []float64
	var heap []int64
	for range scaleRounds {
		m, err := command[point, measured](ctx, "-point", p)
		if err != nil {
			return m, err
		}
		cpu, nanos, heap = append(cpu, m.CPUNanos), append(nanos, m.Nanos), append(heap, m.PeakHeap)
	}
	slices.Sort(cpu)
	slices.Sort(nanos)
	slices.Sort(heap)
	return measured{p, cpu[scaleRounds/2], nanos[scaleRounds/2], heap[scaleRounds/2]}, nil
}

// take measures a point in this process.
func (p point) take(ctx context.Context) (measured, error) {
	var opts []batchasync.Option
	config := batchasynctest.ServiceConfig{}
	switch p.Kind {
	case "calls":
		opts = append(opts, batchasync.MaxInFlight(p.X))
		config.BaseLatency, config.PerElement = baseLatency, perElement
	case "batch":
		opts = append(opts, batchasync.MaxInFlight(capacity), batchasync.BatchSize(p.X))
	case "bundles":
		opts = append(opts, batchasync.MaxInFlight(capacity))
		config.BaseLatency, config.PerElement = baseLatency, perElement
	}
	if p.Variant == across {
		opts = append(opts, batchasync.AcrossBundles())
	}
	if config.BaseLatency > 0 {
		echoed = batchasynctest.NewService(config)
	}
	stop := watchHeap()
	var err error
	if p.Kind == "bundles" {
		err = p.inBundles(opts)
	} else {
		err = p.onPrism(ctx, opts)
	}
	m := measured{point: p, PeakHeap: stop()}
	if err != nil {
		return m, err
	}
	began, ended := tally.began.Load(), tally.ended.Load()
	m.CPUNanos = float64(ended.cpu-began.cpu) / float64(p.Elements)
	m.Nanos = float64(ended.at.Sub(began.at)) / float64(p.Elements)
	return m, nil
}

func (p point) onPrism(ctx context.Context, opts []batchasync.Option) error {
	pipeline, s := beam.NewPipelineWithRoot()
	col := beam.ParDo(s, &countFn{N: p.Elements}, beam.Impulse(s))
	if p.Variant == passThrough {
		col = beam.ParDo(s, &passFn{}, col)
	} else {
		col = batchasync.ParDo(s, &echo{}, col, opts...)
	}
	none := beam.ParDo(s, &sinkFn{}, col)
	beam.ParDo0(s, &nowhereFn{}, beam.Reshuffle(s, none)) // as in job
	if _, err := beam.Run(ctx, "prism", pipeline); err != nil {
		return errors.New(joberror.Cause(err))
	}
	if sunk != p.Elements {
		return fmt.Errorf("%d of %d elements have come out", sunk, p.Elements)
	}
	return nil
}

// bundleSize is the number of elements of each bundle of inBundles.
const bundleSize = 100

// inBundles drives so many instances of the DoFn at once, for Prism can't be told how
// many bundles it is to make.
func (p point) inBundles(opts []batchasync.Option) error {
	return play(func(t testing.TB) {
		first := batchasynctest.NewHarness(t, batchasync.New(&echo{}, opts...))
		elements := batchasynctest.Values(make([]int, bundleSize)...)
		harnesses := make([]*batchasynctest.Harness, p.X)
		for i := range harnesses {
			harnesses[i] = first.Clone(t)
		}
		runtime.GC()
		tally.begin()
		errs := make([]error, p.X)
		var running sync.WaitGroup
		for i, h := range harnesses {
			running.Go(func() {
				for range p.Elements / p.X / bundleSize {
					out, err := h.Bundle(elements...)
					if err == nil && len(out.Results()) != bundleSize {
						err = fmt.Errorf("%d of %d elements have come out", len(out.Results()), bundleSize)
					}
					if err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
		running.Wait()
		tally.end()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	})
}

// echo is a caller that answers with what it is asked.
type echo struct{}

var echoed *batchasynctest.Service // takes its time, if there is one

func (*echo) Call(ctx context.Context, batch []int) ([]int, error) {
	if echoed == nil {
		return batch, nil
	}
	out, _, err := batchasynctest.Call(ctx, echoed, batch, func(v int) (int, error) { return v, nil })
	return out, err
}

// countFn makes N numbers of one impulse.
type countFn struct{ N int }

func (f *countFn) ProcessElement(_ []byte, emit func(int)) {
	tally.begin()
	for i := range f.N {
		emit(i)
	}
}

type passFn struct{}

func (*passFn) ProcessElement(v int) int { return v }

// sinkFn counts what comes out, of its one bundle.
type sinkFn struct{}

var sunk int

func (*sinkFn) ProcessElement(int, func(int)) { sunk++ }

func (*sinkFn) FinishBundle(func(int)) { tally.end() }
