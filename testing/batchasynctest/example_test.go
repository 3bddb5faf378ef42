// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasynctest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// The examples use the caller cities, which asks a simulated service for the names of
// cities. Each runs in a bubble, as a test does within
//
//	func TestCities(t *testing.T) { synctest.Test(t, func(t *testing.T) { … }) }
func inBubble(f func(t *testing.T)) { synctest.Test(&testing.T{}, f) }

// A caller is tested with a simulated service behind it, in time that takes none: this
// service fails the first call, and the answer comes after a backoff and two calls.
func Example() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{BaseLatency: time.Second, FailFirst: 1})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}, batchasync.RetryInterval(time.Minute)))
		start := time.Now()
		out, err := h.Bundle(batchasynctest.Values(7, 8)...)
		fmt.Println(out.Results()[0].Value, out.Results()[1].Value, err)
		fmt.Println(service.Stats().Calls, "calls in", time.Since(start))
	})
	// Output:
	// city 7 city 8 <nil>
	// 2 calls in 1m2s
}

// A Service can be as bad as real ones: this one bears two calls at once and refuses
// others, is out of service from the fifth second to the tenth, and knows no city 3.
func ExampleService() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 200 * time.Millisecond,
			PerElement:  10 * time.Millisecond,
			Capacity:    2,
			Overload:    batchasynctest.Refuse,
			Outages:     []batchasynctest.Outage{{From: 5 * time.Second, To: 10 * time.Second}},
			FailElement: func(id any) error {
				if id == 3 {
					return errors.New("no such city")
				}
				return nil
			},
		})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}, batchasync.RetryInterval(2*time.Second)))
		time.Sleep(9 * time.Second)
		start := time.Now()
		out, err := h.Bundle(batchasynctest.Values(1, 2, 3)...)
		fmt.Println(len(out.Results()), "results and", len(out.Failures()), "failure in", time.Since(start), err)
		fmt.Printf("%+v\n", service.Stats())
	})
	// Output:
	// 2 results and 1 failure in 2.23s <nil>
	// {Calls:2 Elements:6 Answered:1 Failed:1 Refused:0 Late:0 InFlight:0 MaxInFlight:1 Busy:230ms}
}

// Call is what a caller asks a Service with. Its second result has an error for each
// element that failed, its third one for the call.
func ExampleCall() {
	service := batchasynctest.NewService(batchasynctest.ServiceConfig{})
	answers, errs, err := batchasynctest.Call(context.Background(), service, []int{1, 0}, func(n int) (int, error) {
		if n == 0 {
			return 0, errors.New("division by zero")
		}
		return 100 / n, nil
	})
	fmt.Println(answers, errs, err)
	// Output: [100 0] [<nil> division by zero] <nil>
}

// RequireExactlyOnce is the one assertion that each test of a caller should make: no
// element is lost, doubled, or moved to another window, whatever the service does.
// Here one call in five fails.
func ExampleRequireExactlyOnce() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 100 * time.Millisecond, Jitter: 0.5, FailShare: 0.2, Seed: 1,
		})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}, batchasync.BatchSize(10)))
		inputs := batchasynctest.Values(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
		out, err := h.Bundle(inputs...)
		batchasynctest.RequireExactlyOnce(t, inputs, out, func(id any) any { return fmt.Sprint("city ", id) })
		fmt.Println(len(out.Results())+len(out.Failures()), err)
	})
	// Output: 20 <nil>
}

// Clone has the DoFn travel as it does to a worker. What Setup does not open anew is
// lost: this caller was given its service from outside, and answers with a panic.
func ExampleHarness_Clone() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service})).Clone(t)
		out, err := h.Bundle(batchasynctest.Values(7)...)
		f := out.Failures()[0].Value.(batchasync.Failure[int])
		reason, _, _ := strings.Cut(f.Error, "\n") // and the stack
		fmt.Println(reason, err)
	})
	// Output: panic in Call: runtime error: invalid memory address or nil pointer dereference <nil>
}

// Start, Process and Finish run a bundle step by step, where a test looks at what has
// been emitted in between.
func ExampleHarness_Process() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{BaseLatency: time.Second})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}, batchasync.BatchSize(1)))
		require.NoError(t, h.Start())
		require.NoError(t, h.Process(batchasynctest.Element{Value: 7}))
		time.Sleep(2 * time.Second) // the answer is there, but nobody has taken it out
		fmt.Println(len(h.Outputs().Results()))
		require.NoError(t, h.Process(batchasynctest.Element{Value: 8}))
		fmt.Println(len(h.Outputs().Results()))
		require.NoError(t, h.Finish())
		fmt.Println(len(h.Outputs().Results()))
	})
	// Output:
	// 0
	// 1
	// 2
}

// An Element has its place in event time: here two sliding windows. It is asked for
// once, and its result is in both.
func ExampleElement() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{Record: true})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}))
		out, err := h.Bundle(batchasynctest.Element{
			Value:     7,
			Timestamp: mtime.FromMilliseconds(90_000),
			Windows: []beam.Window{
				window.IntervalWindow{Start: 0, End: 120_000},
				window.IntervalWindow{Start: 60_000, End: 180_000},
			},
		})
		require.NoError(t, err)
		result := out.Results()[0]
		fmt.Println(result.Value, result.Timestamp, result.Windows)
		fmt.Println("asked for:", service.Asked(7))
	})
	// Output:
	// city 7 90000 [[0:120000) [60000:180000)]
	// asked for: 1
}

// Outputs has the metrics of a bundle too.
func ExampleOutputs_Counter() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{BaseLatency: 40 * time.Millisecond})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}, batchasync.BatchSize(2)))
		out, err := h.Bundle(batchasynctest.Values(1, 2, 3)...)
		require.NoError(t, err)
		fmt.Println("calls:", out.Counter(batchasync.MetricsNamespace, "calls"))
		fmt.Printf("batches: %+v\n", out.Distribution(batchasync.MetricsNamespace, "batch_size"))
	})
	// Output:
	// calls: 2
	// batches: {Count:2 Sum:3 Min:1 Max:2}
}
