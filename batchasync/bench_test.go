// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func init() {
	register.DoFn2x0[[]byte, func(int)](&countTo{})
	register.DoFn1x1[int, int](&passThrough{})
	register.DoFn1x0[int](&discard{})
	register.Emitter1[int]()
	batchasync.Register(&identity{})
	batchasync.Register(&limited{})
}

// countTo makes N numbers of one impulse.
type countTo struct{ N int }

func (f *countTo) ProcessElement(_ []byte, emit func(int)) {
	for i := range f.N {
		emit(i)
	}
}

type passThrough struct{}

func (*passThrough) ProcessElement(v int) int { return v }

// discarded is what has reached the end of a benchmark's pipeline.
var discarded atomic.Int64

type discard struct{}

func (*discard) ProcessElement(int) { discarded.Add(1) }

// identity answers at once.
type identity struct{}

func (*identity) Call(_ context.Context, batch []int) ([]int, error) { return batch, nil }

// BenchmarkOverhead compares the same pipeline with a pass-through ParDo and
// with batchasync.ParDo in its place. x-passthrough is the ratio of their
// times, the median of alternating pairs; allocs/elem is what batchasync
// allocates for an element beyond the pass-through.
func BenchmarkOverhead(b *testing.B) {
	const elements, pairs = 2_000_000, 7
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	for _, engine := range engines {
		b.Run(engine, func(b *testing.B) {
			for b.Loop() {
				var ratios []float64
				var allocs int64
				for range pairs {
					plainTime, plainAllocs := runOver(b, engine, elements, func(s beam.Scope, col beam.PCollection) beam.PCollection {
						return beam.ParDo(s, &passThrough{}, col)
					})
					batchTime, batchAllocs := runOver(b, engine, elements, func(s beam.Scope, col beam.PCollection) beam.PCollection {
						return batchasync.ParDo(s, &identity{}, col)
					})
					ratios = append(ratios, float64(batchTime)/float64(plainTime))
					allocs = batchAllocs - plainAllocs
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[pairs/2], "x-passthrough")
				b.ReportMetric(float64(allocs)/elements, "allocs/elem")
			}
		})
	}
}

func runOver(b *testing.B, engine string, n int, transform func(beam.Scope, beam.PCollection) beam.PCollection) (time.Duration, int64) {
	p, s := beam.NewPipelineWithRoot()
	col := beam.ParDo(s, &countTo{N: n}, beam.Impulse(s))
	beam.ParDo0(s, &discard{}, transform(s, col))
	discarded.Store(0)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	if _, err := beam.Run(context.Background(), engine, p); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if got := discarded.Load(); got != int64(n) {
		b.Fatalf("%d of %d elements arrived", got, n)
	}
	return took, int64(after.Mallocs - before.Mallocs)
}

// BenchmarkPeakHeap reports the most heap in use while bundles of growing size
// go through: the ring is all that is kept of a bundle.
func BenchmarkPeakHeap(b *testing.B) {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	for _, n := range []int{100_000, 1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				stop, peak := make(chan struct{}), make(chan uint64)
				go func() {
					var most uint64
					tick := time.NewTicker(time.Millisecond)
					defer tick.Stop()
					for {
						select {
						case <-tick.C:
							var m runtime.MemStats
							runtime.ReadMemStats(&m)
							most = max(most, m.HeapInuse)
						case <-stop:
							peak <- most
							return
						}
					}
				}()
				runOver(b, "direct", n, func(s beam.Scope, col beam.PCollection) beam.PCollection {
					return batchasync.ParDo(s, &identity{}, col)
				})
				close(stop)
				b.ReportMetric(float64(<-peak)/(1<<20), "peak-MiB")
			}
		})
	}
}

// limited asks the service of BenchmarkThroughput.
type limited struct{}

var limitedService *batchasynctest.Service

func (*limited) Call(ctx context.Context, batch []int) ([]int, error) {
	out, _, err := batchasynctest.Call(ctx, limitedService, batch, func(v int) (int, error) { return v, nil })
	return out, err
}

// BenchmarkThroughput sends to a service that is as fast as its capacity, and
// reports the share of its limit that is reached: capacity × batch ÷ call time.
func BenchmarkThroughput(b *testing.B) {
	const elements, capacity, batch = 1_000_000, 16, 100
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	for b.Loop() {
		limitedService = batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 5 * time.Millisecond, PerElement: 20 * time.Microsecond,
			Capacity: capacity, Overload: batchasynctest.Degrade, DegradeFactor: 2,
		})
		took, _ := runOver(b, "direct", elements, func(s beam.Scope, col beam.PCollection) beam.PCollection {
			return batchasync.ParDo(s, &limited{}, col, batchasync.BatchSize(batch), batchasync.MaxInFlight(capacity))
		})
		b.ReportMetric(100*elements/took.Seconds()/limitedService.MaxThroughput(batch), "%limit")
	}
}

// BenchmarkAcrossBundles runs 200 bundles of one element at once, again and
// again. µs/elem is all of an element's cost, the harness that drives the bundle
// included; µs/elem-alone is that with batches of each bundle's own.
func BenchmarkAcrossBundles(b *testing.B) {
	const bundles, rounds = 200, 50
	run := func(opts ...batchasync.Option) (perElement time.Duration, meanBatch float64) {
		first := batchasynctest.NewHarness(b, batchasync.New(&identity{}, append(opts, batchasync.BatchSize(100), batchasync.Linger(10*time.Millisecond))...))
		harnesses := make([]*batchasynctest.Harness, bundles)
		for i := range harnesses {
			harnesses[i] = first.Clone(b)
		}
		var batches atomic.Int64
		start := time.Now()
		var running sync.WaitGroup
		for _, h := range harnesses {
			running.Go(func() {
				for n := range rounds {
					out, err := h.Bundle(batchasynctest.Element{Value: n})
					if err != nil || len(out.Results()) != 1 {
						b.Errorf("%d results, error %v", len(out.Results()), err)
						return
					}
					batches.Add(out.Counter(batchasync.MetricsNamespace, "batches"))
				}
			})
		}
		running.Wait()
		return time.Since(start) / (bundles * rounds), float64(bundles*rounds) / float64(batches.Load())
	}
	for b.Loop() {
		alone, _ := run()
		across, mean := run(batchasync.AcrossBundles())
		b.ReportMetric(float64(across)/1e3, "µs/elem")
		b.ReportMetric(float64(alone)/1e3, "µs/elem-alone")
		b.ReportMetric(mean, "mean-batch")
	}
}
