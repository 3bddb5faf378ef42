// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// requireBatches requires what holds however the runner makes bundles: each batch
// has one reason to be ready, and at most one a bundle is what the bundle's end
// found open.
func requireBatches(t *testing.T, r result, elements int) {
	t.Helper()
	require.EqualValues(t, elements, r.own("elements"))
	require.Equal(t, r.own("batches"), r.own("flush_size")+r.own("flush_bytes")+r.own("flush_linger")+r.own("flush_bundle"), "each batch was ready for one reason")
	sizes := r.distribution("batch_size")
	require.Equal(t, r.own("batches"), sizes.Count)
	require.EqualValues(t, elements, sizes.Sum)
	require.LessOrEqual(t, r.own("flush_bundle"), r.sum("suite/bundles"), "a bundle's end closes one batch at most")
}

func TestAFullBatchIsSent(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &bundleFn{}, numbers(s, 1000))
		batchasync.ParDo(s, quotes(), col, batchasync.BatchSize(100), batchasync.Linger(0))
	}, func(t *testing.T, r result) {
		requireBatches(t, r, 1000)
		bundles := r.sum("suite/bundles")
		t.Logf("%d bundles, %d full batches", bundles, r.own("flush_size"))
		if bundles == 1 {
			require.EqualValues(t, 10, r.own("flush_size"))
			require.EqualValues(t, 10, r.own("batches"))
		}
		require.LessOrEqual(t, r.distribution("batch_size").Max, int64(100))
		require.Zero(t, r.own("flush_linger")+r.own("flush_bytes"))
	})
}

func TestABatchIsSentBeforeItHasTooManyBytes(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		texts := beam.ParDo(s, &textFn{}, beam.ParDo(s, &bundleFn{}, numbers(s, 1000)))
		results := batchasync.ParDo(s, &wide{Bytes: 40}, texts, batchasync.BatchBytes(40), batchasync.Linger(0))
		passert.Count(s, results, "texts", 1000)
	}, func(t *testing.T, r result) {
		requireBatches(t, r, 1000)
		require.EqualValues(t, 500, r.distribution("batch_bytes").Max, "a text that is longer by itself goes too")
		if r.sum("suite/bundles") == 1 {
			require.GreaterOrEqual(t, r.own("flush_bytes"), int64(10+2900/40))
		}
	})
}

func TestABundlesEndSendsWhatIsOpen(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &bundleFn{}, numbers(s, 5))
		batchasync.ParDo(s, quotes(), col, batchasync.BatchSize(100), batchasync.Linger(0))
	}, func(t *testing.T, r result) {
		requireBatches(t, r, 5)
		require.Equal(t, r.sum("suite/bundles"), r.own("flush_bundle"))
		require.Equal(t, r.sum("suite/bundles"), r.own("batches"))
	})
}

// The element behind the first one comes only when that has been answered, by
// way of lingering, where both are of one bundle and on one goroutine.
func TestABatchThatHasLingeredIsSent(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &patientFn{Test: t.Name()}, beam.Impulse(s))
		results := batchasync.ParDo(s, &answering{Test: t.Name()}, col)
		passert.Equals(s, results, 0, 1)
	}, func(t *testing.T, r result) {
		require.EqualValues(t, 2, r.own("elements"))
		waited := r.sum("suite/late")
		require.Zero(t, waited, "the first element was not sent while its bundle was open")
		require.GreaterOrEqual(t, r.own("flush_linger"), int64(1))
	})
}

func TestOrderedResultsLeaveABundleInTheOrderOfItsElements(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		results := batchasync.ParDo(s, &echo{Batch: 10}, numbers(s, 2000), batchasync.Ordered(), batchasync.BatchSize(10), batchasync.MaxInFlight(8), batchasync.Linger(0))
		beam.ParDo0(s, &orderFn{}, results)
		beam.ParDo0(s, &digestFn{}, beam.ParDo(s, &plainFn{}, results))
	}, func(t *testing.T, r result) {
		requireOnce(t, r, 2000)
		require.Zero(t, r.sum("suite/disorder"))
		if r.own("batches") == 200 {
			require.Less(t, r.sum("suite/late"), int64(50), "no batch was answered before the one in front of it: the test has shown nothing")
		}
	})
}

