// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

func init() {
	batchasync.Register(&script{})
}

// script is a caller whose methods are a test's. It can't travel; the harness
// uses it as it is.
type script struct {
	call        func(ctx context.Context, batch []int) ([]string, error)
	setup       func(context.Context) error
	teardown    func(context.Context) error
	elementSize func(int) int
	retryable   func(error) bool
}

func (s *script) Call(ctx context.Context, batch []int) ([]string, error) {
	if s.call == nil {
		return quoted(batch), nil
	}
	return s.call(ctx, batch)
}

func (s *script) Setup(ctx context.Context) error {
	if s.setup == nil {
		return nil
	}
	return s.setup(ctx)
}

func (s *script) Teardown(ctx context.Context) error {
	if s.teardown == nil {
		return nil
	}
	return s.teardown(ctx)
}

func (s *script) ElementSize(v int) int {
	if s.elementSize == nil {
		return 8
	}
	return s.elementSize(v)
}

func (s *script) Retryable(err error) bool { return s.retryable == nil || s.retryable(err) }

func quoted(batch []int) []string {
	out := make([]string, len(batch))
	for i, v := range batch {
		out[i] = fmt.Sprintf("<%d>", v)
	}
	return out
}

func quotedValue(v any) any { return fmt.Sprintf("<%d>", v) }

func numbers(n int) []batchasynctest.Element {
	values := make([]int, n)
	for i := range values {
		values[i] = i
	}
	return batchasynctest.Values(values...)
}

// calls records the batches of a script.
type calls struct {
	mu      sync.Mutex
	batches [][]int
}

func (c *calls) record(batch []int) (number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches = append(c.batches, append([]int(nil), batch...))
	return len(c.batches)
}

func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestABundleEndsWithEveryElementAnsweredOnce(t *testing.T) {
	for _, n := range []int{0, 1, 99, 100, 101, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			h := batchasynctest.NewHarness(t, batchasync.New(&script{}))
			out, err := h.Bundle(numbers(n)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(n), out, quotedValue)
			require.EqualValues(t, n, out.Counter(batchasync.MetricsNamespace, "elements"))
		})
	}
}

func TestABatchThatFailsInPartIsSentAgainForTheElementsThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		var infos []batchasync.Info
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			infos = append(infos, batchasync.InfoFrom(ctx))
			var failed batchasync.BatchError
			if seen.record(batch) == 1 {
				failed.Fail(1, errors.New("busy"))
				failed.Fail(3, batchasync.Permanent(errors.New("bad")))
			}
			return quoted(batch), failed.Err()
		}}))
		out, err := h.Bundle(numbers(5)...)
		require.NoError(t, err)
		require.Equal(t, [][]int{{0, 1, 2, 3, 4}, {1}}, seen.batches)
		batchasynctest.RequireExactlyOnce(t, numbers(5), out, quotedValue)
		require.Len(t, out.Failures(), 1)
		failure := out.Failures()[0].Value.(batchasync.Failure[int])
		require.Equal(t, 3, failure.Element)
		require.Equal(t, "bad", failure.Error)
		require.True(t, failure.Permanent)
		require.Equal(t, 1, failure.Attempts)
		require.Equal(t, 2, infos[1].Attempt)
		require.NotEqual(t, infos[0].BatchID, infos[1].BatchID, "another request must not have the same idempotency key")
	})
}

func TestAFailedBundleSaysWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("connection refused")
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
			return nil, broken
		}}, batchasync.FailBundle(), batchasync.RetryInterval(time.Second)))
		_, err := h.Bundle(numbers(7)...)
		require.ErrorIs(t, err, broken)
		var call *batchasync.CallError
		require.ErrorAs(t, err, &call)
		require.Equal(t, 7, call.Size)
		require.Equal(t, 4, call.Attempts)
		require.Equal(t, 3*time.Second, call.Elapsed)
		require.False(t, call.Permanent)

		// The same instance serves the next bundle.
		_, err = h.Bundle(numbers(1)...)
		require.ErrorIs(t, err, broken)
	})
}

var _ = []any{atomic.Int64{}, runtime.GC, beam.Init}
