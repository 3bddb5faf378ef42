// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// quota is a caller that a service has told when to come back.
type quota struct {
	Broken string

	mu    sync.Mutex
	until time.Time
	calls []time.Time
	call  func(n int, batch []int) ([]string, error)
}

func (q *quota) Call(_ context.Context, batch []int) ([]string, error) {
	q.mu.Lock()
	q.calls = append(q.calls, time.Now())
	n := len(q.calls)
	q.mu.Unlock()
	return q.call(n, batch)
}

func (q *quota) hold(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.until = time.Now().Add(d)
}

func (q *quota) HoldUntil() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.Broken == "HoldUntil" {
		panic("no clock")
	}
	return q.until
}

func (q *quota) Validate() error {
	if q.Broken == "Validate" {
		return errors.New("no quota")
	}
	return nil
}

func (*quota) Idempotent() bool { return true }

func init() { batchasync.Register(&quota{}) }

func TestNoAttemptBeginsWhileTheCallerIsHeldBack(t *testing.T) {
	for name, opts := range map[string][]batchasync.Option{
		"each bundle for itself": nil,
		"bundles together":       {batchasync.AcrossBundles()},
		"with hedges":            {batchasync.Hedge(time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				q := &quota{}
				q.call = func(n int, batch []int) ([]string, error) {
					time.Sleep(2 * time.Second)
					if n <= 2 {
						q.hold(time.Minute) // the second one moves the time
					}
					if n == 1 {
						time.Sleep(2 * time.Second) // it would be hedged by now
						return nil, errors.New("no more today")
					}
					return quoted(batch), nil
				}
				h := batchasynctest.NewHarness(t, batchasync.New(q, append(opts, batchasync.BatchSize(10),
					batchasync.MaxInFlight(1), batchasync.MaxAttempts(2), batchasync.Timeout(5*time.Second), batchasync.RetryInterval(time.Second))...))
				out, err := h.Bundle(numbers(40)...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, numbers(40), out, quotedValue)
				require.Empty(t, out.Failures(), "a wait is no attempt and has no Timeout")
				for i, at := range q.calls[1:] {
					since := at.Sub(start)
					require.True(t, name == "with hedges" && i == 0 && since == time.Second || since >= 62*time.Second, "call %d began after %v", i+2, since)
				}
				require.GreaterOrEqual(t, out.Counter("beam-throttling-metrics", "throttling-msecs"), int64(58_000))
			})
		})
	}
}

func TestAHoldEndsWithMaxElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		q := &quota{}
		q.call = func(int, []int) ([]string, error) {
			q.hold(time.Hour)
			return nil, errors.New("busy")
		}
		h := batchasynctest.NewHarness(t, batchasync.New(q, batchasync.MaxElapsed(time.Minute)))
		out, err := h.Bundle(numbers(3)...)
		require.NoError(t, err)
		require.Len(t, out.Failures(), 3)
		require.Equal(t, time.Minute, time.Since(start))
		require.Len(t, q.calls, 1)
	})
}

func TestAHoldUntilThatPanicsHoldsNothing(t *testing.T) {
	q := &quota{Broken: "HoldUntil", call: func(_ int, batch []int) ([]string, error) { return quoted(batch), nil }}
	out, err := batchasynctest.NewHarness(t, batchasync.New(q)).Bundle(numbers(3)...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 3)
}

func TestACallerThatDoesNotValidateIsRefused(t *testing.T) {
	require.PanicsWithValue(t, "batchasync.New(*batchasync_test.quota): *batchasync_test.quota: no quota",
		func() { batchasync.New(&quota{Broken: "Validate"}) })
}

func TestABatchIsHalvedForAnErrorThatSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			sizes = append(sizes, len(batch))
			time.Sleep(time.Millisecond)
			for _, v := range batch {
				if v == 77 {
					return nil, batchasync.Halve(errors.New("one of them is odd"))
				}
			}
			return quoted(batch), nil
		}}, batchasync.MaxInFlight(1), batchasync.AdaptiveBatchSize(1, 128, time.Minute)))
		out, err := h.Bundle(numbers(1024)...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, numbers(1024), out, quotedValue)
		require.Len(t, out.Failures(), 1)
		failure := out.Failures()[0].Value.(batchasync.Failure[int])
		require.Equal(t, 77, failure.Element)
		require.True(t, failure.Permanent)
		require.Equal(t, 1, slices.Min(sizes))
		require.Equal(t, 128, slices.Max(sizes[slices.Index(sizes, 1):]), "it says nothing of the size")
	})
}