func TestNoMoreCallsAtOnceThanMaxInFlightInTheWholeProcess(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &bundleFn{}, beam.Reshuffle(s, numbers(s, 2000)))
		results := batchasync.ParDo(s, &narrow{Limit: 3}, col, batchasync.BatchSize(5), batchasync.MaxInFlight(3))
		beam.ParDo0(s, &digestFn{}, beam.ParDo(s, &plainFn{}, results))
	}, func(t *testing.T, r result) {
		t.Logf("%d bundles", r.sum("suite/bundles"))
		requireOnce(t, r, 2000)
	})
}

func TestTheMetricsAreInThePipelinesResult(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		batchasync.ParDoWithFailures(s, refusing(10), beam.ParDo(s, &bundleFn{}, numbers(s, 10_000)), batchasync.BatchSize(33))
	}, func(t *testing.T, r result) {
		requireBatches(t, r, 10_000)
		require.EqualValues(t, 9_000, r.own("results"))
		require.EqualValues(t, 1_000, r.own("failures"))
		require.EqualValues(t, 10_000, r.sum("suite/rows"), "a counter of the caller's own")
		require.EqualValues(t, 1, r.sum("suite/setups"))
		require.Equal(t, r.own("batches"), r.own("calls"))
		require.GreaterOrEqual(t, r.own("batches"), int64(304))
		require.Equal(t, r.own("calls"), r.distribution("call_ms").Count)
		require.Equal(t, r.own("batches"), r.distribution("wait_ms").Count)
	})
}

// requireOnce requires that digestFn has seen the quotes of the numbers below n,
// each once.
func requireOnce(t *testing.T, r result, n int) {
	t.Helper()
	var sum, hashes int64
	for v := range n {
		sum += int64(v)
		hashes += hash(fmt.Sprintf("<%d>", v))
	}
	require.EqualValues(t, n, r.sum("suite/seen"))
	require.Equal(t, sum, r.sum("suite/sum"))
	require.Equal(t, hashes, r.sum("suite/hash"))
}

func TestEachOfAMillionElementsEndsExactlyOnce(t *testing.T) {
	const n = 1_000_000
	for _, test := range []struct {
		name string
		opts []batchasync.Option
	}{
		{"in batches of a bundle", []batchasync.Option{batchasync.BatchSize(1000)}},
		{"in batches across bundles", []batchasync.Option{batchasync.BatchSize(1000), batchasync.AcrossBundles()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, s beam.Scope) {
				col := beam.ParDo(s, &bundleFn{}, numbers(s, n))
				beam.ParDo0(s, &digestFn{}, batchasync.ParDo(s, quotes(), col, test.opts...))
			}, func(t *testing.T, r result) {
				t.Logf("%d bundles, %d calls", r.sum("suite/bundles"), r.own("calls"))
				requireOnce(t, r, n)
				require.EqualValues(t, n, r.own("elements"))
				require.EqualValues(t, n, r.own("results"))
				require.EqualValues(t, n, r.sum("suite/rows"))
			})
		})
	}
}

// With AcrossBundles a batch is of whatever bundles are open: it is sent when it is
// full or has lingered, never because a bundle ends.
func TestBatchesAcrossBundlesAreNotSentAtABundlesEnd(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &bundleFn{}, beam.Reshuffle(s, numbers(s, 2050)))
		results := batchasync.ParDo(s, quotes(), col, batchasync.BatchSize(100), batchasync.Linger(20*time.Millisecond), batchasync.AcrossBundles())
		beam.ParDo0(s, &digestFn{}, results)
	}, func(t *testing.T, r result) {
		t.Logf("%d bundles, %d batches", r.sum("suite/bundles"), r.own("batches"))
		requireBatches(t, r, 2050)
		requireOnce(t, r, 2050)
		require.Zero(t, r.own("flush_bundle"))
		require.GreaterOrEqual(t, r.own("flush_linger"), int64(1), "what no other bundle fills is sent after its linger")
		require.EqualValues(t, 1, r.sum("suite/setups"))
	})
}
