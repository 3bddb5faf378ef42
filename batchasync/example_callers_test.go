// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// store is a caller with the optional methods.
type store struct {
	Table string // travels to the workers

	upper
	open  bool         // stands for a connection pool, which doesn't travel
	until atomic.Int64 // when the service wants to be called again, in Unix nanoseconds
}

func (s *store) Setup(context.Context) error {
	fmt.Println("open the connections to", s.Table)
	s.open = true
	return nil
}

func (s *store) Teardown(context.Context) error {
	fmt.Println("close them")
	return nil
}

func (s *store) Validate() error {
	if s.Table == "" {
		return errors.New("the Table is empty")
	}
	return nil
}

func (s *store) Retryable(err error) bool { return errors.Is(err, errBusy) }

func (s *store) ElementSize(element string) int { return 100 + len(element) }

func (s *store) HoldUntil() time.Time { return time.Unix(0, s.until.Load()) }

func init() { batchasync.Register(&store{}) }

// SetupCaller: what a caller opens, it opens in Setup, once in each worker process.
func ExampleSetupCaller() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&store{Table: "city"}))
		for range 2 {
			_, err := h.Bundle(batchasynctest.Values("a")...)
			require.NoError(t, err)
		}
	})
	// Output:
	// open the connections to city
	// 0s: [a]
	// 0s: [a]
	// close them
}

// TeardownCaller: Teardown comes with the last DoFn of the process; and, since most
// runners tear none down, when the caller has not been used for ten minutes. It is set
// up again when it is needed.
func ExampleTeardownCaller() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&store{Table: "city"}))
		for range 2 {
			_, err := h.Bundle(batchasynctest.Values("a")...)
			require.NoError(t, err)
			time.Sleep(11 * time.Minute)
		}
	})
	// Output:
	// open the connections to city
	// 0s: [a]
	// close them
	// open the connections to city
	// 11m0s: [a]
	// close them
}

// ValidatingCaller: what is wrong with a caller's fields is said when the pipeline is
// made, and not on the worker.
func ExampleValidatingCaller() {
	defer func() { fmt.Println(recover()) }()
	batchasync.New(&store{})
	// Output: batchasync.New(*batchasync_test.store): *batchasync_test.store: the Table is empty
}

// RetryClassifier: where the client's errors tell what is worth another attempt, say so
// in one place, and leave Call without marks. This error is none that another attempt
// helps.
func ExampleRetryClassifier() {
	inBubble(func(t *testing.T) {
		caller := &store{Table: "city", upper: upper{before: func(context.Context, []string) error { return errors.New("no such table") }}}
		printFailures(bundle(t, batchasync.New(caller), "a"))
	})
	// Output:
	// open the connections to city
	// 0s: [a]
	// failed: a: no such table (attempts: 1)
	// close them
}

// ElementSizer: the bytes of an element in a call, for BatchBytes. Here 100 more than
// the text, for what the protocol puts around it.
func ExampleElementSizer() {
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(&store{Table: "city"}, batchasync.BatchBytes(210), batchasync.MaxInFlight(1)), "aaaa", "bbbb", "cccc")
	})
	// Output:
	// open the connections to city
	// 0s: [aaaa bbbb]
	// 0s: [cccc]
	// close them
}

// HoldingCaller: a service that tells with an answer how much room is left, as
// x-ratelimit-remaining does, need not be driven into a refusal. Here it says after the
// first call that it wants none for a minute.
func ExampleHoldingCaller() {
	caller := &store{Table: "city"}
	caller.before = func(context.Context, []string) error {
		caller.until.Store(time.Now().Add(time.Minute).UnixNano())
		return nil
	}
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(caller, batchasync.BatchSize(1), batchasync.MaxInFlight(1)), "a", "b")
	})
	// Output:
	// open the connections to city
	// 0s: [a]
	// 1m0s: [b]
	// close them
}

// IdempotentCaller: a caller that only reads, or writes what may be written twice, says
// so, and may be hedged.
func ExampleIdempotentCaller() {
	defer func() { fmt.Println(recover()) }()
	batchasync.New(&idempotent{}, batchasync.Hedge(time.Second)) // is one
	batchasync.New(&upper{}, batchasync.Hedge(time.Second))
	// Output: batchasync.New(*batchasync_test.upper): Hedge(1s): the caller does not say that a call may be made twice: give it a method Idempotent() bool that returns true, if that is so
}

// InfoFrom tells Call which attempt it is, and an id that is the same in every attempt
// to send the same elements: send it as the idempotency key of a service that takes
// one.
func ExampleInfoFrom() {
	var keys []string
	caller := &upper{before: func(ctx context.Context, _ []string) error {
		info := batchasync.InfoFrom(ctx)
		keys = append(keys, info.BatchID)
		if info.Attempt == 1 {
			return errBusy
		}
		return nil
	}}
	inBubble(func(t *testing.T) {
		bundle(t, batchasync.New(caller, batchasync.RetryInterval(time.Second)), "a")
		fmt.Println("the same key twice:", keys[0] == keys[1])
	})
	// Output:
	// 0s: [a]
	// 1s: [a]
	// the same key twice: true
}
