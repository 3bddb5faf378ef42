// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// What these tests count does not depend on the machine, nor on what else it does.
// They guard what a time, which does, could only hint at.

func init() {
	batchasync.Register(&asked{})
	beam.RegisterDoFn(reflect.TypeFor[weighFn]())
}

// quiet runs a pipeline on the direct runner.
func quiet(t *testing.T, build func(s beam.Scope)) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	defer slog.SetDefault(before)
	p, s := beam.NewPipelineWithRoot()
	build(s)
	_, err := beam.Run(context.Background(), "direct", p)
	require.NoError(t, err)
}

// An element costs no allocation beyond those of a ParDo that passes it through; a
// batch costs 22, whatever its size.
func TestABatchAllocatesAndAnElementDoesNot(t *testing.T) {
	const elements = 20_000
	allocations := func(transform func(beam.Scope, beam.PCollection) beam.PCollection) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		quiet(t, func(s beam.Scope) {
			beam.ParDo0(s, &discard{}, transform(s, beam.ParDo(s, &countTo{N: elements}, beam.Impulse(s))))
		})
		runtime.ReadMemStats(&after)
		return float64(after.Mallocs - before.Mallocs)
	}
	passed := allocations(func(s beam.Scope, col beam.PCollection) beam.PCollection { return beam.ParDo(s, &passThrough{}, col) })
	for _, size := range []int{1, 10, 100, 1000} {
		t.Run(fmt.Sprint("batches of ", size), func(t *testing.T) {
			more := allocations(func(s beam.Scope, col beam.PCollection) beam.PCollection {
				return batchasync.ParDo(s, &identity{}, col, batchasync.BatchSize(size), batchasync.Linger(0), batchasync.MaxInFlight(4))
			}) - passed
			batches := float64(elements / size)
			t.Logf("%.0f allocations more for %.0f batches", more, batches)
			// The run itself has some 300, and a few thousand are a fraction of one
			// an element.
			require.Less(t, more, 22.5*batches+2000)
		})
	}
}

// asked counts its calls.
type asked struct{ Wait time.Duration }

var counted struct{ calls, elements atomic.Int64 }

func (c *asked) Call(_ context.Context, batch []int) ([]int, error) {
	counted.calls.Add(1)
	counted.elements.Add(int64(len(batch)))
	time.Sleep(c.Wait)
	return batch, nil
}

func TestTheRequestsAreAsFewAsTheBatchSizeAllows(t *testing.T) {
	const size = 100
	for _, test := range []struct {
		name     string
		bundles  []int // elements of each
		opts     []batchasync.Option
		requests int64
	}{
		{"one element", []int{1}, nil, 1},
		{"one batch", []int{100}, nil, 1},
		{"one more", []int{101}, nil, 2},
		{"many batches", []int{100_000}, nil, 1000},
		{"many batches and a part of one", []int{100_001}, nil, 1001},
		{"one call at once", []int{1050}, []batchasync.Option{batchasync.MaxInFlight(1)}, 11},
		{"more calls at once than there are batches", []int{1050}, []batchasync.Option{batchasync.MaxInFlight(64)}, 11},
		{"in order", []int{1050}, []batchasync.Option{batchasync.Ordered()}, 11},
		{"several bundles, each of which begins anew", []int{150, 150, 150}, nil, 6},
		{"several bundles that share batches", []int{150, 150, 150}, []batchasync.Option{batchasync.AcrossBundles()}, 5},
		{"tiny bundles that share batches", slices.Repeat([]int{1}, 200), []batchasync.Option{batchasync.AcrossBundles()}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				counted.calls.Store(0)
				counted.elements.Store(0)
				opts := append([]batchasync.Option{batchasync.BatchSize(size)}, test.opts...)
				first := batchasynctest.NewHarness(t, batchasync.New(&asked{Wait: 7 * time.Millisecond}, opts...))
				var batches, elements atomic.Int64
				var bundles sync.WaitGroup
				for _, n := range test.bundles {
					elements.Add(int64(n))
					h := first.Clone(t)
					bundles.Go(func() {
						out, err := h.Bundle(batchasynctest.Values(make([]int, n)...)...)
						if err != nil || len(out.Results()) != n {
							t.Errorf("%d of %d results: %v", len(out.Results()), n, err)
						}
						batches.Add(out.Counter(batchasync.MetricsNamespace, "batches"))
					})
				}
				bundles.Wait()
				require.Equal(t, test.requests, counted.calls.Load())
				require.Equal(t, elements.Load(), counted.elements.Load(), "each is asked for once")
				require.Equal(t, test.requests, batches.Load(), "the metric says the same")
			})
		})
	}
}

// weighFn makes N numbers, and weighs the heap ten times meanwhile: on the bundle's
// goroutine, so that nothing else moves.
type weighFn struct{ N int }

var heaviest uint64

func (f *weighFn) ProcessElement(_ []byte, emit func(int)) {
	for i := range f.N {
		emit(i)
		if (i+1)%(f.N/10) == 0 {
			heaviest = max(heaviest, liveHeap())
		}
	}
}

// liveHeap is what is in use: what the first collection finds to have a finalizer,
// or is in a pool, goes with the second one.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTheHeapDoesNotGrowWithTheBundle(t *testing.T) {
	most := func(elements int) int64 {
		heaviest = 0
		quiet(t, func(s beam.Scope) {
			col := beam.ParDo(s, &weighFn{N: elements}, beam.Impulse(s))
			beam.ParDo0(s, &discard{}, batchasync.ParDo(s, &identity{}, col, batchasync.MaxInFlight(4)))
		})
		return int64(heaviest)
	}
	most(1000) // what is made once
	few, many := most(20_000), most(200_000)
	t.Logf("%d bytes for 20,000 elements, %d more for 200,000", few, many-few)
	// A byte an element would be 180,000.
	require.Less(t, many-few, int64(64<<10))
}
