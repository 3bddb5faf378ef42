// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/periodic"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// stream emits numbers from a source that is unbounded for its runner, 100 a second,
// each at its own time; it ends after all, for a test has to.
func stream(s beam.Scope, n int) beam.PCollection {
	const interval = 10 * time.Millisecond
	start := time.Now().Add(time.Second) // what is due before the job runs comes at once
	ticks := periodic.Impulse(s, start, start.Add(time.Duration(n)*interval), interval, false)
	return beam.ParDo(s, &nowFn{}, ticks)
}

func TestElementsOfAStreamEndExactlyOnceInTheirWindows(t *testing.T) {
	const n = 200
	for _, test := range []struct {
		name      string
		reshuffle bool
		opts      []batchasync.Option
	}{
		{"fused with the source", false, nil},
		{"behind a Reshuffle", true, nil},
		{"across bundles", false, []batchasync.Option{batchasync.AcrossBundles()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onPortable(t, "it does not stream", func(t *testing.T, s beam.Scope) {
				col := beam.WindowInto(s, window.NewFixedWindows(100*time.Millisecond), stream(s, n))
				if test.reshuffle {
					col = beam.Reshuffle(s, col)
				}
				col = beam.ParDo(s, &bundleFn{}, col)
				opts := append(test.opts, batchasync.BatchSize(10))
				for _, out := range []beam.PCollection{
					beam.ParDo(s, &plainFn{}, col),
					batchasync.ParDo(s, quotes(), col, opts...),
				} {
					beam.ParDo0(s, &hashFn{}, beam.ParDo(s, &placeFn{}, out))
				}
			}, func(t *testing.T, r result) {
				t.Logf("%d bundles that are not empty, %d batches", r.sum("suite/bundles"), r.own("batches"))
				require.Equal(t, []int64{n, n}, r.counters("suite/seen"))
				hashes := r.counters("suite/hash")
				require.Equal(t, hashes[0], hashes[1], "each result is where a plain ParDo puts it")
				require.EqualValues(t, n, r.sum("suite/rows"))
				if test.opts == nil {
					require.LessOrEqual(t, r.own("flush_bundle"), r.sum("suite/bundles"))
				} else {
					require.Zero(t, r.own("flush_bundle"))
				}
			})
		})
	}
}
