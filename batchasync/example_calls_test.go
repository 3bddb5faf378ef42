// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// errBusy is what a service says that may do better the next time.
var errBusy = errors.New("busy")

// busy fails the first calls of each batch, but for the last of n attempts.
func busy(n int) *upper {
	return &upper{before: func(ctx context.Context, _ []string) error {
		if batchasync.InfoFrom(ctx).Attempt < n {
			return errBusy
		}
		return nil
	}}
}

// MaxInFlight is for a service of which you know how many calls it bears: it takes the
// place of the adaptive limit, and holds for all bundles of the worker process
// together.
func ExampleMaxInFlight() {
	inBubble(func(t *testing.T) {
		takes := &upper{before: func(context.Context, []string) error { time.Sleep(time.Second); return nil }}
		bundle(t, batchasync.New(takes, batchasync.MaxInFlight(2), batchasync.BatchSize(1)), "a", "b", "c", "d", "e")
	})
	// Unordered output:
	// 0s: [a]
	// 0s: [b]
	// 1s: [c]
	// 1s: [d]
	// 2s: [e]
}

// AdaptiveInFlight, from 1 to 64, is the default; give other bounds if the service
// must never see more calls of this process. This service bears 8 calls at once, and
// its throughput collapses beyond.
func ExampleAdaptiveInFlight() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 50 * time.Millisecond, Capacity: 8, Overload: batchasynctest.Degrade, DegradeFactor: 2,
		})
		caller := &counting{before: func(size int) error { return ask(service, size) }}
		bundle(t, batchasync.New(caller, batchasync.AdaptiveInFlight(1, 32)), make([]int, 400_000)...)
		share := 400_000 / clock().Seconds() / service.MaxThroughput(100)
		fmt.Println("at least 90 % of what the service can do:", share >= 0.9)
	})
	// Output: at least 90 % of what the service can do: true
}

// TargetLatency is for a service that many workers share: it tells each of them what a
// call takes where there is no crowd, which none of them may ever see. 1.5 times what a
// call takes without load is a good value. This service bears 4 calls, and lets others
// wait.
func ExampleTargetLatency() {
	inBubble(func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{BaseLatency: 100 * time.Millisecond, Capacity: 4})
		caller := &counting{before: func(size int) error { return ask(service, size) }}
		bundle(t, batchasync.New(caller, batchasync.TargetLatency(150*time.Millisecond)), make([]int, 200_000)...)
		share := 200_000 / clock().Seconds() / service.MaxThroughput(100)
		fmt.Println("at least 90 % of what the service can do:", share >= 0.9)
	})
	// Output: at least 90 % of what the service can do: true
}

func ask(service *batchasynctest.Service, size int) error {
	_, _, err := batchasynctest.Call(context.Background(), service, make([]int, size), func(int) (int, error) { return 0, nil })
	return err
}

// Timeout bounds one attempt: somewhat above the slowest call that you would still
// wait for. The call's context ends with it; the next attempt is as after any error.
func ExampleTimeout() {
	hangs := &upper{before: func(ctx context.Context, _ []string) error {
		if batchasync.InfoFrom(ctx).Attempt == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(hangs, batchasync.Timeout(5*time.Second), batchasync.RetryInterval(time.Second)), "a")
	})
	// Output:
	// 0s: [a]
	// 6s: [a]
}

// MaxElapsed bounds all attempts of a batch with the waits between them: say how long
// a bundle may be held up by a service that is down.
func ExampleMaxElapsed() {
	inBubble(func(t *testing.T) {
		printFailures(bundle(t, batchasync.New(busy(1000),
			batchasync.MaxElapsed(10*time.Second), batchasync.MaxAttempts(1000), batchasync.RetryInterval(4*time.Second)), "a"))
	})
	// Output:
	// 0s: [a]
	// 4s: [a]
	// 8s: [a]
	// failed: a: busy (attempts: 3)
}

// MaxAttempts counts the first attempt too: 1 is no retry.
func ExampleMaxAttempts() {
	inBubble(func(t *testing.T) {
		printFailures(bundle(t, batchasync.New(busy(3), batchasync.MaxAttempts(2), batchasync.RetryInterval(time.Second)), "a"))
	})
	// Output:
	// 0s: [a]
	// 1s: [a]
	// failed: a: busy (attempts: 2)
}

// Backoff is the wait between attempts: a random time below a ceiling, which doubles
// from attempt to attempt, so that batches that failed together don't come back
// together. Give a service that recovers slowly a longer one.
func ExampleBackoff() {
	inBubble(func(t *testing.T) {
		var attempts []time.Duration
		fails := &counting{before: func(int) error { attempts = append(attempts, clock()); return errBusy }}
		bundle(t, batchasync.New(fails, batchasync.Backoff(time.Second, 3*time.Second), batchasync.MaxAttempts(5)), 1)
		for i, ceiling := range []time.Duration{1, 2, 3, 3} {
			wait := attempts[i+1] - attempts[i]
			fmt.Printf("wait %d is at most %ds: %v\n", i+1, ceiling, wait <= ceiling*time.Second)
		}
	})
	// Output:
	// wait 1 is at most 1s: true
	// wait 2 is at most 2s: true
	// wait 3 is at most 3s: true
	// wait 4 is at most 3s: true
}

// RetryInterval is for a service that says itself how long it takes to recover. Many
// workers that fail together come back together: prefer Backoff otherwise.
func ExampleRetryInterval() {
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(busy(3), batchasync.RetryInterval(2*time.Second)), "a", "b")
	})
	// Output:
	// 0s: [a b]
	// 2s: [a b]
	// 4s: [a b]
}
