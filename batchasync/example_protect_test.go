// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// CircuitBreaker is for a service that may be down for longer than a batch's attempts
// last: nothing is sent but a probe now and then, and no batch loses an attempt. This
// one is down for its first minute. (A probe comes a fifth earlier or later than the
// delay says, hence the bounds.)
func ExampleCircuitBreaker() {
	var calls int
	down := &counting{before: func(int) error {
		calls++
		if clock() < time.Minute {
			return errBusy
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		out := bundle(t, batchasync.New(down, batchasync.CircuitBreaker(2, 3, 10*time.Second),
			batchasync.BatchSize(1), batchasync.MaxInFlight(1)), 1, 2, 3, 4)
		fmt.Println(len(out.Results()), "results,", len(out.Failures()), "failures")
		fmt.Println("about a probe each 10 s:", calls <= 4+2+60/8)
	})
	// Output:
	// 4 results, 0 failures
	// about a probe each 10 s: true
}

// RateLimit is for a service that allows so many calls a second. It holds for a worker
// process: divide by the most workers there may be.
func ExampleRateLimit() {
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(&upper{}, batchasync.RateLimit(2, 1), batchasync.BatchSize(1), batchasync.MaxInFlight(1)), "a", "b", "c")
	})
	// Output:
	// 0s: [a]
	// 500ms: [b]
	// 1s: [c]
}

// RetryBudget keeps retries from multiplying the load on a service that is failing
// already: here to a tenth of the first attempts, and one a second. Without it, all ten
// calls that failed at 0 s would be made again at 1 s.
func ExampleRetryBudget() {
	var mu sync.Mutex
	calls := map[time.Duration]int{} // by the second
	fails := &counting{before: func(int) error {
		mu.Lock()
		defer mu.Unlock()
		at := clock().Truncate(time.Second)
		calls[at]++
		if at == 0 {
			return errBusy
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(fails, batchasync.RetryBudget(0.1), batchasync.RetryInterval(time.Second),
			batchasync.BatchSize(1), batchasync.MaxInFlight(10)), make([]int, 10)...)
		fmt.Println(calls)
	})
	// Output: map[0s:10 1s:3 2s:1 3s:1 4s:1 5s:1 6s:1 7s:1 8s:1]
}

// Hedge is for a service that answers now and then very late: a call without an answer
// is made a second time, and the first answer counts. Set it near the 95th percentile
// of call_ms. It needs a caller that says that this does no harm, and room for one more
// call: while the adaptive limit is 1, as at its start, there is none.
func ExampleHedge() {
	var calls atomic.Int64
	stuck := &idempotent{upper{before: func(ctx context.Context, _ []string) error {
		if calls.Add(1) == 1 {
			<-ctx.Done()
		}
		return ctx.Err()
	}}}
	inBubble(func(t *testing.T) {
		out := bundle(t, batchasync.New(stuck, batchasync.Hedge(200*time.Millisecond), batchasync.MaxInFlight(8)), "a")
		fmt.Println(clock(), results(out))
	})
	// Output:
	// 0s: [a]
	// 200ms: [a]
	// 200ms [A]
}

// idempotent only reads: to do it twice does no more than once.
type idempotent struct{ upper }

func (*idempotent) Idempotent() bool { return true }

func init() { batchasync.Register(&idempotent{}) }
