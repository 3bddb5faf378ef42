// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func TestASetupThatFailsIsTriedAgainAsACallIs(t *testing.T) {
	broken := errors.New("no route to host")
	every := batchasync.RetryInterval(time.Second)
	for _, test := range []struct {
		name  string
		fails int   // times
		with  error // broken, if it is not set
		opts  []batchasync.Option

		setups int
		took   time.Duration
		want   string // the bundle's error
	}{
		{"at once", 0, nil, []batchasync.Option{every}, 1, 0, ""},
		{"at the second attempt", 1, nil, []batchasync.Option{every}, 2, time.Second, ""},
		{"at the last attempt", 3, nil, []batchasync.Option{every}, 4, 3 * time.Second, ""},
		{"too often", 9, nil, []batchasync.Option{every}, 4, 3 * time.Second, "set up the caller, 4 attempts: no route to host"},
		{"with one attempt", 9, nil, []batchasync.Option{every, batchasync.MaxAttempts(1)}, 1, 0, "set up the caller, 1 attempt: no route to host"},
		{"within the time", 9, nil, []batchasync.Option{every, batchasync.MaxElapsed(2500 * time.Millisecond)}, 3, 2 * time.Second, "set up the caller, 3 attempts: no route to host"},
		{"for good", 9, batchasync.Permanent(broken), []batchasync.Option{every}, 1, 0, "set up the caller, 1 attempt: no route to host"},
		{"until later", 1, batchasync.RetryAfter(broken, time.Minute), []batchasync.Option{every}, 2, time.Minute, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log.SetLogger(&logged{})
				t.Cleanup(func() { log.SetLogger(&log.Standard{}) })
				setups := 0
				h := batchasynctest.NewHarness(t, batchasync.New(&script{setup: func(context.Context) error {
					setups++
					switch {
					case setups > test.fails:
						return nil
					case test.with != nil:
						return test.with
					}
					return broken
				}}, test.opts...))
				start := time.Now()
				out, err := h.Bundle(numbers(3)...)
				require.Equal(t, test.took, time.Since(start))
				require.Equal(t, test.setups, setups)
				if test.want == "" {
					require.NoError(t, err)
					batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
					return
				}
				require.ErrorContains(t, err, test.want)
				require.ErrorIs(t, err, broken)
				setups = test.fails // and now it is well
				_, err = h.Bundle(numbers(1)...)
				require.NoError(t, err, "the next bundle begins anew")
			})
		})
	}
}

func TestRetryableIsAskedAboutSetupToo(t *testing.T) {
	setups := 0
	h := batchasynctest.NewHarness(t, batchasync.New(&script{
		setup:     func(context.Context) error { setups++; return errors.New("no right") },
		retryable: func(err error) bool { return err.Error() != "no right" },
	}))
	_, err := h.Bundle(numbers(1)...)
	require.ErrorContains(t, err, "set up the caller, 1 attempt: no right")
	require.Equal(t, 1, setups)
}

func TestABundleThatIsCancelledWaitsForNoSetup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log.SetLogger(&logged{})
		t.Cleanup(func() { log.SetLogger(&log.Standard{}) })
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		setups := 0
		h := batchasynctest.NewHarness(t, batchasync.New(&script{setup: func(context.Context) error {
			setups++
			return errors.New("no route to host")
		}}, batchasync.RetryInterval(time.Second), batchasync.MaxAttempts(100)))
		start := time.Now()
		_, err := h.WithContext(ctx).Bundle(numbers(1)...)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 2500*time.Millisecond, time.Since(start))
		require.Equal(t, 3, setups)
	})
}
