// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// BatchSize is the first option to think about: as many elements as the service
// answers in one call without trouble. See docs/choosing-batch-size.md.
func ExampleBatchSize() {
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(&upper{}, batchasync.BatchSize(2), batchasync.MaxInFlight(1)),
			"a", "b", "c", "d", "e")
	})
	// Output:
	// 0s: [a b]
	// 0s: [c d]
	// 0s: [e]
}

// BatchBytes is for a service that bounds the size of a request, where elements
// differ in size. An element that is larger by itself goes alone.
func ExampleBatchBytes() {
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(&upper{}, batchasync.BatchBytes(4), batchasync.MaxInFlight(1)),
			"aa", "bb", "c", "ddddd", "e")
	})
	// Output:
	// 0s: [aa bb]
	// 0s: [c]
	// 0s: [ddddd]
	// 0s: [e]
}

// Linger bounds how long the first element of a batch waits for others: in a stream,
// set it to the latency that you can spare. This bundle stays open; its last element
// is not sent before its time.
func ExampleLinger() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&upper{}, batchasync.Linger(2*time.Second)))
		require.NoError(t, h.Start())
		for _, element := range batchasynctest.Values("a", "b", "c") {
			require.NoError(t, h.Process(element))
			time.Sleep(1500 * time.Millisecond)
		}
		require.NoError(t, h.Finish())
	})
	// Output:
	// 2s: [a b]
	// 4.5s: [c]
}

// Ordered is for what comes behind and counts on the order of a bundle's elements.
// The first batch is slow here; the second is answered long before it, and waits.
func ExampleOrdered() {
	slow := &upper{before: func(_ context.Context, batch []string) error {
		if batch[0] == "a" {
			time.Sleep(5 * time.Second)
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		out := bundle(t, batchasync.New(slow, batchasync.Ordered(), batchasync.BatchSize(1), batchasync.MaxInFlight(2)), "a", "b")
		fmt.Println(results(out))
	})
	// Unordered output:
	// 0s: [a]
	// 0s: [b]
	// [A B]
}

// AdaptiveBatchSize is for a service whose cost you don't know, or that changes: here
// a call takes 100 ms and 1 ms an element, and 300 ms are what you can spare. It tries
// half of its size now and then, to learn what a call costs.
func ExampleAdaptiveBatchSize() {
	inBubble(func(t *testing.T) {
		var largest int
		service := &counting{before: func(size int) error {
			time.Sleep(100*time.Millisecond + time.Duration(size)*time.Millisecond)
			largest = max(largest, size)
			return nil
		}}
		bundle(t, batchasync.New(service, batchasync.AdaptiveBatchSize(10, 1000, 300*time.Millisecond), batchasync.MaxInFlight(1)),
			make([]int, 10_000)...)
		fmt.Println("largest batch:", largest)
	})
	// Output: largest batch: 200
}

// AcrossBundles is for streaming runners, whose bundles are tiny, where several are
// open in a worker process at once. Two bundles of one element here share a call; each
// gets its own answer.
func ExampleAcrossBundles() {
	inBubble(func(t *testing.T) {
		one := batchasynctest.NewHarness(t, batchasync.New(&upper{}, batchasync.AcrossBundles()))
		other := one.Clone(t) // another instance of the transform in the same process
		require.NoError(t, one.Start())
		require.NoError(t, other.Start())
		require.NoError(t, one.Process(batchasynctest.Element{Value: "a"}))
		require.NoError(t, other.Process(batchasynctest.Element{Value: "b"}))
		require.NoError(t, one.Finish())
		require.NoError(t, other.Finish())
		fmt.Println(results(one.Outputs()), results(other.Outputs()))
	})
	// Output:
	// 50ms: [a b]
	// [A] [B]
}

// counting is upper for large numbers of elements: it prints nothing.
type counting struct{ before func(size int) error }

func (c *counting) Call(_ context.Context, batch []int) ([]int, error) {
	if c.before == nil {
		return batch, nil
	}
	return batch, c.before(len(batch))
}

func init() { batchasync.Register(&counting{}) }
