// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// What Failed takes out of one caller's error means the same when another puts
// it into its own.
func TestFailedKeepsTheMarksAroundABatchError(t *testing.T) {
	broken := errors.New("broken")
	inner := func(err error) error {
		var failed batchasync.BatchError
		failed.Fail(7, err)
		return failed.Err()
	}
	for name, test := range map[string]struct {
		err      error
		attempts int
		elapsed  time.Duration
	}{
		"none":                     {inner(broken), 2, time.Second},
		"permanent, inside":        {inner(batchasync.Permanent(broken)), 1, 0},
		"permanent, outside":       {batchasync.Permanent(inner(broken)), 1, 0},
		"later, outside":           {batchasync.RetryAfter(inner(broken), time.Minute), 2, time.Minute},
		"permanent, far outside":   {fmt.Errorf("call: %w", batchasync.Permanent(fmt.Errorf("query: %w", inner(broken)))), 1, 0},
		"later and permanent":      {batchasync.RetryAfter(batchasync.Permanent(inner(broken)), time.Minute), 1, 0},
		"behind one that is empty": {errors.Join(&batchasync.BatchError{}, inner(broken)), 2, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := batchasync.Failed(test.err)
				require.Len(t, failed, 1)
				require.ErrorIs(t, failed[7], broken)
				h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
					var outer batchasync.BatchError
					outer.Fail(0, failed[7])
					return nil, outer.Err()
				}}, batchasync.MaxAttempts(2), batchasync.RetryInterval(time.Second)))
				start := time.Now()
				out, err := h.Bundle(numbers(1)...)
				require.NoError(t, err)
				require.Equal(t, test.elapsed, time.Since(start))
				f := out.Failures()[0].Value.(batchasync.Failure[int])
				require.Equal(t, test.attempts, f.Attempts)
				require.Equal(t, test.attempts == 1, f.Permanent)
				require.Equal(t, "broken", f.Error)
			})
		})
	}
	require.Nil(t, batchasync.Failed(nil))
	require.Nil(t, batchasync.Failed(broken))
	require.Nil(t, batchasync.Failed(&batchasync.BatchError{}))
}
