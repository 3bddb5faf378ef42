// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	//lint:ignore SA1019 Prism is to replace it, but it is still what many tests run on, and hands over elements in its own way.
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// The real engines on which the pipeline tests run.
var engines = []string{"direct", "prism"}

func TestMain(m *testing.M) {
	beam.Init()
	os.Exit(m.Run())
}

func init() {
	batchasync.Register(&quote{})
	batchasync.RegisterFlat(&letters{})
	batchasync.RegisterKV[string](&quote{})
	batchasync.RegisterFlatKV[string](&letters{})
	batchasync.RegisterFunc(double)
	batchasync.Register(&visit{})
	beam.RegisterDoFn(reflect.TypeFor[stampFn]())
	beam.RegisterDoFn(reflect.TypeFor[showFn]())
	beam.RegisterDoFn(reflect.TypeFor[showFailureFn]())
	beam.RegisterDoFn(reflect.TypeFor[gatherFn]())
	beam.RegisterDoFn(reflect.TypeFor[placeFn]())
	beam.RegisterDoFn(reflect.TypeFor[parityFn]())
	beam.RegisterDoFn(reflect.TypeFor[joinFn]())
	beam.RegisterDoFn(reflect.TypeFor[joinFailureFn]())
	beam.RegisterDoFn(reflect.TypeFor[byErrorFn]())
	register.Emitter1[string]()
	register.Emitter2[beam.EventTime, int]()
	register.Iter1[batchasync.Failure[place]]()
}

// tally counts what the calls of a test got, by the test's name: it can't be
// seen in the caller that the test holds, for that has travelled.
var tally sync.Map

func tallied(test string) *atomic.Int64 {
	n, _ := tally.LoadOrStore(test, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// quote quotes numbers, but for those that are a multiple of Refuse.
type quote struct {
	Test   string
	Refuse int
}

func (q *quote) Call(ctx context.Context, batch []int) ([]string, error) {
	tallied(q.Test).Add(int64(len(batch)))
	userCounter.Inc(ctx, int64(len(batch)))
	var failed batchasync.BatchError
	for i, v := range batch {
		if q.Refuse > 0 && v%q.Refuse == 0 {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("%d is refused", v)))
		}
	}
	return quoted(batch), failed.Err()
}

// letters answers a number n with n letters, but for the number Refuse.
type letters struct{ Refuse int }

func (l *letters) Call(_ context.Context, batch []int) ([][]string, error) {
	out := make([][]string, len(batch))
	var failed batchasync.BatchError
	for i, n := range batch {
		if n == l.Refuse && n > 0 {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("%d is refused", n)))
		}
		for range n {
			out[i] = append(out[i], fmt.Sprint(n))
		}
	}
	return out, failed.Err()
}

func double(_ context.Context, batch []int) ([]int, error) {
	out := make([]int, len(batch))
	for i, v := range batch {
		out[i] = 2 * v
	}
	return out, nil
}

// place is an element that Beam's row coder can't encode: it has a coder of its
// own.
type place struct{ name any }

func init() {
	beam.RegisterType(reflect.TypeFor[place]())
	beam.RegisterCoder(reflect.TypeFor[place](), encodePlace, decodePlace)
}

func encodePlace(p place) []byte { return []byte(p.name.(string)) }
func decodePlace(b []byte) place { return place{string(b)} }

type placeFn struct{}

func (*placeFn) ProcessElement(name string) place { return place{name} }

// visit refuses all places.
type visit struct{}

func (*visit) Call(_ context.Context, batch []place) ([]int, error) {
	return nil, batchasync.Permanent(errors.New("closed"))
}

// stampFn sets an element's timestamp to as many seconds as it says.
type stampFn struct{}

func (*stampFn) ProcessElement(v int, emit func(beam.EventTime, int)) {
	emit(mtime.FromTime(time.Unix(int64(v), 0)), v)
}

// showFn makes the window and the timestamp of an element a part of it.
type showFn struct{}

