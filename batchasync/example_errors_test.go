// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// refusing fails each call in which one of the bad elements is, with the error that
// mark makes of it.
func refusing(mark func(error) error, bad ...string) *upper {
	return &upper{before: func(_ context.Context, batch []string) error {
		for _, b := range bad {
			if slices.Contains(batch, b) {
				return mark(fmt.Errorf("%s is refused", b))
			}
		}
		return nil
	}}
}

// Permanent is for what another attempt would only repeat: bad input, a missing table,
// no right.
func ExamplePermanent() {
	inBubble(func(t *testing.T) {
		printFailures(bundle(t, batchasync.New(refusing(batchasync.Permanent, "bad")), "bad"))
	})
	// Output:
	// 0s: [bad]
	// failed: bad: bad is refused (attempts: 1)
}

// RetryAfter passes on when a service says that it wants to be asked again, such as
// HTTP's Retry-After: it takes the place of the backoff, and tells the adaptive limit
// that there were too many calls.
func ExampleRetryAfter() {
	asks := &upper{before: func(ctx context.Context, _ []string) error {
		if batchasync.InfoFrom(ctx).Attempt == 1 {
			return batchasync.RetryAfter(errBusy, time.Minute)
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(asks), "a", "b")
	})
	// Output:
	// 0s: [a b]
	// 1m0s: [a b]
}

// TooLarge is for a service that refuses a batch for its size: it is sent in halves.
// With AdaptiveBatchSize, batches are smaller from then on.
func ExampleTooLarge() {
	atMost2 := &upper{before: func(_ context.Context, batch []string) error {
		if len(batch) > 2 {
			return batchasync.TooLarge(errors.New("413 Content Too Large"))
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(atMost2), "a", "b", "c", "d")
	})
	// Output:
	// 0s: [a b c d]
	// 0s: [a b]
	// 0s: [c d]
}

// Halve is for a call that fails as a whole for some of its elements, and nobody says
// for which: it is sent in halves until the bad ones stand alone. Where the service
// names them, BatchError costs no call more.
func ExampleHalve() {
	inBubble(func(t *testing.T) {
		printFailures(bundle(t, batchasync.New(refusing(batchasync.Halve, "bad")), "a", "b", "bad", "d"))
	})
	// Output:
	// 0s: [a b bad d]
	// 0s: [a b]
	// 0s: [bad d]
	// 0s: [bad]
	// 0s: [d]
	// failed: bad: bad is refused (attempts: 3)
}

// Bisect is Halve for each error: for a caller of which you don't know by what errors a
// service refuses elements. Each half has MaxAttempts of its own, so a service that is
// down is asked very often: prefer Halve, or mark with Permanent what is known.
func ExampleBisect() {
	inBubble(func(t *testing.T) {
		fn := batchasync.New(refusing(batchasync.Permanent, "bad"), batchasync.Bisect())
		out := bundle(t, fn, "a", "b", "bad", "d")
		fmt.Println(results(out))
	})
	// Output:
	// 0s: [a b bad d]
	// 0s: [a b]
	// 0s: [bad d]
	// 0s: [bad]
	// 0s: [d]
	// [A B D]
}

// FailBundle has New do as ParDo does: the first element that fails for good fails its
// bundle, and the runner retries it. Use it where no element may be left out.
func ExampleFailBundle() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(refusing(batchasync.Permanent, "bad"), batchasync.FailBundle()))
		out, err := h.Bundle(batchasynctest.Values("bad")...)
		fmt.Println("the bundle fails:", err != nil)
		fmt.Println("failures emitted:", len(out.Failures()))
	})
	// Output:
	// 0s: [bad]
	// the bundle fails: true
	// failures emitted: 0
}

// CallError is what a bundle fails with: in a test with the harness, errors.As finds
// it. In a pipeline's result Beam leaves its text only.
func ExampleCallError() {
	inBubble(func(t *testing.T) {
		fn := batchasync.New(refusing(batchasync.Permanent, "bad"), batchasync.FailBundle())
		_, err := batchasynctest.NewHarness(t, fn).Bundle(batchasynctest.Values("a", "bad")...)
		if failed, ok := errors.AsType[*batchasync.CallError](err); ok {
			fmt.Println(failed.Size, "elements,", failed.Attempts, "attempt, permanent:", failed.Permanent)
			fmt.Println(failed.Err)
		}
	})
	// Output:
	// 0s: [a bad]
	// 2 elements, 1 attempt, permanent: true
	// bad is refused
}

// Failure is the element type of the failures output: keep it, and send the elements
// again when what was wrong has been mended.
func ExampleFailure() {
	inBubble(func(t *testing.T) {
		out := bundle(t, batchasync.New(busy(5), batchasync.RetryInterval(time.Second)), "a")
		f := out.Failures()[0].Value.(batchasync.Failure[string])
		fmt.Printf("%s: %s, after %d attempts, permanent: %v, in a batch of %d, at %s\n",
			f.Element, f.Error, f.Attempts, f.Permanent, f.BatchSize, f.FailedAt.Format(time.TimeOnly))
	})
	// Output:
	// 0s: [a]
	// 1s: [a]
	// 2s: [a]
	// 3s: [a]
	// a: busy, after 4 attempts, permanent: false, in a batch of 1, at 00:00:03
}

// Failed takes a BatchError apart: for a caller that is made of another, whose
// elements are its own in another order or number.
func ExampleFailed() {
	var failed batchasync.BatchError
	failed.Fail(3, errors.New("row is locked"))
	err := fmt.Errorf("write to city: %w", failed.Err())
	for i, of := range batchasync.Failed(err) {
		fmt.Println(i, of)
	}
	// Output: 3 row is locked
}
