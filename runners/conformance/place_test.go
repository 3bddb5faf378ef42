// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window/trigger"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// stamps are the seconds of the elements, some of them of one session.
var stamps = []any{1, 5, 7, 12, 14, 31, 77}

var windowings = []struct {
	name    string
	windows *window.Fn
	in      int // windows that an element is in
}{
	{"global", window.NewGlobalWindows(), 1},
	{"fixed", window.NewFixedWindows(10 * time.Second), 1},
	{"sliding", window.NewSlidingWindows(10*time.Second, 30*time.Second), 3},
	{"session", window.NewSessions(5 * time.Second), 1},
}

func global(s beam.Scope, col beam.PCollection) beam.PCollection {
	return beam.WindowInto(s, window.NewGlobalWindows(), col)
}

func placed(s beam.Scope, col beam.PCollection) beam.PCollection {
	return global(s, beam.ParDo(s, &placeFn{}, col))
}

// What is right says a plain ParDo in the place of batchasync: results and
// failures together are what it makes of the same elements.
func TestResultsAndFailuresAreWhereAPlainParDoPutsThem(t *testing.T) {
	for _, test := range windowings {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, s beam.Scope) {
				col := beam.WindowInto(s, test.windows, beam.ParDo(s, &stampFn{}, beam.Create(s, stamps...)))
				results, failures := batchasync.ParDoWithFailures(s, refusing(7), col, batchasync.BatchSize(3))
				failed := beam.ParDo(s, &failedFn{}, failures)
				want := placed(s, beam.ParDo(s, &plainFn{}, col))
				passert.Equals(s, placed(s, beam.Flatten(s, results, failed)), want)
				results, failures = batchasync.ParDoWithFailures(s, &spare{Refuse: 7}, col, batchasync.BatchSize(3), batchasync.AcrossBundles())
				passert.Equals(s, placed(s, beam.Flatten(s, results, beam.ParDo(s, &failedFn{}, failures))), want)
				passert.Count(s, placed(s, failed), "failures, one for each window", 3*test.in)
			}, func(t *testing.T, r result) {
				require.EqualValues(t, len(stamps), r.sum("suite/rows"), "each element is asked once, not once a window")
			})
		})
	}
}

// Behind a GroupByKey elements have the pane in which their group has fired.
func TestResultsAreInThePaneOfTheirGroup(t *testing.T) {
	for _, test := range windowings {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, s beam.Scope) {
				col := beam.WindowInto(s, test.windows, beam.ParDo(s, &stampFn{}, beam.Create(s, stamps...)))
				grouped := beam.GroupByKey(s, beam.AddFixedKey(s, col))
				col = beam.ParDo(s, &ungroupFn{}, grouped)
				results := batchasync.ParDo(s, quotes(), col, batchasync.BatchSize(3))
				want := placed(s, beam.ParDo(s, &plainFn{}, col))
				passert.Equals(s, placed(s, results), want)
				passert.Count(s, want, "elements, one for each window", len(stamps)*test.in)
				beam.ParDo0(s, &showPaneFn{}, want)
			}, func(t *testing.T, r result) {
				for _, c := range r.Metrics().AllMetrics().Counters() {
					if c.Namespace() == "panes" {
						t.Logf("%d elements in pane %s", c.Result(), c.Name())
					}
				}
			})
		})
	}
}

// A trigger fires a window again and again, each time in a pane of another index.
func TestResultsAreInThePanesOfATriggeredWindow(t *testing.T) {
	onPortable(t, "it has no triggers", func(t *testing.T, s beam.Scope) {
		col := beam.WindowInto(s, window.NewGlobalWindows(), stream(s, 50),
			beam.Trigger(trigger.Repeat(trigger.AfterCount(5))), beam.PanesDiscard())
		col = beam.ParDo(s, &ungroupFn{}, beam.GroupByKey(s, beam.ParDo(s, &spreadFn{}, col)))
		want := beam.ParDo(s, &placeFn{}, beam.ParDo(s, &plainFn{}, col))
		results := beam.ParDo(s, &placeFn{}, batchasync.ParDo(s, quotes(), col, batchasync.BatchSize(3)))
		across := beam.ParDo(s, &placeFn{}, batchasync.ParDo(s, &spare{}, col, batchasync.BatchSize(3), batchasync.AcrossBundles()))
		for _, places := range []beam.PCollection{want, results, across} {
			beam.ParDo0(s, &showPaneFn{}, places)
			beam.ParDo0(s, &hashFn{}, places)
		}
	}, func(t *testing.T, r result) {
		hashes := r.counters("suite/hash")
		require.Len(t, hashes, 3)
		require.Equal(t, hashes[0], hashes[1])
		require.Equal(t, hashes[0], hashes[2])
		seen := r.counters("suite/seen")
		require.Len(t, seen, 3)
		require.Equal(t, seen[0], seen[2])
		panes := map[string]int64{}
		for _, c := range r.Metrics().AllMetrics().Counters() {
			if c.Namespace() == "panes" {
				panes[c.Name()] += c.Result()
			}
		}
		t.Log(panes)
		require.Greater(t, len(panes), 1, "the trigger fired once: the test has shown nothing")
	})
}

func TestTheElementsOfABatchKeepTheirOwnTimes(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &stampFn{}, numbers(s, 100))
		results := batchasync.ParDo(s, quotes(), col, batchasync.BatchSize(100), batchasync.Linger(0))
		var want []any
		for v := range 100 {
			want = append(want, fmt.Sprintf("<%d> at %d", v, v))
		}
		passert.Equals(s, beam.ParDo(s, &timeFn{}, results), want...)
	})
}
