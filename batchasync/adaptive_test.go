// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// served runs elements through a service, and returns the share of its limit
// that was reached, on the virtual clock, and what the bundle emitted.
func served(t *testing.T, service *batchasynctest.Service, n, batch int, opts ...batchasync.Option) (float64, *batchasynctest.Outputs) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
		out, _, err := batchasynctest.Call(ctx, service, batch, func(v int) (string, error) { return quoted([]int{v})[0], nil })
		return out, err
	}}, append([]batchasync.Option{batchasync.BatchSize(batch)}, opts...)...))
	start := time.Now()
	out, err := h.Bundle(numbers(n)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, numbers(n), out, quotedValue)
	require.Empty(t, out.Failures())
	return float64(n) / time.Since(start).Seconds() / service.MaxThroughput(batch), out
}

// With nothing set, the calls at once are what the service bears.
func TestWithNothingSetTheServiceIsAskedAsMuchAsItBears(t *testing.T) {
	for name, config := range map[string]batchasynctest.ServiceConfig{
		"it slows down beyond 16 calls": {Capacity: 16, Overload: batchasynctest.Degrade, DegradeFactor: 2},
		"it slows down beyond 4 calls":  {Capacity: 4, Overload: batchasynctest.Degrade, DegradeFactor: 3},
		"it queues beyond 16 calls":     {Capacity: 16, Overload: batchasynctest.Queue},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config.BaseLatency, config.PerElement = 5*time.Millisecond, 20*time.Microsecond
				service := batchasynctest.NewService(config)
				share, out := served(t, service, 10_000, 10)
				require.Greater(t, share, 0.8, "with the time in which it looks for it")
				require.Positive(t, out.Gauge(batchasync.MetricsNamespace, "in_flight_limit"))
			})
		})
	}
}

func TestAServiceThatRefusesIsAskedLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 20 * time.Millisecond, Capacity: 8, Overload: batchasynctest.Refuse,
		})
		share, _ := served(t, service, 10_000, 10, batchasync.MaxAttempts(100), batchasync.Backoff(time.Millisecond, time.Second))
		require.Greater(t, share, 0.7)
		stats := service.Stats()
		require.Less(t, stats.Refused, stats.Calls/5)
	})
}

func TestTheBatchSizeKeepsACallNearItsTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 2 * time.Millisecond, PerElement: 100 * time.Microsecond, Capacity: 100,
		})
		_, out := served(t, service, 30_000, 1000, batchasync.MaxInFlight(4),
			batchasync.AdaptiveBatchSize(10, 1000, 32*time.Millisecond))
		sizes := out.Distribution(batchasync.MetricsNamespace, "batch_size")
		require.InDelta(t, 300, sizes.Max, 60, "2 ms and 300 times 0.1 ms")
		require.Greater(t, sizes.Sum/sizes.Count, int64(200))
	})
}

func TestTheBatchSizeStaysBelowItsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var most int
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			time.Sleep(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			most = max(most, len(batch))
			return quoted(batch), nil
		}}, batchasync.BatchSize(50), batchasync.AdaptiveBatchSize(10, 1000, time.Minute)))
		_, err := h.Bundle(numbers(10_000)...)
		require.NoError(t, err)
		require.Equal(t, 50, most)
	})
}

// A service that refuses large calls is asked for less at a time, whether or
// not the batch size is adaptive.
func TestABatchThatIsTooLargeIsHalved(t *testing.T) {
	for name, opts := range map[string][]batchasync.Option{
		"a fixed size":     {batchasync.BatchSize(100)},
		"an adaptive size": {batchasync.AdaptiveBatchSize(1, 100, time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const most = 30
				var mu sync.Mutex
				refused, calls := 0, 0
				h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
					time.Sleep(time.Millisecond)
					mu.Lock()
					defer mu.Unlock()
					calls++
					if len(batch) > most {
						refused++
						return nil, batchasync.TooLarge(errors.New("413"))
					}
					return quoted(batch), nil
				}}, append(opts, batchasync.MaxInFlight(1))...))
				out, err := h.Bundle(numbers(10_000)...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, numbers(10_000), out, quotedValue)
				require.Empty(t, out.Failures())
				if name == "an adaptive size" {
					require.Less(t, refused, 20, "it learns")
				} else {
					require.Equal(t, 300, refused, "3 of the 7 calls for each batch")
					require.Equal(t, 700, calls)
				}
			})
		})
	}
}

func TestAnElementThatIsTooLargeByItselfFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
			return nil, batchasync.TooLarge(errors.New("413"))
		}}))
		out, err := h.Bundle(numbers(1)...)
		require.NoError(t, err)
		require.Len(t, out.Failures(), 1)
		require.True(t, out.Failures()[0].Value.(batchasync.Failure[int]).Permanent)
	})
}
