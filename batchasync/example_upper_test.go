// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// upper stands for your caller in the examples of options, errors and methods. It
// answers with the elements in upper case, and prints each call: when, and with what.
type upper struct {
	// before, if set, is what the service does before it answers: take its time, or
	// fail.
	before func(ctx context.Context, batch []string) error
}

func (u *upper) Call(ctx context.Context, batch []string) ([]string, error) {
	fmt.Printf("%v: %v\n", clock(), batch)
	if u.before != nil {
		if err := u.before(ctx, batch); err != nil {
			return nil, err
		}
	}
	answers := make([]string, len(batch))
	for i, element := range batch {
		answers[i] = strings.ToUpper(element)
	}
	return answers, nil
}

func init() { batchasync.Register(&upper{}) }

// inBubble runs f as synctest.Test does for a test: time takes no time in it, and is
// exact. In a test of yours, t is the test's own.
func inBubble(f func(t *testing.T)) { synctest.Test(&testing.T{}, f) }

// clock is the time in the bubble, which begins at the year 2000.
func clock() time.Duration {
	return time.Since(time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC))
}

// bundle drives a DoFn through a bundle of these elements, as a worker does, and
// prints the error with which the bundle fails.
func bundle[In any](t *testing.T, fn any, elements ...In) *batchasynctest.Outputs {
	outputs, err := batchasynctest.NewHarness(t, fn).Bundle(batchasynctest.Values(elements...)...)
	if err != nil {
		fmt.Println("the bundle fails:", err)
	}
	return outputs
}

// results are the values of a bundle's results.
func results(outputs *batchasynctest.Outputs) []any {
	var values []any
	for _, e := range outputs.Results() {
		values = append(values, e.Value)
	}
	return values
}

// printFailures prints a bundle's failures.
func printFailures(outputs *batchasynctest.Outputs) {
	for _, e := range outputs.Failures() {
		f := e.Value.(batchasync.Failure[string])
		fmt.Printf("failed: %s: %s (attempts: %d)\n", f.Element, f.Error, f.Attempts)
	}
}