func (*showFn) ProcessElement(w beam.Window, t beam.EventTime, s string, emit func(string)) {
	emit(fmt.Sprintf("%s %v %v", s, w, t.ToTime().Unix()))
}

type showFailureFn struct{}

func (*showFailureFn) ProcessElement(w beam.Window, t beam.EventTime, f batchasync.Failure[int], emit func(string)) {
	emit(fmt.Sprintf("%d: %s %v %v", f.Element, f.Error, w, t.ToTime().Unix()))
}

type parityFn struct{}

func (*parityFn) ProcessElement(v int) (string, int) { return []string{"even", "odd"}[v%2], v }

type joinFn struct{}

func (*joinFn) ProcessElement(k, v string) string { return k + "=" + v }

type joinFailureFn struct{}

func (*joinFailureFn) ProcessElement(k string, f batchasync.Failure[int]) string {
	return fmt.Sprint(k, "=", f.Element)
}

type byErrorFn struct{}

func (*byErrorFn) ProcessElement(f batchasync.Failure[place]) (string, batchasync.Failure[place]) {
	return f.Error, f
}

type gatherFn struct{}

func (*gatherFn) ProcessElement(k string, next func(*batchasync.Failure[place]) bool) string {
	var f batchasync.Failure[place]
	var names []string
	for next(&f) {
		names = append(names, fmt.Sprintln(f.Element.name, f.Permanent, f.Attempts, f.BatchSize, len(f.BatchID)))
	}
	slices.Sort(names)
	return k + " " + strings.ReplaceAll(strings.TrimSpace(strings.Join(names, "")), "\n", ", ")
}

// onEachEngine runs the pipeline that build makes.
func onEachEngine(t *testing.T, build func(t *testing.T, s beam.Scope), checks ...func(t *testing.T, result beam.PipelineResult)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			build(t, s)
			result, err := beam.Run(context.Background(), engine, p)
			require.NoError(t, err)
			for _, check := range checks {
				check(t, result)
			}
		})
	}
}

func global(s beam.Scope, col beam.PCollection) beam.PCollection {
	return beam.WindowInto(s, window.NewGlobalWindows(), col)
}

func TestResultsAndFailuresKeepTheWindowsAndTimestampsOfTheirElements(t *testing.T) {
	// The same pipeline with a plain ParDo in the place of batchasync says
	// what is right.
	for name, windows := range map[string]*window.Fn{
		"global":  window.NewGlobalWindows(),
		"fixed":   window.NewFixedWindows(10 * time.Second),
		"sliding": window.NewSlidingWindows(10*time.Second, 30*time.Second),
		"session": window.NewSessions(5 * time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, s beam.Scope) {
				col := beam.ParDo(s, &stampFn{}, beam.Create(s, 1, 5, 7, 12, 14, 31, 77))
				col = beam.WindowInto(s, windows, col)
				results, failures := batchasync.ParDoWithFailures(s, &quote{Test: t.Name(), Refuse: 7}, col, batchasync.BatchSize(3))
				var want []any
				for _, v := range []int{1, 5, 12, 31} {
					for _, w := range assigned(windows, v) {
						want = append(want, fmt.Sprintf("<%d> %v %d", v, w, v))
					}
				}
				passert.Equals(s, global(s, beam.ParDo(s, &showFn{}, results)), want...)
				want = nil
				for _, v := range []int{7, 14, 77} {
					for _, w := range assigned(windows, v) {
						want = append(want, fmt.Sprintf("%d: %d is refused %v %d", v, v, w, v))
					}
				}
				passert.Equals(s, global(s, beam.ParDo(s, &showFailureFn{}, failures)), want...)
			}, func(t *testing.T, _ beam.PipelineResult) {
				require.EqualValues(t, 7, tallied(t.Name()).Load(), "each element is asked once, not once a window")
			})
		})
	}
}

