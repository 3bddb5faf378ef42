// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasynctest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cities asks a simulated service.
type cities struct{ service *batchasynctest.Service }

func (c *cities) Call(ctx context.Context, ids []int) ([]string, error) {
	names, bad, err := batchasynctest.Call(ctx, c.service, ids, func(id int) (string, error) {
		return fmt.Sprint("city ", id), nil
	})
	var failed batchasync.BatchError
	for i, err := range bad {
		if err != nil {
			failed.Fail(i, batchasync.Permanent(err))
		}
	}
	return names, errors.Join(err, failed.Err())
}

func city(id any) any { return fmt.Sprint("city ", id) }

func init() { batchasync.Register(&cities{}) }

// The service refuses the first two calls and knows no city 3. The test takes
// no time, though the backoffs are seconds.
func TestHarnessDrivesADoFnAgainstAServiceInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{
			BaseLatency: 100 * time.Millisecond,
			FailFirst:   2,
			FailElement: func(id any) error {
				if id == 3 {
					return errors.New("no such city")
				}
				return nil
			},
			Record: true,
		})
		h := batchasynctest.NewHarness(t, batchasync.New(&cities{service}, batchasync.RetryInterval(time.Second)))
		minute := window.IntervalWindow{Start: 0, End: 60_000}
		in := []batchasynctest.Element{
			{Value: 1, Timestamp: 5, Windows: []beam.Window{minute}},
			{Value: 2, Timestamp: 6, Windows: []beam.Window{minute}},
			{Value: 3, Timestamp: 7, Windows: []beam.Window{minute}},
		}
		start := time.Now()
		out, err := h.Bundle(in...)
		require.NoError(t, err)
		require.Equal(t, 2300*time.Millisecond, time.Since(start))
		batchasynctest.RequireExactlyOnce(t, in, out, city)
		require.Len(t, out.Failures(), 1)
		require.Equal(t, 3, service.Asked(2), "two failed calls and one that was answered")
		require.EqualValues(t, 3, out.Counter(batchasync.MetricsNamespace, "calls"))
	})
}

func TestHarnessReportsAMisuse(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&cities{batchasynctest.NewService(batchasynctest.ServiceConfig{})}))
	require.ErrorContains(t, h.Process(batchasynctest.Element{Value: 1}), "call Start first")
	require.ErrorContains(t, h.Finish(), "call Start first")
	require.Empty(t, h.Outputs().Results())
	require.Zero(t, h.Outputs().Counter("x", "y"))
}

func TestRequireExactlyOnceFindsWhatIsLostDoubledOrMisplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		in   []batchasynctest.Element
		fn   func(e batchasynctest.Element) []batchasynctest.Element
		want string
	}{
		"lost":    {batchasynctest.Values(1, 2), func(e batchasynctest.Element) []batchasynctest.Element { return nil }, "lost: "},
		"doubled": {batchasynctest.Values(1), func(e batchasynctest.Element) []batchasynctest.Element { return []batchasynctest.Element{e, e} }, "emitted 1 times too often"},
		"misplaced": {batchasynctest.Values(1), func(e batchasynctest.Element) []batchasynctest.Element {
			e.Timestamp++
			return []batchasynctest.Element{e}
		}, "lost: "},
	} {
		t.Run(name, func(t *testing.T) {
			var out []batchasynctest.Element
			for _, e := range tt.in {
				out = append(out, tt.fn(e)...)
			}
			spy := &spy{TB: t}
			func() {
				defer func() { _ = recover() }()
				batchasynctest.RequireExactlyOnce(spy, tt.in, batchasynctest.OutputsOf(out, nil), func(v any) any { return v })
			}()
			require.Contains(t, spy.message, tt.want)
		})
	}
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(1, 1, 2), batchasynctest.OutputsOf(batchasynctest.Values(2, 1),
		batchasynctest.Values(batchasync.Failure[int]{Element: 1})), func(v any) any { return v })
	// An input that failed would have had the same answer as others.
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(1, 13, 2), batchasynctest.OutputsOf(batchasynctest.Values("x", "x"),
		batchasynctest.Values(batchasync.Failure[int]{Element: 13})), func(any) any { return "x" })
}

// spy is a test that may fail.
type spy struct {
	testing.TB
	message string
}

func (s *spy) Helper() {}
func (s *spy) Fatalf(format string, args ...any) {
	s.message = fmt.Sprintf(format, args...)
	panic("fatal")
}
