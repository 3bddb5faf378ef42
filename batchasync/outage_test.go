// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// A service goes down for a while, and comes back: nothing is lost or answered
// twice, there are never more calls than the limit, and it isn't stormed when it
// is back.
func TestAServiceGoesDownAndComesBack(t *testing.T) {
	const (
		bundles, size = 4, 2500
		limit         = 8
		down, up      = 500 * time.Millisecond, 30 * time.Second
	)
	breaker := batchasync.CircuitBreaker(5, 10, time.Second)
	budget := batchasync.RetryBudget(0.1)
	hedge := batchasync.Hedge(150 * time.Millisecond)
	for name, test := range map[string]struct {
		opts      []batchasync.Option
		attempts  int
		whileDown int64 // the most calls while it is down
	}{
		// Batches are tried again twice a second, and each bundle has limit + 2.
		"nothing else":            {nil, 1000, 4 * 10 * 2 * 30 * 3 / 2},
		"breaker":                 {[]batchasync.Option{breaker}, 3, 5 + limit + 2*30},
		"budget":                  {[]batchasync.Option{budget}, 1000, 40 + 2*30},
		"hedge":                   {[]batchasync.Option{hedge}, 1000, 4 * 10 * 2 * 30 * 3 / 2},
		"all":                     {[]batchasync.Option{breaker, budget, hedge}, 3, 5 + limit + 2*30},
		"all, across the bundles": {[]batchasync.Option{breaker, budget, hedge, batchasync.AcrossBundles()}, 3, 5 + limit + 2*30},
		"breaker, adaptive":       {[]batchasync.Option{breaker, batchasync.AdaptiveInFlight(1, limit)}, 3, 5 + limit + 2*30},
	} {
		for _, hangs := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hangs=%v", name, hangs), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					config := batchasynctest.ServiceConfig{BaseLatency: 100 * time.Millisecond, Jitter: 0.5, Record: true}
					start := time.Now()
					isDown := func() bool { return time.Since(start) >= down && time.Since(start) < up }
					if hangs {
						config.Hang = func(batchasynctest.ServiceCall) bool { return isDown() }
					} else {
						config.Outages = []batchasynctest.Outage{{From: down, To: up}}
					}
					var whileDown int64
					service := batchasynctest.NewService(config)
					var mu sync.Mutex
					inFlight, mostBack := 0, 0
					caller := &script{call: func(ctx context.Context, batch []int) ([]string, error) {
						mu.Lock()
						inFlight++
						if isDown() {
							whileDown++
						} else if time.Since(start) >= up {
							mostBack = max(mostBack, inFlight)
						}
						mu.Unlock()
						defer func() {
							mu.Lock()
							defer mu.Unlock()
							inFlight--
						}()
						results, _, err := batchasynctest.Call(ctx, service, batch, func(v int) (string, error) { return fmt.Sprintf("<%d>", v), nil })
						return results, err
					}}
					opts := append([]batchasync.Option{
						batchasync.BatchSize(50), batchasync.Timeout(time.Second), batchasync.MaxAttempts(test.attempts),
						batchasync.Backoff(100*time.Millisecond, time.Second),
					}, test.opts...)
					if name != "breaker, adaptive" {
						opts = append(opts, batchasync.MaxInFlight(limit))
					}
					first := batchasynctest.NewHarness(t, batchasync.New(caller, opts...))
					_, err := first.Bundle()
					require.NoError(t, err)
					var running sync.WaitGroup
					for b := range bundles {
						h := first.Clone(t)
						running.Go(func() {
							var elements []batchasynctest.Element
							for i := range size {
								elements = append(elements, element(b*size+i))
							}
							out, err := h.Bundle(elements...)
							require.NoError(t, err)
							require.Empty(t, out.Failures())
							batchasynctest.RequireExactlyOnce(t, elements, out, quotedValue)
						})
					}
					running.Wait()
					t.Logf("%d calls while it was down, most at once after that %d", whileDown, mostBack)
					require.LessOrEqual(t, service.Stats().MaxInFlight, limit)
					require.LessOrEqual(t, mostBack, limit)
					require.NotZero(t, mostBack)
					require.LessOrEqual(t, whileDown, test.whileDown)
				})
			})
		}
	}
}

// A call that has overrun its timeout has its place until it has returned, but not
// for ever.
func TestACallThatReturnsLateKeepsItsPlaceForAMoment(t *testing.T) {
	for name, test := range map[string]struct {
		late, next time.Duration // after the timeout
	}{
		"at once":            {0, 0},
		"a moment later":     {50 * time.Millisecond, 50 * time.Millisecond},
		"long after":         {time.Hour, 100 * time.Millisecond},
		"never, practically": {1000 * time.Hour, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const timeout = time.Second
				start := time.Now()
				var second time.Duration
				h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
					if batch[0] == 0 {
						<-ctx.Done()
						time.Sleep(test.late)
						return nil, ctx.Err()
					}
					second = time.Since(start)
					return quoted(batch), nil
				}}, batchasync.BatchSize(1), batchasync.MaxInFlight(1), batchasync.MaxAttempts(1), batchasync.Timeout(timeout)))
				out, err := h.Bundle(numbers(2)...)
				require.NoError(t, err)
				require.Len(t, out.Failures(), 1)
				require.Len(t, out.Results(), 1)
				require.Equal(t, timeout+test.next, second)
				time.Sleep(test.late)
			})
		})
	}
}
