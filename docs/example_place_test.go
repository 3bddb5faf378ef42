// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
)

type double struct{}

func (double) Call(_ context.Context, batch []int) ([]int, error) {
	for i := range batch {
		batch[i] *= 2
	}
	return batch, nil
}

// atSecond puts a number at that second of event time.
func atSecond(n int, emit func(beam.EventTime, int)) {
	emit(mtime.FromDuration(time.Duration(n)*time.Second), n)
}

func showPlace(w beam.Window, at beam.EventTime, n int) {
	fmt.Printf("%d in %v at %v\n", n, w, at)
}

// bufferFn is what one writes first: it keeps elements, and emits in FinishBundle.
type bufferFn struct{ batch []int }

func (f *bufferFn) ProcessElement(n int, _ func(int)) { f.batch = append(f.batch, n) }

func (f *bufferFn) FinishBundle(emit func(int)) {
	for _, n := range f.batch {
		emit(2 * n)
	}
	f.batch = nil
}

func init() {
	batchasync.Register(double{})
	beam.RegisterFunction(atSecond)
	beam.RegisterFunction(showPlace)
	beam.RegisterDoFn(reflect.TypeFor[bufferFn]())
	register.Emitter1[int]()
	register.Emitter2[beam.EventTime, int]()
}

// Results are in their elements' own windows, at their own timestamps.
func Example_windows() {
	p, s := beam.NewPipelineWithRoot()
	col := beam.ParDo(s, atSecond, beam.Create(s, 3, 12))
	col = beam.WindowInto(s, window.NewFixedWindows(10*time.Second), col)
	doubled := batchasync.ParDo(s, double{}, col, batchasync.BatchSize(500))
	beam.ParDo0(s, showPlace, doubled)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// 6 in [0:10000) at 3000
	// 24 in [10000:20000) at 12000
}

// What a DoFn emits in FinishBundle is in the global window, whatever the elements were
// in.
func Example_finishBundle() {
	p, s := beam.NewPipelineWithRoot()
	col := beam.ParDo(s, atSecond, beam.Create(s, 3, 12))
	col = beam.WindowInto(s, window.NewFixedWindows(10*time.Second), col)
	doubled := beam.ParDo(s, &bufferFn{}, col)
	beam.ParDo0(s, showPlace, doubled)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// 6 in [*] at 0
	// 24 in [*] at 0
}

func showNumber(n int) { fmt.Println(n) }

func init() { beam.RegisterFunction(showNumber) }

// A Reshuffle between a streaming source and the transform has the runner make larger
// bundles.
func Example_reshuffle() {
	p, s := beam.NewPipelineWithRoot()
	events := beam.Create(s, 3, 12) // say, of a source that streams
	events = beam.Reshuffle(s, events)
	answers := batchasync.ParDo(s, double{}, events, batchasync.Linger(200*time.Millisecond))
	beam.ParDo0(s, showNumber, answers)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// 6
	// 24
}
