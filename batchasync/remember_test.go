// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func init() {
	batchasync.Register(&rememberer{})
	batchasync.Register(&forgetful{})
}

// rememberer remembers even numbers, refuses 13 and panics at 14.
type rememberer struct {
	seen  calls
	story []string
}

func (r *rememberer) tell(format string, args ...any) {
	r.story = append(r.story, fmt.Sprintf(format, args...))
}

func (r *rememberer) Remember(m batchasync.Memory) error {
	r.tell("remember %d %v %d", m.Entries, m.TTL, m.Bytes)
	if m.Entries == 7 {
		return errors.New("7 is too few")
	}
	return nil
}

func (r *rememberer) Setup(context.Context) error    { r.tell("set up"); return nil }
func (r *rememberer) Teardown(context.Context) error { r.tell("tear down"); return nil }

func (r *rememberer) Recall(ctx context.Context, v int) (string, bool, error) {
	userCounter.Inc(ctx, 1)
	switch v {
	case 13:
		return "", false, errors.New("13 is refused")
	case 14:
		panic("14")
	}
	return fmt.Sprintf("<%d>", v), v%2 == 0, nil
}

func (r *rememberer) Call(_ context.Context, batch []int) ([]string, error) {
	r.seen.record(batch)
	return quoted(batch), nil
}

// forgetful has a Recall, but no Remember that goes with it.
type forgetful struct{ rememberer }

func (*forgetful) Remember(entries int) {}

func TestACallerMayKeepItsAnswersItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caller := &rememberer{}
		h := batchasynctest.NewHarness(t, batchasync.New(caller, batchasync.Cache(100, time.Minute), batchasync.CacheBytes(1000)))
		elements := batchasynctest.Values(1, 2, 3, 4, 13, 14, 5)
		out, err := h.Bundle(elements...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, elements, out, quotedValue)
		require.Equal(t, [][]int{{1, 3, 5}}, caller.seen.batches)
		require.EqualValues(t, 2, out.Counter(batchasync.MetricsNamespace, "cache_hits"))
		require.EqualValues(t, len(elements), out.Counter("user", "rows"), "what Recall counts is counted")
		var failed []int
		for _, e := range out.Failures() {
			f := e.Value.(batchasync.Failure[int])
			require.True(t, f.Permanent)
			failed = append(failed, f.Element)
		}
		require.Equal(t, []int{13, 14}, failed)

		time.Sleep(time.Hour) // nobody uses it: it is torn down
		_, err = h.Bundle(batchasynctest.Values(1)...)
		require.NoError(t, err)
		require.NoError(t, h.Teardown())
		remember := "remember 100 1m0s 1000"
		require.Equal(t, []string{remember, remember, "set up", "tear down", "set up", "tear down"}, caller.story, "at construction, and on the worker")
	})
}

func TestACallerIsAskedToRecallWithACacheOnly(t *testing.T) {
	for want, opts := range map[string][]batchasync.Option{
		"":                nil,
		"remember 0 0s 0": {batchasync.Dedup()},
	} {
		synctest.Test(t, func(t *testing.T) {
			caller := &rememberer{}
			h := batchasynctest.NewHarness(t, batchasync.New(caller, opts...))
			out, err := h.Bundle(numbers(4)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(4), out, quotedValue)
			require.Equal(t, [][]int{{0, 1, 2, 3}}, caller.seen.batches)
			require.Equal(t, want != "", slices.Contains(caller.story, want))
		})
	}
}

func TestWhatACallerCannotRememberIsRefused(t *testing.T) {
	require.Contains(t, panics(t, func() { batchasync.New(&rememberer{}, batchasync.Cache(7, time.Minute)) }), "7 is too few")
	require.Contains(t, panics(t, func() { batchasync.New(&forgetful{}) }),
		"*batchasync_test.forgetful has a method Remember with another signature, which would be ignored: make it Remember(batchasync.Memory) error, beside a Recall(context.Context, int) (string, bool, error)")
}
