// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/state"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func TestAKVKeepsItsKey(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &parityFn{}, beam.Create(s, 1, 2, 3, 4, 6))
		results, failures := batchasync.ParDoKVWithFailures[string](s, refusing(3), col)
		passert.Equals(s, beam.ParDo(s, &joinFn{}, results), "odd=<1>", "even=<2>", "even=<4>")
		passert.Equals(s, beam.ParDo(s, &joinFailureFn{}, failures), "odd=3", "even=6")
		plain := batchasync.ParDoKV[string](s, quotes(), col)
		passert.Equals(s, beam.ParDo(s, &joinFn{}, plain), "odd=<1>", "even=<2>", "odd=<3>", "even=<4>", "even=<6>")
	})
}

func TestAFlatCallerHasAnyNumberOfOutputsForAnElement(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		passert.Equals(s, batchasync.FlatParDo(s, &letters{}, beam.Create(s, 0, 1, 3)), "1", "3", "3", "3")
		results, failures := batchasync.FlatParDoWithFailures(s, &letters{}, beam.Create(s, 2))
		passert.Equals(s, results, "2", "2")
		passert.Empty(s, failures)
	})
}

func TestAPlainFunctionIsACaller(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		passert.Equals(s, batchasync.ParDo(s, batchasync.Func(double), beam.Create(s, 1, 2, 3)), 2, 4, 6)
	})
}

func TestTheDoFnItselfHasTwoOutputs(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		results, failures := beam.ParDo2(s, batchasync.New(refusing(2)), beam.Create(s, 1, 2, 3))
		passert.Equals(s, results, "<1>", "<3>")
		passert.Equals(s, beam.ParDo(s, &failedFn{}, failures), "<2>")
	})
}

func TestOneTypeOfCallerServesTransformsSideBySideAndInARow(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := numbers(s, 100)
		left := batchasync.ParDo(s.Scope("left"), &quote{Left: "[", Right: "]"}, col, batchasync.BatchSize(7))
		right, failures := batchasync.ParDoWithFailures(s.Scope("right"), refusing(2), col, batchasync.BatchSize(9), batchasync.MaxInFlight(1))
		again := batchasync.ParDo(s.Scope("again"), quotes(), beam.ParDo(s, &numberFn{}, right), batchasync.BatchSize(11))
		var all, odd, even []any
		for v := range 100 {
			all = append(all, fmt.Sprintf("[%d]", v))
			if v%2 == 1 {
				odd = append(odd, fmt.Sprintf("<%d>", v))
			} else {
				even = append(even, fmt.Sprintf("<%d>", v))
			}
		}
		passert.Equals(s, left, all...)
		passert.Equals(s, again, odd...)
		passert.Equals(s, beam.ParDo(s, &failedFn{}, failures), even...)
	}, func(t *testing.T, r result) {
		if r.engine == "direct" {
			return // it keeps one transform's metric of each name
		}
		require.Equal(t, []int64{50, 100, 100}, r.each("elements"), "each transform counts for itself")
		require.Equal(t, []int64{50, 50, 100}, r.each("results"))
		require.EqualValues(t, 50, r.own("failures"))
		require.EqualValues(t, 250, r.sum("suite/rows"))
		require.EqualValues(t, 3, r.sum("suite/setups"), "each transform sets up its caller once")
	})
}

func TestAGroupByKeyBehindTheResults(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		results := batchasync.ParDo(s, quotes(), numbers(s, 1000))
		grouped := beam.GroupByKey(s, beam.ParDo(s, &lengthFn{}, results))
		passert.Equals(s, beam.ParDo(s, &sumFn{}, grouped), "3: 10", "4: 90", "5: 900")
	})
}

func TestAStatefulDoFnBehindTheResults(t *testing.T) {
	onPortable(t, "it has no state", func(t *testing.T, s beam.Scope) {
		results := batchasync.ParDo(s, quotes(), numbers(s, 12))
		var want []any
		for i := range 10 {
			want = append(want, fmt.Sprintf("3 number %d", i+1))
		}
		want = append(want, "4 number 1", "4 number 2")
		serials := beam.ParDo(s, &serialFn{Seen: state.MakeValueState[int]("seen")}, beam.ParDo(s, &lengthFn{}, results))
		passert.Equals(s, serials, want...)
	})
}