// assigned are the windows of an element at second v, by the definitions of
// Beam's model.
func assigned(fn *window.Fn, v int) []beam.Window {
	second := func(s int) mtime.Time { return mtime.Time(s * 1000) }
	switch fn.Kind {
	case window.FixedWindows:
		start := v - v%10
		return []beam.Window{window.IntervalWindow{Start: second(start), End: second(start + 10)}}
	case window.SlidingWindows:
		var ws []beam.Window
		for start := v - v%10; start > v-30; start -= 10 {
			ws = append(ws, window.IntervalWindow{Start: second(start), End: second(start + 30)})
		}
		return ws
	case window.Sessions: // not merged before a GroupByKey
		return []beam.Window{window.IntervalWindow{Start: second(v), End: second(v + 5)}}
	}
	return []beam.Window{window.GlobalWindow{}}
}

func TestACallersCounterIsExactInThePipelinesResult(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &countTo{N: 10_000}, beam.Impulse(s))
		batchasync.ParDo(s, &quote{Test: t.Name()}, col, batchasync.BatchSize(33))
	}, func(t *testing.T, result beam.PipelineResult) {
		counts := map[string]int64{}
		for _, c := range result.Metrics().AllMetrics().Counters() {
			counts[c.Namespace()+"/"+c.Name()] += c.Result()
		}
		require.EqualValues(t, 10_000, counts["user/rows"])
		require.EqualValues(t, 10_000, counts["batchasync/elements"])
		require.EqualValues(t, 10_000, counts["batchasync/results"])
		require.EqualValues(t, 10_000, tallied(t.Name()).Load())
	})
}

func TestAKVKeepsItsKey(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &parityFn{}, beam.Create(s, 1, 2, 3, 4, 6))
		results, failures := batchasync.ParDoKVWithFailures[string](s, &quote{Refuse: 3}, col)
		passert.Equals(s, beam.ParDo(s, &joinFn{}, results), "odd=<1>", "even=<2>", "even=<4>")
		passert.Equals(s, beam.ParDo(s, &joinFailureFn{}, failures), "odd=3", "even=6")
		plain := batchasync.ParDoKV[string](s, &quote{}, col)
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

func TestAFlatCallerKeepsTheKeyForEachOfItsOutputs(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &parityFn{}, beam.Create(s, 0, 1, 2))
		passert.Equals(s, beam.ParDo(s, &joinFn{}, batchasync.FlatParDoKV[string](s, &letters{}, col)), "odd=1", "even=2", "even=2")
		results, failures := batchasync.FlatParDoKVWithFailures[string](s, &letters{Refuse: 2}, col)
		passert.Equals(s, beam.ParDo(s, &joinFn{}, results), "odd=1")
		passert.Equals(s, beam.ParDo(s, &joinFailureFn{}, failures), "even=2")
	})
}

func TestAPlainFunctionIsACaller(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		passert.Equals(s, batchasync.ParDo(s, batchasync.Func(double), beam.Create(s, 1, 2, 3)), 2, 4, 6)
	})
}

func TestAFailureTravelsWithTheCoderOfItsElement(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &placeFn{}, beam.Create(s, "museum", "park"))
		_, failures := batchasync.ParDoWithFailures(s, &visit{}, col)
		grouped := beam.GroupByKey(s, beam.ParDo(s, &byErrorFn{}, failures))
		passert.Equals(s, beam.ParDo(s, &gatherFn{}, grouped), "closed museum true 1 2 36, park true 1 2 36")
	})
}

func TestAFailedCallFailsThePipelineWithTheWholeError(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			batchasync.ParDo(s.Scope("prices"), &quote{Refuse: 3}, beam.Create(s, 1, 2, 3))
			_, err := beam.Run(context.Background(), engine, p)
			require.ErrorContains(t, err, "prices/batchasync.ParDo: batch ")
			require.ErrorContains(t, err, "of 3 elements failed after 1 attempt")
			require.ErrorContains(t, err, "3 is refused (not retried, for the error is permanent")
		})
	}
}
